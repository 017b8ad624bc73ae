/* bench_peer.c - the same test by llama-bench or llama-batched-bench, and the rate out of the JSON they print.
 *
 * Meanwhile this process sleeps: its workers wait on a futex, and the weights it maps are the page cache's, which the peer maps
 * too.  Weights read into memory of our own (--no-mmap) lie there twice, which is said. */
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/child.h"

#define RUNS_MAX 4 /* of llama-batched-bench, which at times ends well and prints nothing: its logger loses the last lines */

struct fm_bench_peer {
    const char *single, *batched; /* command lines; either may be NULL */
    const char *model;
    unsigned threads;
    double timeout_s;
    fm_str out;
};

fm_status fm_bench_peer_open(fm_bench_peer **out, const fm_cli *c, const char *model, unsigned threads, fm_error *err)
{
    const fm_options *o = &c->options;
    *out = NULL;
    if (!fm_opt_given(o, FM_OPT_PEER) && !fm_opt_given(o, FM_OPT_PEER_BATCHED)) return FM_OK;
    FM_TRY(fm_alloc((void **)out, NULL, 1, sizeof **out, "the peer", err));
    **out = (fm_bench_peer){.single = fm_opt_str(o, FM_OPT_PEER),
                            .batched = fm_opt_str(o, FM_OPT_PEER_BATCHED),
                            .model = model,
                            .threads = threads,
                            .timeout_s = (double)fm_opt_int(o, FM_OPT_PEER_TIMEOUT)};
    if (!fm_opt_flag(o, FM_OPT_MMAP)) fm_cli_note("with --no-mmap the weights are in memory twice while the peer runs");
    return FM_OK;
}

void fm_bench_peer_free(fm_bench_peer *p)
{
    if (p) fm_str_free(&p->out);
    fm_free(NULL, p);
}

/* One sequence is llama-bench's business, and llama-batched-bench's where only that is given. */
static bool is_single(const fm_bench_peer *p, const fm_bench_test *t)
{
    return t->batch == 1 && p->single;
}

bool fm_bench_peer_takes(const fm_bench_peer *p, const fm_bench_test *t)
{
    return is_single(p, t) || p->batched;
}

/* ---- What to run ---- */

static fm_status add_number(fm_cli_words *w, const char *option, size_t value, fm_error *err)
{
    char text[24];
    snprintf(text, sizeof text, "%zu", value);
    FM_TRY(fm_cli_words_add(w, option, err));
    return fm_cli_words_add(w, text, err);
}

static fm_status add_two(fm_cli_words *w, const char *option, const char *value, fm_error *err)
{
    FM_TRY(fm_cli_words_add(w, option, err));
    return fm_cli_words_add(w, value, err);
}

static fm_status add_common(fm_cli_words *w, const fm_bench_peer *p, fm_error *err)
{
    static const char *const model[] = {"-m", "--model", "-hf", "--hf-repo", NULL}, *const threads[] = {"-t", "--threads",
                                                                                                        NULL};
    if (!fm_cli_words_have(w, model)) FM_TRY(add_two(w, "-m", p->model, err));
    return fm_cli_words_have(w, threads) ? FM_OK : add_number(w, "-t", p->threads, err);
}

static fm_status add_single(fm_cli_words *w, const fm_bench_test *t, fm_error *err)
{
    FM_TRY(add_number(w, "-p", t->prefill ? t->length : 0, err));
    FM_TRY(add_number(w, "-n", t->prefill ? 0 : t->length, err));
    FM_TRY(add_number(w, "-r", 1, err));
    return add_two(w, "-o", "json", err);
}

/* It always does both; the shortest of what is not asked for. */
static fm_status add_batched(fm_cli_words *w, const fm_bench_test *t, fm_error *err)
{
    static const char *const context[] = {"-c", "--ctx-size", NULL};
    if (!fm_cli_words_have(w, context)) FM_TRY(add_number(w, "-c", t->batch * (t->length + 1), err));
    FM_TRY(add_number(w, "-npp", t->prefill ? t->length : 1, err));
    FM_TRY(add_number(w, "-ntg", t->prefill ? 1 : t->length, err));
    FM_TRY(add_number(w, "-npl", t->batch, err));
    return add_two(w, "--output-format", "jsonl", err);
}

