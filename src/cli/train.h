/* train.h - what the parts of "fmamba train" share: a run with everything it opened, and what is seen of it. */
#ifndef FM_CLI_TRAIN_H
#define FM_CLI_TRAIN_H

#include "cli/score.h"
#include "train/config.h"
#include "train/feed.h"
#include "train/run.h"
#include "train/stages.h"

/* Where people and programs see how it goes (train_watch.c). */
typedef struct fm_train_watch {
    FILE *log; /* one object a line: docs/training.md, "The log" */
    bool quiet;
    double flops, peak;     /* of a token of training; of the machine a second, 0: unknown */
    double begun;           /* when this process began to train */
    uint64_t begun_tokens;  /* what the run had seen then */
    double seconds;         /* in steps since the last line of the log */
    uint64_t tokens, lines; /* seen in them; lines written */
    double rate;            /* tokens/s of the steps before the last line */
    double drawn;           /* when the live line was drawn; 0: never */
    size_t width;           /* characters of the live line on the screen */
} fm_train_watch;

typedef struct fm_train_job {
    const fm_cli *c;
    fm_train_config o;
    fm_run_folder folder;
    char *tokenizer_dir; /* owned */
    fm_tokenizer *tokenizer;
    fm_model *m;
    fm_feed train[FM_TRAIN_FILES_MAX];
    fm_tokens val;
    fm_data data;
    fm_stage stages[FM_TRAIN_FILES_MAX];
    fm_trainer *t;
    uint64_t stepped; /* tokens seen before the step that ran last */
    fm_train_watch watch;
} fm_train_job;

/* The configuration of the command line, checked; everything that it names, opened; and let go (cmd_train.c). */
fm_status fm_train_read_config(fm_train_job *j, fm_error *err);
fm_status fm_train_open(fm_train_job *j, fm_error *err);
void fm_train_close(fm_train_job *j);
/* Runs that differ in the learning rate (train_sweep.c); an exit code. */
int fm_train_sweep(const fm_cli *c);

/* Did the count of tokens pass a multiple of `every` (0: never)?  Where a run was interrupted does not matter. */
static inline bool fm_train_due(uint64_t every, uint64_t before, uint64_t after)
{
    return every && after / every > before / every;
}

/* Opens the log in run.out and measures the machine, once everything else is open. */
fm_status fm_train_watch_open(fm_train_job *j, fm_error *err);
void fm_train_watch_close(fm_train_job *j);
/* A step that took so long: into the log, and on the live line.  `last`: show it in any case. */
void fm_train_watch_step(fm_train_job *j, const fm_train_step *s, double seconds, bool last);
/* A sentence between two drawings of the live line; nothing with --quiet. */
void fm_train_say(fm_train_job *j, const char *fmt, ...) FM_PRINTF(2, 3);
/* A line of the log begun with step and tokens, to be ended by fm_train_log_end(). */
fm_jsonw fm_train_log_begin(fm_str *line, const fm_train_step *s);
void fm_train_log_end(fm_train_job *j, fm_jsonw *w);

/* Steps until schedule.tokens are seen (train_loop.c).  FM_ERR_CANCELLED on Ctrl-C, saved; FM_ERR_FORMAT when the loss is no
 * number, or steps stand out more often than stability.limit allows. */
fm_status fm_train_loop(fm_train_job *j, fm_error *err);
/* Of a step that could not be computed. */
fm_status fm_train_fail_step(const fm_train_job *j, const fm_train_step *s, fm_error *err);

/* Held-out text, scored as `fmamba perplexity --window data.length --reset` does; and a text the model writes, both by the
 * runtime from the weights as they are (train_eval.c). */
fm_status fm_train_evaluate(fm_train_job *j, fm_cli_score *score, fm_error *err);
fm_status fm_train_report_evaluation(fm_train_job *j, const fm_train_step *s, fm_error *err);
fm_status fm_train_report_sample(fm_train_job *j, const fm_train_step *s, fm_error *err);
/* Least, mean, most and rms of dt, B, C and h of each layer, as a table and in the log. */
fm_status fm_train_report_spreads(fm_train_job *j, const fm_train_step *s, fm_error *err);

#endif
