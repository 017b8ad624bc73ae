fm_fuzz(fuzz_tokens LINKS train)
