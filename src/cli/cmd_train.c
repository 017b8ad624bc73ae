/* cmd_train.c - a model from text: opens what the configuration names, steps, evaluates, saves, and says how it goes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/common.h"
#include "model/shape.h"
#include "train/config.h"
#include "train/init.h"
#include "train/run.h"

typedef struct job {
    const fm_cli *c;
    fm_train_config o;
    fm_run_folder folder;
    char *tokenizer_dir; /* owned */
    fm_tokenizer *tokenizer;
    fm_model *m;
    fm_tokens train[FM_TRAIN_FILES_MAX], val;
    fm_data data;
    fm_trainer *t;
    FILE *log;
    double begun;
    uint64_t begun_tokens, saved, evaluated;
} job;

/* ---- The configuration ---- */

static fm_status set_pairs(job *j, fm_error *err)
{
    const fm_opt_value *v = &j->c->options.v[FM_OPT_SET];
    char key[64];
    for (size_t i = 0; i < v->n; i++) {
        const char *equals = strchr(v->list[i], '=');
        if (!equals || (size_t)(equals - v->list[i]) >= sizeof key)
            return fm_fail(err, FM_ERR_ARGUMENT, "--set %s: expected KEY=VALUE", v->list[i]);
        memcpy(key, v->list[i], (size_t)(equals - v->list[i]));
        key[equals - v->list[i]] = '\0';
        FM_TRY(fm_train_config_set(&j->o, key, 0, equals + 1, "--set", err));
    }
    return FM_OK;
}

static fm_status read_config(job *j, fm_error *err)
{
    FM_TRY(fm_train_config_open(&j->o, NULL, err));
    if (j->c->n_operands) FM_TRY(fm_train_config_read(&j->o, j->c->operands[0], err));
    FM_TRY(set_pairs(j, err));
    return fm_train_config_check(&j->o, err);
}

static int explain(void)
{
    fm_train_key k;
    fm_str out = {0};
    for (size_t i = 0; fm_train_config_key(i, &k); i++)
        fm_str_printf(&out, "%-26s %-14s %s%s%s%s\n", k.key, k.type, k.help, k.fallback ? " (" : "",
                      k.fallback ? k.fallback : "", k.fallback ? ")" : "");
    return fm_cli_put(&out);
}

/* ---- Opening ---- */

/* The folder of the tokenizer: its files go into every checkpoint. */
static fm_status find_tokenizer(job *j, fm_error *err)
{
    const char *path = j->o.tokenizer ? j->o.tokenizer : j->o.from;
    const char *slash = strrchr(path, '/');
    const bool file = fm_view_ends(fm_view_of(path), ".json");
    const size_t n = !file ? strlen(path) : slash ? (size_t)(slash - path) : 1;
    j->tokenizer_dir = fm_strdup(NULL, file && !slash ? "." : path, n, err);
    if (!j->tokenizer_dir) return FM_ERR_MEMORY;
    if (!fm_path_is_dir(j->tokenizer_dir))
        return fm_fail(err, FM_ERR_IO, "model.tokenizer: %s is no folder with a tokenizer.json: convert a GGUF file first",
                       path);
    j->folder.tokenizer = j->tokenizer_dir;
    return fm_tokenizer_open(&j->tokenizer, path, NULL, err);
}

static void change(size_t *field, uint64_t value)
{
    if (value) *field = (size_t)value;
}

static fm_status draw_model(job *j, const char *dir, fm_error *err)
{
    const fm_arch *arch;
    fm_config c;
    FM_TRY(fm_shape_find(j->o.shape, &arch, &c, err));
    change(&c.d_model, j->o.d_model);
    change(&c.n_layer, j->o.n_layer);
    change(&c.d_state, j->o.d_state);
    change(&c.d_conv, j->o.d_conv);
    if (j->o.d_model) c.d_inner = 2 * c.d_model, c.dt_rank = (c.d_model + 15) / 16;
    change(&c.d_inner, j->o.d_inner);
    change(&c.dt_rank, j->o.dt_rank);
    c.vocab = fm_tokenizer_vocab(j->tokenizer);
    c.bos = fm_tokenizer_bos(j->tokenizer);
    c.n_eos = fm_tokenizer_eos(j->tokenizer) >= 0;
    c.eos[0] = fm_tokenizer_eos(j->tokenizer);
    FM_TRY(fm_dir_make(j->o.out, err));
    FM_TRY(fm_dir_make(dir, err));
    return fm_init_write(arch, &c, j->o.seed, dir, NULL, err);
}

