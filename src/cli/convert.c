/* convert.c - see convert.h. */
#include "cli/convert.h"

#include <stdio.h>

static bool on_progress(void *ctx, double fraction)
{
    return fm_cli_progress(&((fm_cli_conversion *)ctx)->bar, fraction);
}

/* What a conversion tells is always worth reading: warnings, and types other than asked for. */
static void on_log(void *ctx, const char *line)
{
    fm_cli_conversion *v = ctx;
    fm_cli_bar_end(&v->bar);
    fm_cli_note("%s", line);
}

void fm_cli_conversion_begin(fm_cli_conversion *v, const fm_cli *c, const char *label)
{
    fm_cli_catch_interrupt();
    *v = (fm_cli_conversion){.c = c, .bar = fm_cli_bar_begin(label)};
    v->options = (fm_convert_options){.threads = (unsigned)fm_opt_int(&c->options, FM_OPT_THREADS),
                                      .name = fm_opt_str(&c->options, FM_OPT_NAME),
                                      .tokenizer = fm_opt_str(&c->options, FM_OPT_TOKENIZER),
                                      .mixer_rms_eps = (float)fm_opt_float(&c->options, FM_OPT_MIXER_RMS_EPS),
                                      .progress = on_progress,
                                      .log = on_log,
                                      .ctx = v};
}

int fm_cli_conversion_end(fm_cli_conversion *v, const char *out)
{
    fm_cli_bar_end(&v->bar);
    if (v->status != FM_OK) return fm_cli_fail(&v->err);
    fprintf(stderr, "%s: %zu tensors, %zu bytes", out, v->result.n_tensors, v->result.tensor_bytes);
    if (v->result.n_fallback)
        fprintf(stderr, ", %zu matrices in another type because of their row length", v->result.n_fallback);
    fputc('\n', stderr);
    return FM_EXIT_OK;
}
