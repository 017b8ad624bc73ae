fm_unit_test(test_kernels LINKS kernels)
