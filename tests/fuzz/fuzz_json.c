/* fuzz_json.c - any bytes through the JSON reader: skipping, walking and the writer must agree. */
#include <stdlib.h>

#include "base/json.h"

/* Stops the fuzzer, in every build. */
static void check(bool ok)
{
    if (!ok) abort();
}

/* Copies the value at j to w by events, every container entered. */
static void copy_value(fm_json *j, fm_jsonw *w, fm_str *text)
{
    fm_view v;
    bool flag = false;
    double number = 0.0;
    switch (fm_json_peek(j)) {
    case FM_JSON_OBJECT:
        fm_json_enter_object(j);
        fm_jsonw_object(w);
        while (fm_json_key(j, &v)) {
            fm_str_reset(text);
            fm_json_unescape(text, v);
            fm_jsonw_key(w, text->p);
            copy_value(j, w, text);
        }
        fm_jsonw_end(w, '}');
        return;
    case FM_JSON_ARRAY:
        fm_json_enter_array(j);
        fm_jsonw_array(w);
        while (fm_json_element(j)) copy_value(j, w, text);
        fm_jsonw_end(w, ']');
        return;
    case FM_JSON_STRING:
        fm_json_string(j, &v);
        fm_str_reset(text);
        if (j->error == NULL) fm_json_unescape(text, v);
        fm_jsonw_string(w, (fm_view){text->p, text->n});
        return;
    case FM_JSON_NUMBER:
        fm_json_f64(j, &number);
        fm_jsonw_f64(w, number);
        return;
    case FM_JSON_BOOL:
        fm_json_bool(j, &flag);
        fm_jsonw_bool(w, flag);
        return;
    default:
        fm_json_null(j);
        fm_jsonw_null(w);
        return;
    }
}

static bool skips(const char *text, size_t n)
{
    fm_json j = fm_json_begin(text, n, "fuzz");
    fm_json_skip(&j);
    return fm_json_finish(&j, NULL) == FM_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const bool valid = skips(text, size);
    fm_str out = {0}, scratch = {0};
    fm_str_put(&scratch, "", 0);
    fm_jsonw w = {.out = &out, .pretty = size % 2 != 0};
    fm_json j = fm_json_begin(text, size, "fuzz");
    copy_value(&j, &w, &scratch);
    const bool walked = fm_json_finish(&j, NULL) == FM_OK;
    check(valid || !walked); /* walking also refuses numbers that no double holds */
    if (walked) check(skips(out.p, out.n));
    fm_str_free(&out);
    fm_str_free(&scratch);
    return 0;
}