/* The newest checkpoint of the run, else what the configuration begins from. */
static fm_status open_model(job *j, char **resume, fm_error *err)
{
    FM_TRY(fm_run_newest(resume, &j->folder, err));
    if (*resume) return fm_model_open(&j->m, *resume, NULL, err);
    if (j->o.from) return fm_model_open(&j->m, j->o.from, NULL, err);
    char *dir = fm_path_join(j->o.out, "begin", NULL, err);
    if (!dir) return FM_ERR_MEMORY;
    fm_status status = draw_model(j, dir, err);
    if (status == FM_OK) status = fm_model_open(&j->m, dir, NULL, err);
    fm_free(NULL, dir);
    return status;
}

static fm_status read_text(job *j, fm_tokens *out, const char *path, fm_error *err)
{
    FM_TRY(fm_tokens_read(out, path, j->tokenizer, fm_model_get_info(j->m).vocab, NULL, err));
    fm_cli_note("%s: %zu tokens, %.3f bytes each", path, out->n, out->n ? (double)out->n_bytes / (double)out->n : 0.0);
    return FM_OK;
}

/* "path*weight". */
static fm_status read_source(job *j, size_t i, fm_error *err)
{
    char *path = j->o.train[i], *star = strrchr(path, '*');
    j->data.weights[i] = 1.0;
    if (star && fm_parse_f64(fm_view_of(star + 1), &j->data.weights[i]) && j->data.weights[i] > 0.0) *star = '\0';
    FM_TRY(read_text(j, &j->train[i], path, err));
    j->data.sources[i] = &j->train[i];
    j->data.n_sources = i + 1;
    return FM_OK;
}

static fm_train_options options_of(const job *j)
{
    const fm_train_config *o = &j->o;
    fm_train_options t = fm_train_defaults();
    t.schedule = (fm_schedule){.peak = o->rate,
                               .final = o->final,
                               .warmup = o->warmup,
                               .decay_begin = o->tokens - o->decay_tokens,
                               .total = o->tokens,
                               .batch_begin = (uint32_t)(o->batch_begin ? o->batch_begin : o->batch),
                               .batch_end = (uint32_t)o->batch,
                               .ramp = o->batch_ramp,
                               .scale_with_batch = o->scale_with_batch};
    fm_decay_from_name(o->decay, &t.schedule.decay);
    t.length = (size_t)o->length;
    t.micro_batch = (size_t)o->micro_batch;
    t.carry = o->carry;
    t.eos = fm_tokenizer_eos(j->tokenizer);
    t.beta1 = (float)o->beta1, t.beta2 = (float)o->beta2, t.eps = (float)o->eps;
    t.weight_decay = (float)o->weight_decay;
    t.clip = (float)o->clip;
    t.z_loss = (float)o->z_loss;
    t.dropout = (float)o->dropout;
    t.recompute = o->recompute;
    t.seed = o->seed;
    t.threads = (unsigned)fm_opt_int(&j->c->options, FM_OPT_THREADS);
    t.cpu = fm_opt_str(&j->c->options, FM_OPT_CPU);
    return t;
}

static fm_status open_log(job *j, fm_error *err)
{
    char *path = fm_path_join(j->o.out, "log.jsonl", NULL, err);
    if (!path) return FM_ERR_MEMORY;
    FM_TRY(fm_dir_make(j->o.out, err));
    j->log = fopen(path, "a");
    const fm_status status = j->log ? FM_OK : fm_fail_errno(err, "cannot write the log %s", path);
    fm_free(NULL, path);
    return status;
}

