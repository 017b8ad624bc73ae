/* train_sweep.c - "fmamba train --sweep": short runs from one set of weights, which differ in the learning rate alone, with and
 * without the norms on dt, B and C if asked for; a table, a picture, and the rate that the losses suggest. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/train.h"
#include "plot/plot.h"

enum { SWEEP_MAX = 64 };

typedef struct sweep {
    const fm_cli *c;
    double low, high;
    size_t n;
    bool both;                                     /* with the norms, then without */
    char *out;                                     /* run.out */
    char *begin;                                   /* weights that all runs of a variant start from; NULL: not drawn yet */
    double rates[SWEEP_MAX], losses[2][SWEEP_MAX]; /* infinite: no number any more */
    FILE *log;
} sweep;

/* "1e-4:1e-1:8". */
static fm_status parse(sweep *s, const char *text, fm_error *err)
{
    const char *first = strchr(text, ':'), *second = first ? strchr(first + 1, ':') : NULL;
    uint64_t n = 0;
    const bool fits = second && fm_parse_f64((fm_view){text, (size_t)(first - text)}, &s->low) &&
                      fm_parse_f64((fm_view){first + 1, (size_t)(second - first - 1)}, &s->high) &&
                      fm_parse_u64(fm_view_of(second + 1), &n);
    if (!fits || !(s->low > 0) || !(s->high > s->low) || n < 2 || n > SWEEP_MAX)
        return fm_fail(err, FM_ERR_ARGUMENT, "--sweep %s: expected LOWEST:HIGHEST:N, rates above 0 and N from 2 to %d",
                       fm_quote_of(fm_view_of(text)).text, SWEEP_MAX);
    s->n = (size_t)n;
    for (size_t i = 0; i < s->n; i++) s->rates[i] = s->low * pow(s->high / s->low, (double)i / (double)(s->n - 1));
    return FM_OK;
}

/* ---- One run ---- */

static fm_status set(fm_train_job *j, const char *key, const char *value, fm_error *err)
{
    return fm_train_config_set(&j->o, key, 0, value, "--sweep", err);
}

/* The configuration of the run: its own folder and rate; weights of the first run of its variant; nothing is saved. */
static fm_status configure(fm_train_job *j, const sweep *s, bool plain, size_t i, fm_error *err)
{
    char rate[32], name[64];
    FM_TRY(fm_train_read_config(j, err));
    snprintf(rate, sizeof rate, "%.9g", s->rates[i]);
    snprintf(name, sizeof name, "%s-%.2e", plain ? "plain" : "norms", s->rates[i]);
    char *out = fm_path_join(s->out, name, NULL, err);
    if (!out) return FM_ERR_MEMORY;
    fm_status status = set(j, "run.out", out, err);
    fm_free(NULL, out);
    FM_TRY(status);
    if (s->begin) FM_TRY(set(j, "model.from", s->begin, err));
    if (s->both) FM_TRY(set(j, "model.norms", plain ? "false" : "true", err));
    return set(j, "optimizer.rate", rate, err);
}

static fm_status step_to_end(fm_train_job *j, double *loss, fm_error *err)
{
    double sum = 0;
    uint64_t n = 0;
    *loss = HUGE_VAL;
    while (fm_trainer_tokens(j->t) < j->o.tokens) {
        const double begun = fm_clock_s();
        j->stepped = fm_trainer_tokens(j->t);
        const fm_train_step s = fm_trainer_step(j->t);
        if (s.status != FM_OK) return fm_train_fail_step(j, &s, err);
        const bool last = s.tokens >= j->o.tokens;
        if (!s.finite) return FM_OK;
        fm_train_watch_step(j, &s, fm_clock_s() - begun, last);
        if (s.tokens > j->o.tokens - j->o.tokens / 10) sum += s.loss, n++;
        if (fm_cli_interrupted(NULL)) return fm_fail(err, FM_ERR_CANCELLED, "stopped");
    }
    *loss = n ? sum / (double)n : HUGE_VAL;
    return FM_OK;
}

/* Held-out text where there is any, else the mean of the last tenth. */
static fm_status measure(fm_train_job *j, double *loss, fm_error *err)
{
    fm_cli_score score;
    FM_TRY(step_to_end(j, loss, err));
    if (!j->val.n || !isfinite(*loss)) return FM_OK;
    FM_TRY(fm_train_evaluate(j, &score, err));
    *loss = fm_cli_score_nats(&score);
    return FM_OK;
}

static void log_run(const sweep *s, bool plain, size_t i)
{
    fm_str line = {0};
    fm_jsonw w = {.out = &line};
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "sweep_rate"), fm_jsonw_f64(&w, s->rates[i]);
    fm_jsonw_key(&w, "norms"), fm_jsonw_bool(&w, !plain);
    fm_jsonw_key(&w, "loss"), fm_jsonw_f64(&w, s->losses[plain][i]);
    fm_jsonw_end(&w, '}');
    if (!line.failed) fprintf(s->log, "%s\n", line.p);
    fflush(s->log);
    fm_str_free(&line);
}

static fm_status run_one(sweep *s, bool plain, size_t i, fm_error *err)
{
    fm_train_job j = {.c = s->c};
    fm_status status = configure(&j, s, plain, i, err);
    if (status == FM_OK) status = fm_train_open(&j, err);
    if (status == FM_OK && !s->begin && !j.o.from) {
        s->begin = fm_path_join(j.o.out, "begin", NULL, err);
        status = s->begin ? FM_OK : FM_ERR_MEMORY;
    }
    if (status == FM_OK) status = measure(&j, &s->losses[plain][i], err);
    fm_train_close(&j);
    if (status == FM_OK) log_run(s, plain, i);
    return status;
}

