fm_unit_test(test_sampler LINKS runtime)
fm_unit_test(test_stopper LINKS runtime)
fm_unit_test(test_generate LINKS runtime)
