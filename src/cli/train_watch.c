/* train_watch.c - how training goes: a live line for people and a log of JSON lines for programs. */
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cpu.h"
#include "cli/bench.h"
#include "cli/train.h"
#include "train/estimate.h"

#define DRAW_SECONDS  0.1 /* between two drawings at a terminal */
#define PRINT_SECONDS 10  /* between two lines where there is none */
#define COLUMNS_ELSE  100

/* ---- Opening ---- */

/* Multiplications and additions in f32 that these threads can do a second, measured in a few hundredths of one; of a device, its
 * products in bf16. */
static fm_status measure_peak(double *peak, const fm_train_job *j, fm_error *err)
{
    const fm_cli *c = j->c;
    double read;
    unsigned features;
    fm_peaks peaks;
    fm_pool *pool;
    if (j->m->device) {
        fm_device_peaks(j->m->device, &read, peak);
        return FM_OK;
    }
    FM_TRY(fm_cpu_cap(&features, fm_opt_str(&c->options, FM_OPT_CPU), err));
    fm_peaks_for(&peaks, features);
    FM_TRY(fm_pool_open(&pool, (unsigned)fm_opt_int(&c->options, FM_OPT_THREADS), NULL, err));
    *peak = fm_bench_peak_rate(pool, &peaks, FM_PEAK_F32);
    fm_pool_free(pool);
    return FM_OK;
}

static fm_status open_log(fm_train_job *j, fm_error *err)
{
    FM_TRY(fm_dir_make(j->o.out, err));
    char *path = fm_path_join(j->o.out, "log.jsonl", NULL, err);
    if (!path) return FM_ERR_MEMORY;
    j->watch.log = fopen(path, "a");
    const fm_status status = j->watch.log ? FM_OK : fm_fail_errno(err, "cannot write the log %s", path);
    fm_free(NULL, path);
    return status;
}

fm_status fm_train_watch_open(fm_train_job *j, fm_error *err)
{
    fm_train_watch *w = &j->watch;
    w->flops = 3 * fm_forward_flops(&j->m->config); /* forward and backward */
    FM_TRY(open_log(j, err));
    w->peak = j->o.peak * 1e9;
    if (!(w->peak > 0.0)) FM_TRY(measure_peak(&w->peak, j, err));
    w->begun = fm_clock_s();
    w->begun_tokens = fm_trainer_tokens(j->t);
    return FM_OK;
}

/* ---- The live line ---- */

static size_t columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : COLUMNS_ELSE;
}

/* Blanks over the line instead of escape codes: they work at any terminal. */
static void wipe(fm_train_watch *w)
{
    if (w->width) fprintf(stderr, "\r%*s\r", (int)w->width, "");
    w->width = 0;
}

void fm_train_watch_close(fm_train_job *j)
{
    if (j->watch.width) fputc('\n', stderr);
    if (j->watch.log) fclose(j->watch.log);
    j->watch.log = NULL;
}

