fm_fuzz(fuzz_gguf LINKS format)
fm_fuzz(fuzz_safetensors LINKS format)
