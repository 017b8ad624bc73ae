fm_fuzz(fuzz_json LINKS base)
