/* cmd_inspect.c - what a model file holds, and what running it takes. */
#include <stdio.h>
#include <string.h>

#include "cli/common.h"
#include "format/gguf.h"
#include "runtime/session.h"

/* One fact: a number or a text. */
typedef struct fact {
    const char *key, *label, *text; /* text NULL: the number */
    uint64_t number;
} fact;

enum { FACTS_MAX = 32 };

/* What running it takes: by the CPU's session of one sequence, and, where --device asks for one, on a GPU. */
typedef struct needs {
    size_t session;
    bool on_device;
    fm_device_bytes device;
} needs;

static size_t collect(fact *f, const fm_model *m, const needs *n)
{
    const fm_model_info i = fm_model_get_info(m);
    const fact all[] = {
        {"name", "name", i.name, 0},
        {"arch", "architecture", i.arch, 0},
        {"format", "format", i.format, 0},
        {"type", "type of matrices", i.type, 0},
        {"d_model", "d_model", NULL, i.d_model},
        {"d_inner", "d_inner", NULL, i.d_inner},
        {"d_state", "d_state", NULL, i.d_state},
        {"d_conv", "d_conv", NULL, i.d_conv},
        {"dt_rank", "dt_rank", NULL, i.dt_rank},
        {"n_layer", "layers", NULL, i.n_layer},
        {"vocab", "vocabulary", NULL, i.vocab},
        {"n_params", "parameters", NULL, i.n_params},
        {"trained_length", "trained length", NULL, i.trained_length},
        {"weight_bytes", "bytes of weights", NULL, i.weight_bytes},
        {"state_bytes", "bytes per state", NULL, i.state_bytes},
        {"session_bytes", "bytes of a session", NULL, n->session},
        {"memory_bytes", "memory needed", NULL, i.weight_bytes + n->session},
        {"device_weight_bytes", "weights on a GPU", NULL, n->device.weights},
        {"device_state_bytes", "states there", NULL, n->device.states},
        {"device_scratch_bytes", "scratch there", NULL, n->device.scratch},
        {"device_bytes", "memory needed there", NULL, fm_device_bytes_sum(&n->device)},
    };
    memcpy(f, all, sizeof all);
    return FM_COUNT(all) - (n->on_device ? 0 : 4);
}

/* The session that the options describe, on a GPU that need not be there. */
static fm_status measure(needs *n, const fm_model *m, const fm_cli *c, fm_error *err)
{
    const fm_model_options how = {.f32_activations = !strcmp(fm_opt_str(&c->options, FM_OPT_ACTIVATIONS), "f32"),
                                  .invariant = fm_opt_flag(&c->options, FM_OPT_INVARIANT)};
    fm_session_options o = fm_cli_session_options(c, 1);
    *n = (needs){.session = fm_session_bytes(m, NULL), .on_device = strcmp(fm_opt_str(&c->options, FM_OPT_DEVICE), "cpu") != 0};
    if (!n->on_device) return FM_OK;
    if (fm_cli_int_list(fm_opt_str(&c->options, FM_OPT_BATCH), &o.n_seq, 1) != 1 || !o.n_seq)
        return fm_fail(err, FM_ERR_ARGUMENT, "--batch %s: expected a number of sequences",
                       fm_opt_str(&c->options, FM_OPT_BATCH));
    return fm_device_bytes_of(m, &how, &o, &n->device, err);
}

static void put_tensors_json(fm_jsonw *w, const fm_model *m)
{
    fm_jsonw_key(w, "tensors");
    fm_jsonw_array(w);
    for (size_t i = 0; i < fm_model_tensor_count(m); i++) {
        const fm_tensor_info t = fm_model_tensor(m, i);
        fm_jsonw_object(w);
        fm_jsonw_key(w, "name"), fm_jsonw_cstr(w, t.name);
        fm_jsonw_key(w, "type"), fm_jsonw_cstr(w, t.type);
        fm_jsonw_key(w, "shape");
        fm_jsonw_array(w);
        for (size_t d = 0; d < t.n_dims; d++) fm_jsonw_u64(w, t.dims[d]);
        fm_jsonw_end(w, ']');
        fm_jsonw_key(w, "bytes"), fm_jsonw_u64(w, t.bytes);
        fm_jsonw_end(w, '}');
    }
    fm_jsonw_end(w, ']');
}

