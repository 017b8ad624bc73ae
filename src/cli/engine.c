/* engine.c - what the options say about models, sessions and states. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/common.h"
#include "runtime/session.h"

#define SHIPPED "models/tales.gguf"

/* ---- Which model ---- */

/* The folder that the program lies in, with a slash at its end; empty where the system does not say. */
static void program_folder(fm_str *out)
{
    char path[4096];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    if (n <= 0 || (size_t)n == sizeof path) return;
    size_t end = (size_t)n;
    while (end > 0 && path[end - 1] != '/') end--;
    fm_str_put(out, path, end);
}

/* The shipped model: beside the source tree's build folder, under the prefix the program is installed in, or where the build
 * said. */
fm_status fm_cli_shipped_path(fm_str *out, fm_error *err)
{
    static const char *const places[] = {"../" SHIPPED, "../../" SHIPPED, "../share/fmamba/" SHIPPED};
    for (size_t i = 0; i <= FM_COUNT(places); i++) {
        fm_str_reset(out);
        if (i < FM_COUNT(places)) {
            program_folder(out);
            fm_str_puts(out, places[i]);
        } else {
            fm_str_puts(out, FM_DATA_DIR "/" SHIPPED);
        }
        FM_TRY(fm_str_ok(out, "a path", err));
        if (fm_path_exists(out->p)) return FM_OK;
    }
    return fm_fail(err, FM_ERR_IO, "the model that ships was not found at %s: give a model with -m", out->p);
}

fm_status fm_cli_model_path(fm_str *out, const fm_cli *c, fm_error *err)
{
    const char *given = fm_opt_str(&c->options, FM_OPT_MODEL);
    fm_str_reset(out);
    if (!given) return fm_cli_shipped_path(out, err);
    fm_str_puts(out, given);
    return fm_str_ok(out, "a path", err);
}

typedef struct opening {
    const fm_cli *c;
    fm_cli_bar bar;
} opening;

static bool on_progress(void *ctx, double fraction)
{
    return fm_cli_progress(&((opening *)ctx)->bar, fraction);
}

static void on_log(void *ctx, const char *line)
{
    fm_cli_log((void *)(uintptr_t)((opening *)ctx)->c, line);
}

/* How fast the weights came to the device. */
static void note_loaded(const fm_cli *c, const fm_model *m, double begun)
{
    size_t bytes;
    const double s = fm_clock_s() - begun;
    if (!m->device || !fm_opt_flag(&c->options, FM_OPT_VERBOSE) || fm_model_device_bytes(m, &bytes, NULL) != FM_OK) return;
    fm_cli_note("%zu MiB of weights went to %s, which took %.2f s with opening it", bytes >> 20, fm_model_device(m), s);
}

fm_status fm_cli_model_open_path(fm_model **out, const fm_cli *c, const char *path, size_t n_seq, fm_error *err)
{
    opening o = {c, fm_cli_bar_begin("reading")};
    const double begun = fm_clock_s();
    const fm_session_options session = fm_cli_session_options(c, n_seq);
    const fm_model_options options = {.no_mmap = !fm_opt_flag(&c->options, FM_OPT_MMAP),
                                      .mlock = fm_opt_flag(&c->options, FM_OPT_MLOCK),
                                      .device = fm_opt_str(&c->options, FM_OPT_DEVICE),
                                      .f32_activations = !strcmp(fm_opt_str(&c->options, FM_OPT_ACTIVATIONS), "f32"),
                                      .invariant = fm_opt_flag(&c->options, FM_OPT_INVARIANT),
                                      .session = &session,
                                      .mixer_rms_eps = (float)fm_opt_float(&c->options, FM_OPT_MIXER_RMS_EPS),
                                      .progress = on_progress,
                                      .log = on_log,
                                      .ctx = &o};
    const fm_status status = fm_model_open(out, path, &options, err);
    fm_cli_bar_end(&o.bar);
    if (status == FM_OK) note_loaded(c, *out, begun);
    return status;
}

fm_status fm_cli_model_open(fm_model **out, const fm_cli *c, size_t n_seq, fm_error *err)
{
    fm_str path = {0};
    *out = NULL;
    fm_status status = fm_cli_model_path(&path, c, err);
    if (status == FM_OK) status = fm_cli_model_open_path(out, c, path.p, n_seq, err);
    fm_str_free(&path);
    return status;
}

/* ---- Sessions ---- */

static bool bf16_states(const fm_cli *c)
{
    return fm_options_take(c->command->options, FM_OPT_STATES) && !strcmp(fm_opt_str(&c->options, FM_OPT_STATES), "bf16");
}

fm_session_options fm_cli_session_options(const fm_cli *c, size_t n_seq)
{
    return (fm_session_options){.n_seq = n_seq,
                                .chunk = (size_t)fm_opt_int(&c->options, FM_OPT_CHUNK),
                                .draft_max = fm_cli_draft_max(c),
                                .threads = (unsigned)fm_opt_int(&c->options, FM_OPT_THREADS),
                                .cpu = fm_opt_str(&c->options, FM_OPT_CPU),
                                .bf16_states = bf16_states(c),
                                .cancel = fm_cli_interrupted};
}

