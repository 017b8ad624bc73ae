/* cmd_bench.c - tokens per second of prefill and decode, alone and in batches. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/convert.h"
#include "runtime/session.h"

enum { LENGTHS_MAX = 32 };

/* What is kept of each round. */
enum { OURS, PEER, RATIO, LIMIT, REACHED, READ, PEAKS, N_SERIES = PEAKS + FM_PEAK_COUNT };

typedef struct job {
    const fm_cli *c;
    fm_str path; /* of the model */
    bool made;   /* it is removed at the end */
    fm_model *m;
    fm_session *s;
    fm_seq *seqs;    /* (batch_max) */
    fm_span *spans;  /* (batch_max) */
    int32_t *tokens; /* (longest) any ids do: the work does not depend on them */
    int32_t *chosen; /* (batch_max) what decoding would go on with */
    size_t prompts[LENGTHS_MAX], gens[LENGTHS_MAX], batches[LENGTHS_MAX], n_prompts, n_gens, n_batches, batch_max, repeats;
    double *series;              /* (N_SERIES, repeats) */
    fm_bench_peer *peer;         /* NULL: none */
    fm_bench_roofline *roofline; /* NULL: none */
    fm_bench_rows rows;
} job;

/* ---- One round ---- */

/* One pass: prefill appends `length` tokens to each sequence at once and wants the last logits; decode appends one at a time
 * and wants the likeliest next. */
static fm_status pass(job *j, const fm_bench_test *t, double *rate, fm_error *err)
{
    const size_t steps = t->prefill ? 1 : t->length;
    for (size_t i = 0; i < t->batch; i++) FM_TRY(fm_seq_reset(j->s, j->seqs[i], err));
    const double begun = fm_clock_s();
    for (size_t k = 0; k < steps; k++) {
        for (size_t i = 0; i < t->batch; i++)
            j->spans[i] = (fm_span){.seq = j->seqs[i],
                                    .tokens = j->tokens + (t->prefill ? 0 : k),
                                    .n = t->prefill ? t->length : 1,
                                    .want = t->prefill ? FM_WANT_LAST : FM_WANT_LIKELIEST,
                                    .id = &j->chosen[i]};
        FM_TRY(fm_step(j->s, j->spans, t->batch, err));
    }
    *rate = (double)(t->length * t->batch) / (fm_clock_s() - begun);
    return FM_OK;
}

/* A shorter pass, so that neither memory nor caches are those of whatever ran before. */
static fm_status warm_up(job *j, const fm_bench_test *t, fm_error *err)
{
    fm_bench_test brief = *t;
    const size_t most = t->prefill ? 64 : 4;
    double ignored;
    if (brief.length > most) brief.length = most;
    return pass(j, &brief, &ignored, err);
}

static double *series(const job *j, int which)
{
    return j->series + (size_t)which * j->repeats;
}

static void measure_machine(job *j, const fm_bench_test *t, size_t i, fm_bench_row *row)
{
    const fm_bench_machine machine = fm_bench_roofline_measure(j->roofline);
    const fm_bench_limit limit = fm_bench_roofline_limit(j->roofline, &machine, t);
    series(j, LIMIT)[i] = limit.rate;
    series(j, READ)[i] = machine.read;
    for (int k = 0; k < FM_PEAK_COUNT; k++) series(j, PEAKS + k)[i] = machine.peak[k];
    row->limited_by = limit.by;
}

static fm_status run_round(job *j, const fm_bench_test *t, size_t i, fm_bench_row *row, fm_error *err)
{
    if (j->roofline) measure_machine(j, t, i, row);
    if (i == 0 || j->roofline || j->peer) FM_TRY(warm_up(j, t, err));
    FM_TRY(pass(j, t, &series(j, OURS)[i], err));
    if (j->peer && fm_bench_peer_takes(j->peer, t)) FM_TRY(fm_bench_peer_run(j->peer, t, &series(j, PEER)[i], err));
    const double ours = series(j, OURS)[i];
    series(j, RATIO)[i] = series(j, PEER)[i] > 0 ? ours / series(j, PEER)[i] : 0;
    series(j, REACHED)[i] = series(j, LIMIT)[i] > 0 ? ours / series(j, LIMIT)[i] : 0;
    return FM_OK;
}

