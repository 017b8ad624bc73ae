/* train_loop.c - steps, and what is due after them: evaluation, samples, checkpoints, and what to do about outliers. */
#include "cli/train.h"
#include "train/inspect.h"

static bool due(const fm_train_job *j, uint64_t every, const fm_train_step *s)
{
    return fm_train_due(every, j->stepped, s->tokens);
}

/* ---- What went wrong ---- */

/* The weights after the step before gave this loss: a checkpoint of theirs is not a good one. */
static fm_status fail_not_finite(const fm_train_job *j, const fm_train_step *s, fm_error *err)
{
    fm_str where = {0};
    char *dir = NULL;
    fm_trainer_find_damage(j->t, &where);
    fm_run_newest_until(&dir, &j->folder, s->step < 2 ? 0 : s->step - 2, NULL);
    fm_fail(
        err, FM_ERR_FORMAT,
        "step %llu: the loss is %g and the norm of its gradients %g%s%s: the last good checkpoint is %s; go on from it with a "
        "lower optimizer.rate",
        (unsigned long long)s->step, s->loss, s->grad_norm, where.n ? "; not finite is " : "", where.n ? where.p : "",
        dir ? dir : "what the run began with");
    fm_free(NULL, dir);
    fm_str_free(&where);
    return FM_ERR_FORMAT;
}

static fm_status fail_outliers(const fm_train_job *j, const fm_train_step *s, const char *what, fm_error *err)
{
    return fm_fail(err, FM_ERR_FORMAT,
                   "step %llu: %s: the loss %.4g is %.1f and the gradient norm %.3g is %.1f deviations above the mean; lower "
                   "optimizer.rate, or raise stability.loss_z, norm_z or limit (%llu)",
                   (unsigned long long)s->step, what, s->loss, s->loss_z, s->grad_norm, s->norm_z,
                   (unsigned long long)j->o.outlier_limit);
}

static void report_outlier(fm_train_job *j, const fm_train_step *s, const char *what, bool rewound)
{
    fm_str line = {0};
    fm_train_say(j, "step %llu: the loss %.4f stands out by %.1f and the gradient norm %.3f by %.1f deviations: %s",
                 (unsigned long long)s->step, s->loss, s->loss_z, s->grad_norm, s->norm_z, what);
    fm_jsonw w = fm_train_log_begin(&line, s);
    fm_jsonw_key(&w, "outlier"), fm_jsonw_cstr(&w, what);
    fm_jsonw_key(&w, "loss_z"), fm_jsonw_f64(&w, s->loss_z);
    fm_jsonw_key(&w, "norm_z"), fm_jsonw_f64(&w, s->norm_z);
    if (rewound) fm_jsonw_key(&w, "back_to_step"), fm_jsonw_u64(&w, fm_trainer_anchored(j->t));
    fm_train_log_end(j, &w);
}

/* *rewound: the training stands at its anchor again.  Before there is one, the step is skipped. */
static fm_status mind_outlier(fm_train_job *j, const fm_train_step *s, bool *rewound, fm_error *err)
{
    const fm_outlier_action action = j->o.outlier_action;
    *rewound = false;
    if (!s->outlier) return FM_OK;
    if (action != FM_OUTLIER_NOTE && s->in_a_row > j->o.outlier_limit)
        return fail_outliers(j, s, "too many steps in a row stand out", err);
    if (action == FM_OUTLIER_REWIND) {
        if (fm_trainer_rewinds(j->t) >= j->o.outlier_limit)
            return fail_outliers(j, s, "too many rewinds to one checkpoint", err);
        FM_TRY(fm_run_rewind(rewound, &j->folder, j->t, err));
    }
    report_outlier(j, s, *rewound ? "rewound" : action == FM_OUTLIER_NOTE ? "noted" : "skipped", *rewound);
    return FM_OK;
}

/* ---- The loop ---- */

/* Only a checkpoint whose place the configuration decides is one to go back to: an interruption changes no bit. */
static fm_status save(fm_train_job *j, bool scheduled, fm_error *err)
{
    if (scheduled) fm_trainer_anchor(j->t);
    return fm_run_save(&j->folder, j->t, err);
}

/* Did the step pass a place whose checkpoint is kept: a milestone, or the end of the stable phase? */
static bool is_milestone(const fm_train_job *j, const fm_train_step *s)
{
    const uint64_t stable = j->o.tokens - j->o.decay_tokens;
    return due(j, j->o.milestone_every, s) || (j->o.decay_tokens && stable > j->stepped && stable <= s->tokens);
}

/* Is a checkpoint due whose place the configuration decides? */
static bool is_scheduled(const fm_train_job *j, const fm_train_step *s)
{
    return due(j, j->o.save_every, s) || is_milestone(j, s);
}

static fm_status after_step(fm_train_job *j, const fm_train_step *s, bool last, fm_error *err)
{
    const uint64_t sample_every = j->o.sample_every ? j->o.sample_every : j->o.eval_every;
    const bool scheduled = is_scheduled(j, s);
    if (j->val.n && (last || due(j, j->o.eval_every, s))) FM_TRY(fm_train_report_evaluation(j, s, err));
    if (j->o.sample && (last || due(j, sample_every, s))) FM_TRY(fm_train_report_sample(j, s, err));
    if (due(j, j->o.stats_every, s)) FM_TRY(fm_train_report_spreads(j, s, err));
    return last || scheduled ? save(j, scheduled, err) : FM_OK;
}

fm_status fm_train_fail_step(const fm_train_job *j, const fm_train_step *s, fm_error *err)
{
    return fm_fail(err, s->status, "step %llu: %s", (unsigned long long)s->step + 1, fm_trainer_error(j->t));
}

static fm_status stop(fm_train_job *j, const fm_train_step *s, bool scheduled, fm_error *err)
{
    FM_TRY(save(j, scheduled, err));
    return fm_fail(err, FM_ERR_CANCELLED, "stopped at step %llu and saved: the same command goes on from there",
                   (unsigned long long)s->step);
}

fm_status fm_train_loop(fm_train_job *j, fm_error *err)
{
    fm_cli_catch_interrupt();
    while (fm_trainer_tokens(j->t) < j->o.tokens) {
        const double begun = fm_clock_s();
        j->stepped = fm_trainer_tokens(j->t);
        const fm_train_step s = fm_trainer_step(j->t);
        if (s.status != FM_OK) return fm_train_fail_step(j, &s, err);
        const bool stopped = fm_cli_interrupted(NULL);
        bool rewound;
        fm_train_watch_step(j, &s, fm_clock_s() - begun, stopped || s.tokens >= j->o.tokens);
        if (!s.finite) return fail_not_finite(j, &s, err);
        FM_TRY(mind_outlier(j, &s, &rewound, err));
        const bool last = !rewound && s.tokens >= j->o.tokens, scheduled = !rewound && is_scheduled(j, &s);
        j->folder.milestone = !rewound && is_milestone(j, &s);
        if (stopped && !last) return stop(j, &s, scheduled, err);
        const fm_status status = rewound ? FM_OK : after_step(j, &s, last, err);
        if (status == FM_ERR_CANCELLED) return stop(j, &s, scheduled, err); /* while held-out text was scored, say */
        FM_TRY(status);
    }
    return FM_OK;
}
