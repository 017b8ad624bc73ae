/* cmd_quantize.c - a model with its matrices in fewer bits. */
#include "cli/common.h"
#include "cli/convert.h"

static int run(const fm_cli *c)
{
    fm_cli_conversion v;
    fm_cli_conversion_begin(&v, c, "quantising");
    v.options.imatrix = fm_opt_str(&c->options, FM_OPT_IMATRIX);
    v.status = fm_quantize(c->operands[0], c->operands[1], c->operands[2], &v.options, &v.result, &v.err);
    return fm_cli_conversion_end(&v, c->operands[1]);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPT_IMATRIX, FM_OPT_MIXER_RMS_EPS, FM_OPT_NAME, FM_OPT_TOKENIZER,
                                 FM_OPT_THREADS, FM_OPT_END};

const fm_command fm_command_quantize = {
    .name = "quantize",
    .summary = "write a model with quantised weights",
    .usage = "IN OUT TYPE [--imatrix FILE]",
    .details = "TYPE is one of f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs int4_g128, in "
               "any case; q4_k, q4_k_m and q4_k_s are the same for these models.  int4_g128 is this program's own, small and "
               "made for GPUs: no other reads it.",
    .options = options,
    .min_operands = 3,
    .max_operands = 3,
    .run = run,
};
