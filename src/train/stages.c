/* stages.c - see stages.h. */
#include "train/stages.h"

#include <string.h>

typedef struct stage_text {
    size_t number; /* from 1 */
    fm_view rest;
} stage_text;

static fm_status fail_stage(const stage_text *t, const char *found, size_t n, const char *expected, fm_error *err)
{
    return fm_fail(err, FM_ERR_ARGUMENT, "stage %zu of data.stages: \"%s\", expected %s", t->number,
                   fm_quote_of((fm_view){found, n}).text, expected);
}

/* The next word between blanks; false at the end. */
static bool next_word(stage_text *t, fm_view *word)
{
    while (t->rest.n && t->rest.p[0] == ' ') t->rest.p++, t->rest.n--;
    const char *end = t->rest.n ? memchr(t->rest.p, ' ', t->rest.n) : NULL;
    *word = (fm_view){t->rest.p, end ? (size_t)(end - t->rest.p) : t->rest.n};
    t->rest.p += word->n, t->rest.n -= word->n;
    return word->n > 0;
}

static fm_status take_weights(fm_stage *s, const stage_text *t, fm_view list, size_t n_sources, fm_error *err)
{
    const char *expected = "one number of 0 or more for each source, as weights=1,3";
    size_t n = 0;
    for (size_t at = 0; at <= list.n; n++) {
        const char *comma = memchr(list.p + at, ',', list.n - at);
        const fm_view number = {list.p + at, comma ? (size_t)(comma - list.p) - at : list.n - at};
        double w;
        if (n == n_sources || !fm_parse_f64(number, &w) || !(w >= 0.0)) return fail_stage(t, list.p, list.n, expected, err);
        s->weights[n] = w;
        at += number.n + 1;
    }
    return n == n_sources ? FM_OK : fail_stage(t, list.p, list.n, expected, err);
}

static fm_status take_count(uint64_t *out, const stage_text *t, fm_view word, fm_view number, fm_error *err)
{
    char text[32];
    if (number.n < sizeof text) {
        memcpy(text, number.p, number.n);
        text[number.n] = '\0';
        if (fm_parse_count(text, out)) return FM_OK;
    }
    return fail_stage(t, word.p, word.n, "a whole number, as from=4M or length=1024", err);
}

static fm_status take_word(fm_stage *s, const stage_text *t, fm_view word, size_t n_sources, fm_error *err)
{
    const char *equals = memchr(word.p, '=', word.n);
    const fm_view key = {word.p, equals ? (size_t)(equals - word.p) : word.n};
    const fm_view value = {word.p + key.n + 1, equals ? word.n - key.n - 1 : 0};
    uint64_t n = 0;
    if (equals && fm_view_is(key, "from")) return take_count(&s->begin, t, word, value, err);
    if (equals && fm_view_is(key, "weights")) return take_weights(s, t, value, n_sources, err);
    if (!equals || !fm_view_is(key, "length"))
        return fail_stage(t, word.p, word.n, "from=TOKENS, length=TOKENS or weights=W,W,...", err);
    FM_TRY(take_count(&n, t, word, value, err));
    s->length = (size_t)n;
    return FM_OK;
}

fm_status fm_stages_parse(fm_stage *out, const fm_train_config *c, const fm_data *d, fm_error *err)
{
    for (size_t i = 0; i < c->stages.n; i++) {
        stage_text t = {.number = i + 1, .rest = fm_view_of(c->stages.items[i])};
        fm_view word;
        out[i] = (fm_stage){.length = (size_t)c->length};
        memcpy(out[i].weights, d->weights, sizeof out[i].weights);
        while (next_word(&t, &word)) FM_TRY(take_word(&out[i], &t, word, d->n_sources, err));
    }
    return FM_OK;
}
