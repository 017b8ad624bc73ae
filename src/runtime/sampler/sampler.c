/* sampler.c - from logits to a token: the list of samplers, their parameters and the history they look at.  Everything is
 * allocated when a sampler is opened. */
#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"
#include "base/str.h"
#include "runtime/sampler/internal.h"

static const fm_sampler_kind *const kinds[] = {
    &fm_sampler_bias,  &fm_sampler_penalties, &fm_sampler_dry,     &fm_sampler_temperature, &fm_sampler_top_n_sigma,
    &fm_sampler_min_p, &fm_sampler_top_k,     &fm_sampler_typical, &fm_sampler_top_p,       &fm_sampler_xtc,
};

#define DEFAULT_ORDER "bias;penalties;dry;temperature;top_n_sigma;min_p;top_k;typical;top_p;xtc"

FM_API fm_sampling fm_sampling_defaults(const fm_model *m)
{
    fm_sampling p = {.temperature = 0.8f,
                     .dynatemp_exponent = 1,
                     .top_p = 0.95f,
                     .typical_p = 1,
                     .xtc_threshold = 0.1f,
                     .repeat_penalty = 1,
                     .repeat_last_n = 64,
                     .dry_base = 1.75f,
                     .dry_allowed_length = 2,
                     .dry_penalty_last_n = -1,
                     .mirostat_tau = 5,
                     .mirostat_eta = 0.1f};
    if (!m) return p;
    const fm_generation_defaults d = fm_model_generation_defaults(m);
    if (d.temperature >= 0) p.temperature = d.temperature;
    if (d.top_p >= 0) p.top_p = d.top_p;
    if (d.top_k >= 0) p.top_k = d.top_k;
    return p;
}

/* ---- Parameters ---- */

static fm_status check_range(const char *name, double v, double lo, double hi, fm_error *err)
{
    if (v >= lo && v <= hi) return FM_OK;
    return fm_fail(err, FM_ERR_ARGUMENT, "%s is %g, expected %g .. %g", name, v, lo, hi);
}

static fm_status check_numbers(const fm_sampling *p, fm_error *err)
{
    const struct {
        const char *name;
        double v, lo, hi;
    } numbers[] = {
        {"temperature", (double)p->temperature, 0, 100},
        {"dynatemp_range", (double)p->dynatemp_range, 0, 100},
        {"dynatemp_exponent", (double)p->dynatemp_exponent, 0, 100},
        {"top_k", p->top_k, -1, 1 << 30},
        {"top_p", (double)p->top_p, 0, 1},
        {"min_p", (double)p->min_p, 0, 1},
        {"typical_p", (double)p->typical_p, 0, 1},
        {"top_n_sigma", (double)p->top_n_sigma, -1, 1e6},
        {"xtc_probability", (double)p->xtc_probability, 0, 1},
        {"xtc_threshold", (double)p->xtc_threshold, 0, 1},
        {"repeat_penalty", (double)p->repeat_penalty, 1e-3, 1e3},
        {"presence_penalty", (double)p->presence_penalty, -2, 2},
        {"frequency_penalty", (double)p->frequency_penalty, -2, 2},
        {"repeat_last_n", p->repeat_last_n, -1, FM_HISTORY_MAX},
        {"dry_multiplier", (double)p->dry_multiplier, 0, 1e3},
        {"dry_base", (double)p->dry_base, 0, 1e3},
        {"dry_allowed_length", p->dry_allowed_length, 1, FM_HISTORY_MAX},
        {"dry_penalty_last_n", p->dry_penalty_last_n, -1, FM_HISTORY_MAX},
        {"mirostat", p->mirostat, 0, 2},
        {"mirostat_tau", (double)p->mirostat_tau, 0, 100},
        {"mirostat_eta", (double)p->mirostat_eta, 0, 1},
    };
    for (size_t i = 0; i < FM_COUNT(numbers); i++)
        FM_TRY(check_range(numbers[i].name, numbers[i].v, numbers[i].lo, numbers[i].hi, err));
    return FM_OK;
}

static fm_status check_ids(const fm_sampling *p, size_t vocab, fm_error *err)
{
    for (size_t i = 0; i < p->n_biases; i++)
        if (p->biases[i].id < 0 || (size_t)p->biases[i].id >= vocab || isnan(p->biases[i].bias) ||
            p->biases[i].bias == INFINITY)
            return fm_fail(err, FM_ERR_LIMIT, "logit bias %zu is %g on token %d, expected a number on 0 .. %zu", i,
                           (double)p->biases[i].bias, (int)p->biases[i].id, vocab - 1);
    for (size_t i = 0; i < p->n_allowed; i++)
        if (p->allowed[i] < 0 || (size_t)p->allowed[i] >= vocab)
            return fm_fail(err, FM_ERR_LIMIT, "allowed token %zu is %d, expected 0 .. %zu", i, (int)p->allowed[i], vocab - 1);
    return FM_OK;
}

