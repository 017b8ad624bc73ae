fm_fuzz(fuzz_state LINKS runtime)
