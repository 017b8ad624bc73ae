fm_unit_test(test_gguf LINKS format)
fm_unit_test(test_safetensors LINKS format)
fm_unit_test(test_npy LINKS format)
fm_unit_test(test_format_adversary LINKS format)