static fm_status open_trainer(job *j, fm_error *err)
{
    char *resume = NULL;
    const fm_train_options o = options_of(j);
    fm_status status = open_model(j, &resume, err);
    for (size_t i = 0; i < j->o.n_train && status == FM_OK; i++) status = read_source(j, i, err);
    if (status == FM_OK && j->o.val) status = read_text(j, &j->val, j->o.val, err);
    if (status == FM_OK) status = fm_trainer_open(&j->t, j->m, &j->data, &o, NULL, err);
    if (status == FM_OK && resume) status = fm_trainer_resume(j->t, resume, err);
    if (status == FM_OK && resume) fm_cli_note("going on from %s", resume);
    fm_free(NULL, resume);
    return status;
}

static fm_status open_job(job *j, fm_error *err)
{
    FM_TRY(read_config(j, err));
    j->folder = (fm_run_folder){.out = j->o.out, .keep = (size_t)j->o.keep};
    j->data = (fm_data){.length = (size_t)j->o.length, .seed = j->o.seed};
    FM_TRY(find_tokenizer(j, err));
    FM_TRY(open_trainer(j, err));
    FM_TRY(open_log(j, err));
    const fm_model_info i = fm_model_get_info(j->m);
    fm_cli_note("%s, %.2f M parameters, %.0f MiB for training", i.name, (double)i.n_params / 1e6,
                (double)fm_trainer_bytes(j->t) / 1048576.0);
    j->begun = fm_cli_now();
    j->begun_tokens = j->saved = j->evaluated = fm_trainer_tokens(j->t);
    return FM_OK;
}

static void close_job(job *j)
{
    if (j->log) fclose(j->log);
    fm_trainer_free(j->t);
    for (size_t i = 0; i < j->o.n_train; i++) fm_tokens_free(&j->train[i]);
    fm_tokens_free(&j->val);
    fm_model_free(j->m);
    fm_tokenizer_free(j->tokenizer);
    fm_free(NULL, j->tokenizer_dir);
    fm_train_config_free(&j->o);
}

/* ---- Evaluation, by the runtime ---- */

typedef struct score {
    const int32_t *targets;
    size_t vocab;
    double nll;
} score;

static void take_rows(void *ctx, size_t first, size_t n, const float *rows)
{
    score *s = ctx;
    for (size_t i = 0; i < n; i++) s->nll -= fm_logprob(rows + i * s->vocab, s->vocab, s->targets[first + i]);
}

/* Disjoint windows from a zero state, the remainder dropped: `fmamba perplexity --window N --reset`. */
static fm_status evaluate(job *j, double *loss, fm_error *err)
{
    fm_session *s;
    fm_seq seq;
    const size_t length = (size_t)j->o.length;
    size_t n = 0;
    score total = {.vocab = fm_model_get_info(j->m).vocab};
    FM_TRY(fm_cli_session_open(&s, j->m, j->c, 1, err));
    fm_status status = fm_seq_new(s, &seq, err);
    for (size_t at = 0; status == FM_OK && at + length < j->val.n; at += length, n += length) {
        total.targets = j->val.ids + at + 1;
        status = fm_step(s,
                         &(fm_span){.seq = seq,
                                    .tokens = j->val.ids + at,
                                    .n = length,
                                    .reset = true,
                                    .want = FM_WANT_ALL,
                                    .on_logits = take_rows,
                                    .ctx = &total},
                         1, err);
    }
    fm_session_free(s);
    *loss = n ? total.nll / (double)n : 0.0;
    return status;
}

static fm_status report_evaluation(job *j, const fm_train_step *step, fm_error *err)
{
    double loss;
    FM_TRY(evaluate(j, &loss, err));
    const double bytes = (double)j->val.n_bytes / (double)j->val.n, bits = loss / log(2.0) / bytes;
    fprintf(stderr, "\r\033[K");
    fm_cli_note("step %llu: held-out loss %.4f, %.4f bits per byte", (unsigned long long)step->step, loss, bits);
    fprintf(j->log, "{\"step\": %llu, \"tokens\": %llu, \"val_loss\": %.17g, \"bits_per_byte\": %.17g}\n",
            (unsigned long long)step->step, (unsigned long long)step->tokens, loss, bits);
    fflush(j->log);
    j->evaluated = step->tokens;
    return FM_OK;
}

