fm_unit_test(test_tokenizer LINKS text)
fm_unit_test(test_pretok LINKS text)
fm_unit_test(test_detok LINKS text)
fm_unit_test(test_vocab LINKS runtime)