static void put_json(fm_str *out, const fm_model *m, const needs *need)
{
    const fm_model_info i = fm_model_get_info(m);
    const fm_tokenizer *t = fm_model_tokenizer(m);
    const fm_generation_defaults d = fm_model_generation_defaults(m);
    fact facts[FACTS_MAX];
    const size_t n = collect(facts, m, need);
    fm_jsonw w = {.out = out, .pretty = true};
    fm_jsonw_object(&w);
    for (size_t k = 0; k < n; k++) {
        fm_jsonw_key(&w, facts[k].key);
        if (facts[k].text)
            fm_jsonw_cstr(&w, facts[k].text);
        else
            fm_jsonw_u64(&w, facts[k].number);
    }
    fm_jsonw_key(&w, "norm_eps"), fm_jsonw_f32(&w, i.norm_eps);
    fm_jsonw_key(&w, "mixer_rms_eps"), i.mixer_rms_eps > 0 ? fm_jsonw_f32(&w, i.mixer_rms_eps) : fm_jsonw_null(&w);
    fm_jsonw_key(&w, "mixer_rms_eps_source"), fm_jsonw_cstr(&w, i.mixer_rms_eps > 0 ? i.mixer_rms_eps_source : NULL);
    fm_jsonw_key(&w, "tied_head"), fm_jsonw_bool(&w, i.tied_head);
    fm_jsonw_key(&w, "tokenizer_vocab");
    if (t)
        fm_jsonw_u64(&w, fm_tokenizer_vocab(t));
    else
        fm_jsonw_null(&w);
    fm_jsonw_key(&w, "eos");
    fm_jsonw_array(&w);
    for (size_t k = 0; k < d.n_eos; k++) fm_jsonw_i64(&w, d.eos[k]);
    fm_jsonw_end(&w, ']');
    put_tensors_json(&w, m);
    fm_jsonw_end(&w, '}');
    fm_str_putc(out, '\n');
}

static void put_size(fm_str *out, uint64_t bytes)
{
    if (bytes >= (uint64_t)1 << 30)
        fm_str_printf(out, " (%.2f GiB)", (double)bytes / (1 << 30));
    else if (bytes >= (uint64_t)1 << 20)
        fm_str_printf(out, " (%.1f MiB)", (double)bytes / (1 << 20));
}

static void put_tensors_text(fm_str *out, const fm_model *m)
{
    for (size_t i = 0; i < fm_model_tensor_count(m); i++) {
        const fm_tensor_info t = fm_model_tensor(m, i);
        fm_str_printf(out, "%-52s %-7s (", t.name, t.type);
        for (size_t d = 0; d < t.n_dims; d++) fm_str_printf(out, "%s%zu", d ? ", " : "", t.dims[d]);
        fm_str_printf(out, ") %zu\n", t.bytes);
    }
}

static void put_text(fm_str *out, const fm_model *m, const needs *need, bool tensors)
{
    const fm_model_info i = fm_model_get_info(m);
    const fm_tokenizer *t = fm_model_tokenizer(m);
    fact facts[FACTS_MAX];
    const size_t n = collect(facts, m, need);
    for (size_t k = 0; k < n; k++) {
        fm_str_printf(out, "%-20s ", facts[k].label);
        if (facts[k].text)
            fm_str_puts(out, facts[k].text);
        else if (!strcmp(facts[k].key, "trained_length") && !facts[k].number)
            fm_str_puts(out, "not stated; there is no limit");
        else
            fm_str_printf(out, "%llu", (unsigned long long)facts[k].number);
        if (strstr(facts[k].key, "_bytes")) put_size(out, facts[k].number);
        fm_str_putc(out, '\n');
    }
    fm_str_printf(out, "%-20s %g\n", "norm epsilon", (double)i.norm_eps);
    if (i.mixer_rms_eps > 0)
        fm_str_printf(out, "%-20s %g, from %s\n", "dt/B/C norm epsilon", (double)i.mixer_rms_eps, i.mixer_rms_eps_source);
    fm_str_printf(out, "%-20s %s\n", "output head", i.tied_head ? "the embedding" : "its own");
    if (t)
        fm_str_printf(out, "%-20s %zu tokens\n", "tokenizer", fm_tokenizer_vocab(t));
    else
        fm_str_printf(out, "%-20s none\n", "tokenizer");
    fm_str_printf(out, "%-20s %zu (--tensors lists them)\n", "tensors", fm_model_tensor_count(m));
    if (tensors) put_tensors_text(out, m);
}