/* ---- A row: its rounds, their medians ---- */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

fm_bench_spread fm_bench_spread_of(double *v, size_t n)
{
    qsort(v, n, sizeof *v, compare);
    return (fm_bench_spread){.median = 0.5 * (v[(n - 1) / 2] + v[n / 2]), .min = v[0], .max = v[n - 1]};
}

static fm_bench_spread spread(job *j, int which)
{
    return fm_bench_spread_of(series(j, which), j->repeats);
}

static fm_status run_test(job *j, const fm_bench_test *t, fm_error *err)
{
    fm_bench_row row = {.test = *t};
    for (size_t i = 0; i < N_SERIES * j->repeats; i++) j->series[i] = 0;
    for (size_t i = 0; i < j->repeats; i++) FM_TRY(run_round(j, t, i, &row, err));
    row.ours = spread(j, OURS);
    row.peer = spread(j, PEER);
    row.ratio = spread(j, RATIO);
    row.limit = spread(j, LIMIT);
    row.reached = spread(j, REACHED);
    row.machine.read = spread(j, READ).median;
    for (int k = 0; k < FM_PEAK_COUNT; k++) row.machine.peak[k] = spread(j, PEAKS + k).median;
    fm_bench_rows_put(&j->rows, &row);
    return FM_OK;
}

static fm_status run_tests(job *j, bool prefill, const size_t *lengths, size_t n, size_t batch, fm_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (lengths[i]) FM_TRY(run_test(j, &(fm_bench_test){.prefill = prefill, .length = lengths[i], .batch = batch}, err));
    return FM_OK;
}

/* What inspect says beside what the device says; cuBLASLt and recorded steps are in it by now. */
static fm_status note_memory(const job *j, fm_error *err)
{
    const fm_session_options o = fm_cli_session_options(j->c, j->batch_max);
    fm_device_bytes b;
    if (!j->m->device) return FM_OK;
    FM_TRY(fm_session_device_bytes(j->m, &o, &b, err));
    fm_cli_note("memory of %s: %zu MiB predicted (weights %zu, states %zu, scratch %zu), %zu MiB in use", fm_model_device(j->m),
                fm_device_bytes_sum(&b) >> 20, b.weights >> 20, b.states >> 20, b.scratch >> 20,
                fm_device_in_use(j->m->device) >> 20);
    return FM_OK;
}

static fm_status run_all(job *j, fm_error *err)
{
    fm_bench_machine machine = {0};
    double mapped = 0;
    if (j->roofline) {
        machine = fm_bench_roofline_measure(j->roofline);
        FM_TRY(fm_bench_roofline_mapped(j->roofline, j->path.p, &mapped, err));
    }
    j->rows = (fm_bench_rows){.c = j->c, .m = j->m, .s = j->s, .has_peer = j->peer, .roofline = j->roofline};
    fm_bench_rows_begin(&j->rows, &machine, mapped);
    for (size_t b = 0; b < j->n_batches; b++) {
        FM_TRY(run_tests(j, true, j->prompts, j->n_prompts, j->batches[b], err));
        FM_TRY(run_tests(j, false, j->gens, j->n_gens, j->batches[b], err));
    }
    return note_memory(j, err);
}

/* ---- The model: a file, or one made up for the occasion ---- */

