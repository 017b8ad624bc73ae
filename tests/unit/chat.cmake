fm_unit_test(test_jinja LINKS text)
fm_unit_test(test_chat LINKS text)
