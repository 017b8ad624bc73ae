/* checkpoint.c - a trainer to and from a folder; see trainer.h. */
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "train/internal.h"
#include "train/sums.h"
#include "train/tensors.h"

#define STATE_BYTES_MAX ((size_t)1 << 20)

enum { VERSION = 2 }; /* of trainer.json */

static const char *const files[] = {"model.safetensors", "optimizer.safetensors", "trainer.json"};

/* Moments, and the masters where the model has only what they were rounded to. */
static fm_tensor_file moments_file(const fm_trainer *t, fm_tensor_set sets[3], bool masters)
{
    sets[0] = (fm_tensor_set){"m.", t->m1, NULL};
    sets[1] = (fm_tensor_set){"v.", t->m2, NULL};
    sets[2] = (fm_tensor_set){"w.", t->p.w, NULL};
    return (fm_tensor_file){.m = t->g.m, .sets = sets, .n_sets = masters ? 3 : 2, .type = FM_F32, .a = t->a};
}

static void put_state(fm_str *out, const fm_trainer *t)
{
    fm_jsonw w = {.out = out, .pretty = true};
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "version"), fm_jsonw_u64(&w, VERSION);
    fm_jsonw_key(&w, "step"), fm_jsonw_u64(&w, t->step);
    fm_jsonw_key(&w, "tokens"), fm_jsonw_u64(&w, t->tokens);
    fm_jsonw_key(&w, "stage"), fm_jsonw_u64(&w, t->cursor.stage);
    fm_jsonw_key(&w, "windows"), fm_jsonw_u64(&w, t->cursor.drawn);
    fm_jsonw_key(&w, "tokens_before_stage");
    fm_jsonw_array(&w);
    for (size_t i = 0; i < t->data->n_sources; i++) fm_jsonw_u64(&w, t->cursor.taken[i]);
    fm_jsonw_end(&w, ']');
    fm_jsonw_key(&w, "masters"), fm_jsonw_bool(&w, t->p.halves != NULL);
    fm_jsonw_key(&w, "rounded"), fm_jsonw_u64(&w, t->p.rounded);
    fm_jsonw_key(&w, "anchor"), fm_jsonw_u64(&w, t->anchor);
    fm_jsonw_key(&w, "rewinds"), fm_jsonw_u64(&w, t->rewinds);
    fm_jsonw_key(&w, "outliers"), fm_outliers_put(&t->outliers, &w);
    fm_jsonw_end(&w, '}');
    fm_str_putc(out, '\n');
}

static fm_status write_state(const fm_trainer *t, const char *dir, fm_error *err)
{
    fm_str text = {.a = t->a};
    put_state(&text, t);
    fm_status status = fm_str_ok(&text, "the state of the training", err);
    if (status == FM_OK) status = fm_file_write(dir, "trainer.json", (fm_view){text.p, text.n}, t->a, err);
    fm_str_free(&text);
    return status;
}

static void read_taken(fm_json *j, fm_cursor *c)
{
    for (size_t n = 0; fm_json_element(j); n++) {
        if (n < FM_SOURCES_MAX)
            fm_json_u64(j, &c->taken[n]);
        else
            fm_json_fail(j, "more sources than a run can have");
    }
}

static void parse_state(fm_trainer *t, fm_json *j)
{
    fm_view key;
    uint64_t version = 0;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, "version") && fm_json_u64(j, &version) && version != VERSION)
            fm_json_fail(j, "a version that this program does not know");
        else if (fm_view_is(key, "step"))
            fm_json_u64(j, &t->step);
        else if (fm_view_is(key, "tokens"))
            fm_json_u64(j, &t->tokens);
        else if (fm_view_is(key, "stage"))
            fm_json_u64(j, &t->cursor.stage);
        else if (fm_view_is(key, "windows"))
            fm_json_u64(j, &t->cursor.drawn);
        else if (fm_view_is(key, "tokens_before_stage") && fm_json_enter_array(j))
            read_taken(j, &t->cursor);
        else if (fm_view_is(key, "masters"))
            fm_json_bool(j, &t->masters);
        else if (fm_view_is(key, "rounded"))
            fm_json_u64(j, &t->p.rounded);
        else if (fm_view_is(key, "anchor"))
            fm_json_u64(j, &t->anchor);
        else if (fm_view_is(key, "rewinds"))
            fm_json_u64(j, &t->rewinds);
        else if (fm_view_is(key, "outliers"))
            fm_outliers_read(&t->outliers, j);
        else if (!fm_view_is(key, "version"))
            fm_json_skip(j);
    }
}