static fm_status make_model(job *j, fm_error *err)
{
    const fm_cli *c = j->c;
    const char *folder = fm_environment("TMPDIR");
    fm_cli_conversion v;
    fm_str_printf(&j->path, "%s/fmamba-bench-%ld.gguf", folder ? folder : P_tmpdir, (long)getpid());
    FM_TRY(fm_str_ok(&j->path, "a path", err));
    j->made = true;
    fm_cli_conversion_begin(&v, c, "drawing");
    v.options.name = fm_opt_str(&c->options, FM_OPT_SHAPE);
    const fm_status status = fm_synth(fm_opt_str(&c->options, FM_OPT_SHAPE), fm_opt_str(&c->options, FM_OPT_QUANT_TYPE), 1,
                                      j->path.p, &v.options, &v.result, err);
    fm_cli_bar_end(&v.bar);
    return status;
}

static void remove_made(job *j)
{
    if (j->made) unlink(j->path.p);
    j->made = false;
}

/* The file of a made-up model is removed at once, the mapping keeps it as long as it is needed; but not from under others who
 * are to open it too. */
static fm_status open_model(job *j, fm_error *err)
{
    const fm_options *o = &j->c->options;
    const bool shared = fm_opt_given(o, FM_OPT_PEER) || fm_opt_given(o, FM_OPT_PEER_BATCHED) || fm_opt_flag(o, FM_OPT_ROOFLINE);
    if (!fm_opt_given(o, FM_OPT_SHAPE)) {
        FM_TRY(fm_cli_model_path(&j->path, j->c, err));
        return fm_cli_model_open(&j->m, j->c, j->batch_max, err);
    }
    FM_TRY(make_model(j, err));
    FM_TRY(fm_cli_model_open_path(&j->m, j->c, j->path.p, j->batch_max, err));
    if (!shared) remove_made(j);
    return FM_OK;
}

static size_t largest(const size_t *v, size_t n)
{
    size_t max = 0;
    for (size_t i = 0; i < n; i++) max = v[i] > max ? v[i] : max;
    return max;
}

static bool read_lengths(job *j)
{
    const fm_options *o = &j->c->options;
    j->n_prompts = fm_cli_int_list(fm_opt_str(o, FM_OPT_BENCH_PROMPT), j->prompts, LENGTHS_MAX);
    j->n_gens = fm_cli_int_list(fm_opt_str(o, FM_OPT_BENCH_GEN), j->gens, LENGTHS_MAX);
    j->n_batches = fm_cli_int_list(fm_opt_str(o, FM_OPT_BATCH), j->batches, LENGTHS_MAX);
    j->batch_max = largest(j->batches, j->n_batches);
    j->repeats = (size_t)fm_opt_int(o, FM_OPT_REPEATS);
    for (size_t i = 0; i < j->n_batches; i++)
        if (!j->batches[i]) return false;
    return j->n_prompts && j->n_gens && j->n_batches;
}

static fm_status open_job(job *j, fm_error *err)
{
    const size_t p = largest(j->prompts, j->n_prompts), g = largest(j->gens, j->n_gens), n = (p > g ? p : g) + 1;
    FM_TRY(open_model(j, err));
    FM_TRY(fm_cli_session_open(&j->s, j->m, j->c, j->batch_max, err));
    FM_TRY(fm_alloc((void **)&j->seqs, NULL, j->batch_max, sizeof *j->seqs, "the sequences", err));
    FM_TRY(fm_alloc((void **)&j->spans, NULL, j->batch_max, sizeof *j->spans, "the sequences", err));
    FM_TRY(fm_alloc((void **)&j->chosen, NULL, j->batch_max, sizeof *j->chosen, "the chosen tokens", err));
    FM_TRY(fm_alloc((void **)&j->tokens, NULL, n, sizeof *j->tokens, "the tokens", err));
    FM_TRY(fm_alloc((void **)&j->series, NULL, N_SERIES * j->repeats, sizeof *j->series, "the results", err));
    for (size_t i = 0; i < n; i++) j->tokens[i] = (int32_t)((i * 7919 + 13) % fm_model_get_info(j->m).vocab);
    for (size_t i = 0; i < j->batch_max; i++) FM_TRY(fm_seq_new(j->s, &j->seqs[i], err));
    FM_TRY(fm_bench_peer_open(&j->peer, j->c, j->path.p, fm_session_threads(j->s), err));
    return fm_opt_flag(&j->c->options, FM_OPT_ROOFLINE) ? fm_bench_roofline_open(&j->roofline, j->c, j->m, j->s, err) : FM_OK;
}

