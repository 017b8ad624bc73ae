fm_unit_test(test_linear LINKS kernels)