static fm_status read_place(fm_trainer *t, const char *path, fm_error *err)
{
    fm_str text = {.a = t->a};
    fm_status status = fm_file_read(&text, path, STATE_BYTES_MAX, err);
    if (status == FM_OK) {
        fm_json j = fm_json_begin(text.p, text.n, path);
        parse_state(t, &j);
        status = fm_json_finish(&j, err);
    }
    fm_str_free(&text);
    return status;
}

static fm_status read_state(fm_trainer *t, const char *path, fm_error *err)
{
    FM_TRY(read_place(t, path, err));
    return fm_data_check_cursor(t->data, &t->cursor, path, err);
}

/* Calls one of the above on dir/name. */
typedef fm_status file_fn(fm_trainer *t, const char *path, fm_error *err);

static fm_status at(const fm_trainer *t, const char *dir, const char *name, file_fn *fn, fm_error *err)
{
    char *path = fm_path_join(dir, name, t->a, err);
    if (!path) return FM_ERR_MEMORY;
    const fm_status status = fn((fm_trainer *)(uintptr_t)t, path, err);
    fm_free(t->a, path);
    return status;
}

static fm_status save_weights(fm_trainer *t, const char *path, fm_error *err)
{
    return fm_params_write(&t->p, path, err);
}

static fm_status save_moments(fm_trainer *t, const char *path, fm_error *err)
{
    fm_tensor_set sets[3];
    const fm_tensor_file f = moments_file(t, sets, t->p.halves != NULL);
    return fm_tensors_write(&f, path, err);
}

static fm_status load_weights(fm_trainer *t, const char *path, fm_error *err)
{
    const fm_tensor_file f = {.m = t->g.m, .sets = &(fm_tensor_set){"", t->p.w, NULL}, .n_sets = 1, .type = FM_F32, .a = t->a};
    return fm_tensors_read(&f, path, err);
}

static fm_status load_moments(fm_trainer *t, const char *path, fm_error *err)
{
    fm_tensor_set sets[3];
    const fm_tensor_file f = moments_file(t, sets, t->masters);
    return fm_tensors_read(&f, path, err);
}

fm_status fm_trainer_save(const fm_trainer *t, const char *dir, fm_error *err)
{
    FM_TRY(at(t, dir, "model.safetensors", save_weights, err));
    FM_TRY(at(t, dir, "optimizer.safetensors", save_moments, err));
    FM_TRY(write_state(t, dir, err));
    return fm_sums_write(dir, files, FM_COUNT(files), t->a, err);
}

/* The weights are read again because a model keeps A, from which A_log does not come back to the last bit.  A checkpoint of
 * either kind of weights can go on as the other. */
fm_status fm_trainer_resume(fm_trainer *t, const char *dir, fm_error *err)
{
    t->masters = false;
    FM_TRY(fm_sums_check(dir, t->a, err));
    FM_TRY(at(t, dir, "trainer.json", read_state, err));
    if (!t->masters) FM_TRY(at(t, dir, "model.safetensors", load_weights, err));
    FM_TRY(at(t, dir, "optimizer.safetensors", load_moments, err));
    fm_params_settle(&t->p, &t->k, t->pool, t->p.rounded);
    return FM_OK;
}

/* ---- Going back ---- */

void fm_trainer_anchor(fm_trainer *t)
{
    t->anchor = t->step;
    t->rewinds = 0;
}

uint64_t fm_trainer_anchored(const fm_trainer *t)
{
    return t->anchor;
}

uint64_t fm_trainer_rewinds(const fm_trainer *t)
{
    return t->rewinds;
}

fm_status fm_trainer_rewind(fm_trainer *t, const char *dir, fm_error *err)
{
    const fm_cursor cursor = t->cursor;
    const uint64_t rewinds = t->rewinds + 1;
    FM_TRY(fm_trainer_resume(t, dir, err));
    t->cursor = cursor;
    t->rewinds = rewinds;
    return FM_OK;
}

fm_status fm_trainer_place(const char *dir, uint64_t *step, uint64_t *tokens, const fm_allocator *a, fm_error *err)
{
    const fm_data none = {0};
    fm_trainer t = {.a = a, .data = &none};
    FM_TRY(at(&t, dir, "trainer.json", read_place, err));
    *step = t.step;
    *tokens = t.tokens;
    return FM_OK;
}
