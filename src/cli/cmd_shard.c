/* cmd_shard.c - text to token shards, so that training begins at once. */
#include "cli/common.h"
#include "train/config.h"
#include "train/shard.h"

static fm_status write_shards(const fm_cli *c, fm_shards *s, fm_error *err)
{
    fm_tokenizer *t;
    fm_pool *pool = NULL;
    FM_TRY(fm_tokenizer_open(&t, fm_opt_str(&c->options, FM_OPT_TOKENIZER), NULL, err));
    fm_status status = fm_pool_open(&pool, (unsigned)fm_opt_int(&c->options, FM_OPT_THREADS), NULL, err);
    if (status == FM_OK)
        status = fm_shards_write(s, &(fm_tokenizing){.t = t, .vocab = fm_tokenizer_vocab(t), .pool = pool}, err);
    if (pool) fm_pool_free(pool);
    fm_tokenizer_free(t);
    return status;
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    fm_shards s = {.files = c->operands, .n_files = c->n_operands, .out = fm_opt_str(&c->options, FM_OPT_OUT)};
    if (!fm_parse_count(fm_opt_str(&c->options, FM_OPT_SHARD_TOKENS), &s.limit))
        return fm_cli_usage(c, "--shard-tokens: expected a whole number, as 500k, 100M or 1G");
    if (!s.out) return fm_cli_usage(c, "shard needs -o FILE");
    if (!fm_opt_str(&c->options, FM_OPT_TOKENIZER)) return fm_cli_usage(c, "shard needs --tokenizer PATH");
    const double begun = fm_clock_s();
    if (write_shards(c, &s, &err) != FM_OK) return fm_cli_fail(&err);
    const double seconds = fm_clock_s() - begun;
    fm_cli_note("%llu tokens of %.1f MB of text in %llu shard%s, %.1f MB/s", (unsigned long long)s.n_tokens,
                (double)s.n_bytes / 1e6, (unsigned long long)s.n_written, s.n_written == 1 ? "" : "s",
                seconds > 0 ? (double)s.n_bytes / 1e6 / seconds : 0.0);
    return FM_EXIT_OK;
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPT_TOKENIZER, FM_OPT_OUT, FM_OPT_SHARD_TOKENS, FM_OPT_THREADS, FM_OPT_END};

const fm_command fm_command_shard = {
    .name = "shard",
    .summary = "turn text into token shards for training",
    .usage = "FILE ... --tokenizer PATH -o FILE [--shard-tokens N]",
    .details =
        "Tokenises text (.jsonl: an object with \"text\" a line; .gz and .zst are unpacked) and writes the ids into a file "
        "that\n"
        "`fmamba train` maps.  With --shard-tokens the files are FILE-00000.tokens and so on; name their folder in data.train.",
    .options = options,
    .min_operands = 1,
    .max_operands = 65536,
    .run = run,
};
