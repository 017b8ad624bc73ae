/* shape.c - the one table of known shapes (spec falcon-mamba.md 1.1, 1.3; tales: ours). */
#include "model/shape.h"

#include <string.h>

static const struct shape {
    const char *name, *arch;
    size_t d_model, d_inner, d_state, dt_rank, n_layer, vocab;
    float mixer_rms_eps;
    bool tied;
} shapes[] = {
    {"falcon-mamba-7b", "falcon_mamba", 4096, 8192, 16, 256, 64, 65024, 1e-6f, false},
    {"falcon3-mamba-7b", "falcon_mamba", 4096, 8192, 16, 256, 64, 65024, 1e-5f, false},
    {"mamba-7b-rw", "mamba", 4096, 8192, 16, 256, 64, 50432, 0, false},
    {"mamba-130m", "mamba", 768, 1536, 16, 48, 24, 50280, 0, true},
    {"mamba-370m", "mamba", 1024, 2048, 16, 64, 48, 50280, 0, true},
    {"mamba-790m", "mamba", 1536, 3072, 16, 96, 48, 50280, 0, true},
    {"mamba-1.4b", "mamba", 2048, 4096, 16, 128, 48, 50280, 0, true},
    {"mamba-2.8b", "mamba", 2560, 5120, 16, 160, 64, 50280, 0, true},
    {"tales", "falcon_mamba", 256, 512, 16, 16, 12, 4096, 1e-6f, false},
    {"tiny", "falcon_mamba", 256, 512, 16, 32, 4, 1024, 1e-6f, false},
};

const char *fm_shape_name(size_t i)
{
    return i < FM_COUNT(shapes) ? shapes[i].name : NULL;
}

static fm_config config_of(const struct shape *s)
{
    return (fm_config){.d_model = s->d_model,
                       .d_inner = s->d_inner,
                       .d_state = s->d_state,
                       .d_conv = 4,
                       .dt_rank = s->dt_rank,
                       .n_layer = s->n_layer,
                       .vocab = s->vocab,
                       .norm_eps = 1e-5f,
                       .mixer_norms = s->mixer_rms_eps > 0,
                       .mixer_rms_eps = s->mixer_rms_eps,
                       .use_conv_bias = true,
                       .tie_stated = true,
                       .tie = s->tied,
                       .pad_vocab_multiple = 1,
                       .n_eos = 1};
}

static fm_status fail_shape(const char *name, fm_error *err)
{
    fm_str list = {0};
    for (size_t i = 0; i < FM_COUNT(shapes); i++) fm_str_printf(&list, "%s%s", i ? ", " : "", shapes[i].name);
    fm_fail(err, FM_ERR_ARGUMENT, "\"%s\" is not a shape: expected one of %s", name, list.p ? list.p : "");
    fm_str_free(&list);
    return FM_ERR_ARGUMENT;
}

fm_status fm_shape_find(const char *name, const fm_arch **arch, fm_config *config, fm_error *err)
{
    for (size_t i = 0; i < FM_COUNT(shapes); i++)
        if (strcmp(shapes[i].name, name) == 0) {
            *arch = fm_arch_by_name(shapes[i].arch);
            *config = config_of(&shapes[i]);
            return FM_OK;
        }
    return fail_shape(name, err);
}
