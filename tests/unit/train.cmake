fm_unit_test(test_train_schedule LINKS train)
fm_unit_test(test_bpe_train LINKS train runtime)
fm_unit_test(test_trainer LINKS train runtime TIMEOUT 300)
