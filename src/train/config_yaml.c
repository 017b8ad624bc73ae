/* config_yaml.c - a training configuration from YAML, by libyaml's events. */
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"
#include "train/config.h"

#define CONFIG_BYTES_MAX ((size_t)1 << 20)

enum { DEPTH_MAX = 4 };

typedef struct reader {
    fm_train_config *c;
    const char *path;
    yaml_parser_t parser;
    fm_str key;                /* of the value that comes, "schedule.rate" */
    size_t lengths[DEPTH_MAX]; /* of the key at each open mapping */
    size_t depth, index;
    bool wants_value, in_list;
} reader;

static fm_status fail_at(const reader *r, const yaml_mark_t *at, const char *what, fm_error *err)
{
    return fm_fail(err, FM_ERR_FORMAT, "%s:%zu: %s", r->path, at->line + 1, what);
}

static fm_status take_key(reader *r, const char *name, fm_error *err)
{
    r->key.n = r->depth ? r->lengths[r->depth - 1] : 0;
    fm_str_printf(&r->key, "%s%s", r->key.n ? "." : "", name);
    r->wants_value = true;
    r->index = 0;
    return fm_str_ok(&r->key, "a key", err);
}

static fm_status take_scalar(reader *r, const yaml_event_t *e, fm_error *err)
{
    const char *text = (const char *)e->data.scalar.value;
    fm_str where = {0};
    if (r->depth && !r->wants_value) return take_key(r, text, err);
    if (!r->depth) return fail_at(r, &e->start_mark, "expected \"key: value\" lines", err);
    fm_str_printf(&where, "%s:%zu", r->path, e->start_mark.line + 1);
    fm_status status = fm_str_ok(&where, "a place", err);
    if (status == FM_OK) status = fm_train_config_set(r->c, r->key.p, r->index++, text, where.p, err);
    fm_str_free(&where);
    if (!r->in_list) r->wants_value = false;
    return status;
}

static fm_status enter_mapping(reader *r, const yaml_event_t *e, fm_error *err)
{
    if (r->in_list || r->depth == DEPTH_MAX) return fail_at(r, &e->start_mark, "a mapping does not belong here", err);
    r->lengths[r->depth++] = r->key.n;
    r->wants_value = false;
    return FM_OK;
}

static void leave_mapping(reader *r)
{
    r->depth--;
    r->wants_value = false;
}

static fm_status take(reader *r, const yaml_event_t *e, fm_error *err)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT: return take_scalar(r, e, err);
    case YAML_MAPPING_START_EVENT: return enter_mapping(r, e, err);
    case YAML_MAPPING_END_EVENT: leave_mapping(r); return FM_OK;
    case YAML_SEQUENCE_START_EVENT:
        if (!r->wants_value || r->in_list) return fail_at(r, &e->start_mark, "a list does not belong here", err);
        r->in_list = true;
        return FM_OK;
    case YAML_SEQUENCE_END_EVENT: r->in_list = r->wants_value = false; return FM_OK;
    case YAML_ALIAS_EVENT: return fail_at(r, &e->start_mark, "aliases are not read", err);
    default: return FM_OK;
    }
}

static fm_status read_events(reader *r, fm_error *err)
{
    for (;;) {
        yaml_event_t e;
        if (!yaml_parser_parse(&r->parser, &e))
            return fail_at(r, &r->parser.problem_mark, r->parser.problem ? r->parser.problem : "not YAML", err);
        const bool end = e.type == YAML_STREAM_END_EVENT;
        const fm_status status = take(r, &e, err);
        yaml_event_delete(&e);
        if (status != FM_OK || end) return status;
    }
}

fm_status fm_train_config_read(fm_train_config *c, const char *path, fm_error *err)
{
    fm_str text = {.a = c->a};
    reader r = {.c = c, .path = path, .key = {.a = c->a}};
    FM_TRY(fm_file_read(&text, path, CONFIG_BYTES_MAX, err));
    fm_status status = FM_ERR_MEMORY;
    if (yaml_parser_initialize(&r.parser)) {
        yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.p, text.n);
        status = read_events(&r, err);
        yaml_parser_delete(&r.parser);
    } else {
        fm_fail(err, FM_ERR_MEMORY, "%s: no memory for reading YAML", path);
    }
    fm_str_free(&r.key);
    fm_str_free(&text);
    return status;
}