/* llama.cpp's other words for them. */
static fm_view usual_name(fm_view name)
{
    static const char *const also[][2] = {
        {"typ_p", "typical"}, {"typical_p", "typical"}, {"temp", "temperature"},  {"top-k", "top_k"},
        {"top-p", "top_p"},   {"min-p", "min_p"},       {"typical-p", "typical"}, {"top-n-sigma", "top_n_sigma"},
    };
    for (size_t i = 0; i < FM_COUNT(also); i++)
        if (fm_view_is(name, also[i][0])) return fm_view_of(also[i][1]);
    return name;
}

static fm_status find_kind(const fm_sampler_kind **out, fm_view name, fm_error *err)
{
    const fm_view usual = usual_name(name);
    for (size_t i = 0; i < FM_COUNT(kinds); i++)
        if (fm_view_is(usual, kinds[i]->name)) {
            *out = kinds[i];
            return FM_OK;
        }
    return fm_fail(err, FM_ERR_ARGUMENT,
                   "no sampler is called \"%.*s\": the order is a list of some of \"%s\", separated by ';'",
                   (int)(name.n < 60 ? name.n : 60), name.p, DEFAULT_ORDER);
}

static fm_status read_order(fm_sampler *s, const char *order, fm_error *err)
{
    for (const char *p = order ? order : DEFAULT_ORDER; *p;) {
        const size_t n = strcspn(p, ";");
        if (s->n_order == FM_SAMPLERS_MAX)
            return fm_fail(err, FM_ERR_LIMIT, "the order of samplers has more than %d entries", FM_SAMPLERS_MAX);
        if (n) FM_TRY(find_kind(&s->order[s->n_order], (fm_view){p, n}, err));
        if (n && s->order[s->n_order] != &fm_sampler_bias) s->n_order++; /* it always comes first */
        p += n + (p[n] == ';');
    }
    return FM_OK;
}

/* ---- Opening ---- */

static void place(fm_arena *a, fm_sampler *s, const fm_sampling *p)
{
    s->candidates.c = FM_PUSH(a, fm_candidate, s->vocab);
    s->candidates.p = FM_PUSH(a, double, s->vocab);
    if (s->p.typical_p < 1) s->scored = FM_PUSH(a, fm_scored, s->vocab);
    s->biases = FM_PUSH(a, fm_logit_bias, s->p.n_biases);
    if (s->p.n_allowed) s->allowed = FM_PUSH(a, bool, s->vocab);
    s->ring = FM_PUSH(a, int32_t, s->n_history);
    s->window = FM_PUSH(a, uint32_t, s->vocab);
    s->generated = FM_PUSH(a, uint32_t, s->vocab);
    if (p->dry_multiplier != 0.0f) fm_dry_place(a, s, p);
}

static size_t history_of(const fm_sampling *p)
{
    size_t n = p->repeat_last_n > 0 ? (size_t)p->repeat_last_n : 0;
    if (p->dry_multiplier == 0.0f) return n ? n : 1;
    const size_t dry = p->dry_penalty_last_n < 0 ? FM_HISTORY_MAX : (size_t)p->dry_penalty_last_n;
    n = n > dry ? n : dry;
    return n ? n : 1;
}

static fm_status fill(fm_sampler *s, const fm_sampling *p, const fm_tokenizer *t, fm_error *err)
{
    FM_TRY(check_numbers(p, err));
    FM_TRY(check_ids(p, s->vocab, err));
    FM_TRY(fm_dry_check(p, err));
    FM_TRY(read_order(s, p->samplers, err));
    s->n_history = history_of(p);
    fm_arena a = {0};
    place(&a, s, p);
    FM_TRY(fm_alloc(&s->memory, s->a, a.used, 1, "a sampler", err));
    a = (fm_arena){.base = s->memory, .size = a.used};
    place(&a, s, p);
    for (size_t i = 0; i < p->n_biases; i++) s->biases[i] = p->biases[i];
    for (size_t i = 0; i < p->n_allowed; i++) s->allowed[p->allowed[i]] = true;
    fm_dry_prepare(s, p, t);
    fm_sampler_reset(s);
    return FM_OK;
}

FM_API fm_status fm_sampler_open(fm_sampler **out, const fm_sampling *p, size_t vocab, const fm_tokenizer *t,
                                 const fm_allocator *a, fm_error *err)
{
    fm_sampler *s;
    *out = NULL;
    if (!vocab || vocab > INT32_MAX)
        return fm_fail(err, FM_ERR_ARGUMENT, "a sampler for %zu tokens: expected 1 .. %d", vocab, INT32_MAX);
    FM_TRY(fm_alloc((void **)&s, a, 1, sizeof *s, "a sampler", err));
    if (a) {
        s->allocator_copy = *a;
        s->a = &s->allocator_copy;
    }
    s->p = *p;
    s->vocab = vocab;
    const fm_status status = fill(s, p, t, err);
    s->p.samplers = NULL, s->p.dry_breakers = NULL, s->p.biases = NULL, s->p.allowed = NULL;
    if (status != FM_OK)
        fm_sampler_free(s);
    else
        *out = s;
    return status;
}

