/* config.c - the keys of a training configuration; see config.h. */
#include "train/config.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/str.h"

typedef enum kind { TEXT, LIST, COUNT, NUMBER, FLAG, WORD } kind; /* WORD: an enum, by its place in a list of words */

static const char *const kind_names[] = {"text", "list", "count", "number", "true or false", "word"};

typedef struct row {
    const char *key;
    kind kind;
    size_t offset;
    const char *fallback; /* NULL: nothing */
    const char *help;
    const char *words; /* "a|b" */
} row;

#define ROW(key, kind, field, fallback, help)                                                                                  \
    {                                                                                                                          \
        key, kind, offsetof(fm_train_config, field), fallback, help, NULL                                                      \
    }
#define CHOICE(key, field, words, fallback, help)                                                                              \
    {                                                                                                                          \
        key, WORD, offsetof(fm_train_config, field), fallback, help, words                                                     \
    }
_Static_assert(sizeof(fm_decay) == sizeof(unsigned), "WORD sets enums as unsigned");

static const row rows[] = {
    ROW("model.from", TEXT, from, NULL, "checkpoint folder to begin from; without it weights are drawn for model.shape"),
    ROW("model.shape", TEXT, shape, NULL,
        "shape to draw: mamba-130m ... falcon-mamba-7b, tales, tiny; the keys below change it"),
    ROW("model.tokenizer", TEXT, tokenizer, NULL, "a tokenizer.json, or a folder with one (default: model.from)"),
    CHOICE("model.norms", norms, FM_NORMS, "shape", "norms on dt, B and C of a model that is drawn"),
    ROW("model.d_model", COUNT, d_model, "0", "width of the residual stream"),
    ROW("model.n_layer", COUNT, n_layer, "0", "layers"),
    ROW("model.d_state", COUNT, d_state, "0", "states of a channel"),
    ROW("model.d_conv", COUNT, d_conv, "0", "width of the convolution"),
    ROW("model.d_inner", COUNT, d_inner, "0", "channels; 0 with another d_model: twice that"),
    ROW("model.dt_rank", COUNT, dt_rank, "0", "rank of dt; 0 with another d_model: a sixteenth of that"),

    ROW("data.train", LIST, train, NULL,
        "files to learn from, or folders of them: text, .jsonl, packed or not, token shards; \"path*3\" is drawn three times "
        "as "
        "often"),
    ROW("data.stages", LIST, stages, NULL,
        "stages of the run, as \"from=4M length=1024 weights=1,3\": from so many tokens on another window and mixture"),
    ROW("data.val", TEXT, val, NULL, "file that is only evaluated"),
    ROW("data.length", COUNT, length, "512", "tokens of a window"),
    ROW("data.carry", FLAG, carry, "false", "carry the state over ends of documents inside a window instead of beginning anew"),

    ROW("batch.size", COUNT, batch, "8", "windows of a step"),
    ROW("batch.begin", COUNT, batch_begin, "0", "windows of the first step, with batch.ramp; 0: batch.size"),
    ROW("batch.ramp", COUNT, batch_ramp, "0", "tokens over which the batch grows to batch.size"),
    ROW("batch.micro", COUNT, micro_batch, "1", "windows computed at once; memory grows with it"),
    ROW("batch.chunk", COUNT, chunk, "0",
        "tokens of them computed at once, the states between chunks kept: less memory, a third more time; 0: all"),
    ROW("batch.truncate", FLAG, truncate, "false",
        "gradients end at the borders of chunks: memory of one chunk for a window of any length"),
    ROW("batch.recompute", FLAG, recompute, "false", "keep only the input of each layer: less memory, a third more time"),

    ROW("optimizer.rate", NUMBER, rate, "1e-3", "largest learning rate"),
    ROW("optimizer.beta1", NUMBER, beta1, "0.9", "AdamW's decay of the mean"),
    ROW("optimizer.beta2", NUMBER, beta2, "0.95", "AdamW's decay of the mean of squares"),
    ROW("optimizer.eps", NUMBER, eps, "1e-8", "AdamW's epsilon"),
    ROW("optimizer.weight_decay", NUMBER, weight_decay, "0.1", "decoupled weight decay, on matrices and the convolution"),
    ROW("optimizer.clip", NUMBER, clip, "1", "largest norm of the gradients; 0: no limit"),
    ROW("optimizer.dropout", NUMBER, dropout, "0", "of the embedding and of what each layer adds"),
    ROW("optimizer.z_loss", NUMBER, z_loss, "0", "weight of the squared log of the softmax's sum (1e-4 where it is used)"),

    CHOICE("optimizer.weights", weights, FM_PARAMS_KINDS, "f32",
           "matrices the model computes with, in bf16 rounded from f32 masters"),

    ROW("schedule.tokens", COUNT, tokens, NULL, "tokens of the whole run"),
    ROW("schedule.warmup", COUNT, warmup, "0", "tokens of the linear warm-up"),
    ROW("schedule.decay_tokens", COUNT, decay_tokens, "0", "tokens of the decay at the end"),
    CHOICE("schedule.decay", decay, FM_DECAYS, "geometric", "its shape"),
    ROW("schedule.decay_from", TEXT, decay_from, NULL,
        "checkpoint of the stable phase: go on from it with schedule.decay_tokens of decay (--decay-from)"),
    ROW("schedule.final", NUMBER, final, "0.00390625", "rate at the end, as a fraction of the largest"),
    ROW("schedule.scale_with_batch", FLAG, scale_with_batch, "false", "rate times sqrt(batch / batch.size) during the ramp"),

    ROW("stability.loss_z", NUMBER, loss_z, "0",
        "standard deviations above the mean from which a loss is a spike (6, say); 0: none is"),
    ROW("stability.norm_z", NUMBER, norm_z, "0", "the same for the norm of the gradients"),
    ROW("stability.window", COUNT, outlier_window, "128", "steps over which mean and deviation are taken"),
    CHOICE("stability.action", outlier_action, FM_OUTLIER_ACTIONS, "skip",
           "what becomes of such a step: tell of it; skip its update; go back to the last checkpoint and skip the data since"),
    ROW("stability.limit", COUNT, outlier_limit, "8", "outliers in a row, or rewinds to one checkpoint, that end the run"),

    ROW("run.out", TEXT, out, NULL, "folder for checkpoints and the log"),
    ROW("run.seed", COUNT, seed, "1", "of initial weights and of the order of windows"),
    ROW("run.save_every", COUNT, save_every, "0", "tokens between checkpoints; 0: only at the end"),
    ROW("run.keep", COUNT, keep, "2", "checkpoints that are kept besides the newest; the one before it always is"),
    ROW("run.milestone_every", COUNT, milestone_every, "0",
        "tokens between checkpoints that are kept for good; 0: only the last before the decay"),
    ROW("run.eval_every", COUNT, eval_every, "0", "tokens between evaluations of data.val; 0: only at the end"),
    ROW("run.log_every", COUNT, log_every, "0", "tokens between lines of the log; 0: every step"),
    ROW("run.sample", TEXT, sample, NULL, "text to go on from now and then; \"\": the beginning of a document"),
    ROW("run.sample_every", COUNT, sample_every, "0", "tokens between samples; 0: as run.eval_every"),
    ROW("run.sample_tokens", COUNT, sample_tokens, "100", "length of a sample"),
    ROW("run.stats_every", COUNT, stats_every, "0", "tokens between tables of each layer's dt, B, C and h; 0: none"),
    ROW("run.peak_gflops", NUMBER, peak, "0",
        "what the machine can do, for the MFU; 0: as measured, f32 arithmetic or, on a device, bf16"),
};

