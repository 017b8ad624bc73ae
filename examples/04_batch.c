/* 04_batch.c - several sequences of different lengths in one step: nothing is padded, and each gets the bits it would get
 * alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fmamba.h"

enum { N = 3, TOKENS_MAX = 64 };

static void check(fm_status status, const fm_error *err)
{
    if (status == FM_OK) return;
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

int main(int argc, char **argv)
{
    static const char *const texts[N] = {"The fox", "Once upon a time there was an old king who", "In the wood"};
    if (argc < 2) return fprintf(stderr, "usage: 04_batch MODEL\n"), 2;
    fm_error err;
    fm_model *model;
    fm_session *session;
    check(fm_model_open(&model, argv[1], NULL, &err), &err);
    check(fm_session_open(&session, model, &(fm_session_options){.n_seq = N + 1}, &err), &err);
    const fm_tokenizer *t = fm_model_tokenizer(model);
    const size_t vocab = fm_model_get_info(model).vocab;

    int32_t ids[N][TOKENS_MAX];
    fm_span spans[N];
    for (int i = 0; i < N; i++) {
        size_t n = TOKENS_MAX;
        check(fm_tokenize(t, texts[i], strlen(texts[i]), 0, ids[i], &n, &err), &err);
        spans[i] = (fm_span){.tokens = ids[i], .n = n};
        check(fm_seq_new(session, &spans[i].seq, &err), &err);
    }
    check(fm_step(session, spans, N, &err), &err);

    fm_seq alone;
    check(fm_seq_new(session, &alone, &err), &err);
    for (int i = 0; i < N; i++) {
        check(fm_seq_reset(session, alone, &err), &err);
        check(fm_seq_append(session, alone, ids[i], spans[i].n, &err), &err);
        const bool same = !memcmp(fm_seq_logits(session, alone), fm_seq_logits(session, spans[i].seq), vocab * sizeof(float));
        printf("%2zu tokens, in the batch and alone: %s\n", spans[i].n, same ? "the same bits" : "DIFFERENT");
        if (!same) return 1;
    }
    fm_session_free(session);
    fm_model_free(model);
    return 0;
}
