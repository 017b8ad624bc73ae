/* mamba.c - plain Mamba-1 (state-spaces, TRI mamba-7b-rw), and what Falcon Mamba shares with it.  Configuration rules: spec
 * falcon-mamba.md 1.2 and 1.3 (intermediate_size before expand; time_step_rank may be "auto"; class defaults), GGUF keys: 4.2. */
#include "model/arch/mamba.h"

#include <string.h>

static const char *const embed_names[] = {"backbone.embedding.weight", "model.embeddings.weight", "model.embedding.weight",
                                          "model.embed_tokens.weight", NULL};
static const char *const norm_names[] = {"model.norm_f.weight", "model.norm.weight", "backbone.final_layer_norm.weight", NULL};

const fm_weight_def fm_mamba_globals[FM_GLOBAL_COUNT] = {
    [FM_GLOBAL_EMBED] = {.name = "embeddings",
                         .hf = "backbone.embeddings.weight",
                         .gguf = "token_embd.weight",
                         .also = embed_names,
                         .rows = FM_DIM_VOCAB,
                         .cols = FM_DIM_MODEL,
                         .kind = FM_WEIGHT_MATRIX,
                         .shard = FM_SHARD_ROWS,
                         .init = FM_INIT_EMBEDDING},
    [FM_GLOBAL_NORM] = {.name = "norm_f",
                        .hf = "backbone.norm_f.weight",
                        .gguf = "output_norm.weight",
                        .also = norm_names,
                        .rows = FM_DIM_1,
                        .cols = FM_DIM_MODEL,
                        .kind = FM_WEIGHT_SMALL,
                        .init = FM_INIT_ONES},
    [FM_GLOBAL_HEAD] = {.name = "lm_head",
                        .hf = "lm_head.weight",
                        .gguf = "output.weight",
                        .rows = FM_DIM_VOCAB,
                        .cols = FM_DIM_MODEL,
                        .kind = FM_WEIGHT_MATRIX,
                        .shard = FM_SHARD_ROWS,
                        .presence = FM_MAYBE},
};

const fm_block *fm_mamba_block(const fm_config *c, size_t layer)
{
    (void)c, (void)layer;
    return &fm_block_mamba;
}

/* ---- config.json ---- */

/* Keys as they come; rules that need several of them are applied by settle(). */
typedef struct raw_config {
    uint64_t d_model, d_inner, d_state, d_conv, dt_rank, n_layer, vocab, expand, pad_multiple, trained;
    bool quantized, mixer_eps_stated, falcon, has_ssm_cfg, other_activation;
    double norm_eps, mixer_eps;
} raw_config;

/* One id or a list of ids. */
static void read_ids(fm_json *j, int32_t *ids, size_t *n, size_t max)
{
    uint64_t id;
    *n = 0;
    if (fm_json_peek(j) != FM_JSON_ARRAY) {
        if (fm_json_u64(j, &id) && id <= INT32_MAX) ids[(*n)++] = (int32_t)id;
        return;
    }
    fm_json_enter_array(j);
    while (fm_json_element(j)) {
        if (!fm_json_u64(j, &id)) return;
        if (id <= INT32_MAX && *n < max) ids[(*n)++] = (int32_t)id;
    }
}

static void read_rank(fm_json *j, raw_config *r)
{
    fm_view v;
    if (fm_json_peek(j) != FM_JSON_STRING)
        fm_json_u64(j, &r->dt_rank);
    else if (fm_json_string(j, &v) && !fm_view_is(v, "auto"))
        fm_json_fail(j, "a whole number or \"auto\"");
}

/* ssm_cfg of state-spaces' own configurations. */
static void read_ssm_cfg(fm_json *j, raw_config *r)
{
    fm_view key;
    r->has_ssm_cfg = true;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, "d_state"))
            fm_json_u64(j, &r->d_state);
        else if (fm_view_is(key, "d_conv"))
            fm_json_u64(j, &r->d_conv);
        else if (fm_view_is(key, "expand"))
            fm_json_u64(j, &r->expand);
        else if (fm_view_is(key, "dt_rank"))
            read_rank(j, r);
        else
            fm_json_skip(j);
    }
}

