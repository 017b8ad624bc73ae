/* source.c - opening a checkpoint: what lies at the path, and sentences for what people try that cannot work. */
#include <string.h>

#include "model/config.h"

#define CONFIG_BYTES_MAX ((size_t)16 << 20)

/* Files whose presence says what a directory without safetensors is. */
static fm_status explain_directory(const char *path, const fm_allocator *a, fm_error *err)
{
    static const struct {
        const char *file, *what;
    } known[] = {
        {"pytorch_model.bin",
         "holds pytorch_model.bin, a Python pickle that is not read because it can run code: save the model as "
         "safetensors (transformers: save_pretrained) first"},
        {"pytorch_model.bin.index.json",
         "holds a sharded pytorch_model.bin, Python pickles that are not read because they can run "
         "code: save the model as safetensors (transformers: save_pretrained) first"},
        {"adapter_model.safetensors", "is a LoRA adapter, not a model: give the base model"},
        {"config.json", "has a config.json but no model.safetensors or model.safetensors.index.json: download the weights too"},
        {"tokenizer.json", "has a tokenizer but no config.json and no weights: download those too"},
    };
    for (size_t i = 0; i < FM_COUNT(known); i++) {
        char *file = fm_path_join(path, known[i].file, a, err);
        if (!file) return FM_ERR_MEMORY;
        const bool there = fm_path_exists(file);
        fm_free(a, file);
        if (there) return fm_fail(err, FM_ERR_UNSUPPORTED, "%s %s", path, known[i].what);
    }
    return fm_fail(err, FM_ERR_FORMAT,
                   "%s is a directory without config.json and safetensors: give a Hugging Face model directory or a GGUF file",
                   path);
}

/* Opens the weights under one of the two names they have; *found says whether there were any. */
static fm_status open_weights(fm_source *s, const char *name, fm_map_mode mode, bool *found, fm_error *err)
{
    char *file = fm_path_join(s->path, name, s->a, err);
    if (!file) return FM_ERR_MEMORY;
    *found = fm_path_exists(file);
    const fm_status status = *found ? fm_st_open(&s->st, file, mode, s->a, err) : FM_OK;
    fm_free(s->a, file);
    return status;
}

static fm_status open_hf(fm_source *s, fm_map_mode mode, fm_error *err)
{
    bool found = false;
    char *file = fm_path_join(s->path, "config.json", s->a, err);
    if (!file) return FM_ERR_MEMORY;
    fm_status status = fm_path_exists(file) ? fm_file_read(&s->config, file, CONFIG_BYTES_MAX, err) : FM_OK;
    fm_free(s->a, file);
    FM_TRY(status);
    if (!s->config.p) return explain_directory(s->path, s->a, err);
    FM_TRY(open_weights(s, "model.safetensors", mode, &found, err));
    if (!found) FM_TRY(open_weights(s, "model.safetensors.index.json", mode, &found, err));
    return found ? FM_OK : explain_directory(s->path, s->a, err);
}

/* A lone .safetensors file: its directory is the model. */
static fm_status refuse_file(const char *path, fm_error *err)
{
    return fm_fail(err, FM_ERR_UNSUPPORTED, "%s is a weight file: give the directory that holds it and its config.json", path);
}

fm_status fm_source_open(fm_source *s, const char *path, fm_map_mode mode, const fm_allocator *a, fm_error *err)
{
    *s = (fm_source){.a = a, .config = {.a = a}};
    fm_status status = FM_OK;
    s->path = fm_strdup(a, path, strlen(path), err);
    if (!s->path) return FM_ERR_MEMORY;
    if (fm_path_is_dir(path)) {
        s->kind = FM_SOURCE_HF;
        status = open_hf(s, mode, err);
    } else if (fm_view_ends(fm_view_of(path), ".safetensors")) {
        status = fm_path_exists(path) ? refuse_file(path, err) : fm_gguf_open(&s->gguf, path, mode, a, err);
    } else {
        s->kind = FM_SOURCE_GGUF;
        status = fm_gguf_open(&s->gguf, path, mode, a, err);
    }
    if (status != FM_OK) fm_source_close(s);
    return status;
}

void fm_source_close(fm_source *s)
{
    fm_st_close(&s->st);
    fm_gguf_close(&s->gguf);
    fm_str_free(&s->config);
    fm_free(s->a, s->path);
    *s = (fm_source){0};
}

fm_status fm_source_lock(const fm_source *s, fm_error *err)
{
    const bool hf = s->kind == FM_SOURCE_HF;
    const size_t n = hf ? s->st.n_maps : s->gguf.n_maps;
    for (size_t i = 0; i < n; i++)
        FM_TRY(fm_map_lock(hf ? &s->st.maps[i] : &s->gguf.maps[i], hf ? s->st.paths[i] : s->gguf.paths[i], err));
    return FM_OK;
}

static fm_status find_hf(const fm_source *s, const fm_st_tensor *t, fm_source_tensor *out, fm_error *err)
{
    FM_TRY(fm_st_as_tensor(&out->t, &s->st, t, err));
    if (t->n_dims > 4)
        return fm_fail(err, FM_ERR_SHAPE, "%s: tensor %s has %u dimensions, at most 4 are known", s->path, t->name, t->n_dims);
    out->n_dims = t->n_dims;
    for (size_t i = 0; i < t->n_dims; i++) out->dims[i] = t->dims[i];
    return FM_OK;
}

static fm_status find_gguf(const fm_source *s, const fm_gguf_tensor *t, fm_source_tensor *out, fm_error *err)
{
    FM_TRY(fm_gguf_as_tensor(&out->t, &s->gguf, t, err));
    out->n_dims = t->n_dims;
    for (size_t i = 0; i < t->n_dims; i++) out->dims[i] = t->dims[t->n_dims - 1 - i];
    return FM_OK;
}

fm_status fm_source_find(const fm_source *s, const char *name, fm_source_tensor *out, bool *found, fm_error *err)
{
    *out = (fm_source_tensor){.name = name};
    if (s->kind == FM_SOURCE_HF) {
        const fm_st_tensor *t = fm_st_find(&s->st, name);
        *found = t != NULL;
        return t ? find_hf(s, t, out, err) : FM_OK;
    }
    const fm_gguf_tensor *t = fm_gguf_find_tensor(&s->gguf, name);
    *found = t != NULL;
    return t ? find_gguf(s, t, out, err) : FM_OK;
}

size_t fm_source_count(const fm_source *s)
{
    return s->kind == FM_SOURCE_HF ? s->st.n_tensors : s->gguf.n_tensors;
}

void fm_source_at(const fm_source *s, size_t i, fm_str *name, fm_tensor_info *info)
{
    *info = (fm_tensor_info){0};
    fm_str_reset(name);
    if (s->kind == FM_SOURCE_HF) {
        const fm_st_tensor *t = &s->st.tensors[i];
        fm_str_puts(name, t->name);
        *info = (fm_tensor_info){.type = t->type_name, .n_dims = t->n_dims < 4 ? t->n_dims : 4, .bytes = t->bytes};
        for (size_t d = 0; d < info->n_dims; d++) info->dims[d] = t->dims[d];
    } else {
        const fm_gguf_tensor *t = &s->gguf.tensors[i];
        const char *type = fm_gguf_type_name(t->gguf_type);
        fm_str_put(name, t->name.p, t->name.n);
        *info = (fm_tensor_info){.type = type ? type : "unknown", .n_dims = t->n_dims, .bytes = t->bytes};
        for (size_t d = 0; d < info->n_dims; d++) info->dims[d] = t->dims[t->n_dims - 1 - d];
    }
    info->name = name->p;
}