/* ---- The loop ---- */

static void report_step(job *j, const fm_train_step *s)
{
    const double rate = (double)(s->tokens - j->begun_tokens) / (fm_cli_now() - j->begun);
    fprintf(j->log,
            "{\"step\": %llu, \"tokens\": %llu, \"loss\": %.17g, \"grad_norm\": %.9g, \"rate\": %.9g, \"batch\": %u, "
            "\"tok_s\": %.1f}\n",
            (unsigned long long)s->step, (unsigned long long)s->tokens, s->loss, s->grad_norm, s->rate, s->batch, rate);
    fflush(j->log);
    if (!fm_cli_is_terminal(2) && s->step % 10 != 0) return;
    const double left = rate > 0 ? (double)(j->o.tokens - (s->tokens < j->o.tokens ? s->tokens : j->o.tokens)) / rate : 0;
    fprintf(stderr, "%sstep %llu  loss %.4f  rate %.2e  norm %.3f  %.0f tok/s  %.1f min left%s",
            fm_cli_is_terminal(2) ? "\r\033[K" : "", (unsigned long long)s->step, s->loss, s->rate, s->grad_norm, rate,
            left / 60, fm_cli_is_terminal(2) ? "" : "\n");
}

static fm_status save(job *j, const fm_train_step *s, fm_error *err)
{
    FM_TRY(fm_run_save(&j->folder, j->t, err));
    j->saved = s->tokens;
    return FM_OK;
}

static fm_status after_step(job *j, const fm_train_step *s, bool last, fm_error *err)
{
    if (!s->finite)
        return fm_fail(
            err, FM_ERR_FORMAT,
            "step %llu: the loss is %g and the norm of its gradients %g: nothing was saved since the last checkpoint "
            "in %s; lower optimizer.rate",
            (unsigned long long)s->step, s->loss, s->grad_norm, j->o.out);
    report_step(j, s);
    if (j->val.n && (last || (j->o.eval_every && s->tokens - j->evaluated >= j->o.eval_every)))
        FM_TRY(report_evaluation(j, s, err));
    if (last || (j->o.save_every && s->tokens - j->saved >= j->o.save_every)) FM_TRY(save(j, s, err));
    return FM_OK;
}

static fm_status train(job *j, fm_error *err)
{
    fm_cli_catch_interrupt();
    while (fm_trainer_tokens(j->t) < j->o.tokens) {
        const fm_train_step s = fm_trainer_step(j->t);
        const bool stopped = fm_cli_interrupted(NULL), last = s.tokens >= j->o.tokens;
        FM_TRY(after_step(j, &s, last || stopped, err));
        if (stopped && !last)
            return fm_fail(err, FM_ERR_CANCELLED, "stopped at step %llu and saved: the same command goes on from there",
                           (unsigned long long)s.step);
    }
    return FM_OK;
}

static int run(const fm_cli *c)
{
    job j = {.c = c};
    fm_error err = {0};
    if (fm_opt_flag(&c->options, FM_OPT_EXPLAIN)) return explain();
    fm_status status = open_job(&j, &err);
    if (status == FM_OK) status = train(&j, &err);
    if (j.t && fm_cli_is_terminal(2)) fputc('\n', stderr);
    close_job(&j);
    return status == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPTS_ENGINE, FM_OPT_SET, FM_OPT_EXPLAIN, FM_OPT_END};

const fm_command fm_command_train = {
    .name = "train",
    .summary = "train a model on text",
    .usage = "[CONFIG.yaml] [--set KEY=VALUE ...] | --explain",
    .details =
        "Learns from the files of data.train, saves checkpoints in run.out, and goes on from the newest one there when it\n"
        "is started again.  Every key is listed by --explain.",
    .options = options,
    .max_operands = 1,
    .run = run,
};
