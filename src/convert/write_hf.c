/* write_hf.c - a Hugging Face directory around the tensors, built as a sibling of its target and renamed when it is whole. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert/internal.h"

#define SHARD_BYTES ((size_t)5000000000) /* unless o->shard_bytes says otherwise */

fm_status fm_read_beside(fm_str *text, const char *dir, const char *name, fm_error *err)
{
    char *path = fm_path_join(dir, name, text->a, err);
    fm_str_reset(text);
    if (!path) return FM_ERR_MEMORY;
    const fm_status status = fm_path_exists(path) ? fm_file_read(text, path, (size_t)256 << 20, err) : FM_OK;
    fm_free(text->a, path);
    return status;
}

/* ---- Shards ---- */

typedef struct shards {
    size_t n;        /* files */
    size_t *of_item; /* (job->n) which file holds it */
} shards;

static size_t item_bytes(const fm_item *it)
{
    size_t n = 0;
    const bool sized = fm_dtype_bytes(it->type, it->rows, it->cols, &n);
    FM_ASSERT(sized); /* fm_plan_finish() summed them up */
    return n;
}

static void cut(shards *s, const fm_job *j)
{
    const size_t most = j->o->shard_bytes ? j->o->shard_bytes : SHARD_BYTES;
    size_t used = 0;
    s->n = 1;
    for (size_t i = 0; i < j->n; i++) {
        const size_t n = item_bytes(&j->items[i]);
        if (used > 0 && used + n > most) {
            s->n++;
            used = 0;
        }
        used += n;
        s->of_item[i] = s->n - 1;
    }
}

static void shard_name(char out[64], const shards *s, size_t i)
{
    if (s->n == 1) snprintf(out, 64, "model.safetensors");
    else snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", i + 1, s->n);
}

static fm_status write_data(void *ctx, const void *p, size_t n, fm_error *err) { return fm_st_write(ctx, p, n, err); }

static fm_st_type st_type(fm_dtype t) { return t == FM_F16 ? FM_ST_F16 : t == FM_BF16 ? FM_ST_BF16 : FM_ST_F32; }

static fm_status announce(fm_st_writer *w, const fm_job *j, const fm_item *it, fm_str *name, fm_error *err)
{
    uint64_t dims[3];
    const unsigned n = fm_weight_dims(dims, it->w.def, &j->config);
    fm_model_weight_name(&it->w, FM_SOURCE_HF, name);
    FM_TRY(fm_str_ok(name, "a tensor name", err));
    return fm_st_put_tensor(w, name->p, st_type(it->type), dims, n, err);
}

static fm_status fill_shard(fm_st_writer *w, fm_job *j, const shards *s, size_t shard, fm_error *err)
{
    fm_str name = {.a = j->a};
    fm_status status = FM_OK;
    for (size_t i = 0; i < j->n && status == FM_OK; i++)
        if (s->of_item[i] == shard) status = announce(w, j, &j->items[i], &name, err);
    fm_str_free(&name);
    FM_TRY(status);
    FM_TRY(fm_st_begin_data(w, err));
    for (size_t i = 0; i < j->n; i++)
        if (s->of_item[i] == shard) FM_TRY(fm_flow_item(j, &j->items[i], (fm_sink){write_data, w}, err));
    return fm_st_commit(w, err);
}

static fm_status write_shard(fm_job *j, const shards *s, size_t shard, const char *dir, fm_error *err)
{
    char name[64];
    fm_st_writer w;
    shard_name(name, s, shard);
    char *path = fm_path_join(dir, name, j->a, err);
    if (!path) return FM_ERR_MEMORY;
    fm_status status = fm_st_create(&w, path, j->a, err);
    if (status == FM_OK) {
        status = fill_shard(&w, j, s, shard, err);
        fm_st_abort(&w);
    }
    fm_free(j->a, path);
    return status;
}

static fm_status write_index(const fm_job *j, const shards *s, const char *dir, fm_error *err)
{
    fm_str text = {.a = j->a}, name = {.a = j->a};
    fm_jsonw w = {.out = &text, .pretty = true};
    char file[64];
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "metadata");
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "total_size"), fm_jsonw_u64(&w, j->result.tensor_bytes);
    fm_jsonw_end(&w, '}');
    fm_jsonw_key(&w, "weight_map");
    fm_jsonw_object(&w);
    for (size_t i = 0; i < j->n && !name.failed; i++) {
        fm_model_weight_name(&j->items[i].w, FM_SOURCE_HF, &name);
        shard_name(file, s, s->of_item[i]);
        if (!name.failed) fm_jsonw_key(&w, name.p), fm_jsonw_cstr(&w, file);
    }
    fm_jsonw_end(&w, '}');
    fm_jsonw_end(&w, '}');
    fm_status status = fm_str_ok(&name, "a tensor name", err);
    if (status == FM_OK) status = fm_str_ok(&text, "the index", err);
    if (status == FM_OK) status = fm_file_write(dir, "model.safetensors.index.json", (fm_view){text.p, text.n}, j->a, err);
    fm_str_free(&text);
    fm_str_free(&name);
    return status;
}

