/* draft.c - what the options say about drafts. */
#include <stdio.h>
#include <string.h>

#include "cli/common.h"

typedef enum spec { SPEC_NONE, SPEC_NGRAM, SPEC_MODEL, SPEC_BOTH } spec;

/* A draft model that is named is meant to be used. */
static spec which(const fm_cli *c)
{
    const fm_options *o = &c->options;
    if (!fm_options_take(c->command->options, FM_OPT_SPEC_TYPE)) return SPEC_NONE;
    const char *type = fm_opt_str(o, FM_OPT_SPEC_TYPE);
    if (!fm_opt_given(o, FM_OPT_SPEC_TYPE)) return fm_opt_given(o, FM_OPT_DRAFT_MODEL) ? SPEC_BOTH : SPEC_NONE;
    return !strcmp(type, "ngram")   ? SPEC_NGRAM
           : !strcmp(type, "model") ? SPEC_MODEL
           : !strcmp(type, "both")  ? SPEC_BOTH
                                    : SPEC_NONE;
}

size_t fm_cli_draft_max(const fm_cli *c)
{
    return which(c) == SPEC_NONE ? 0 : (size_t)fm_opt_int(&c->options, FM_OPT_DRAFT_MAX);
}

fm_draft_options fm_cli_draft_options(const fm_cli *c)
{
    return (fm_draft_options){.max = (size_t)fm_opt_int(&c->options, FM_OPT_DRAFT_MAX),
                              .min = (size_t)fm_opt_int(&c->options, FM_OPT_DRAFT_MIN),
                              .fixed = !fm_opt_flag(&c->options, FM_OPT_DRAFT_ADAPT),
                              .no_ngram = which(c) == SPEC_MODEL,
                              .threads = (unsigned)fm_opt_int(&c->options, FM_OPT_THREADS),
                              .cpu = fm_opt_str(&c->options, FM_OPT_CPU)};
}

fm_status fm_cli_draft_open(fm_cli_draft *out, const fm_cli *c, const fm_model *target, fm_error *err)
{
    const spec s = which(c);
    const char *path = fm_opt_str(&c->options, FM_OPT_DRAFT_MODEL);
    *out = (fm_cli_draft){0};
    if (s == SPEC_NONE) return FM_OK;
    if (s != SPEC_NGRAM && !path)
        return fm_fail(err, FM_ERR_ARGUMENT, "--spec-type %s needs a draft model: name one with --draft-model",
                       s == SPEC_MODEL ? "model" : "both");
    if (s != SPEC_NGRAM) FM_TRY(fm_model_open(&out->model, path, NULL, err));
    fm_draft_options o = fm_cli_draft_options(c);
    o.model = out->model;
    return fm_draft_open(&out->draft, target, &o, err);
}

void fm_cli_draft_close(fm_cli_draft *d)
{
    fm_draft_free(d->draft);
    fm_model_free(d->model);
    *d = (fm_cli_draft){0};
}

void fm_cli_print_drafts(const fm_generated *end)
{
    fprintf(stderr, "drafts: %llu tokens guessed, %llu accepted (%.0f %%)\n", (unsigned long long)end->drafted,
            (unsigned long long)end->accepted, end->drafted ? 100.0 * (double)end->accepted / (double)end->drafted : 0.0);
}
