/* chat_cases.h - goes through the recorded renderings of tests/data/chat/ (tests/oracles/jinja_oracle.py). */
#ifndef FM_TEST_CHAT_CASES_H
#define FM_TEST_CHAT_CASES_H

#include "testing.h"

#include "base/json.h"
#include "text/jinja.h"

typedef struct chat_case {
    fm_str name, template, variables, output;
    bool error; /* Python's jinja2 refuses it */
} chat_case;

static inline char *chat_slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("%s is missing", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    p[*n] = '\0';
    fclose(f);
    return p;
}

static inline void chat_case_read(fm_json *j, chat_case *c)
{
    fm_view key, raw;
    fm_str *fields[] = {&c->name, &c->template, &c->variables, &c->output};
    for (size_t i = 0; i < FM_COUNT(fields); i++) fm_str_reset(fields[i]);
    c->error = false;
    assert_true(fm_json_enter_object(j));
    while (fm_json_key(j, &key)) {
        assert_true(fm_json_string(j, &raw));
        fm_str *to = fm_view_is(key, "name")        ? &c->name
                     : fm_view_is(key, "template")  ? &c->template
                     : fm_view_is(key, "variables") ? &c->variables
                                                    : &c->output;
        if (fm_view_is(key, "error"))
            c->error = true;
        else
            fm_json_unescape(to, raw);
    }
}

/* Calls check() with every case of tests/data/chat/<file>; gives their number. */
static inline size_t chat_cases(const char *file, void (*check)(const chat_case *c))
{
    char path[512];
    size_t n, count = 0;
    chat_case c = {0};
    snprintf(path, sizeof path, "%s/tests/data/chat/%s", FM_SOURCE_DIR, file);
    char *text = chat_slurp(path, &n);
    fm_json j = fm_json_begin(text, n, file);
    assert_true(fm_json_enter_array(&j));
    for (; fm_json_element(&j); count++) {
        chat_case_read(&j, &c);
        check(&c);
    }
    assert_int_equal(fm_json_finish(&j, NULL), FM_OK);
    fm_str *fields[] = {&c.name, &c.template, &c.variables, &c.output};
    for (size_t i = 0; i < FM_COUNT(fields); i++) fm_str_free(fields[i]);
    free(text);
    return count;
}

static inline fm_view chat_view(const fm_str *s)
{
    return (fm_view){s->p ? s->p : "", s->n};
}

#endif