static bool read_number_key(fm_json *j, fm_view key, raw_config *r)
{
    static const struct {
        const char *key;
        size_t offset;
    } numbers[] = {
        {"hidden_size", offsetof(raw_config, d_model)},
        {"intermediate_size", offsetof(raw_config, d_inner)},
        {"state_size", offsetof(raw_config, d_state)},
        {"conv_kernel", offsetof(raw_config, d_conv)},
        {"num_hidden_layers", offsetof(raw_config, n_layer)},
        {"vocab_size", offsetof(raw_config, vocab)},
        {"expand", offsetof(raw_config, expand)},
        {"pad_vocab_size_multiple", offsetof(raw_config, pad_multiple)},
        {"max_position_embeddings", offsetof(raw_config, trained)},
        {"max_seq_len", offsetof(raw_config, trained)},
        {"seq_length", offsetof(raw_config, trained)},
    };
    for (size_t i = 0; i < FM_COUNT(numbers); i++)
        if (fm_view_is(key, numbers[i].key)) {
            fm_json_u64(j, (uint64_t *)((char *)r + numbers[i].offset));
            return true;
        }
    return false;
}

/* d_model and n_layer are state-spaces' own spellings; the -hf conversions carry both, and the HF ones win (settle order
 * below). */
static void read_key(fm_json *j, fm_view key, raw_config *r, raw_config *old, fm_config *c)
{
    size_t n;
    fm_view v;
    if (fm_json_null(j) || read_number_key(j, key, r)) return;
    if (fm_view_is(key, "d_model"))
        fm_json_u64(j, &old->d_model);
    else if (fm_view_is(key, "n_layer"))
        fm_json_u64(j, &old->n_layer);
    else if (fm_view_is(key, "ssm_cfg"))
        read_ssm_cfg(j, old);
    else if (fm_view_is(key, "time_step_rank"))
        read_rank(j, r);
    else if (fm_view_is(key, "layer_norm_epsilon"))
        fm_json_f64(j, &r->norm_eps);
    else if (fm_view_is(key, "mixer_rms_eps"))
        r->mixer_eps_stated = fm_json_f64(j, &r->mixer_eps);
    else if (fm_view_is(key, "use_bias"))
        fm_json_bool(j, &c->use_bias);
    else if (fm_view_is(key, "use_conv_bias"))
        fm_json_bool(j, &c->use_conv_bias);
    else if (fm_view_is(key, "tie_word_embeddings"))
        c->tie_stated = fm_json_bool(j, &c->tie);
    else if (fm_view_is(key, "quantization_config"))
        r->quantized = fm_json_peek(j) == FM_JSON_OBJECT, fm_json_skip(j);
    else if (fm_view_is(key, "bos_token_id"))
        read_ids(j, &c->bos, &n, 1);
    else if (fm_view_is(key, "eos_token_id"))
        read_ids(j, c->eos, &c->n_eos, FM_EOS_MAX);
    else if (fm_view_is(key, "hidden_act")) {
        if (fm_json_string(j, &v)) r->other_activation = !fm_view_is(v, "silu") && !fm_view_is(v, "swish");
    } else
        fm_json_skip(j);
}

static fm_status parse_json(raw_config *r, raw_config *old, fm_config *c, const fm_source *s, fm_error *err)
{
    fm_json j = fm_json_begin(s->config.p, s->config.n, "config.json");
    fm_view next, key = {0};
    if (fm_json_enter_object(&j))
        while (fm_json_key(&j, &next)) read_key(&j, key = next, r, old, c);
    const fm_status status = fm_json_finish(&j, err);
    if (status == FM_OK) return FM_OK;
    return key.n ? fm_fail_prefix(err, status, "%s: at the key \"%s\"", s->path, fm_quote_of(key).text)
                 : fm_fail_prefix(err, status, "%s", s->path);
}