FM_API void fm_sampler_free(fm_sampler *s)
{
    if (!s) return;
    const fm_allocator copy = s->allocator_copy;
    const fm_allocator *a = s->a ? &copy : NULL;
    fm_free(a, s->memory);
    fm_free(a, s);
}

FM_API void fm_sampler_set_eos(fm_sampler *s, const int32_t *eos, size_t n_eos)
{
    s->n_eos = 0;
    for (size_t i = 0; i < n_eos && s->n_eos < FM_SAMPLER_EOS_MAX; i++)
        if (eos[i] >= 0 && (size_t)eos[i] < s->vocab) s->eos[s->n_eos++] = eos[i];
}

/* ---- History ---- */

FM_API void fm_sampler_reset(fm_sampler *s)
{
    s->n_seen = s->n_generated = 0;
    s->broken_at = s->n_tail = 0;
    s->mu = 2 * (double)s->p.mirostat_tau;
    s->drawn = -1;
    memset(s->window, 0, s->vocab * sizeof *s->window);
    memset(s->generated, 0, s->vocab * sizeof *s->generated);
}

FM_API void fm_sampler_accept(fm_sampler *s, int32_t id, bool prompt)
{
    const int last_n = s->p.repeat_last_n;
    if (id < 0 || (size_t)id >= s->vocab) return;
    if (last_n > 0 && s->n_seen >= (uint64_t)last_n) s->window[fm_sampler_recent(s, (size_t)last_n - 1)]--;
    if (last_n != 0) s->window[id]++;
    s->ring[s->n_seen++ % s->n_history] = id;
    fm_dry_follow(s, id);
    if (prompt) return;
    fm_mirostat_learn(s, id);
    s->generated[id]++;
    s->n_generated++;
}

/* ---- Choosing ---- */

double fm_sampler_random(const struct fm_sampler *s, unsigned purpose)
{
    return fm_rng_uniform(s->p.seed, s->choice * FM_DRAWS + purpose, s->position);
}

/* What is not a number is as unlikely as can be; infinities become the largest numbers. */
static void take_logits(fm_sampler *s, const float *logits)
{
    fm_candidates *c = &s->candidates;
    c->n = s->vocab;
    c->sorted = 0;
    for (size_t i = 0; i < s->vocab; i++)
        c->c[i] = (fm_candidate){(int32_t)i, logits[i] >= -1e30f ? fminf(logits[i], 1e30f) : -1e30f};
}

static size_t draw(fm_sampler *s)
{
    fm_candidates *c = &s->candidates;
    fm_candidates_softmax(c);
    double left = fm_sampler_random(s, FM_DRAW_TOKEN);
    for (size_t i = 0; i < c->n; i++) {
        left -= c->p[i];
        if (left < 0) return i;
    }
    fm_candidates_sort(c, 1); /* rounding left nothing: the likeliest */
    return 0;
}

/* At temperature 0 whatever drops candidates is left out, so that the likeliest wins in any order of samplers. */
bool fm_sampler_takes_part(const fm_sampler *s, const fm_sampler_kind *kind)
{
    if (kind->idle && kind->idle(s)) return false;
    if (s->p.temperature == 0.0f) return kind == &fm_sampler_penalties || kind == &fm_sampler_dry;
    return !s->p.mirostat || !kind->truncates;
}

FM_API int32_t fm_sampler_choose(fm_sampler *s, const float *logits, uint64_t choice, uint64_t position)
{
    fm_candidates *c = &s->candidates;
    s->choice = choice;
    s->position = position;
    take_logits(s, logits);
    fm_sampler_bias.apply(s, c);
    if (c->n == 0) { /* bans that leave nothing are not heeded; `allowed` is */
        take_logits(s, logits);
        fm_sampler_keep_allowed(s, c);
    }
    for (size_t i = 0; i < s->n_order; i++)
        if (fm_sampler_takes_part(s, s->order[i])) s->order[i]->apply(s, c);
    if (s->p.temperature == 0.0f) {
        fm_candidates_sort(c, 1);
        c->n = 1;
    }
    if (s->p.mirostat) fm_mirostat_truncate(s, c);
    const fm_candidate *drawn = &c->c[c->n > 1 ? draw(s) : 0];
    if (s->p.mirostat) fm_mirostat_remember(s, drawn);
    return drawn->id;
}
