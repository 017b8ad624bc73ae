/* log.c - reading logs of training; see plot.h and docs/training.md, "The log". */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "plot/plot.h"

/* What a line may say; NAN: nothing. */
typedef struct line {
    double tokens, loss, val_loss, rate, batch, speed, bits, sweep_rate;
    bool norms;
} line;

static fm_status append(fm_series *s, double x, double y, const fm_allocator *a, fm_error *err)
{
    if (s->n == FM_PLOT_POINTS_MAX)
        return fm_fail(err, FM_ERR_LIMIT, "a log of more than %zu steps: keep every tenth line of it", FM_PLOT_POINTS_MAX);
    if (s->n == s->cap) {
        const size_t cap = s->cap ? 2 * s->cap : 1024;
        double *memory;
        FM_TRY(fm_alloc((void **)&memory, a, cap, 2 * sizeof *memory, "the points of a log", err));
        if (s->n) memcpy(memory, s->x, s->n * sizeof *memory), memcpy(memory + cap, s->y, s->n * sizeof *memory);
        fm_free(a, s->x);
        *s = (fm_series){memory, memory + cap, s->n, cap};
    }
    s->x[s->n] = x, s->y[s->n++] = y;
    return FM_OK;
}

/* null stands for what is not finite. */
static void read_number(fm_json *j, double *out)
{
    double v;
    if (!fm_json_null(j) && fm_json_f64(j, &v) && fabs(v) <= FM_PLOT_VALUE_MAX) *out = v;
}

static line read_line(fm_json *j)
{
    line v = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, true};
    const struct {
        const char *key;
        double *to;
    } numbers[] = {{"tokens", &v.tokens}, {"loss", &v.loss},   {"val_loss", &v.val_loss},  {"rate", &v.rate},
                   {"batch", &v.batch},   {"tok_s", &v.speed}, {"bits_per_byte", &v.bits}, {"sweep_rate", &v.sweep_rate}};
    fm_view key;
    if (!fm_json_enter_object(j)) return v;
    while (fm_json_key(j, &key)) {
        size_t i = 0;
        while (i < FM_COUNT(numbers) && !fm_view_is(key, numbers[i].key)) i++;
        if (i < FM_COUNT(numbers))
            read_number(j, numbers[i].to);
        else if (fm_view_is(key, "norms"))
            fm_json_bool(j, &v.norms);
        else
            fm_json_skip(j);
    }
    return v;
}

/* What a run did before it went back to a checkpoint, and then did again. */
static void forget_from(fm_plot_log *l, double tokens)
{
    for (int k = 0; k < FM_PLOT_SWEEP; k++)
        while (l->s[k].n && l->s[k].x[l->s[k].n - 1] >= tokens) l->s[k].n--;
}

static fm_status take_line(fm_plot_log *l, const line *v, fm_error *err)
{
    const double values[] = {v->loss, v->val_loss, v->rate, v->batch, v->speed};
    if (isfinite(v->sweep_rate))
        return v->sweep_rate > 0 && isfinite(v->loss)
                   ? append(&l->s[v->norms ? FM_PLOT_SWEEP : FM_PLOT_SWEEP_PLAIN], v->sweep_rate, v->loss, l->a, err)
                   : FM_OK;
    if (!isfinite(v->tokens) || v->tokens < 0) return FM_OK;
    if (isfinite(v->loss)) forget_from(l, v->tokens);
    for (int k = 0; k < FM_PLOT_SWEEP; k++)
        if (isfinite(values[k])) FM_TRY(append(&l->s[k], v->tokens, values[k], l->a, err));
    if (isfinite(v->bits)) l->bits = v->bits;
    return FM_OK;
}

static bool is_blank(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && (p[i] == ' ' || p[i] == '\t' || p[i] == '\r')) i++;
    return i == n;
}

static fm_status read_lines(fm_plot_log *l, const char *p, size_t n, const char *path, fm_error *err)
{
    for (size_t number = 1; n > 0; number++) {
        const char *end = memchr(p, '\n', n);
        const size_t length = end ? (size_t)(end - p) : n;
        fm_json j = fm_json_begin(p, length, path);
        const line v = read_line(&j);
        if (!is_blank(p, length) && fm_json_finish(&j, NULL) != FM_OK) {
            if (!l->n_damaged++) l->at_damaged = number, l->why_damaged = j.error ? j.error : "more than one value";
        } else {
            FM_TRY(take_line(l, &v, err));
        }
        p += end ? length + 1 : length;
        n -= end ? length + 1 : length;
    }
    return FM_OK;
}

/* "run/log.jsonl" is called run, "fast.jsonl" fast. */
static fm_quote name_of(const char *path)
{
    fm_view v = fm_view_of(path);
    if (fm_view_ends(v, ".jsonl")) v.n -= strlen(".jsonl");
    if (fm_view_ends(v, "/log")) v.n -= strlen("/log");
    while (v.n > 1 && v.p[v.n - 1] == '/') v.n--;
    size_t begin = v.n;
    while (begin > 0 && v.p[begin - 1] != '/') begin--;
    return fm_quote_of((fm_view){v.p + begin, v.n - begin});
}

static fm_status check_points(const fm_plot_log *l, const char *path, fm_error *err)
{
    size_t points = 0;
    for (int k = 0; k < FM_PLOT_KINDS; k++) points += l->s[k].n;
    if (points) return FM_OK;
    if (l->n_damaged)
        return fm_fail(err, FM_ERR_FORMAT, "%s, line %zu: %s: expected the log of `fmamba train`, an object a line", path,
                       l->at_damaged, l->why_damaged);
    return fm_fail(err, FM_ERR_FORMAT, "%s holds no step of a training: expected the log.jsonl of `fmamba train`", path);
}

fm_status fm_plot_log_parse(fm_plot_log *out, const char *text, size_t n, const char *path, const fm_allocator *a,
                            fm_error *err)
{
    *out = (fm_plot_log){.name = name_of(path), .a = a};
    fm_status status = read_lines(out, text, n, path, err);
    if (status == FM_OK) status = check_points(out, path, err);
    if (status != FM_OK) fm_plot_log_free(out);
    return status;
}

static fm_status read_file(fm_plot_log *out, const char *path, const char *name, const fm_allocator *a, fm_error *err)
{
    fm_map map;
    FM_TRY(fm_map_open(&map, path, FM_MAP_READ, err));
    const fm_status status = fm_plot_log_parse(out, (const char *)map.p, map.n, name, a, err);
    fm_map_close(&map);
    return status;
}

fm_status fm_plot_log_read(fm_plot_log *out, const char *path, const fm_allocator *a, fm_error *err)
{
    *out = (fm_plot_log){.a = a};
    if (!fm_path_is_dir(path)) return read_file(out, path, path, a, err);
    char *inside = fm_path_join(path, "log.jsonl", a, err);
    const fm_status status = inside ? read_file(out, inside, path, a, err) : FM_ERR_MEMORY;
    fm_free(a, inside);
    return status;
}

void fm_plot_log_free(fm_plot_log *l)
{
    for (int k = 0; k < FM_PLOT_KINDS; k++) fm_free(l->a, l->s[k].x);
    *l = (fm_plot_log){.a = l->a};
}