bool fm_train_config_key(size_t i, fm_train_key *out)
{
    if (i >= FM_COUNT(rows)) return false;
    *out = (fm_train_key){rows[i].key, kind_names[rows[i].kind], rows[i].fallback, rows[i].help, rows[i].words};
    return true;
}

/* ---- Values ---- */

bool fm_parse_count(const char *s, uint64_t *out)
{
    static const struct {
        char letter;
        double factor;
    } units[] = {{'k', 1e3}, {'K', 1e3}, {'M', 1e6}, {'G', 1e9}, {'B', 1e9}, {'T', 1e12}};
    const size_t n = strlen(s);
    double v, factor = 1.0;
    if (fm_parse_u64(fm_view_of(s), out)) return true;
    for (size_t i = 0; n > 0 && i < FM_COUNT(units); i++)
        if (s[n - 1] == units[i].letter) factor = units[i].factor;
    if (!fm_parse_f64((fm_view){s, factor > 1.0 ? n - 1 : n}, &v)) return false;
    v *= factor;
    if (!(v >= 0.0 && v < 9e18) || v != floor(v)) return false;
    *out = (uint64_t)v;
    return true;
}

static bool parse_flag(const char *s, bool *out)
{
    const bool yes = !strcmp(s, "true") || !strcmp(s, "yes") || !strcmp(s, "on") || !strcmp(s, "1");
    const bool no = !strcmp(s, "false") || !strcmp(s, "no") || !strcmp(s, "off") || !strcmp(s, "0");
    *out = yes;
    return yes || no;
}