static fm_status command(fm_cli_words *w, const fm_bench_peer *p, const fm_bench_test *t, fm_error *err)
{
    const bool single = is_single(p, t);
    FM_TRY(fm_cli_words_split(w, single ? p->single : p->batched, err));
    FM_TRY(add_common(w, p, err));
    return single ? add_single(w, t, err) : add_batched(w, t, err);
}

/* ---- What it says ---- */

/* The members of one object that matter: llama-bench's n_prompt, n_gen, avg_ts; llama-batched-bench's pl, speed_pp, speed_tg. */
typedef struct reply {
    uint64_t n_prompt, n_gen, pl;
    double avg_ts, speed_pp, speed_tg;
} reply;

static void read_reply(fm_json *j, reply *r)
{
    const struct {
        const char *key;
        uint64_t *count;
        double *rate;
    } members[] = {{"n_prompt", &r->n_prompt, NULL}, {"n_gen", &r->n_gen, NULL},       {"pl", &r->pl, NULL},
                   {"avg_ts", NULL, &r->avg_ts},     {"speed_pp", NULL, &r->speed_pp}, {"speed_tg", NULL, &r->speed_tg}};
    fm_view key;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        size_t i = 0;
        while (i < FM_COUNT(members) && !fm_view_is(key, members[i].key)) i++;
        if (i == FM_COUNT(members))
            fm_json_skip(j);
        else if (members[i].count)
            fm_json_u64(j, members[i].count);
        else
            fm_json_f64(j, members[i].rate);
    }
}

static fm_status read_single(const fm_str *text, const fm_bench_test *t, double *rate, fm_error *err)
{
    fm_json j = fm_json_begin(text->p, text->n, "its JSON");
    if (fm_json_enter_array(&j)) {
        while (fm_json_element(&j)) {
            reply r = {0};
            read_reply(&j, &r);
            if (t->prefill ? r.n_prompt == t->length && r.n_gen == 0 : r.n_prompt == 0 && r.n_gen == t->length)
                *rate = r.avg_ts;
        }
    }
    return fm_json_finish(&j, err);
}

/* Lines that are no object are talk. */
static fm_status read_batched(const fm_str *text, const fm_bench_test *t, double *rate, fm_error *err)
{
    for (size_t at = 0; at < text->n;) {
        const char *line = text->p + at, *end = memchr(line, '\n', text->n - at);
        const size_t n = end ? (size_t)(end - line) : text->n - at;
        at += n + 1;
        if (n == 0 || line[0] != '{') continue;
        fm_json j = fm_json_begin(line, n, "its JSON");
        reply r = {0};
        read_reply(&j, &r);
        FM_TRY(fm_json_finish(&j, err));
        if (r.pl == t->batch) *rate = t->prefill ? r.speed_pp : r.speed_tg;
    }
    return FM_OK;
}

static fm_status read_rate(const fm_bench_peer *p, const fm_bench_test *t, const char *name, double *rate, fm_error *err)
{
    const fm_status status = is_single(p, t) ? read_single(&p->out, t, rate, err) : read_batched(&p->out, t, rate, err);
    if (status != FM_OK)
        return fm_fail_prefix(err, status, "%s did not print what %s prints", name,
                              is_single(p, t) ? "llama-bench -o json" : "llama-batched-bench --output-format jsonl");
    if (*rate > 0) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT,
                   "%s printed no rate of the test it was asked for (give the command without -p, -n, -r, -o), but: %s", name,
                   p->out.n ? fm_quote_of((fm_view){p->out.p, p->out.n}).text : "nothing");
}

static fm_status run_once(fm_bench_peer *p, const fm_cli_words *w, fm_error *err)
{
    fm_str_reset(&p->out);
    return fm_cli_child_run(&p->out, w, p->timeout_s, err);
}

fm_status fm_bench_peer_run(fm_bench_peer *p, const fm_bench_test *t, double *rate, fm_error *err)
{
    fm_cli_words w = {0};
    *rate = 0;
    fm_str_reset(&p->out);
    fm_status status = command(&w, p, t, err);
    for (int i = 0; status == FM_OK && p->out.n == 0 && i < RUNS_MAX; i++) status = run_once(p, &w, err);
    if (status == FM_OK) status = read_rate(p, t, w.v[0], rate, err);
    fm_cli_words_free(&w);
    return status;
}
