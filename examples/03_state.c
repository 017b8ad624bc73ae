/* 03_state.c - the state as an object: fork it, rewind it, save it, restore it, and get the same bits. */
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

static fm_model *model;
static fm_session *session;

static void read_text(fm_seq seq, const char *text)
{
    fm_error err;
    int32_t ids[64];
    size_t n = 64;
    check(fm_tokenize(fm_model_tokenizer(model), text, strlen(text), 0, ids, &n, &err), &err);
    check(fm_seq_append(session, seq, ids, n, &err), &err);
}

static void compare(const char *what, fm_seq a, fm_seq b)
{
    const size_t bytes = fm_model_get_info(model).vocab * sizeof(float);
    const bool same = memcmp(fm_seq_logits(session, a), fm_seq_logits(session, b), bytes) == 0;
    printf("%-34s %s\n", what, same ? "the same bits" : "DIFFERENT");
    if (!same) exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 2) return fprintf(stderr, "usage: 03_state MODEL\n"), 2;
    fm_error err;
    fm_seq whole, part, other;
    fm_state *state;
    check(fm_model_open(&model, argv[1], NULL, &err), &err);
    check(fm_session_open(&session, model, &(fm_session_options){.n_seq = 3}, &err), &err);
    check(fm_seq_new(session, &whole, &err), &err);
    check(fm_seq_new(session, &part, &err), &err);
    read_text(whole, "Once upon a time there was a wolf");

    /* A text in two parts, with a wrong turn between them that is taken back. */
    read_text(part, "Once upon a time");
    check(fm_seq_mark(session, part, &err), &err);
    read_text(part, " the end");
    check(fm_seq_rewind(session, part, &err), &err);

    /* A fork shares the past and nothing else. */
    check(fm_seq_fork(session, part, &other, &err), &err);
    read_text(other, " there was a wolf");
    compare("forked and continued:", whole, other);
    read_text(part, " there was a wolf");
    compare("rewound and continued:", whole, part);

    /* Through a file and back. */
    check(fm_state_take(&state, session, part, &err), &err);
    check(fm_state_save(state, NULL, "example.state", FM_STATE_F32, &err), &err);
    fm_state_free(state);
    check(fm_seq_reset(session, part, &err), &err);
    check(fm_state_load(&state, NULL, "example.state", NULL, &err), &err);
    check(fm_state_put(session, part, state, false, &err), &err);
    fm_state_free(state);
    remove("example.state");
    compare("saved and restored:", whole, part);
    printf("%llu tokens in %zu bytes\n", (unsigned long long)fm_seq_tokens(session, part),
           fm_model_get_info(model).state_bytes);

    fm_session_free(session);
    fm_model_free(model);
    return 0;
}
