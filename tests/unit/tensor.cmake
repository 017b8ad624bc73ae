fm_unit_test(test_quant LINKS tensor)
