/* sampler_cases.h - reads tests/data/sampler/cases.txt, which tests/oracles/sampler_oracle.py wrote and describes. */
#ifndef FM_TESTS_UNIT_SAMPLER_CASES_H
#define FM_TESTS_UNIT_SAMPLER_CASES_H

#include <math.h>

#include "fmamba.h"
#include "unit/testing.h"

enum { VOCAB = 40, IDS_MAX = 400, LINE_ROOM = 8192 };

/* Everything off. */
static fm_sampling neutral(void)
{
    fm_sampling p = fm_sampling_defaults(NULL);
    p.temperature = 1;
    p.top_p = 1;
    return p;
}

typedef struct recorded {
    char name[64], order[256];
    fm_sampling p;
    fm_logit_bias biases[64];
    int32_t allowed[64], eos[8], breakers[8], prompt[IDS_MAX], output[IDS_MAX];
    size_t n_eos, n_breakers, n_prompt, n_output;
    double mu; /* NaN: as it begins */
    float logits[VOCAB];
    double survive[VOCAB]; /* 0: gone */
    double uncut[VOCAB];   /* before mirostat's cut */
    int32_t rated[3];
    double logprobs[3];
    size_t n_rated;
} recorded;

static void set_parameter(fm_sampling *p, const char *name, double v)
{
    const struct {
        const char *name;
        float *f;
        int *i;
    } fields[] = {
        {"temperature", &p->temperature, NULL},
        {"dynatemp_range", &p->dynatemp_range, NULL},
        {"dynatemp_exponent", &p->dynatemp_exponent, NULL},
        {"top_k", NULL, &p->top_k},
        {"top_p", &p->top_p, NULL},
        {"min_p", &p->min_p, NULL},
        {"typical_p", &p->typical_p, NULL},
        {"top_n_sigma", &p->top_n_sigma, NULL},
        {"xtc_probability", &p->xtc_probability, NULL},
        {"xtc_threshold", &p->xtc_threshold, NULL},
        {"repeat_penalty", &p->repeat_penalty, NULL},
        {"presence_penalty", &p->presence_penalty, NULL},
        {"frequency_penalty", &p->frequency_penalty, NULL},
        {"repeat_last_n", NULL, &p->repeat_last_n},
        {"dry_multiplier", &p->dry_multiplier, NULL},
        {"dry_base", &p->dry_base, NULL},
        {"dry_allowed_length", NULL, &p->dry_allowed_length},
        {"dry_penalty_last_n", NULL, &p->dry_penalty_last_n},
        {"mirostat", NULL, &p->mirostat},
        {"mirostat_tau", &p->mirostat_tau, NULL},
        {"mirostat_eta", &p->mirostat_eta, NULL},
    };
    if (strcmp(name, "min_tokens") == 0) {
        p->min_tokens = (size_t)v;
        return;
    }
    for (size_t i = 0; i < FM_COUNT(fields); i++) {
        if (strcmp(fields[i].name, name) != 0) continue;
        if (fields[i].f) *fields[i].f = (float)v;
        if (fields[i].i) *fields[i].i = (int)v;
        return;
    }
    fail_msg("no parameter %s", name);
}

/* Lines are words with single spaces between them; `rest` moves on, and is NULL after the last word. */
static size_t read_ids(int32_t *ids, size_t room, char **rest)
{
    size_t n = 0;
    while (*rest) {
        assert_true(n < room);
        ids[n++] = (int32_t)strtol(strsep(rest, " "), NULL, 10);
    }
    return n;
}

static int32_t next_id(char **rest)
{
    return *rest ? (int32_t)strtol(strsep(rest, " "), NULL, 10) : -1;
}

static double next_number(char **rest)
{
    assert_non_null(*rest);
    return strtod(strsep(rest, " "), NULL);
}

static void read_pairs(recorded *r, const char *word, char **rest)
{
    for (int32_t id = next_id(rest); id >= 0; id = next_id(rest)) {
        if (strcmp(word, "survive") == 0 || strcmp(word, "uncut") == 0) {
            (*word == 's' ? r->survive : r->uncut)[id] = next_number(rest);
            continue;
        }
        assert_true(r->n_rated < FM_COUNT(r->rated));
        r->rated[r->n_rated] = id;
        r->logprobs[r->n_rated++] = next_number(rest);
    }
}

static void read_line(recorded *r, char *rest)
{
    const char *word = strsep(&rest, " ");
    assert_non_null(rest);
    if (strcmp(word, "set") == 0) {
        const char *name = strsep(&rest, " ");
        set_parameter(&r->p, name, next_number(&rest));
    } else if (strcmp(word, "order") == 0) {
        snprintf(r->order, sizeof r->order, "%.255s", rest);
        r->p.samplers = r->order;
    } else if (strcmp(word, "bias") == 0) {
        assert_true(r->p.n_biases < FM_COUNT(r->biases));
        r->biases[r->p.n_biases].id = next_id(&rest);
        r->biases[r->p.n_biases++].bias = (float)next_number(&rest);
    } else if (strcmp(word, "mu") == 0) {
        r->mu = next_number(&rest);
    } else if (strcmp(word, "logits") == 0) {
        for (size_t i = 0; i < VOCAB; i++) r->logits[i] = (float)next_number(&rest);
    } else if (strcmp(word, "allowed") == 0) {
        r->p.n_allowed = read_ids(r->allowed, FM_COUNT(r->allowed), &rest);
    } else if (strcmp(word, "eos") == 0) {
        r->n_eos = read_ids(r->eos, FM_COUNT(r->eos), &rest);
    } else if (strcmp(word, "breakers") == 0) {
        r->n_breakers = read_ids(r->breakers, FM_COUNT(r->breakers), &rest);
    } else if (strcmp(word, "prompt") == 0) {
        r->n_prompt = read_ids(r->prompt, IDS_MAX, &rest);
    } else if (strcmp(word, "output") == 0) {
        r->n_output = read_ids(r->output, IDS_MAX, &rest);
    } else {
        read_pairs(r, word, &rest);
    }
}

static bool read_case(recorded *r, FILE *f)
{
    char line[LINE_ROOM];
    *r = (recorded){.p = neutral(), .mu = NAN};
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "end") == 0) {
            r->p.biases = r->biases;
            r->p.allowed = r->allowed;
            return true;
        }
        if (strncmp(line, "case ", 5) == 0)
            snprintf(r->name, sizeof r->name, "%.63s", line + 5);
        else
            read_line(r, line);
    }
    return false;
}

#endif
