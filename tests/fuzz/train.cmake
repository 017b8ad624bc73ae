fm_fuzz(fuzz_tokens LINKS train)
fm_fuzz(fuzz_train_config LINKS train)
fm_fuzz(fuzz_checkpoint LINKS train)
