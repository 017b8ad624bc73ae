/* cmd_train.c - a model from text: opens what the configuration names, steps, evaluates, saves, and says how it goes. */
#include <string.h>

#include "base/memory.h"
#include "cli/train.h"
#include "cli/train_estimate.h"
#include "model/shape.h"
#include "train/init.h"

/* ---- The configuration ---- */

static fm_status set_pairs(fm_train_job *j, fm_error *err)
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

fm_status fm_train_read_config(fm_train_job *j, fm_error *err)
{
    FM_TRY(fm_train_config_open(&j->o, NULL, err));
    if (j->c->n_operands) FM_TRY(fm_train_config_read(&j->o, j->c->operands[0], err));
    FM_TRY(set_pairs(j, err));
    const char *decay_from = fm_opt_str(&j->c->options, FM_OPT_DECAY_FROM);
    const char *stats = fm_opt_str(&j->c->options, FM_OPT_STATS_EVERY);
    if (stats) FM_TRY(fm_train_config_set(&j->o, "run.stats_every", 0, stats, "--stats-every", err));
    if (decay_from) FM_TRY(fm_train_config_set(&j->o, "schedule.decay_from", 0, decay_from, "--decay-from", err));
    return fm_opt_flag(&j->c->options, FM_OPT_ESTIMATE) ? FM_OK : fm_train_config_check(&j->o, err);
}

/* A decay on its own begins where the checkpoint is and takes decay_tokens. */
static fm_status place_decay(fm_train_job *j, fm_error *err)
{
    const char *from = j->o.decay_from;
    uint64_t step, tokens;
    if (!from) return FM_OK;
    if (fm_run_holds(&j->folder, from))
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "%s is a checkpoint of the run in %s, which may go on: name another run.out for its decay", from,
                       j->o.out);
    FM_TRY(fm_trainer_place(from, &step, &tokens, NULL, err));
    if (tokens < j->o.warmup)
        return fm_fail(err, FM_ERR_ARGUMENT, "%s has seen %llu tokens, within the warm-up of %llu: decay from a later one",
                       from, (unsigned long long)tokens, (unsigned long long)j->o.warmup);
    j->o.tokens = tokens + j->o.decay_tokens;
    return fm_train_config_set(&j->o, "model.from", 0, from, "schedule.decay_from", err);
}

static int explain(void)
{
    fm_train_key k;
    fm_str out = {0};
    for (size_t i = 0; fm_train_config_key(i, &k); i++)
        fm_str_printf(&out, "%-26s %-14s %s%s%s%s%s%s\n", k.key, k.type, k.words ? k.words : "", k.words ? ": " : "", k.help,
                      k.fallback ? " (" : "", k.fallback ? k.fallback : "", k.fallback ? ")" : "");
    return fm_cli_put(&out);
}

/* ---- Opening ---- */

/* The folder of the tokenizer: its files go into every checkpoint. */
static fm_status find_tokenizer(fm_train_job *j, fm_error *err)
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

/* Falcon Mamba is Mamba with norms on dt, B and C; they have no weights. */
static void choose_norms(fm_norms norms, const fm_arch **arch, fm_config *c)
{
    if (norms == FM_NORMS_SHAPE) return;
    c->mixer_norms = norms == FM_NORMS_ON;
    if (c->mixer_norms && !(c->mixer_rms_eps > 0)) c->mixer_rms_eps = 1e-6f;
    *arch = fm_arch_by_name(c->mixer_norms ? "falcon_mamba" : "mamba");
}

/* model.shape with what the keys change. */
static fm_status find_shape(const fm_train_job *j, const fm_arch **arch, fm_config *c, fm_error *err)
{
    FM_TRY(fm_shape_find(j->o.shape, arch, c, err));
    change(&c->d_model, j->o.d_model);
    change(&c->n_layer, j->o.n_layer);
    change(&c->d_state, j->o.d_state);
    change(&c->d_conv, j->o.d_conv);
    if (j->o.d_model) c->d_inner = 2 * c->d_model, c->dt_rank = (c->d_model + 15) / 16;
    change(&c->d_inner, j->o.d_inner);
    change(&c->dt_rank, j->o.dt_rank);
    choose_norms(j->o.norms, arch, c);
    if (!j->tokenizer) return FM_OK;
    c->vocab = fm_tokenizer_vocab(j->tokenizer);
    c->bos = fm_tokenizer_bos(j->tokenizer);
    c->n_eos = fm_tokenizer_eos(j->tokenizer) >= 0;
    c->eos[0] = fm_tokenizer_eos(j->tokenizer);
    return FM_OK;
}

