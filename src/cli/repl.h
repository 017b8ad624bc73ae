/* repl.h - a talk: turns of a person and a model, whose memory is one sequence's state. */
#ifndef FM_CLI_REPL_H
#define FM_CLI_REPL_H

#include "cli/common.h"

/* One message that was said. */
typedef struct fm_turn {
    const char *role; /* static */
    char *content;    /* owned */
} fm_turn;

typedef struct fm_talk {
    const fm_cli *c;
    fm_model *model;
    fm_session *session;
    fm_seq seq;
    const fm_tokenizer *t;
    fm_chat *chat;             /* NULL when plain */
    const char *template_name; /* of chat, for errors */
    fm_cli_sampling sampling;
    fm_cli_draft draft;
    fm_str system;
    fm_turn *turns; /* n_turns */
    size_t n_turns, cap_turns;
    int32_t *said; /* the n_said ids that the sequence has seen, as far as they are known */
    size_t n_said, cap_said;
    size_t n_base; /* of said: what the sequence's mark has seen, a loaded state or text before the last turn */
    bool plain, verbose;
} fm_talk;

/* Answers on stdout, as it comes.  Only what the sequence has not seen is computed.  After Ctrl-C *cancelled is true and what was
 * written so far stays part of the talk. */
fm_status fm_talk_say(fm_talk *k, const char *text, bool *cancelled, fm_error *err);
/* Forgets all turns; the sequence begins anew. */
void fm_talk_forget(fm_talk *k);
/* Forgets all turns and goes on from the state: the next message follows what the state has seen as a new turn does, or as text
 * where the chat template does not allow that (k->plain then). */
fm_status fm_talk_resume(fm_talk *k, const fm_state *st, bool force, fm_error *err);

/* Reads lines from the terminal until /bye or Ctrl-D; gives the exit code. */
int fm_repl(fm_talk *k);

#endif