fm_status fm_cli_session_open(fm_session **out, const fm_model *m, const fm_cli *c, size_t n_seq, fm_error *err)
{
    const fm_session_options o = fm_cli_session_options(c, n_seq);
    fm_cli_catch_interrupt();
    return fm_session_open(out, m, &o, err);
}

static void put_memory(const fm_model *m, const fm_session *s)
{
    fm_device_bytes b;
    const fm_session_options o = {
        .n_seq = s->n_seq, .chunk = s->chunk, .draft_max = s->draft_max, .bf16_states = s->half_states, .cancel = s->cancel};
    if (!m->device || fm_session_device_bytes(m, &o, &b, NULL) != FM_OK) return;
    fprintf(stderr, ", memory there %zu MiB: weights %zu, states %zu, scratch %zu", fm_device_bytes_sum(&b) >> 20,
            b.weights >> 20, b.states >> 20, b.scratch >> 20);
}

void fm_cli_start_line(const fm_cli *c, const fm_model *m, const fm_session *s, const fm_sampling *p)
{
    if (!fm_cli_is_terminal(STDERR_FILENO) && !fm_opt_flag(&c->options, FM_OPT_VERBOSE)) return;
    const fm_model_info i = fm_model_get_info(m);
    fprintf(stderr, "fmamba %s: %s, %s %s, %s, kernels %s, %u threads", fm_version(), i.name, i.arch, i.type,
            fm_model_device(m), fm_session_kernels(s), fm_session_threads(s));
    if (p)
        fprintf(stderr, ", seed %llu, temperature %g, top_p %g, top_k %d", (unsigned long long)p->seed, (double)p->temperature,
                (double)p->top_p, p->top_k);
    put_memory(m, s);
    fputc('\n', stderr);
}

fm_status fm_cli_check_guard(const fm_cli *c, uint64_t tokens, fm_error *err)
{
    const int64_t guard = fm_opt_int(&c->options, FM_OPT_CTX_SIZE);
    if (guard <= 0 || tokens <= (uint64_t)guard) return FM_OK;
    return fm_fail(err, FM_ERR_LIMIT,
                   "%llu tokens, but -c allows %lld: raise it, or leave it out, since the state has no limit",
                   (unsigned long long)tokens, (long long)guard);
}

int64_t fm_cli_predict(const fm_cli *c, int64_t most, uint64_t seen)
{
    const int64_t n = fm_opt_given(&c->options, FM_OPT_N_PREDICT) ? fm_opt_int(&c->options, FM_OPT_N_PREDICT) : most;
    const uint64_t guard = (uint64_t)fm_opt_int(&c->options, FM_OPT_CTX_SIZE);
    if (!guard) return n;
    const uint64_t room = seen < guard ? guard - seen : 0;
    return n < 0 || (uint64_t)n > room ? (int64_t)room : n;
}

/* Opening the tokenizer alone says why the model has none: it is not there, or of a kind that is not known. */
fm_status fm_cli_no_tokenizer(const fm_cli *c, fm_error *err)
{
    fm_str path = {0};
    fm_tokenizer *t = NULL;
    fm_status status = fm_cli_model_path(&path, c, err);
    if (status == FM_OK) status = fm_tokenizer_open(&t, path.p, NULL, err);
    fm_tokenizer_free(t);
    fm_str_free(&path);
    if (status == FM_OK)
        return fm_fail(err, FM_ERR_UNSUPPORTED, "the model came without a tokenizer: give token ids with --ids");
    return fm_fail_prefix(err, status, "text needs a tokenizer; give token ids with --ids, or mend this");
}

fm_status fm_cli_tokenizer(const fm_tokenizer **out, const fm_cli *c, const fm_model *m, fm_error *err)
{
    *out = fm_model_tokenizer(m);
    return *out ? FM_OK : fm_cli_no_tokenizer(c, err);
}

fm_status fm_cli_engine_open(fm_cli_engine *e, const fm_cli *c, fm_error *err)
{
    *e = (fm_cli_engine){0};
    FM_TRY(fm_cli_model_open(&e->model, c, 1, err));
    FM_TRY(fm_cli_session_open(&e->session, e->model, c, 1, err));
    return fm_seq_new(e->session, &e->seq, err);
}

void fm_cli_engine_close(fm_cli_engine *e)
{
    fm_session_free(e->session);
    fm_model_free(e->model);
    *e = (fm_cli_engine){0};
}

/* ---- States ---- */

fm_status fm_cli_state_load(fm_cli_engine *e, const fm_cli *c, const char *path, fm_state **mark, fm_error *err)
{
    fm_state *st;
    const bool force = fm_options_take(c->command->options, FM_OPT_FORCE) && fm_opt_flag(&c->options, FM_OPT_FORCE);
    FM_TRY(fm_state_load(&st, mark, path, NULL, err));
    const fm_status status = fm_state_put(e->session, e->seq, st, force, err);
    if (status == FM_OK && fm_state_get_info(st).type == FM_STATE_BF16)
        fm_cli_note("%s was stored in bf16: what follows is near to what the original state would give, not the same bits",
                    path);
    fm_state_free(st);
    if (status != FM_OK && mark) {
        fm_state_free(*mark);
        *mark = NULL;
    }
    return status;
}