static fm_train_options options_of(const fm_train_job *j);

/* Before anything large is made. */
static fm_status check_memory(const fm_train_job *j, const char *name, const fm_arch *arch, const fm_config *c, fm_error *err)
{
    fm_estimate e;
    const fm_train_options o = options_of(j);
    uint64_t free;
    FM_TRY(fm_estimate_make(&e, arch, c, &o, NULL, err));
    FM_TRY(fm_estimate_free(&free, &e, &o, err));
    return fm_estimate_check(&e, name, free, err);
}

static fm_status draw_model(fm_train_job *j, const char *dir, fm_error *err)
{
    const fm_arch *arch;
    fm_config c;
    FM_TRY(find_shape(j, &arch, &c, err));
    FM_TRY(check_memory(j, j->o.shape, arch, &c, err));
    FM_TRY(fm_dir_make(j->o.out, err));
    FM_TRY(fm_dir_make(dir, err));
    return fm_init_write(arch, &c, j->o.seed, dir, NULL, err);
}

/* A checkpoint, whose weights are mapped. */
static fm_status open_checkpoint(fm_train_job *j, const char *dir, fm_error *err)
{
    FM_TRY(fm_model_open(&j->m, dir, NULL, err));
    return check_memory(j, dir, j->m->arch, &j->m->config, err);
}

/* The newest checkpoint of the run, else what the configuration begins from. */
static fm_status open_model(fm_train_job *j, char **resume, fm_error *err)
{
    FM_TRY(fm_run_newest(resume, &j->folder, err));
    if (!*resume && j->o.decay_from && !(*resume = fm_strdup(NULL, j->o.decay_from, strlen(j->o.decay_from), err)))
        return FM_ERR_MEMORY;
    if (*resume) return open_checkpoint(j, *resume, err);
    if (j->o.from) return open_checkpoint(j, j->o.from, err);
    char *dir = fm_path_join(j->o.out, "begin", NULL, err);
    if (!dir) return FM_ERR_MEMORY;
    fm_status status = draw_model(j, dir, err);
    if (status == FM_OK) status = fm_model_open(&j->m, dir, NULL, err);
    fm_free(NULL, dir);
    return status;
}

static void say_tokens(fm_train_job *j, const char *path, size_t n, size_t n_bytes)
{
    if (n && n_bytes)
        fm_train_say(j, "%s: %zu tokens, %.3f bytes each", path, n, (double)n_bytes / (double)n);
    else
        fm_train_say(j, "%s: %zu tokens", path, n);
}

static fm_status read_source(fm_train_job *j, size_t i, const fm_tokenizing *o, fm_error *err)
{
    const char *name = j->o.train.items[i];
    fm_feed *s = &j->train[i];
    FM_TRY(fm_feed_open(s, name, o, err));
    say_tokens(j, name, fm_feed_tokens(s), fm_feed_bytes(s));
    j->data.sources[i] = s->parts;
    j->data.n_parts[i] = s->n_parts;
    j->data.weights[i] = s->weight;
    j->data.n_sources = i + 1;
    return FM_OK;
}

static fm_status read_val(fm_train_job *j, const fm_tokenizing *o, fm_error *err)
{
    FM_TRY(fm_tokens_read(&j->val, j->o.val, o, err));
    if (j->val.n && !j->val.n_bytes)
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "%s does not say how long its text was, which bits per byte need: give text or a shard", j->o.val);
    if (j->val.n <= j->o.length)
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "%s: %zu tokens do not fill one window of %llu and the token after it: give more held-out text, or a "
                       "smaller data.length",
                       j->o.val, j->val.n, (unsigned long long)j->o.length);
    say_tokens(j, j->o.val, j->val.n, j->val.n_bytes);
    return fm_tokens_load(&j->val, err);
}

