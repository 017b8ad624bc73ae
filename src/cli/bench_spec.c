/* bench_spec.c - drafts beside plain decoding, on a text that is given: whatever the model thinks, the file's next token is what
 * it "chooses", and drafts are found as usual in what came before.  So the speed on a kind of text can be measured with weights
 * that mean nothing: neither the work of a step nor look-ups depend on them. */
#include <stdio.h>
#include <string.h>

#include "cli/common.h"
#include "runtime/draft/draft.h"

enum { WARM_UP = 3 };

typedef struct window {
    size_t first, n;       /* tokens of the file */
    double plain, drafted; /* seconds */
    fm_generated end;
} window;

typedef struct job {
    const fm_cli *c;
    const fm_model *m;
    fm_session *s;
    fm_seq plain, drafted;
    fm_model *draft_model;
    fm_draft *draft;
    int32_t *ids;
    size_t n_ids, n, rounds;
    fm_str out;
    fm_jsonw w;
} job;

/* ---- The text ---- */

static fm_status tokenize(job *j, const fm_str *text, fm_error *err)
{
    const char *path = fm_opt_str(&j->c->options, FM_OPT_TOKENIZER);
    const fm_tokenizer *t = path ? NULL : fm_model_tokenizer(j->m);
    fm_tokenizer *own = NULL;
    fm_str shipped = {0};
    if (!t && !path) FM_TRY(fm_cli_shipped_path(&shipped, err));
    fm_status status = t ? FM_OK : fm_tokenizer_open(&own, path ? path : shipped.p, NULL, err);
    if (status == FM_OK) status = fm_cli_tokenize(&j->ids, &j->n_ids, t ? t : own, (fm_view){text->p, text->n}, 0, err);
    fm_tokenizer_free(own);
    fm_str_free(&shipped);
    return status;
}

static fm_status read_file(job *j, fm_error *err)
{
    const char *path = fm_opt_str(&j->c->options, FM_OPT_SPEC_REPLAY);
    fm_str text = {0};
    fm_status status = fm_stream_read(&text, path, (size_t)1 << 28, err);
    if (status == FM_OK && text.p && strspn(text.p, "0123456789, \t\r\n[]") == text.n)
        status = fm_cli_parse_ids(&j->ids, &j->n_ids, path, err);
    else if (status == FM_OK)
        status = tokenize(j, &text, err);
    fm_str_free(&text);
    FM_TRY(status);
    if (j->n_ids > j->n * j->rounds) return FM_OK;
    return fm_fail(err, FM_ERR_ARGUMENT, "%s has %zu tokens, expected more than %zu rounds (-r) of %zu (-n)", path, j->n_ids,
                   j->rounds, j->n);
}

/* Round i's tokens: spread over the file, with as much before the first as between them. */
static window window_of(const job *j, size_t i)
{
    const size_t gap = (j->n_ids - j->n * j->rounds) / j->rounds;
    return (window){.first = gap + i * (gap + j->n), .n = j->n};
}

/* ---- The rounds ---- */

static fm_status run_plain(const job *j, window *w, fm_error *err)
{
    const double begun = fm_clock_s();
    for (size_t i = 0; i < w->n; i++) FM_TRY(fm_seq_append(j->s, j->plain, j->ids + w->first + i, 1, err));
    w->plain = fm_clock_s() - begun;
    return FM_OK;
}

/* What comes before is told, not computed: the time of a step does not depend on it. */
static fm_status run_drafted(const job *j, window *w, fm_error *err)
{
    FM_TRY(fm_draft_begin(j->draft, j->ids, w->first, err));
    FM_TRY(fm_draft_check(j->draft, j->s, err));
    const double begun = fm_clock_s();
    for (size_t i = 0; i < w->n; i++)
        FM_TRY(fm_draft_append(j->draft, j->s, j->drafted, j->ids[w->first + i], w->n - i - 1, err));
    fm_draft_end(j->draft, j->s, &w->end);
    w->drafted = fm_clock_s() - begun;
    return FM_OK;
}

/* One first, then the other, in turns. */
static fm_status run_round(const job *j, size_t i, window *w, fm_error *err)
{
    if (i % 2) FM_TRY(run_drafted(j, w, err));
    FM_TRY(run_plain(j, w, err));
    return i % 2 ? FM_OK : run_drafted(j, w, err);
}

