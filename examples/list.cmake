# In reading order.
set(model ${PROJECT_SOURCE_DIR}/models/tales.gguf)
fm_example(01_load ARGS ${model})
fm_example(02_generate ARGS ${model} "Once upon a time")
fm_example(03_state ARGS ${model})
fm_example(04_batch ARGS ${model})
fm_example(05_choices ARGS ${model} "The wolf said")
fm_example(06_cplusplus ARGS ${model} "The king")