static fm_status write_weights(fm_job *j, const char *dir, fm_error *err)
{
    shards s = {0};
    FM_TRY(fm_alloc((void **)&s.of_item, j->a, j->n, sizeof *s.of_item, "the list of shards", err));
    cut(&s, j);
    fm_status status = FM_OK;
    for (size_t i = 0; i < s.n && status == FM_OK; i++) status = write_shard(j, &s, i, dir, err);
    if (status == FM_OK && s.n > 1) status = write_index(j, &s, dir, err);
    fm_free(j->a, s.of_item);
    return status;
}

static fm_status write_config(const fm_job *j, const char *dir, fm_error *err)
{
    fm_str text = {.a = j->a};
    fm_view own = {0};
    fm_status status = FM_OK;
    if (j->m && j->m->source.kind == FM_SOURCE_HF) own = (fm_view){j->m->source.config.p, j->m->source.config.n};
    else if (j->m) status = fm_gguf_get_string(&j->m->source.gguf, "fmamba.config_json", &own, NULL, err);
    if (status == FM_OK) status = own.n ? fm_config_edit(&text, j, own, err) : fm_config_make(&text, j, err);
    if (status == FM_OK) status = fm_file_write(dir, "config.json", (fm_view){text.p, text.n}, j->a, err);
    fm_str_free(&text);
    return status;
}

/* ---- The directory ---- */

static bool is_empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    size_t n = 0;
    if (!dir) return false;
    while (readdir(dir) && n < 3) n++;
    closedir(dir);
    return n <= 2;
}

static fm_status check_target(const char *path, fm_error *err)
{
    if (!fm_path_exists(path) || is_empty_dir(path)) return FM_OK;
    return fm_fail(err, FM_ERR_ARGUMENT, "%s exists: give a new directory, or a name ending in .gguf for a GGUF file", path);
}

static fm_status sync_dir(const char *path, fm_error *err)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fm_fail_errno(err, "cannot open %s", path);
    const int failed = fsync(fd);
    close(fd);
    return failed && errno != EINVAL ? fm_fail_errno(err, "cannot sync %s", path) : FM_OK;
}

static fm_status fill_dir(fm_job *j, const char *dir, fm_error *err)
{
    fm_tok t;
    FM_TRY(fm_tok_open(&t, j, err));
    fm_status status = fm_tok_write_hf(&t, j, dir, err);
    fm_tok_close(&t);
    FM_TRY(status);
    FM_TRY(write_config(j, dir, err));
    FM_TRY(write_weights(j, dir, err));
    return sync_dir(dir, err);
}

/* A directory beside the target that was not there before. */
static fm_status make_beside(fm_str *tmp, const char *target, fm_error *err)
{
    for (int attempt = 0; attempt < FM_TMP_TRIES; attempt++) {
        FM_TRY(fm_tmp_name(tmp, target, attempt, err));
        if (mkdir(tmp->p, 0777) == 0) return FM_OK;
        if (errno != EEXIST) break;
    }
    return fm_fail_errno(err, "cannot create a directory beside %s", target);
}

static fm_status publish(const char *tmp, const char *target, fm_error *err)
{
    if (rename(tmp, target) != 0) return fm_fail_errno(err, "cannot rename %s to %s", tmp, target);
    fm_path_sync(target);
    return FM_OK;
}

static fm_status build(fm_job *j, const char *target, fm_str *tmp, fm_error *err)
{
    FM_TRY(check_target(target, err));
    FM_TRY(make_beside(tmp, target, err));
    fm_status status = fill_dir(j, tmp->p, err);
    if (status == FM_OK) status = publish(tmp->p, target, err);
    if (status != FM_OK) fm_dir_remove(tmp->p);
    return status;
}

fm_status fm_write_hf(fm_job *j, const char *path, fm_error *err)
{
    fm_str target = {.a = j->a}, tmp = {.a = j->a};
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    fm_str_put(&target, path, n);
    fm_status status = fm_str_ok(&target, "a path", err);
    if (status == FM_OK) status = build(j, target.p, &tmp, err);
    fm_str_free(&target);
    fm_str_free(&tmp);
    return status;
}
