/* cmd_convert.c - Hugging Face directories to GGUF files and back. */
#include "cli/common.h"
#include "cli/convert.h"

static int run(const fm_cli *c)
{
    fm_cli_conversion v;
    fm_cli_conversion_begin(&v, c, "converting");
    v.options.shard_bytes = (size_t)fm_opt_int(&c->options, FM_OPT_SHARD_SIZE) * 1000000;
    v.options.type = fm_opt_str(&c->options, FM_OPT_FLOAT_TYPE);
    v.status = fm_convert(c->operands[0], c->operands[1], &v.options, &v.result, &v.err);
    return fm_cli_conversion_end(&v, c->operands[1]);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPT_FLOAT_TYPE, FM_OPT_SHARD_SIZE, FM_OPT_MIXER_RMS_EPS,
                                 FM_OPT_NAME,    FM_OPT_TOKENIZER,  FM_OPT_THREADS,    FM_OPT_END};

const fm_command fm_command_convert = {
    .name = "convert",
    .summary = "convert between Hugging Face directories and GGUF files",
    .usage = "IN OUT [--type f32|f16|bf16]",
    .details = "OUT ending in .gguf becomes a GGUF file, anything else a directory.",
    .options = options,
    .min_operands = 2,
    .max_operands = 2,
    .run = run,
};
