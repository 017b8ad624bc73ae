fm_fuzz(fuzz_chat_template LINKS text)