static fm_status set_text(char **field, const fm_train_config *c, const char *value, fm_error *err)
{
    char *copy = fm_strdup(c->a, value, strlen(value), err);
    if (!copy) return FM_ERR_MEMORY;
    fm_free(c->a, *field);
    *field = copy;
    return FM_OK;
}

static void free_list(fm_train_list *l, const fm_allocator *a)
{
    for (size_t i = 0; i < l->n; i++) fm_free(a, l->items[i]);
    *l = (fm_train_list){0};
}

static fm_status set_item(fm_train_config *c, const row *r, size_t index, const char *value, const char *where, fm_error *err)
{
    fm_train_list *l = (void *)((char *)c + r->offset);
    if (index == 0) free_list(l, c->a);
    if (l->n == FM_TRAIN_FILES_MAX)
        return fm_fail(err, FM_ERR_LIMIT, "%s: %s has more than %d items", where, r->key, FM_TRAIN_FILES_MAX);
    return set_text(&l->items[l->n++], c, value, err);
}

static bool set_word(unsigned *field, const char *words, const char *value)
{
    size_t at;
    if (!fm_word_find(fm_view_of(value), words, '|', &at)) return false;
    *field = (unsigned)at;
    return true;
}

static fm_status set_value(fm_train_config *c, const row *r, const char *value, const char *where, fm_error *err)
{
    void *field = (char *)c + r->offset;
    bool fits = true;
    switch (r->kind) {
    case TEXT: return set_text(field, c, value, err);
    case COUNT: fits = fm_parse_count(value, field); break;
    case NUMBER: fits = fm_parse_f64(fm_view_of(value), field) && *(double *)field >= 0.0; break;
    case FLAG: fits = parse_flag(value, field); break;
    case WORD: fits = set_word(field, r->words, value); break;
    default: break;
    }
    if (fits) return FM_OK;
    return fm_fail(err, FM_ERR_ARGUMENT, "%s: %s is \"%s\", expected %s", where, r->key, fm_quote_of(fm_view_of(value)).text,
                   r->kind == COUNT    ? "a whole number, as 512, 500k, 1.5M or 2G"
                   : r->kind == NUMBER ? "a number of 0 or more"
                   : r->kind == WORD   ? r->words
                                       : kind_names[r->kind]);
}