void fm_train_say(fm_train_job *j, const char *fmt, ...)
{
    va_list args;
    if (j->watch.quiet) return;
    wipe(&j->watch);
    fputs("fmamba: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

static void put_time(fm_str *out, double s)
{
    const long minutes = lround(s / 60);
    if (!(s < 1e8))
        fm_str_puts(out, "? left");
    else if (s < 100)
        fm_str_printf(out, "%.0f s left", s);
    else if (minutes < 100)
        fm_str_printf(out, "%ld min left", minutes);
    else
        fm_str_printf(out, "%ld h %02ld min left", minutes / 60, minutes % 60);
}

static void put_live_line(fm_str *out, const fm_train_job *j, const fm_train_step *s, double rate)
{
    const fm_train_watch *w = &j->watch;
    const double elapsed = fm_clock_s() - w->begun, seen = (double)(s->tokens - w->begun_tokens),
                 left = s->tokens < j->o.tokens ? (double)(j->o.tokens - s->tokens) : 0.0;
    fm_str_printf(out, "step %llu  loss %.4f  ppl %.4g  lr %.2e  batch %u  %.0f tok/s  ", (unsigned long long)s->step, s->loss,
                  exp(s->loss), s->rate, s->batch, rate);
    if (w->peak > 0) fm_str_printf(out, "MFU %.1f %%  ", 100 * w->flops * rate / w->peak);
    fm_str_printf(out, "norm %.3f  ", s->grad_norm);
    put_time(out, seen > 0 ? left * elapsed / seen : HUGE_VAL);
}

static void draw(fm_train_job *j, const fm_train_step *s, double rate, bool last)
{
    fm_train_watch *w = &j->watch;
    const bool terminal = fm_cli_is_terminal(STDERR_FILENO);
    const double now = fm_clock_s();
    fm_str line = {0};
    if (w->quiet || (!last && w->drawn > 0 && now - w->drawn < (terminal ? DRAW_SECONDS : PRINT_SECONDS))) return;
    put_live_line(&line, j, s, rate);
    if (!line.failed && terminal) {
        const size_t room = columns(), n = line.n < room ? line.n : room;
        fprintf(stderr, "\r%.*s%*s", (int)n, line.p, w->width > n ? (int)(w->width - n) : 0, "");
        w->width = n > w->width ? n : w->width;
    } else if (!line.failed) {
        fprintf(stderr, "%s\n", line.p);
    }
    fm_str_free(&line);
    w->drawn = now;
}

/* ---- The log ---- */

fm_jsonw fm_train_log_begin(fm_str *line, const fm_train_step *s)
{
    fm_jsonw w = {.out = line};
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "step"), fm_jsonw_u64(&w, s->step);
    fm_jsonw_key(&w, "tokens"), fm_jsonw_u64(&w, s->tokens);
    return w;
}

/* Whole lines, at once: who reads the file while it grows never sees half of one. */
void fm_train_log_end(fm_train_job *j, fm_jsonw *w)
{
    fm_jsonw_end(w, '}');
    fm_str_putc(w->out, '\n');
    if (!w->out->failed) fwrite(w->out->p, 1, w->out->n, j->watch.log);
    fflush(j->watch.log);
    fm_str_free(w->out);
}

static void log_step(fm_train_job *j, const fm_train_step *s)
{
    const fm_train_watch *watch = &j->watch;
    const struct {
        const char *key;
        double v;
    } numbers[] = {{"loss", s->loss},
                   {"ppl", exp(s->loss)},
                   {"rate", s->rate},
                   {"grad_norm", s->grad_norm},
                   {"tok_s", watch->rate},
                   {"mfu", watch->peak > 0 ? watch->flops * watch->rate / watch->peak : 0.0},
                   {"time_s", fm_clock_s() - watch->begun}};
    fm_str line = {0};
    fm_jsonw w = fm_train_log_begin(&line, s);
    fm_jsonw_key(&w, "batch"), fm_jsonw_u64(&w, s->batch);
    for (size_t i = 0; i < FM_COUNT(numbers); i++) fm_jsonw_key(&w, numbers[i].key), fm_jsonw_f64(&w, numbers[i].v);
    if (j->o.loss_z > 0) fm_jsonw_key(&w, "loss_z"), fm_jsonw_f64(&w, s->loss_z);
    if (j->o.norm_z > 0) fm_jsonw_key(&w, "norm_z"), fm_jsonw_f64(&w, s->norm_z);
    fm_train_log_end(j, &w);
}

void fm_train_watch_step(fm_train_job *j, const fm_train_step *s, double seconds, bool last)
{
    fm_train_watch *w = &j->watch;
    const uint64_t tokens = s->tokens - j->stepped;
    w->seconds += seconds;
    w->tokens += tokens;
    if (last || w->lines == 0 || !j->o.log_every || fm_train_due(j->o.log_every, j->stepped, s->tokens)) {
        w->rate = w->seconds > 0 ? (double)w->tokens / w->seconds : 0;
        w->seconds = 0, w->tokens = 0, w->lines++;
        log_step(j, s);
    }
    draw(j, s, w->rate, last);
}
