/* cmd_plot.c - pictures of training logs. */
#include "cli/common.h"
#include "plot/plot.h"

static void note_damage(const fm_plot_log *l, const char *path)
{
    if (l->n_damaged)
        fm_cli_note("%s: line %zu is damaged (%s) and left out, one of %zu", path, l->at_damaged, l->why_damaged, l->n_damaged);
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    fm_plot_log logs[FM_PLOT_RUNS_MAX] = {0};
    fm_status status = FM_OK;
    size_t n = 0;
    const char *out = fm_opt_str(&c->options, FM_OPT_OUT);
    if (!out) return fm_cli_usage(c, "where to? give -o FILE.svg or FILE.png");
    while (n < c->n_operands && status == FM_OK) {
        status = fm_plot_log_read(&logs[n], c->operands[n], NULL, &err);
        if (status == FM_OK) note_damage(&logs[n], c->operands[n]), n++;
    }
    if (status == FM_OK) status = fm_plot_write(logs, n, out, &err);
    while (n > 0) fm_plot_log_free(&logs[--n]);
    return status == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPT_OUT, FM_OPT_END};

const fm_command fm_command_plot = {
    .name = "plot",
    .summary = "draw what a training did",
    .usage = "LOG ... -o FILE.svg|FILE.png",
    .details =
        "Loss in training and on held-out text, learning rate, batch and throughput of up to eight runs on one page.  A\n"
        "LOG is the log.jsonl of `fmamba train`, or the folder of a run; one that `fmamba train --sweep` wrote is drawn\n"
        "as loss over learning rate.",
    .options = options,
    .min_operands = 1,
    .max_operands = FM_PLOT_RUNS_MAX,
    .run = run,
};