/* ---- All of them ---- */

static fm_status run_all(sweep *s, fm_error *err)
{
    fm_cli_catch_interrupt();
    for (int plain = 0; plain <= (int)s->both; plain++) {
        fm_free(NULL, s->begin);
        s->begin = NULL;
        for (size_t i = 0; i < s->n; i++) FM_TRY(run_one(s, plain, i, err));
    }
    return FM_OK;
}

static size_t best_of(const sweep *s, bool plain)
{
    size_t best = 0;
    for (size_t i = 1; i < s->n; i++)
        if (s->losses[plain][i] < s->losses[plain][best]) best = i;
    return best;
}

/* The lowest point of the parabola through the best rate and its neighbours, over the logarithm of the rate. */
static double suggest(const sweep *s, bool plain)
{
    const size_t i = best_of(s, plain);
    const double *y = s->losses[plain];
    if (i == 0 || i + 1 == s->n || !isfinite(y[i - 1]) || !isfinite(y[i + 1])) return s->rates[i];
    const double bend = y[i - 1] - 2 * y[i] + y[i + 1];
    const double shift = bend > 0 ? fmin(fmax((y[i - 1] - y[i + 1]) / (2 * bend), -0.5), 0.5) : 0;
    return s->rates[i] * pow(s->rates[i + 1] / s->rates[i], shift);
}

static void put_loss(fm_str *out, double loss)
{
    if (isfinite(loss))
        fm_str_printf(out, "  %13.4f", loss);
    else
        fm_str_printf(out, "  %13s", "diverged");
}

static void put_suggestion(fm_str *out, const sweep *s, bool plain)
{
    const size_t best = best_of(s, plain);
    const char *which = !s->both ? "" : plain ? " without the norms" : " with the norms";
    if (!isfinite(s->losses[plain][best]))
        fm_str_printf(out, "every rate diverged%s: sweep lower ones\n", which);
    else
        fm_str_printf(out, "suggested%s: optimizer.rate %.2e%s\n", which, suggest(s, plain),
                      best == 0          ? " or less: the best is the lowest of the sweep"
                      : best + 1 == s->n ? " or more: the best is the highest of the sweep"
                                         : "");
}

static int report(const sweep *s)
{
    fm_str out = {0};
    fm_str_printf(&out, "     rate           loss%s\n", s->both ? "  without norms" : "");
    for (size_t i = 0; i < s->n; i++) {
        fm_str_printf(&out, "%9.2e", s->rates[i]);
        for (int plain = 0; plain <= (int)s->both; plain++) put_loss(&out, s->losses[plain][i]);
        fm_str_putc(&out, '\n');
    }
    for (int plain = 0; plain <= (int)s->both; plain++) put_suggestion(&out, s, plain);
    return fm_cli_put(&out);
}

static fm_status draw(const sweep *s, const char *path, fm_error *err)
{
    fm_plot_log log;
    bool any = false;
    for (int plain = 0; plain <= (int)s->both; plain++) any |= isfinite(s->losses[plain][best_of(s, plain)]) != 0;
    if (!any) return FM_OK;
    FM_TRY(fm_plot_log_read(&log, path, NULL, err));
    char *picture = fm_path_join(s->out, "sweep.svg", NULL, err);
    const fm_status status = picture ? fm_plot_write(&log, 1, picture, err) : FM_ERR_MEMORY;
    if (status == FM_OK) fm_cli_note("the picture is %s", picture);
    fm_free(NULL, picture);
    fm_plot_log_free(&log);
    return status;
}

/* Where everything goes, from the configuration as it is. */
static fm_status begin(sweep *s, fm_error *err)
{
    fm_train_job j = {.c = s->c};
    fm_status status = fm_train_read_config(&j, err);
    if (status == FM_OK && s->both && j.o.from)
        status = fm_fail(err, FM_ERR_ARGUMENT, "--sweep-norms draws weights: give model.shape and not model.from");
    if (status == FM_OK) status = fm_dir_make(j.o.out, err);
    if (status == FM_OK) s->out = fm_path_join(j.o.out, "sweep", NULL, err);
    if (status == FM_OK) status = s->out ? fm_dir_make(s->out, err) : FM_ERR_MEMORY;
    fm_train_config_free(&j.o);
    return status;
}

int fm_train_sweep(const fm_cli *c)
{
    sweep s = {.c = c, .both = fm_opt_flag(&c->options, FM_OPT_SWEEP_NORMS)};
    fm_error err = {0};
    char *path = NULL;
    fm_status status = parse(&s, fm_opt_str(&c->options, FM_OPT_SWEEP), &err);
    if (status == FM_OK) status = begin(&s, &err);
    if (status == FM_OK) path = fm_path_join(s.out, "sweep.jsonl", NULL, &err);
    if (path) s.log = fopen(path, "w");
    if (path && !s.log) status = fm_fail_errno(&err, "cannot write %s", path);
    if (s.log) status = run_all(&s, &err);
    if (s.log) fclose(s.log);
    if (status == FM_OK && path) status = draw(&s, path, &err);
    const int code = status == FM_OK && path ? report(&s) : fm_cli_fail(&err);
    fm_free(NULL, path);
    fm_free(NULL, s.begin);
    fm_free(NULL, s.out);
    return code;
}
