fm_unit_test(test_schedule LINKS runtime TIMEOUT 300)
add_test(NAME test_schedule_full COMMAND test_schedule full CONFIGURATIONS slow)