/* Spec 1.2: class defaults where keys are absent, historical spellings, intermediate_size before expand * hidden. */
static void settle(fm_config *c, const raw_config *r, const raw_config *old)
{
    c->d_model = r->d_model ? r->d_model : old->d_model ? old->d_model : 768;
    c->n_layer = r->n_layer ? r->n_layer : old->n_layer ? old->n_layer : 32;
    c->d_state = r->d_state ? r->d_state : old->d_state ? old->d_state : 16;
    c->d_conv = r->d_conv ? r->d_conv : old->d_conv ? old->d_conv : 4;
    const uint64_t expand = r->expand ? r->expand : old->expand ? old->expand : 2;
    if (r->d_inner)
        c->d_inner = r->d_inner;
    else if (!fm_mul(expand, c->d_model, &c->d_inner))
        c->d_inner = SIZE_MAX;
    const uint64_t rank = r->dt_rank ? r->dt_rank : old->dt_rank;
    c->dt_rank = rank ? rank : c->d_model / 16 + (c->d_model % 16 != 0);
    c->vocab = r->vocab ? r->vocab : 50280;
    c->pad_vocab_multiple = r->pad_multiple ? r->pad_multiple : old->has_ssm_cfg && !r->d_model ? 8 : 1;
    c->trained_length = r->trained;
    c->norm_eps = (float)r->norm_eps;
    c->mixer_norms = r->falcon || r->mixer_eps_stated;
    c->mixer_rms_eps = (float)r->mixer_eps;
    c->mixer_rms_eps_source = r->mixer_eps_stated ? "config.json" : "default of the configuration class (1e-6)";
}

/* What of a config.json tells the family: no values, which may be wrong and are for read_config() to refuse. */
typedef struct identity {
    bool falcon, mamba, mixer_eps, ssm_cfg, d_model;
} identity;

static identity read_identity(const fm_source *s)
{
    identity who = {0};
    fm_view key, type = fm_config_model_type(s);
    fm_json j = fm_json_begin(s->config.p, s->config.n, "config.json");
    who.falcon = fm_view_is(type, "falcon_mamba") || fm_view_is(type, "FalconMambaForCausalLM");
    who.mamba = fm_view_is(type, "mamba") || fm_view_is(type, "MambaForCausalLM");
    if (!fm_json_enter_object(&j)) return who;
    while (fm_json_key(&j, &key)) {
        who.mixer_eps |= fm_view_is(key, "mixer_rms_eps");
        who.ssm_cfg |= fm_view_is(key, "ssm_cfg");
        who.d_model |= fm_view_is(key, "d_model");
        fm_json_skip(&j);
    }
    return who;
}

static fm_status read_json(fm_config *c, const fm_source *s, fm_error *err)
{
    raw_config r = {.norm_eps = 1e-5, .mixer_eps = 1e-6, .falcon = read_identity(s).falcon}, old = {0};
    c->use_conv_bias = true;
    c->tie = true;
    c->bos = -1;
    FM_TRY(parse_json(&r, &old, c, s, err));
    if (r.quantized)
        return fm_fail(
            err, FM_ERR_UNSUPPORTED,
            "%s/config.json has a quantization_config (bitsandbytes, GPTQ or the like), whose packed weights cannot be "
            "read: use the original checkpoint and `fmamba quantize`",
            s->path);
    if (r.other_activation)
        return fm_fail(err, FM_ERR_UNSUPPORTED,
                       "%s/config.json: hidden_act is not \"silu\", the only activation that Mamba models "
                       "are trained with and that this version computes",
                       s->path);
    settle(c, &r, &old);
    return FM_OK;
}

/* ---- GGUF ---- */

static fm_status read_size(size_t *out, const fm_source *s, const char *key, fm_error *err)
{
    bool found = false;
    uint64_t v = 0;
    FM_TRY(fm_gguf_get_u64(&s->gguf, key, &v, &found, err));
    if (!found) return fm_fail(err, FM_ERR_FORMAT, "%s: key %s is missing: not a whole Mamba file", s->path, key);
    *out = v;
    return FM_OK;
}

static fm_status read_mixer_eps(fm_config *c, const fm_source *s, fm_error *err)
{
    bool found = false;
    double v = 0;
    FM_TRY(fm_gguf_get_bool(&s->gguf, "mamba.ssm.dt_b_c_rms", &c->mixer_norms, NULL, err));
    FM_TRY(fm_gguf_get_f64(&s->gguf, "fmamba.mixer_rms_eps", &v, &found, err));
    c->mixer_rms_eps = found ? (float)v : c->norm_eps;
    c->mixer_rms_eps_source = found ? "fmamba.mixer_rms_eps" : "mamba.attention.layer_norm_rms_epsilon (as llama.cpp does)";
    return FM_OK;
}

