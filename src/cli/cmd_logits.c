/* cmd_logits.c - logits of every position, or what the layers put out, as JSON or .npy. */
#include <string.h>

#include "cli/common.h"
#include "format/npy.h"

/* Where rows go, chunk by chunk. */
typedef struct sink {
    fm_out file; /* with .npy */
    bool npy;
    fm_str text;
    fm_jsonw w;
    size_t width;
    fm_status status;
    fm_error *err;
} sink;

static void put_rows(void *ctx, size_t first, size_t n, const float *rows)
{
    sink *s = ctx;
    (void)first;
    if (s->status != FM_OK) return;
    if (s->npy) {
        s->status = fm_out_write(&s->file, rows, n * s->width * sizeof *rows, s->err);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        fm_jsonw_array(&s->w);
        for (size_t k = 0; k < s->width; k++) fm_jsonw_f32(&s->w, rows[i * s->width + k]);
        fm_jsonw_end(&s->w, ']');
    }
}

/* ---- The layers: (n_layer + 1, T, d_model), as transformers' output_hidden_states of these models ---- */

typedef struct layers {
    float *rows;
    size_t n, T, d;
} layers;

static void keep_layer(void *ctx, size_t layer, size_t first, size_t n, const float *rows)
{
    layers *l = ctx;
    if (layer == 0) return; /* the embedding is not in that list */
    memcpy(l->rows + ((layer - 1) * l->T + first) * l->d, rows, n * l->d * sizeof *rows);
}

static fm_status run_hidden(sink *s, const fm_cli_engine *e, const fm_cli_input *in, fm_error *err)
{
    const fm_model_info i = fm_model_get_info(e->model);
    layers l = {.n = i.n_layer + 1, .T = in->n, .d = i.d_model};
    size_t count;
    if (!fm_mul(l.n, l.T, &count)) return fm_fail(err, FM_ERR_LIMIT, "too many tokens for the outputs of all layers");
    FM_TRY(fm_alloc((void **)&l.rows, NULL, count, l.d * sizeof(float), "the outputs of the layers", err));
    const fm_span span = {
        .seq = e->seq, .tokens = in->ids, .n = in->n, .want = FM_WANT_NONE, .on_hidden = keep_layer, .ctx = &l};
    fm_status status = fm_step(e->session, &span, 1, err);
    for (size_t k = 0; k < l.n && status == FM_OK; k++) {
        if (!s->npy) fm_jsonw_array(&s->w);
        put_rows(s, 0, l.T, l.rows + k * l.T * l.d);
        if (!s->npy) fm_jsonw_end(&s->w, ']');
        status = s->status;
    }
    fm_free(NULL, l.rows);
    return status;
}

static fm_status run_logits(sink *s, const fm_cli_engine *e, const fm_cli_input *in, fm_error *err)
{
    const fm_span span = {.seq = e->seq, .tokens = in->ids, .n = in->n, .want = FM_WANT_ALL, .on_logits = put_rows, .ctx = s};
    FM_TRY(fm_step(e->session, &span, 1, err));
    return s->status;
}

/* ---- Around them ---- */

/* Where the result goes; NULL: standard output. */
static const char *out_path(const fm_cli *c)
{
    const char *path = fm_opt_str(&c->options, FM_OPT_OUT);
    return path && strcmp(path, "-") ? path : NULL;
}

static fm_status begin(sink *s, const fm_cli *c, const fm_model *m, const fm_cli_input *in, bool hidden, fm_error *err)
{
    const fm_model_info i = fm_model_get_info(m);
    const char *path = out_path(c);
    const size_t shape[3] = {i.n_layer + 1, in->n, hidden ? i.d_model : i.vocab};
    s->width = shape[2];
    s->err = err;
    s->npy = path && fm_view_ends(fm_view_of(path), ".npy");
    if (s->npy) return fm_npy_create_f32(&s->file, path, hidden ? shape : shape + 1, hidden ? 3 : 2, err);
    s->w = (fm_jsonw){.out = &s->text};
    fm_jsonw_object(&s->w);
    fm_jsonw_key(&s->w, "ids");
    fm_jsonw_array(&s->w);
    for (size_t k = 0; k < in->n; k++) fm_jsonw_i64(&s->w, in->ids[k]);
    fm_jsonw_end(&s->w, ']');
    fm_jsonw_key(&s->w, hidden ? "hidden" : "logits");
    fm_jsonw_array(&s->w);
    return FM_OK;
}

static fm_status write_text(const char *path, const fm_str *text, fm_error *err)
{
    fm_out o;
    FM_TRY(fm_out_open(&o, path, NULL, err));
    fm_status status = fm_out_write(&o, text->p, text->n, err);
    if (status == FM_OK) status = fm_out_commit(&o, err);
    if (status != FM_OK) fm_out_abort(&o);
    return status;
}

static fm_status finish(sink *s, const fm_cli *c, int *code, fm_error *err)
{
    const char *path = out_path(c);
    if (s->npy) return fm_out_commit(&s->file, err);
    fm_jsonw_end(&s->w, ']');
    fm_jsonw_end(&s->w, '}');
    fm_str_putc(&s->text, '\n');
    FM_TRY(fm_str_ok(&s->text, "the output", err));
    if (path) return write_text(path, &s->text, err);
    *code = fm_cli_put(&s->text);
    return FM_OK;
}

static fm_status compute(const fm_cli *c, const fm_cli_engine *e, const fm_cli_input *in, int *code, fm_error *err)
{
    const bool hidden = fm_opt_flag(&c->options, FM_OPT_HIDDEN);
    sink s = {0};
    fm_status status = fm_cli_check_guard(c, in->n, err);
    if (status == FM_OK) status = begin(&s, c, e->model, in, hidden, err);
    if (status == FM_OK) status = hidden ? run_hidden(&s, e, in, err) : run_logits(&s, e, in, err);
    if (status == FM_OK) status = finish(&s, c, code, err);
    if (s.npy && status != FM_OK) fm_out_abort(&s.file);
    fm_str_free(&s.text);
    return status;
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    fm_cli_engine e = {0};
    fm_cli_input in = {0};
    int code = FM_EXIT_OK;
    fm_status status = fm_cli_engine_open(&e, c, &err);
    if (status == FM_OK)
        status = fm_cli_read_input(&in, c, fm_model_tokenizer(e.model), true, fm_model_get_info(e.model).vocab, &err);
    if (status == FM_OK) fm_cli_start_line(c, e.model, e.session, NULL);
    if (status == FM_OK) status = compute(c, &e, &in, &code, &err);
    fm_cli_input_free(&in);
    fm_cli_engine_close(&e);
    return status == FM_OK ? code : fm_cli_fail(&err);
}

static const fm_opt options[] = {FM_OPTS_COMMON,  FM_OPTS_MODEL, FM_OPTS_ENGINE, FM_OPT_STATES, FM_OPTS_TEXT, FM_OPT_IDS,
                                 FM_OPT_CTX_SIZE, FM_OPT_HIDDEN, FM_OPT_OUT,     FM_OPT_JSON,   FM_OPT_END};

const fm_command fm_command_logits = {
    .name = "logits",
    .summary = "print the logits of every position, or the layers' outputs",
    .usage = "[--ids IDS | -p TEXT | -f FILE] [-o X.npy] [options]",
    .details =
        "With -o X.npy the result is a float32 array (T, vocab), with --hidden (n_layer + 1, T, d_model): the residual stream "
        "after each block, the last after the final norm instead, as transformers lists them.  Otherwise it is JSON.",
    .options = options,
    .max_operands = 0,
    .run = run,
};
