/* 01_load.c - open a model, see what it is, and ask which token is likeliest after a text. */
#include <math.h>
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

int main(int argc, char **argv)
{
    if (argc < 2) return fprintf(stderr, "usage: 01_load MODEL\n"), 2;
    fm_error err;
    fm_model *model;
    check(fm_model_open(&model, argv[1], NULL, &err), &err);
    const fm_model_info info = fm_model_get_info(model);
    printf("%s: %s, %zu parameters in %zu layers, a state of %zu bytes\n", info.name, info.arch, info.n_params, info.n_layer,
           info.state_bytes);

    /* A session holds sequences and all scratch memory; NULL means one sequence and the defaults. */
    fm_session *session;
    fm_seq seq;
    check(fm_session_open(&session, model, NULL, &err), &err);
    check(fm_seq_new(session, &seq, &err), &err);

    const char *text = "Once upon a";
    int32_t ids[16];
    size_t n = 16;
    const fm_tokenizer *t = fm_model_tokenizer(model);
    check(fm_tokenize(t, text, strlen(text), FM_ADD_SPECIAL, ids, &n, &err), &err);
    check(fm_seq_append(session, seq, ids, n, &err), &err);

    const float *logits = fm_seq_logits(session, seq);
    int32_t best = 0;
    for (int32_t id = 1; id < (int32_t)info.vocab; id++)
        if (logits[id] > logits[best]) best = id;
    size_t length;
    const char *word = fm_token_text(t, best, false, &length);
    printf("\"%s\" goes on with \"%.*s\", probability %.3f\n", text, (int)length, word,
           exp(fm_logprob(logits, info.vocab, best)));

    fm_session_free(session);
    fm_model_free(model);
    return 0;
}