static fm_status read_gguf_ids(fm_config *c, const fm_source *s, fm_error *err)
{
    uint64_t id = 0;
    bool found = false;
    c->bos = -1;
    FM_TRY(fm_gguf_get_u64(&s->gguf, "tokenizer.ggml.bos_token_id", &id, &found, err));
    if (found && id <= INT32_MAX) c->bos = (int32_t)id;
    found = false;
    FM_TRY(fm_gguf_get_u64(&s->gguf, "tokenizer.ggml.eos_token_id", &id, &found, err));
    if (found && id <= INT32_MAX) c->eos[c->n_eos++] = (int32_t)id;
    return FM_OK;
}

/* GGUF has no key for biases: a model has them when one of its layers does. */
static bool some_layer_has(const fm_gguf *g, const char *ending)
{
    for (size_t i = 0; i < g->n_tensors; i++)
        if (fm_view_ends(g->tensors[i].name, ending)) return true;
    return false;
}

static fm_status read_gguf(fm_config *c, const fm_source *s, fm_error *err)
{
    FM_TRY(read_size(&c->d_model, s, "mamba.embedding_length", err));
    FM_TRY(read_size(&c->n_layer, s, "mamba.block_count", err));
    FM_TRY(read_size(&c->d_inner, s, "mamba.ssm.inner_size", err));
    FM_TRY(read_size(&c->d_state, s, "mamba.ssm.state_size", err));
    FM_TRY(read_size(&c->d_conv, s, "mamba.ssm.conv_kernel", err));
    FM_TRY(read_size(&c->dt_rank, s, "mamba.ssm.time_step_rank", err));
    double eps = 1e-5;
    uint64_t context = 0;
    FM_TRY(fm_gguf_get_f64(&s->gguf, "mamba.attention.layer_norm_rms_epsilon", &eps, NULL, err));
    FM_TRY(fm_gguf_get_u64(&s->gguf, "mamba.context_length", &context, NULL, err));
    c->norm_eps = (float)eps;
    c->trained_length = context == 1048576 ? 0 : context; /* 2^20 is what converters write for "no limit" */
    c->use_bias = some_layer_has(&s->gguf, ".ssm_in.bias");
    c->use_conv_bias = some_layer_has(&s->gguf, ".ssm_conv1d.bias");
    const fm_gguf_tensor *embed = fm_gguf_find_tensor(&s->gguf, "token_embd.weight");
    if (!embed)
        return fm_fail(err, FM_ERR_SHAPE, "%s: tensor token_embd.weight is missing: a vocabulary without a model?", s->path);
    c->vocab = embed->dims[1];
    c->pad_vocab_multiple = 1;
    FM_TRY(read_mixer_eps(c, s, err));
    return read_gguf_ids(c, s, err);
}

fm_status fm_mamba_read_config(fm_config *c, const fm_source *s, fm_error *err)
{
    *c = (fm_config){0};
    return s->kind == FM_SOURCE_GGUF ? read_gguf(c, s, err) : read_json(c, s, err);
}

bool fm_mamba_claims(const fm_source *s, bool *mixer_norms)
{
    *mixer_norms = false;
    if (s->kind == FM_SOURCE_GGUF) {
        fm_view name = {0};
        if (fm_gguf_get_string(&s->gguf, "general.architecture", &name, NULL, NULL) != FM_OK) return false;
        fm_gguf_get_bool(&s->gguf, "mamba.ssm.dt_b_c_rms", mixer_norms, NULL, NULL);
        return fm_view_is(name, "mamba");
    }
    const identity who = read_identity(s);
    *mixer_norms = who.falcon || (who.mamba && who.mixer_eps);
    return who.falcon || who.mamba || (who.ssm_cfg && who.d_model);
}

/* ---- Saving ---- */

