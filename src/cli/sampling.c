/* sampling.c - the options of sampling over the model's defaults. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/common.h"
#include "model/model.h"

static void take_float(float *out, const fm_cli *c, fm_opt id)
{
    if (fm_opt_given(&c->options, id)) *out = (float)fm_opt_float(&c->options, id);
}

static void take_int(int *out, const fm_cli *c, fm_opt id)
{
    if (fm_opt_given(&c->options, id)) *out = (int)fm_opt_int(&c->options, id);
}

static void take_numbers(fm_sampling *p, const fm_cli *c)
{
    const struct {
        float *out;
        fm_opt id;
    } floats[] = {{&p->temperature, FM_OPT_TEMP},
                  {&p->top_p, FM_OPT_TOP_P},
                  {&p->min_p, FM_OPT_MIN_P},
                  {&p->typical_p, FM_OPT_TYPICAL},
                  {&p->top_n_sigma, FM_OPT_TOP_N_SIGMA},
                  {&p->xtc_probability, FM_OPT_XTC_PROBABILITY},
                  {&p->xtc_threshold, FM_OPT_XTC_THRESHOLD},
                  {&p->repeat_penalty, FM_OPT_REPEAT_PENALTY},
                  {&p->presence_penalty, FM_OPT_PRESENCE_PENALTY},
                  {&p->frequency_penalty, FM_OPT_FREQUENCY_PENALTY},
                  {&p->dry_multiplier, FM_OPT_DRY_MULTIPLIER},
                  {&p->dry_base, FM_OPT_DRY_BASE},
                  {&p->dynatemp_range, FM_OPT_DYNATEMP_RANGE},
                  {&p->dynatemp_exponent, FM_OPT_DYNATEMP_EXP},
                  {&p->mirostat_eta, FM_OPT_MIROSTAT_LR},
                  {&p->mirostat_tau, FM_OPT_MIROSTAT_ENT}};
    const struct {
        int *out;
        fm_opt id;
    } ints[] = {{&p->top_k, FM_OPT_TOP_K},
                {&p->repeat_last_n, FM_OPT_REPEAT_LAST_N},
                {&p->dry_allowed_length, FM_OPT_DRY_ALLOWED_LENGTH},
                {&p->dry_penalty_last_n, FM_OPT_DRY_PENALTY_LAST_N},
                {&p->mirostat, FM_OPT_MIROSTAT}};
    for (size_t i = 0; i < FM_COUNT(floats); i++) take_float(floats[i].out, c, floats[i].id);
    for (size_t i = 0; i < FM_COUNT(ints); i++) take_int(ints[i].out, c, ints[i].id);
}

/* "15043+1", "15043-0.5", "15043-inf" */
static fm_status read_bias(fm_logit_bias *out, const char *text, fm_error *err)
{
    int64_t id;
    double v;
    const size_t n = strcspn(text, "+-");
    const char *number = text + n + (text[n] == '+');
    if (text[n] && fm_parse_i64((fm_view){text, n}, &id) && id >= 0 && id <= INT32_MAX) {
        out->id = (int32_t)id;
        out->bias = -INFINITY;
        if (!strcmp(number, "-inf")) return FM_OK;
        if (fm_parse_f64(fm_view_of(number), &v)) {
            out->bias = (float)v;
            return FM_OK;
        }
    }
    return fm_fail(err, FM_ERR_ARGUMENT,
                   "--logit-bias \"%s\": expected a token id, a sign and a number, as in 15043+1 or 15043-inf", text);
}

static fm_status take_biases(fm_cli_sampling *out, const fm_cli *c, fm_error *err)
{
    const fm_opt_value *v = &c->options.v[FM_OPT_LOGIT_BIAS];
    FM_TRY(fm_alloc((void **)&out->biases, NULL, v->n, sizeof *out->biases, "logit biases", err));
    for (size_t i = 0; i < v->n; i++) FM_TRY(read_bias(&out->biases[i], v->list[i], err));
    out->p.biases = out->biases;
    out->p.n_biases = v->n;
    return FM_OK;
}

/* Different on each run, and short enough to type again. */
static uint64_t new_seed(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return ((uint64_t)t.tv_nsec * 2654435761u ^ (uint64_t)t.tv_sec ^ (uint64_t)getpid() << 16) % 4294967296u;
}

fm_status fm_cli_sampling_read(fm_cli_sampling *out, const fm_cli *c, const fm_model *m, fm_error *err)
{
    *out = (fm_cli_sampling){.p = fm_sampling_defaults(m)};
    const fm_generation_defaults d = fm_model_generation_defaults(m);
    const fm_opt_value *breakers = &c->options.v[FM_OPT_DRY_BREAKER];
    out->p.seed = fm_opt_given(&c->options, FM_OPT_SEED) ? fm_opt_u64(&c->options, FM_OPT_SEED) : new_seed();
    take_numbers(&out->p, c);
    out->p.samplers = fm_opt_str(&c->options, FM_OPT_SAMPLERS);
    if (fm_opt_given(&c->options, FM_OPT_MIN_TOKENS)) out->p.min_tokens = (size_t)fm_opt_int(&c->options, FM_OPT_MIN_TOKENS);
    if (breakers->n) {
        out->p.dry_breakers = breakers->list;
        out->p.n_dry_breakers = breakers->n;
    }
    if (!fm_opt_flag(&c->options, FM_OPT_IGNORE_EOS)) {
        out->eos = d.eos;
        out->n_eos = d.n_eos;
    }
    const fm_status status = take_biases(out, c, err);
    if (status != FM_OK) fm_cli_sampling_free(out);
    return status;
}

void fm_cli_sampling_free(fm_cli_sampling *s)
{
    fm_free(NULL, s->biases);
    s->biases = NULL;
}

void fm_cli_note_host(fm_cli_sampling *s, const fm_model *m, const fm_sampler *sampler, const fm_generation *g)
{
    if (s->noted || !m->device) return;
    const char *why = g->draft ? "drafts" : g->want_logprob || g->n_top ? "log-probabilities" : fm_sampler_host_reason(sampler);
    if (why) fm_cli_note("tokens are chosen on the host, to which the GPU sends all logits, because of %s", why);
    s->noted = true;
}

const char *fm_cli_stop_name(fm_stop stop)
{
    static const char *const names[] = {
        [FM_STOP_LENGTH] = "length", [FM_STOP_EOS] = "eos", [FM_STOP_STRING] = "stop", [FM_STOP_CANCELLED] = "cancelled"};
    return names[stop];
}
