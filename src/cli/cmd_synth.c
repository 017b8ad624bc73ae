/* cmd_synth.c - random models of a shape, to measure without a download. */
#include <stdio.h>

#include "cli/common.h"
#include "cli/convert.h"

static int list_shapes(void)
{
    fm_str out = {0};
    for (size_t i = 0; fm_synth_shape(i); i++) fm_str_printf(&out, "%s\n", fm_synth_shape(i));
    return fm_cli_put(&out);
}

static int run(const fm_cli *c)
{
    const char *shape = fm_opt_str(&c->options, FM_OPT_SHAPE), *out = fm_opt_str(&c->options, FM_OPT_OUT);
    const uint64_t seed = fm_opt_given(&c->options, FM_OPT_SEED) ? fm_opt_u64(&c->options, FM_OPT_SEED) : 1;
    if (!shape && !out) return list_shapes();
    if (!shape || !out) return fm_cli_usage(c, "synth needs --shape NAME and -o FILE (without both it lists the shapes)");
    fm_cli_conversion v;
    fm_cli_conversion_begin(&v, c, "drawing");
    v.status = fm_synth(shape, fm_opt_str(&c->options, FM_OPT_QUANT_TYPE), seed, out, &v.options, &v.result, &v.err);
    return fm_cli_conversion_end(&v, out);
}

static const fm_opt options[] = {FM_OPTS_COMMON,   FM_OPT_SHAPE, FM_OPT_QUANT_TYPE, FM_OPT_SEED,          FM_OPT_OUT,
                                 FM_OPT_TOKENIZER, FM_OPT_NAME,  FM_OPT_THREADS,    FM_OPT_MIXER_RMS_EPS, FM_OPT_END};

const fm_command fm_command_synth = {
    .name = "synth",
    .summary = "write a random model of a given shape, to measure with",
    .usage = "--shape NAME --type TYPE -o FILE [--seed N]",
    .details = "The model runs at the speed of a real one and says nothing.  The same seed gives the same file.",
    .options = options,
    .max_operands = 0,
    .run = run,
};
