/* 02_generate.c - write text token by token. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fmamba.h"

static void check(fm_status status, const fm_error *err)
{
    if (status == FM_OK) return;
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

/* Text arrives as soon as it is certain: whole characters, no part of a stop string. */
static bool on_token(void *ctx, const fm_token_event *e)
{
    (void)ctx;
    fwrite(e->text, 1, e->text_n, stdout);
    fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: 02_generate MODEL TEXT\n"), 2;
    fm_error err;
    fm_model *model;
    fm_session *session;
    fm_seq seq;
    check(fm_model_open(&model, argv[1], NULL, &err), &err);
    check(fm_session_open(&session, model, NULL, &err), &err);
    check(fm_seq_new(session, &seq, &err), &err);

    /* Ask for the number of tokens first, then for the tokens. */
    const fm_tokenizer *t = fm_model_tokenizer(model);
    size_t n = 0;
    check(fm_tokenize(t, argv[2], strlen(argv[2]), FM_ADD_SPECIAL, NULL, &n, &err), &err);
    int32_t *ids = malloc(n * sizeof *ids);
    check(fm_tokenize(t, argv[2], strlen(argv[2]), FM_ADD_SPECIAL, ids, &n, &err), &err);
    check(fm_seq_append(session, seq, ids, n, &err), &err);

    fm_sampling sampling = fm_sampling_defaults(model);
    sampling.seed = 42;
    sampling.temperature = 0.7f;
    fm_sampler *sampler;
    check(fm_sampler_open(&sampler, &sampling, fm_model_get_info(model).vocab, t, NULL, &err), &err);

    const fm_generation_defaults d = fm_model_generation_defaults(model);
    const char *stops[] = {"\n\n"};
    const fm_generation g = {
        .n = 80, .tokenizer = t, .stops = stops, .n_stops = 1, .eos = d.eos, .n_eos = d.n_eos, .on_token = on_token};
    fm_generated result;
    printf("%s", argv[2]);
    check(fm_generate(session, seq, sampler, &g, &result, &err), &err);
    printf("\n[%zu tokens]\n", result.n);

    free(ids);
    fm_sampler_free(sampler);
    fm_session_free(session);
    fm_model_free(model);
    return 0;
}