static fm_status read_data(fm_train_job *j, fm_error *err)
{
    fm_tokenizing o = {.t = j->tokenizer, .vocab = fm_model_get_info(j->m).vocab};
    FM_TRY(fm_pool_open(&o.pool, (unsigned)fm_opt_int(&j->c->options, FM_OPT_THREADS), NULL, err));
    fm_status status = FM_OK;
    for (size_t i = 0; i < j->o.train.n && status == FM_OK; i++) status = read_source(j, i, &o, err);
    if (status == FM_OK && j->o.val) status = read_val(j, &o, err);
    fm_pool_free(o.pool);
    if (status == FM_OK) status = fm_stages_parse(j->stages, &j->o, &j->data, err);
    j->data.stages = j->stages;
    j->data.n_stages = j->o.stages.n;
    return status;
}

static fm_train_options options_of(const fm_train_job *j)
{
    const fm_train_config *o = &j->o;
    fm_train_options t = fm_train_defaults();
    t.schedule = (fm_schedule){.peak = o->rate,
                               .final = o->final,
                               .warmup = o->warmup,
                               .decay_begin = o->tokens - o->decay_tokens,
                               .total = o->tokens,
                               .decay = o->decay,
                               .batch_begin = (uint32_t)(o->batch_begin ? o->batch_begin : o->batch),
                               .batch_end = (uint32_t)o->batch,
                               .ramp = o->batch_ramp,
                               .scale_with_batch = o->scale_with_batch};
    t.length = fm_data_longest(&j->data); /* before there are stages: data.length */
    t.micro_batch = (size_t)o->micro_batch;
    t.chunk = (size_t)o->chunk;
    t.truncate = o->truncate;
    t.carry = o->carry;
    t.eos = j->tokenizer ? fm_tokenizer_eos(j->tokenizer) : -1;
    t.beta1 = (float)o->beta1, t.beta2 = (float)o->beta2, t.eps = (float)o->eps;
    t.weight_decay = (float)o->weight_decay;
    t.clip = (float)o->clip;
    t.z_loss = (float)o->z_loss;
    t.dropout = (float)o->dropout;
    t.recompute = o->recompute;
    t.weights = o->weights;
    t.outlier_window = o->loss_z > 0.0 || o->norm_z > 0.0 ? (size_t)o->outlier_window : 0;
    t.loss_z = o->loss_z, t.norm_z = o->norm_z;
    t.outlier_action = o->outlier_action;
    t.seed = o->seed;
    t.threads = (unsigned)fm_opt_int(&j->c->options, FM_OPT_THREADS);
    t.cpu = fm_opt_str(&j->c->options, FM_OPT_CPU);
    t.device = fm_opt_str(&j->c->options, FM_OPT_DEVICE);
    t.f32_activations = !strcmp(fm_opt_str(&j->c->options, FM_OPT_ACTIVATIONS), "f32");
    return t;
}

static fm_status open_trainer(fm_train_job *j, fm_error *err)
{
    char *resume = NULL;
    fm_status status = open_model(j, &resume, err);
    if (status == FM_OK) status = read_data(j, err);
    if (status == FM_OK) status = check_memory(j, j->o.out, j->m->arch, &j->m->config, err); /* text has taken some */
    const fm_train_options o = options_of(j);
    if (status == FM_OK) status = fm_trainer_open(&j->t, j->m, &j->data, &o, NULL, err);
    if (status == FM_OK && resume) status = fm_trainer_resume(j->t, resume, err);
    if (status == FM_OK && resume) fm_train_say(j, "going on from %s", resume);
    fm_free(NULL, resume);
    return status;
}

fm_status fm_train_open(fm_train_job *j, fm_error *err)
{
    j->watch.quiet = fm_opt_flag(&j->c->options, FM_OPT_QUIET);
    j->folder = (fm_run_folder){.out = j->o.out, .keep = (size_t)j->o.keep};
    j->data = (fm_data){.length = (size_t)j->o.length, .seed = j->o.seed};
    FM_TRY(place_decay(j, err));
    FM_TRY(find_tokenizer(j, err));
    if (fm_path_is_dir(j->o.out)) FM_TRY(fm_run_lock(&j->folder, err)); /* a run that cannot fit makes none */
    FM_TRY(open_trainer(j, err));
    FM_TRY(fm_run_lock(&j->folder, err));
    FM_TRY(fm_train_watch_open(j, err));
    const fm_model_info i = fm_model_get_info(j->m);
    fm_train_say(j, "%s, %.2f M parameters, %.0f MiB for training, %.4g GFLOP a token, peak %.0f GFLOP/s", i.name,
                 (double)i.n_params / 1e6, (double)fm_trainer_bytes(j->t) / 1048576.0, j->watch.flops / 1e9,
                 j->watch.peak / 1e9);
    return FM_OK;
}

