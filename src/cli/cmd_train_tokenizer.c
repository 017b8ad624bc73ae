/* cmd_train_tokenizer.c - a vocabulary from text. */
#include <string.h>

#include "cli/common.h"
#include "train/bpe_train.h"

static const char *const default_special = "<|endoftext|>";

/* One of the three words that the table of options lets pass. */
static fm_pretok pretok_of(const char *name)
{
    if (strcmp(name, "gpt2") == 0) return FM_PRETOK_GPT2;
    return strcmp(name, "llama3") == 0 ? FM_PRETOK_LLAMA3 : FM_PRETOK_FALCON;
}

static void say(const fm_bpe_vocab *b, size_t want, const char *out)
{
    fm_cli_note("%s: %zu tokens, %zu merges, from %.1f MB of text with %llu different pieces", out, b->v.n_tokens,
                b->v.n_merges, (double)b->n_bytes / 1e6, (unsigned long long)b->n_pieces);
    if (b->v.n_tokens < want) fm_cli_note("no other pair comes often enough for %zu tokens", want);
}

static int run(const fm_cli *c)
{
    const fm_opt_value *specials = &c->options.v[FM_OPT_SPECIAL_TOKEN];
    const char *out = fm_opt_str(&c->options, FM_OPT_OUT);
    fm_cli_bar bar = fm_cli_bar_begin("merging");
    fm_bpe_options o = {.files = c->operands,
                        .n_files = c->n_operands,
                        .specials = specials->n ? specials->list : &default_special,
                        .n_specials = specials->n ? specials->n : 1,
                        .vocab = (size_t)fm_opt_int(&c->options, FM_OPT_VOCAB_SIZE),
                        .min_frequency = (uint64_t)fm_opt_int(&c->options, FM_OPT_MIN_FREQUENCY),
                        .pretok = pretok_of(fm_opt_str(&c->options, FM_OPT_PRETOKENIZER)),
                        .threads = (unsigned)fm_opt_int(&c->options, FM_OPT_THREADS),
                        .progress = fm_cli_progress,
                        .ctx = &bar};
    fm_bpe_vocab b;
    fm_error err = {0};
    if (!out) return fm_cli_usage(c, "train-tokenizer needs -o FOLDER");
    fm_status status = fm_bpe_train(&b, &o, NULL, &err);
    fm_cli_bar_end(&bar);
    if (status == FM_OK) status = fm_bpe_save(&b, out, &err);
    if (status == FM_OK) say(&b, o.vocab, out);
    fm_bpe_vocab_free(&b);
    return status == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
}

static const fm_opt options[] = {FM_OPTS_COMMON,       FM_OPT_VOCAB_SIZE, FM_OPT_SPECIAL_TOKEN, FM_OPT_PRETOKENIZER,
                                 FM_OPT_MIN_FREQUENCY, FM_OPT_OUT,        FM_OPT_THREADS,       FM_OPT_END};

const fm_command fm_command_train_tokenizer = {
    .name = "train-tokenizer",
    .summary = "learn a byte-level BPE vocabulary from text",
    .usage = "FILE ... -o FOLDER [--vocab-size N] [--special TEXT ...]",
    .details =
        "Writes tokenizer.json and tokenizer_config.json into FOLDER: the vocabulary that Hugging Face's BpeTrainer learns "
        "from\n"
        "the same text.  A FILE ending in .jsonl has an object with \"text\" on every line; any other is text.  Special "
        "tokens\n"
        "get the ids 0, 1 ... in the order given; they cut the text, are no part of it, and the first one ends documents.",
    .options = options,
    .min_operands = 1,
    .max_operands = 65536,
    .run = run,
};