static void put_row(job *j, const char *name, const window *w)
{
    const double n = (double)w->n, ratio = w->plain / w->drafted;
    const unsigned long long drafted = w->end.drafted, accepted = w->end.accepted;
    if (fm_opt_flag(&j->c->options, FM_OPT_JSON)) {
        fm_jsonw_object(&j->w);
        fm_jsonw_key(&j->w, "test"), fm_jsonw_cstr(&j->w, name);
        fm_jsonw_key(&j->w, "tokens"), fm_jsonw_u64(&j->w, w->n);
        fm_jsonw_key(&j->w, "plain_tok_s"), fm_jsonw_f64(&j->w, n / w->plain);
        fm_jsonw_key(&j->w, "tok_s"), fm_jsonw_f64(&j->w, n / w->drafted);
        fm_jsonw_key(&j->w, "ratio"), fm_jsonw_f64(&j->w, ratio);
        fm_jsonw_key(&j->w, "drafted"), fm_jsonw_u64(&j->w, drafted);
        fm_jsonw_key(&j->w, "accepted"), fm_jsonw_u64(&j->w, accepted);
        fm_jsonw_end(&j->w, '}');
    } else if (fm_opt_flag(&j->c->options, FM_OPT_CSV)) {
        printf("%s,%zu,%.3f,%.3f,%.3f,%llu,%llu\n", name, w->n, n / w->plain, n / w->drafted, ratio, drafted, accepted);
    } else {
        printf("%-10s %8zu %12.2f %12.2f %7.2fx %8llu %8llu %6.0f %%\n", name, w->n, n / w->plain, n / w->drafted, ratio,
               drafted, accepted, drafted ? 100 * (double)accepted / (double)drafted : 0.0);
    }
    fflush(stdout);
}

static void put_head(job *j)
{
    const fm_model_info i = fm_model_get_info(j->m);
    if (fm_opt_flag(&j->c->options, FM_OPT_JSON)) {
        j->w = (fm_jsonw){.out = &j->out};
        fm_jsonw_array(&j->w);
    } else if (fm_opt_flag(&j->c->options, FM_OPT_CSV)) {
        puts("test,tokens,plain_tok_s,tok_s,ratio,drafted,accepted");
    } else {
        printf("%s %s, kernels %s, %u threads; %s, %zu tokens\n%-10s %8s %12s %12s %8s %8s %8s\n", i.name, i.type,
               fm_session_kernels(j->s), fm_session_threads(j->s), fm_opt_str(&j->c->options, FM_OPT_SPEC_REPLAY), j->n_ids,
               "test", "tokens", "plain tok/s", "tok/s", "ratio", "drafted", "accepted");
    }
}

/* The draft learns what steps of several sizes cost, as it does in the first seconds of a long talk. */
static fm_status warm_up(const job *j, fm_error *err)
{
    for (size_t i = 0; i < WARM_UP; i++) FM_TRY(fm_seq_append(j->s, j->plain, j->ids, 1, err));
    return fm_trial_room(j->s) > 1 ? fm_trial_begin(j->s, j->drafted, j->ids, 2, err) : FM_OK;
}

static fm_status run_rounds(job *j, fm_error *err)
{
    window all = {.n = 0};
    put_head(j);
    FM_TRY(warm_up(j, err));
    for (size_t i = 0; i < j->rounds; i++) {
        window w = window_of(j, i);
        char name[32];
        FM_TRY(run_round(j, i, &w, err));
        snprintf(name, sizeof name, "at %zu", w.first);
        put_row(j, name, &w);
        all.n += w.n;
        all.plain += w.plain;
        all.drafted += w.drafted;
        all.end.drafted += w.end.drafted;
        all.end.accepted += w.end.accepted;
    }
    put_row(j, "all", &all);
    if (!fm_opt_flag(&j->c->options, FM_OPT_JSON)) return FM_OK;
    fm_jsonw_end(&j->w, ']');
    fm_str_putc(&j->out, '\n');
    return FM_OK;
}

/* ---- Around it ---- */

static fm_status open_job(job *j, fm_error *err)
{
    const fm_options *o = &j->c->options;
    const char *path = fm_opt_str(o, FM_OPT_DRAFT_MODEL);
    fm_session_options so = fm_cli_session_options(j->c, 2);
    fm_draft_options d = fm_cli_draft_options(j->c);
    j->rounds = (size_t)fm_opt_int(o, FM_OPT_REPEATS);
    if (fm_cli_int_list(fm_opt_str(o, FM_OPT_BENCH_GEN), &j->n, 1) != 1 || !j->n)
        return fm_fail(err, FM_ERR_ARGUMENT, "-n: expected one number of tokens with --spec-replay");
    so.draft_max = d.max;
    FM_TRY(read_file(j, err));
    if (path) FM_TRY(fm_model_open(&j->draft_model, path, NULL, err));
    d.model = j->draft_model;
    FM_TRY(fm_session_open(&j->s, j->m, &so, err));
    FM_TRY(fm_seq_new(j->s, &j->plain, err));
    FM_TRY(fm_seq_new(j->s, &j->drafted, err));
    return fm_draft_open(&j->draft, j->m, &d, err);
}

int fm_cli_bench_spec(const fm_cli *c, const fm_model *m)
{
    job j = {.c = c, .m = m};
    fm_error err = {0};
    fm_status status = open_job(&j, &err);
    if (status == FM_OK) status = run_rounds(&j, &err);
    const int code = status == FM_OK ? fm_cli_put(&j.out) : fm_cli_fail(&err);
    fm_draft_free(j.draft);
    fm_session_free(j.s);
    fm_model_free(j.draft_model);
    fm_free(NULL, j.ids);
    fm_str_free(&j.out);
    return code;
}