void fm_mamba_put_gguf(fm_gguf_writer *w, const fm_config *c)
{
    fm_gguf_put_u32(w, "mamba.context_length", c->trained_length ? (uint32_t)c->trained_length : 1048576);
    fm_gguf_put_u32(w, "mamba.embedding_length", (uint32_t)c->d_model);
    fm_gguf_put_u32(w, "mamba.feed_forward_length", 0);
    fm_gguf_put_u32(w, "mamba.attention.head_count", 0);
    fm_gguf_put_u32(w, "mamba.block_count", (uint32_t)c->n_layer);
    fm_gguf_put_u32(w, "mamba.ssm.conv_kernel", (uint32_t)c->d_conv);
    fm_gguf_put_u32(w, "mamba.ssm.inner_size", (uint32_t)c->d_inner);
    fm_gguf_put_u32(w, "mamba.ssm.state_size", (uint32_t)c->d_state);
    fm_gguf_put_u32(w, "mamba.ssm.time_step_rank", (uint32_t)c->dt_rank);
    fm_gguf_put_f32(w, "mamba.attention.layer_norm_rms_epsilon", c->norm_eps);
    fm_gguf_put_bool(w, "mamba.ssm.dt_b_c_rms", c->mixer_norms);
    if (c->mixer_norms) fm_gguf_put_f32(w, "fmamba.mixer_rms_eps", c->mixer_rms_eps);
}

static void put_ids(fm_jsonw *w, const fm_config *c)
{
    if (c->bos >= 0) fm_jsonw_key(w, "bos_token_id"), fm_jsonw_i64(w, c->bos);
    if (!c->n_eos) return;
    fm_jsonw_key(w, "eos_token_id");
    if (c->n_eos == 1) {
        fm_jsonw_i64(w, c->eos[0]);
        return;
    }
    fm_jsonw_array(w);
    for (size_t i = 0; i < c->n_eos; i++) fm_jsonw_i64(w, c->eos[i]);
    fm_jsonw_end(w, ']');
}

void fm_mamba_put_json(fm_jsonw *w, const fm_config *c)
{
    const struct {
        const char *key;
        size_t v;
    } sizes[] = {
        {"hidden_size", c->d_model}, {"intermediate_size", c->d_inner}, {"state_size", c->d_state},
        {"conv_kernel", c->d_conv},  {"time_step_rank", c->dt_rank},    {"num_hidden_layers", c->n_layer},
        {"vocab_size", c->vocab},
    };
    for (size_t i = 0; i < FM_COUNT(sizes); i++) fm_jsonw_key(w, sizes[i].key), fm_jsonw_u64(w, sizes[i].v);
    if (c->d_inner % c->d_model == 0) fm_jsonw_key(w, "expand"), fm_jsonw_u64(w, c->d_inner / c->d_model);
    fm_jsonw_key(w, "layer_norm_epsilon"), fm_jsonw_f32(w, c->norm_eps);
    if (c->mixer_norms) fm_jsonw_key(w, "mixer_rms_eps"), fm_jsonw_f32(w, c->mixer_rms_eps);
    fm_jsonw_key(w, "use_bias"), fm_jsonw_bool(w, c->use_bias);
    fm_jsonw_key(w, "use_conv_bias"), fm_jsonw_bool(w, c->use_conv_bias);
    fm_jsonw_key(w, "tie_word_embeddings"), fm_jsonw_bool(w, c->tie);
    fm_jsonw_key(w, "hidden_act"), fm_jsonw_cstr(w, "silu");
    fm_jsonw_key(w, "residual_in_fp32"), fm_jsonw_bool(w, true);
    put_ids(w, c);
}

static bool claims(const fm_source *s)
{
    bool norms;
    return fm_mamba_claims(s, &norms) && !norms;
}

extern const fm_arch fm_arch_mamba;
const fm_arch fm_arch_mamba = {
    .name = "mamba",
    .hf_type = "mamba",
    .hf_class = "MambaForCausalLM",
    .gguf = "mamba",
    .globals = fm_mamba_globals,
    .claims = claims,
    .read_config = fm_mamba_read_config,
    .block = fm_mamba_block,
    .put_gguf = fm_mamba_put_gguf,
    .put_json = fm_mamba_put_json,
};
