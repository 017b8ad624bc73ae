/* cmd_bench.c - tokens per second of prefill and decode, alone and in batches. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/common.h"
#include "cli/convert.h"

enum { LENGTHS_MAX = 32 };

typedef struct result {
    char test[32];
    size_t batch;
    double median, min, max; /* tok/s */
} result;

typedef struct job {
    const fm_cli *c;
    fm_model *m;
    fm_session *s;
    fm_seq *seqs;    /* (batch_max) */
    fm_span *spans;  /* (batch_max) */
    int32_t *tokens; /* (longest) any ids do: the work does not depend on them */
    size_t prompts[LENGTHS_MAX], gens[LENGTHS_MAX], batches[LENGTHS_MAX], n_prompts, n_gens, n_batches, batch_max, repeats;
    double *rates; /* (repeats) */
    fm_str out;
    fm_jsonw w;
    size_t n_rows;
} job;

/* One pass: prefill appends `length` tokens to each sequence at once and wants the last logits; decode appends one at a time. */
static fm_status pass(job *j, bool prefill, size_t length, size_t batch, double *rate, fm_error *err)
{
    const size_t steps = prefill ? 1 : length;
    for (size_t i = 0; i < batch; i++) FM_TRY(fm_seq_reset(j->s, j->seqs[i], err));
    const double begun = fm_cli_now();
    for (size_t k = 0; k < steps; k++) {
        for (size_t i = 0; i < batch; i++)
            j->spans[i] = (fm_span){.seq = j->seqs[i], .tokens = j->tokens + (prefill ? 0 : k), .n = prefill ? length : 1};
        FM_TRY(fm_step(j->s, j->spans, batch, err));
    }
    *rate = (double)(length * batch) / (fm_cli_now() - begun);
    return FM_OK;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static fm_status measure(job *j, bool prefill, size_t length, size_t batch, result *r, fm_error *err)
{
    double ignored;
    FM_TRY(pass(j, prefill,
                prefill && length > 64  ? 64
                : prefill || length < 4 ? length
                                        : 4,
                batch, &ignored, err)); /* warm-up */
    for (size_t i = 0; i < j->repeats; i++) FM_TRY(pass(j, prefill, length, batch, &j->rates[i], err));
    qsort(j->rates, j->repeats, sizeof *j->rates, compare);
    snprintf(r->test, sizeof r->test, "%s%zu", prefill ? "pp" : "tg", length);
    r->batch = batch;
    r->median = 0.5 * (j->rates[(j->repeats - 1) / 2] + j->rates[j->repeats / 2]);
    r->min = j->rates[0];
    r->max = j->rates[j->repeats - 1];
    return FM_OK;
}

/* ---- Rows, printed as they come ---- */

static void put_json(job *j, const result *r)
{
    fm_jsonw_object(&j->w);
    fm_jsonw_key(&j->w, "test"), fm_jsonw_cstr(&j->w, r->test);
    fm_jsonw_key(&j->w, "batch"), fm_jsonw_u64(&j->w, r->batch);
    fm_jsonw_key(&j->w, "tok_s"), fm_jsonw_f64(&j->w, r->median);
    fm_jsonw_key(&j->w, "min"), fm_jsonw_f64(&j->w, r->min);
    fm_jsonw_key(&j->w, "max"), fm_jsonw_f64(&j->w, r->max);
    fm_jsonw_key(&j->w, "model"), fm_jsonw_cstr(&j->w, fm_model_get_info(j->m).name);
    fm_jsonw_key(&j->w, "type"), fm_jsonw_cstr(&j->w, fm_model_get_info(j->m).type);
    fm_jsonw_key(&j->w, "threads"), fm_jsonw_u64(&j->w, fm_session_threads(j->s));
    fm_jsonw_key(&j->w, "kernels"), fm_jsonw_cstr(&j->w, fm_session_kernels(j->s));
    fm_jsonw_end(&j->w, '}');
}

static void put_row(job *j, const result *r)
{
    const fm_model_info i = fm_model_get_info(j->m);
    if (fm_opt_flag(&j->c->options, FM_OPT_JSON)) {
        put_json(j, r);
    } else if (fm_opt_flag(&j->c->options, FM_OPT_CSV)) {
        if (!j->n_rows++) puts("model,type,kernels,threads,test,batch,tok_s,min,max");
        printf("%s,%s,%s,%u,%s,%zu,%.3f,%.3f,%.3f\n", i.name, i.type, fm_session_kernels(j->s), fm_session_threads(j->s),
               r->test, r->batch, r->median, r->min, r->max);
    } else {
        if (!j->n_rows++)
            printf("%s %s, kernels %s, %u threads\n%-10s %6s %12s %12s %12s\n", i.name, i.type, fm_session_kernels(j->s),
                   fm_session_threads(j->s), "test", "batch", "tok/s", "min", "max");
        printf("%-10s %6zu %12.2f %12.2f %12.2f\n", r->test, r->batch, r->median, r->min, r->max);
    }
    fflush(stdout);
}

static fm_status run_tests(job *j, bool prefill, const size_t *lengths, size_t n, size_t batch, fm_error *err)
{
    for (size_t i = 0; i < n; i++) {
        result r;
        if (!lengths[i]) continue;
        FM_TRY(measure(j, prefill, lengths[i], batch, &r, err));
        put_row(j, &r);
    }
    return FM_OK;
}

static fm_status run_all(job *j, fm_error *err)
{
    j->w = (fm_jsonw){.out = &j->out};
    fm_jsonw_array(&j->w);
    for (size_t b = 0; b < j->n_batches; b++) {
        FM_TRY(run_tests(j, true, j->prompts, j->n_prompts, j->batches[b], err));
        FM_TRY(run_tests(j, false, j->gens, j->n_gens, j->batches[b], err));
    }
    fm_jsonw_end(&j->w, ']');
    fm_str_putc(&j->out, '\n');
    return FM_OK;
}

/* ---- The model: a file, or one made up for the occasion ---- */

static fm_status make_model(const fm_cli *c, fm_str *path, fm_error *err)
{
    const char *folder = fm_environment("TMPDIR");
    fm_cli_conversion v;
    fm_str_printf(path, "%s/fmamba-bench-%ld.gguf", folder ? folder : P_tmpdir, (long)getpid());
    FM_TRY(fm_str_ok(path, "a path", err));
    fm_cli_conversion_begin(&v, c, "drawing");
    v.options.name = fm_opt_str(&c->options, FM_OPT_SHAPE);
    const fm_status status = fm_synth(fm_opt_str(&c->options, FM_OPT_SHAPE), fm_opt_str(&c->options, FM_OPT_QUANT_TYPE), 1,
                                      path->p, &v.options, &v.result, err);
    fm_cli_bar_end(&v.bar);
    return status;
}

/* The file of a made-up model is removed at once: the mapping keeps it as long as it is needed. */
static fm_status open_model(job *j, fm_error *err)
{
    fm_str path = {0};
    if (!fm_opt_given(&j->c->options, FM_OPT_SHAPE)) return fm_cli_model_open(&j->m, j->c, err);
    fm_status status = make_model(j->c, &path, err);
    if (status == FM_OK) status = fm_model_open(&j->m, path.p, NULL, err);
    if (path.p) unlink(path.p);
    fm_str_free(&path);
    return status;
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
    FM_TRY(fm_alloc((void **)&j->tokens, NULL, n, sizeof *j->tokens, "the tokens", err));
    FM_TRY(fm_alloc((void **)&j->rates, NULL, j->repeats, sizeof *j->rates, "the results", err));
    for (size_t i = 0; i < n; i++) j->tokens[i] = (int32_t)((i * 7919 + 13) % fm_model_get_info(j->m).vocab);
    for (size_t i = 0; i < j->batch_max; i++) FM_TRY(fm_seq_new(j->s, &j->seqs[i], err));
    return FM_OK;
}

static void close_job(job *j)
{
    fm_free(NULL, j->rates);
    fm_free(NULL, j->tokens);
    fm_free(NULL, j->spans);
    fm_free(NULL, j->seqs);
    fm_session_free(j->s);
    fm_model_free(j->m);
    fm_str_free(&j->out);
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    job j = {.c = c};
    if (!read_lengths(&j))
        return fm_cli_usage(c, "-p, -n and --batch take numbers separated by commas, at most %d", LENGTHS_MAX);
    fm_status status = open_job(&j, &err);
    if (status == FM_OK) status = run_all(&j, &err);
    int code = status == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
    if (status == FM_OK && fm_opt_flag(&c->options, FM_OPT_JSON)) code = fm_cli_put(&j.out);
    close_job(&j);
    return code;
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPTS_MODEL,    FM_OPTS_ENGINE,      FM_OPT_SHAPE,     FM_OPT_QUANT_TYPE,
                                 FM_OPT_NAME,    FM_OPT_TOKENIZER, FM_OPT_BENCH_PROMPT, FM_OPT_BENCH_GEN, FM_OPT_BATCH,
                                 FM_OPT_REPEATS, FM_OPT_JSON,      FM_OPT_CSV,          FM_OPT_END};

const fm_command fm_command_bench = {
    .name = "bench",
    .summary = "measure tokens per second",
    .usage = "[-m MODEL | --shape NAME --type TYPE] [-p N,...] [-n N,...] [--batch N,...] [-r N] [--json | --csv]",
    .details = "ppN is the prefill of N tokens, of which only the last position's logits are computed; tgN decodes N tokens "
               "one by one; "
               "with a batch, in that many sequences at once.  tok_s is the median of -r runs after a short one that warms up.",
    .options = options,
    .max_operands = 0,
    .run = run,
};