void fm_train_close(fm_train_job *j)
{
    fm_train_watch_close(j);
    fm_run_unlock(&j->folder);
    fm_trainer_free(j->t);
    for (size_t i = 0; i < j->o.train.n; i++) fm_feed_free(&j->train[i]);
    fm_tokens_free(&j->val);
    fm_model_free(j->m);
    fm_tokenizer_free(j->tokenizer);
    fm_free(NULL, j->tokenizer_dir);
    fm_train_config_free(&j->o);
}

/* ---- Without training ---- */

static fm_status put_estimate(fm_train_job *j, fm_str *out, fm_error *err)
{
    const fm_arch *arch;
    fm_config c;
    fm_estimate e;
    FM_TRY(fm_train_read_config(j, err));
    j->data = (fm_data){.length = (size_t)j->o.length};
    if (!j->o.from && !j->o.shape)
        return fm_fail(err, FM_ERR_ARGUMENT, "model.from or model.shape is missing: what is to be estimated?");
    if (j->o.tokenizer) FM_TRY(find_tokenizer(j, err));
    if (j->o.from) {
        FM_TRY(fm_model_open(&j->m, j->o.from, NULL, err));
        arch = j->m->arch, c = j->m->config;
    } else {
        FM_TRY(find_shape(j, &arch, &c, err));
    }
    const fm_train_options o = options_of(j);
    FM_TRY(fm_estimate_make(&e, arch, &c, &o, NULL, err));
    fm_estimate_put(out, &e, j->o.from ? j->o.from : j->o.shape, &o);
    return FM_OK;
}

static int estimate(const fm_cli *c)
{
    fm_train_job j = {.c = c};
    fm_error err = {0};
    fm_str out = {0};
    const fm_status status = put_estimate(&j, &out, &err);
    fm_train_close(&j);
    if (status == FM_OK) return fm_cli_put(&out);
    fm_str_free(&out);
    return fm_cli_fail(&err);
}

static int run(const fm_cli *c)
{
    fm_train_job j = {.c = c};
    fm_error err = {0};
    if (fm_opt_flag(&c->options, FM_OPT_ESTIMATE)) return estimate(c);
    if (fm_opt_flag(&c->options, FM_OPT_EXPLAIN)) return explain();
    if (fm_opt_str(&c->options, FM_OPT_SWEEP)) return fm_train_sweep(c);
    if (fm_opt_flag(&c->options, FM_OPT_SWEEP_NORMS)) return fm_cli_usage(c, "--sweep-norms needs --sweep LOWEST:HIGHEST:N");
    fm_status status = fm_train_read_config(&j, &err);
    if (status == FM_OK) status = fm_train_open(&j, &err);
    if (status == FM_OK) status = fm_train_loop(&j, &err);
    fm_train_close(&j);
    return status == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
}

static const fm_opt options[] = {FM_OPTS_COMMON,  FM_OPTS_ENGINE,     FM_OPT_SET,   FM_OPT_DECAY_FROM,
                                 FM_OPT_ESTIMATE, FM_OPT_EXPLAIN,     FM_OPT_QUIET, FM_OPT_STATS_EVERY,
                                 FM_OPT_SWEEP,    FM_OPT_SWEEP_NORMS, FM_OPT_END};

const fm_command fm_command_train = {
    .name = "train",
    .summary = "train a model on text",
    .usage = "[CONFIG.yaml] [--set KEY=VALUE ...] [--decay-from CHECKPOINT]\n"
             "              [--sweep LOWEST:HIGHEST:N [--sweep-norms]] | --estimate | --explain",
    .details =
        "Learns from the files of data.train, saves checkpoints in run.out, and goes on from the newest one there when it\n"
        "is started again.  Every key is listed by --explain.\n"
        "--sweep makes N short runs of schedule.tokens each, from the same weights with rates spaced evenly by their "
        "logarithm,\n"
        "prints and draws their losses, and suggests a rate.",
    .options = options,
    .max_operands = 1,
    .run = run,
};
