fm_unit_test(test_convert LINKS convert)
fm_unit_test(test_quantize LINKS convert)
fm_unit_test(test_synth LINKS convert)