static fm_status fail_unknown(const char *key, const char *where, fm_error *err)
{
    const char *names[FM_COUNT(rows)];
    for (size_t i = 0; i < FM_COUNT(rows); i++) names[i] = rows[i].key;
    const char *near = fm_nearest(key, names, FM_COUNT(rows));
    if (near)
        return fm_fail(err, FM_ERR_ARGUMENT, "%s: there is no key \"%s\": did you mean %s?", where,
                       fm_quote_of(fm_view_of(key)).text, near);
    return fm_fail(err, FM_ERR_ARGUMENT, "%s: there is no key \"%s\": `fmamba train --explain` lists them", where,
                   fm_quote_of(fm_view_of(key)).text);
}

fm_status fm_train_config_set(fm_train_config *c, const char *key, size_t index, const char *value, const char *where,
                              fm_error *err)
{
    for (size_t i = 0; i < FM_COUNT(rows); i++) {
        if (strcmp(rows[i].key, key) != 0) continue;
        if (rows[i].kind == LIST) return set_item(c, &rows[i], index, value, where, err);
        if (index > 0) return fm_fail(err, FM_ERR_ARGUMENT, "%s: %s takes one value, not a list", where, key);
        return set_value(c, &rows[i], value, where, err);
    }
    return fail_unknown(key, where, err);
}

fm_status fm_train_config_open(fm_train_config *c, const fm_allocator *a, fm_error *err)
{
    *c = (fm_train_config){.a = a};
    for (size_t i = 0; i < FM_COUNT(rows); i++)
        if (rows[i].fallback) FM_TRY(set_value(c, &rows[i], rows[i].fallback, "the default", err));
    return FM_OK;
}

void fm_train_config_free(fm_train_config *c)
{
    for (size_t i = 0; i < FM_COUNT(rows); i++) {
        void *field = (char *)c + rows[i].offset;
        if (rows[i].kind == TEXT) fm_free(c->a, *(char **)field);
        if (rows[i].kind == LIST) free_list(field, c->a);
    }
    *c = (fm_train_config){0};
}

/* ---- The whole ---- */

static fm_status check_present(const fm_train_config *c, fm_error *err)
{
    const struct {
        bool there;
        const char *what;
    } needed[] = {{c->from || c->shape || c->decay_from, "model.from or model.shape"},
                  {c->train.n > 0, "data.train"},
                  {c->tokens > 0 || c->decay_from, "schedule.tokens"},
                  {c->decay_tokens > 0 || !c->decay_from, "schedule.decay_tokens"},
                  {c->out != NULL, "run.out"},
                  {c->from || c->tokenizer || c->decay_from, "model.tokenizer"}};
    for (size_t i = 0; i < FM_COUNT(needed); i++)
        if (!needed[i].there)
            return fm_fail(err, FM_ERR_ARGUMENT, "%s is missing: `fmamba train --explain` says what it is", needed[i].what);
    return FM_OK;
}

fm_status fm_train_config_check(const fm_train_config *c, fm_error *err)
{
    FM_TRY(check_present(c, err));
    if (!c->length || !c->batch || !c->micro_batch)
        return fm_fail(err, FM_ERR_ARGUMENT, "data.length, batch.size and batch.micro must be at least 1");
    if (c->batch > UINT32_MAX || c->batch_begin > UINT32_MAX)
        return fm_fail(err, FM_ERR_ARGUMENT, "batch.size and batch.begin must be below 2^32");
    if (!c->decay_from && (c->warmup > c->tokens || c->decay_tokens > c->tokens - c->warmup))
        return fm_fail(err, FM_ERR_ARGUMENT, "schedule: warm-up (%llu) and decay (%llu) are longer than the run (%llu tokens)",
                       (unsigned long long)c->warmup, (unsigned long long)c->decay_tokens, (unsigned long long)c->tokens);
    if (!c->sample_tokens) return fm_fail(err, FM_ERR_ARGUMENT, "run.sample_tokens must be at least 1");
    if ((float)c->beta1 >= 1.0f || (float)c->beta2 >= 1.0f || (float)c->dropout >= 1.0f) /* as they are used */
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "optimizer.beta1, beta2 and dropout must be below 1, also when rounded to a float");
    return FM_OK;
}
