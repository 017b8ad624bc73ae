fm_unit_test(test_session LINKS runtime)
fm_unit_test(test_state LINKS runtime)
fm_unit_test(test_schedule LINKS runtime TIMEOUT 600)
fm_register_test(test_schedule_full LABEL unit TIMEOUT 3600 SLOW ON COMMAND test_schedule full)