/* A GGUF file that is no model of ours, a vocabulary for instance: its keys. */
static fm_status put_keys(fm_str *out, const char *path, bool json, fm_error *err)
{
    fm_gguf g;
    FM_TRY(fm_gguf_open(&g, path, FM_MAP_SHARED, NULL, err));
    if (json) fm_str_puts(out, "{");
    for (size_t i = 0; i < g.n_kv; i++) {
        if (json) {
            fm_jsonw w = {.out = out};
            if (i) fm_str_puts(out, ", ");
            fm_jsonw_string(&w, g.kv[i].key);
            fm_str_puts(out, ": ");
        } else {
            fm_str_printf(out, "%.*s = ", (int)g.kv[i].key.n, g.kv[i].key.p);
        }
        fm_gguf_kv_json(out, &g.kv[i], 8);
        if (!json) fm_str_putc(out, '\n');
    }
    if (json)
        fm_str_printf(out, "%s\"n_tensors\": %zu}\n", g.n_kv ? ", " : "", g.n_tensors);
    else
        fm_str_printf(out, "%zu tensors\n", g.n_tensors);
    fm_gguf_close(&g);
    return FM_OK;
}

static int inspect_other(const char *path, const fm_cli *c, const fm_error *why)
{
    fm_str out = {0};
    if (fm_path_is_dir(path) || put_keys(&out, path, fm_opt_flag(&c->options, FM_OPT_JSON), NULL) != FM_OK) {
        fm_str_free(&out);
        return fm_cli_fail(why);
    }
    fm_cli_note("it cannot be run: %s", why->text);
    return fm_cli_put(&out);
}

static int inspect(const char *path, const fm_cli *c)
{
    fm_error err = {0};
    fm_model *m;
    fm_str out = {0};
    const fm_model_options o = {.mixer_rms_eps = (float)fm_opt_float(&c->options, FM_OPT_MIXER_RMS_EPS)};
    needs need;
    if (fm_model_open(&m, path, &o, &err) != FM_OK) return inspect_other(path, c, &err);
    if (measure(&need, m, c, &err) != FM_OK) {
        fm_model_free(m);
        return fm_cli_fail(&err);
    }
    if (fm_opt_flag(&c->options, FM_OPT_JSON))
        put_json(&out, m, &need);
    else
        put_text(&out, m, &need, fm_opt_flag(&c->options, FM_OPT_TENSORS));
    fm_model_free(m);
    return fm_cli_put(&out);
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    fm_str path = {0};
    if (c->n_operands) return inspect(c->operands[0], c);
    if (fm_cli_model_path(&path, c, &err) != FM_OK) {
        fm_str_free(&path);
        return fm_cli_fail(&err);
    }
    const int code = inspect(path.p, c);
    fm_str_free(&path);
    return code;
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPT_MODEL,  FM_OPT_MIXER_RMS_EPS, FM_OPT_TENSORS,
                                 FM_OPT_JSON,    FM_OPT_DEVICE, FM_OPT_ACTIVATIONS,   FM_OPT_INVARIANT,
                                 FM_OPT_STATES,  FM_OPT_CHUNK,  FM_OPT_BATCH,         FM_OPT_END};

const fm_command fm_command_inspect = {
    .name = "inspect",
    .summary = "show a model's configuration, tensors, sizes and the memory it needs",
    .usage = "[MODEL] [--tensors] [--json] [--device cuda [--batch N] [-b N] [--states bf16]]",
    .details =
        "A GGUF file that is no Mamba model, such as a vocabulary, is shown by its keys.  With --device cuda it also says what "
        "--batch sequences and steps of -b tokens take on a GPU, which need not be there.",
    .options = options,
    .max_operands = 1,
    .run = run,
};
