/* fuzz_checkpoint.c - any bytes as the state of a training, trainer.json of a checkpoint, or as its checksums.json; the first
 * byte says which.  A training that goes on from what is accepted takes a step, whatever place it was told. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "train/init.h"
#include "train/trainer.h"

enum { LENGTH = 4, TEXT = 8 * LENGTH + 1, VOCAB = 8 };

static char folder[] = "fuzz_checkpoint_XXXXXX";
static int32_t ids[TEXT];
static const fm_tokens text = {.ids = ids, .n = TEXT};
static const fm_stage stages[] = {{.begin = 0, .length = LENGTH / 2, .weights = {1, 2}},
                                  {.begin = 20, .length = LENGTH, .weights = {1, 0}}};
static const fm_data texts = {
    .sources = {&text, &text}, .weights = {1, 2}, .n_sources = 2, .length = LENGTH, .stages = stages, .n_stages = 2};
static fm_model *model;
static fm_trainer *trainer;

static void clean_up(void)
{
    static const char *const files[] = {"config.json", "model.safetensors", "optimizer.safetensors", "trainer.json",
                                        "checksums.json"};
    fm_trainer_free(trainer);
    fm_model_unload(model);
    for (size_t i = 0; i < FM_COUNT(files); i++) {
        char *path = fm_path_join(folder, files[i], NULL, NULL);
        if (path) unlink(path);
        fm_free(NULL, path);
    }
    rmdir(folder);
}

static void begin(void)
{
    const fm_config c = {.d_model = 4,
                         .d_inner = 8,
                         .d_state = 2,
                         .d_conv = 2,
                         .dt_rank = 1,
                         .n_layer = 1,
                         .vocab = VOCAB,
                         .norm_eps = 1e-5f,
                         .use_conv_bias = true,
                         .tie = true,
                         .pad_vocab_multiple = 1};
    fm_train_options o = fm_train_defaults();
    o.length = LENGTH;
    o.threads = 1;
    o.schedule.batch_end = 1;
    o.outlier_window = 3;
    o.loss_z = 5;
    for (int i = 0; i < TEXT; i++) ids[i] = i % VOCAB;
    if (!mkdtemp(folder) || fm_init_write(fm_arch_by_name("mamba"), &c, 1, folder, NULL, NULL) != FM_OK) abort();
    if (fm_model_load(&model, folder, NULL, NULL) != FM_OK) abort();
    if (fm_trainer_open(&trainer, model, &texts, &o, NULL, NULL) != FM_OK) abort();
    fm_trainer_step(trainer);
    if (fm_trainer_save(trainer, folder, NULL) != FM_OK) abort();
    atexit(clean_up);
}

static void write_file(const char *name, const uint8_t *data, size_t n)
{
    char *path = fm_path_join(folder, name, NULL, NULL);
    FILE *f = path ? fopen(path, "wb") : NULL;
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) abort();
    fm_free(NULL, path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t step, tokens;
    fm_error err = {0};
    if (!trainer) begin();
    if (!size) return 0;
    if (data[0] % 2)
        write_file("checksums.json", data + 1, size - 1);
    else
        write_file("trainer.json", data + 1, size - 1);
    char *sums = fm_path_join(folder, "checksums.json", NULL, NULL);
    if (!(data[0] % 2) && sums) unlink(sums); /* a checkpoint put together by hand has none */
    const fm_status status = fm_trainer_resume(trainer, folder, &err);
    if (status == FM_OK && fm_trainer_place(folder, &step, &tokens, NULL, NULL) != FM_OK) abort();
    if (status == FM_OK && fm_trainer_step(trainer).status != FM_OK) abort();
    if (status != FM_OK && !strlen(err.text)) abort(); /* a refusal has a sentence */
    fm_free(NULL, sums);
    return 0;
}