static void close_job(job *j)
{
    remove_made(j);
    fm_bench_roofline_free(j->roofline);
    fm_bench_peer_free(j->peer);
    fm_free(NULL, j->series);
    fm_free(NULL, j->tokens);
    fm_free(NULL, j->chosen);
    fm_free(NULL, j->spans);
    fm_free(NULL, j->seqs);
    fm_session_free(j->s);
    fm_model_free(j->m);
    fm_str_free(&j->rows.out);
    fm_str_free(&j->path);
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    job j = {.c = c};
    if (!read_lengths(&j))
        return fm_cli_usage(c, "-p, -n and --batch take numbers separated by commas, at most %d", LENGTHS_MAX);
    fm_status status = open_job(&j, &err);
    const bool spec = fm_opt_given(&c->options, FM_OPT_SPEC_REPLAY);
    if (status == FM_OK && !spec) status = run_all(&j, &err);
    const int code = status != FM_OK ? fm_cli_fail(&err) : spec ? fm_cli_bench_spec(c, j.m) : fm_bench_rows_end(&j.rows);
    close_job(&j);
    return code;
}

static const fm_opt options[] = {
    FM_OPTS_COMMON,     FM_OPTS_MODEL,      FM_OPTS_ENGINE,      FM_OPT_STATES,       FM_OPT_SHAPE,     FM_OPT_QUANT_TYPE,
    FM_OPT_NAME,        FM_OPT_TOKENIZER,   FM_OPT_BENCH_PROMPT, FM_OPT_BENCH_GEN,    FM_OPT_BATCH,     FM_OPT_REPEATS,
    FM_OPT_ROOFLINE,    FM_OPT_PEER,        FM_OPT_PEER_BATCHED, FM_OPT_PEER_TIMEOUT, FM_OPT_DRAFT_MIN, FM_OPT_DRAFT_ADAPT,
    FM_OPT_SPEC_REPLAY, FM_OPT_DRAFT_MODEL, FM_OPT_DRAFT_MAX,    FM_OPT_JSON,         FM_OPT_CSV,       FM_OPT_END};

const fm_command fm_command_bench = {
    .name = "bench",
    .summary = "measure tokens per second, beside another program and the limits of the machine",
    .usage = "[-m MODEL | --shape NAME --type TYPE] [-p N,...] [-n N,...] [--batch N,...] [-r N] [--peer CMD] [--roofline] "
             "[--spec-replay FILE] [--json | --csv]",
    .details =
        "ppN is the prefill of N tokens, of which only the last position's logits are computed; tgN decodes N tokens "
        "one by one, the likeliest of each; "
        "with a batch, in that many sequences at once.  tok_s is the median of -r runs after a short one that warms up.\n\n"
        "--peer and --peer-batched take llama.cpp's llama-bench and llama-batched-bench, or what speaks like them.  In each "
        "round of a row fmamba runs first, then CMD with that one test, and the ratio is taken round by round, so that a "
        "machine that slows down slows both.  CMD is split at blanks, '...', \"...\" and \\ quote, nothing else is special "
        "and no shell runs; what is added to it: the test, -m and -t where it has none of its own.\n\n"
        "--roofline measures in each round what the machine reads and multiplies with as many threads, and prints the "
        "tokens per second that this allows, and which part of it was reached.\n\n"
        "--spec-replay decodes -r parts of FILE, -n tokens each, with drafts (as generate --spec-type ngram does) and without, "
        "in turns: the file says what the model chooses, guesses come from what stands before, and ratio is what they gain.",
    .options = options,
    .max_operands = 0,
    .run = run,
};
