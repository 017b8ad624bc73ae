/* 05_choices.c - several answers to one prompt: the prompt is read once, each answer continues a fork of its state. */
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

static bool on_token(void *ctx, const fm_token_event *e)
{
    (void)ctx;
    fwrite(e->text, 1, e->text_n, stdout);
    return true;
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: 05_choices MODEL TEXT\n"), 2;
    fm_error err;
    fm_model *model;
    fm_session *session;
    fm_seq prompt;
    check(fm_model_open(&model, argv[1], NULL, &err), &err);
    check(fm_session_open(&session, model, &(fm_session_options){.n_seq = 2}, &err), &err);
    check(fm_seq_new(session, &prompt, &err), &err);
    const fm_tokenizer *t = fm_model_tokenizer(model);
    int32_t ids[256];
    size_t n = 256;
    check(fm_tokenize(t, argv[2], strlen(argv[2]), FM_ADD_SPECIAL, ids, &n, &err), &err);
    check(fm_seq_append(session, prompt, ids, n, &err), &err);

    fm_sampling sampling = fm_sampling_defaults(model);
    sampling.seed = 7; /* one seed: the number of the choice keys the random numbers too */
    fm_sampler *sampler;
    check(fm_sampler_open(&sampler, &sampling, fm_model_get_info(model).vocab, t, NULL, &err), &err);
    for (size_t choice = 0; choice < 3; choice++) {
        fm_seq seq;
        fm_generated result;
        const fm_generation g = {.n = 20, .tokenizer = t, .choice = choice, .on_token = on_token};
        check(fm_seq_fork(session, prompt, &seq, &err), &err);
        fm_sampler_reset(sampler);
        printf("%zu:%s", choice + 1, argv[2]);
        check(fm_generate(session, seq, sampler, &g, &result, &err), &err);
        printf("\n");
        fm_seq_free(session, seq);
    }
    fm_sampler_free(sampler);
    fm_session_free(session);
    fm_model_free(model);
    return 0;
}
