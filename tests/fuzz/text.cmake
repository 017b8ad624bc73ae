fm_fuzz(fuzz_tokenizer_json LINKS text)
