/* option_table.c - the table of all options; options.h says what derives from it.  Rows stand in the order of fm_opt. */
#include "cli/options.h"

#define ANY_INT 9e15 /* exact in a double */

#define FLAG(name, aliases, fallback, help)                                                                                    \
    {                                                                                                                          \
        name, aliases, FM_OPT_FLAG, NULL, fallback, 0, 0, help                                                                 \
    }
#define INT(name, aliases, fallback, min, max, help)                                                                           \
    {                                                                                                                          \
        name, aliases, FM_OPT_INT, "N", fallback, min, max, help                                                               \
    }
#define FLOAT(name, aliases, fallback, min, max, help)                                                                         \
    {                                                                                                                          \
        name, aliases, FM_OPT_FLOAT, "X", fallback, min, max, help                                                             \
    }
#define STRING(name, aliases, value, fallback, help)                                                                           \
    {                                                                                                                          \
        name, aliases, FM_OPT_STRING, value, fallback, 0, 0, help                                                              \
    }
#define PATH(name, aliases, help)                                                                                              \
    {                                                                                                                          \
        name, aliases, FM_OPT_PATH, "FILE", NULL, 0, 0, help                                                                   \
    }
#define STRINGS(name, aliases, value, help)                                                                                    \
    {                                                                                                                          \
        name, aliases, FM_OPT_STRINGS, value, NULL, 0, 0, help                                                                 \
    }

static const fm_option table[FM_OPT_COUNT] = {
    [FM_OPT_HELP] = FLAG("help", "h", NULL, "show this help and leave"),
    [FM_OPT_VERBOSE] = FLAG("verbose", "v", NULL, "say on stderr what is used and how long it took"),
    [FM_OPT_LOG] = PATH("log", "log-file", "append what the library tells to FILE"),
    [FM_OPT_COLOR] = FLAG("color", NULL, "on", "bold and dim text at a terminal (NO_COLOR turns it off too)"),

    [FM_OPT_MODEL] = {"model", "m", FM_OPT_PATH, "PATH", NULL, 0, 0,
                      "GGUF file or Hugging Face directory (default: the model that ships)"},
    [FM_OPT_MMAP] = FLAG("mmap", NULL, "on", "map the weights; --no-mmap reads them into memory"),
    [FM_OPT_MLOCK] = FLAG("mlock", NULL, NULL, "pin the weights in memory"),
    [FM_OPT_MIXER_RMS_EPS] =
        FLOAT("mixer-rms-eps", NULL, NULL, 1e-30, 1, "epsilon of the norms on dt, B and C, over the file's"),

    [FM_OPT_THREADS] = INT("threads", "t", NULL, 1, 1024, "threads (default: the CPUs this process may use)"),
    [FM_OPT_CPU] = STRING("cpu", NULL, "auto|ref|avx2|avx512|avx512+vnni|avx512+vnni+bf16|avx512+vnni+amx|neon|neon+dotprod",
                          "auto", "kernel table"),
    [FM_OPT_DEVICE] = STRING("device", NULL, "DEVICE", "cpu",
                             "where to compute: cpu, cuda, cuda:N, or auto, which takes a GPU where there is one"),
    [FM_OPT_ACTIVATIONS] = STRING("activations", NULL, "bf16|f32", "bf16",
                                  "on a GPU: how activations enter products; f32 is the CPU's, and slower"),
    [FM_OPT_INVARIANT] =
        FLAG("invariant", NULL, NULL, "on a GPU: a token's bits do not depend on how many tokens a step has (slower)"),
    [FM_OPT_STATES] = STRING("states", NULL, "bf16|f32", "f32",
                             "on a GPU: how states are kept from token to token; bf16 takes half the memory"),
    [FM_OPT_CHUNK] =
        INT("chunk", "b batch-size ub ubatch-size", "512", 1, 65536, "most tokens computed at once; the result is the same"),
    [FM_OPT_CTX_SIZE] = INT("ctx-size", "c", "0", 0, ANY_INT, "refuse more tokens than N in a sequence; 0: no limit"),

    [FM_OPT_PROMPT] = STRING("prompt", "p", "TEXT", NULL, "the text (default: standard input)"),
    [FM_OPT_FILE] = PATH("file", "f", "read the text from FILE, every byte of it; \"-\" is standard input"),
    [FM_OPT_IDS] =
        STRING("ids", NULL, "IDS", NULL, "token ids: 1,2,3 or a file of integers or a JSON array; \"-\" is standard input"),
    [FM_OPT_ESCAPE] = FLAG("escape", "e", NULL, "resolve \\n, \\t, \\\", \\xHH, \\uHHHH ... in -p"),
    [FM_OPT_PARSE_SPECIAL] = FLAG("parse-special", NULL, "on", "text like <|endoftext|> becomes that token"),
    [FM_OPT_ANY_BYTES] = FLAG("any-bytes", NULL, NULL, "take text that is not UTF-8, byte by byte"),

    [FM_OPT_JSON] = FLAG("json", NULL, NULL, "print JSON"),
    [FM_OPT_CSV] = FLAG("csv", NULL, NULL, "print comma-separated values"),
    [FM_OPT_OUT] = PATH("out", "o output", "write to FILE"),
    [FM_OPT_FORCE] = FLAG("force", NULL, NULL, "use a state of another quantisation of the same shapes"),

    [FM_OPT_SEED] = {"seed", "s", FM_OPT_SEED_NUMBER, "N", NULL, 0, 0,
                     "seed of the random numbers, 64 bits (default, or -1: a new one each time)"},
    [FM_OPT_TEMP] =
        FLOAT("temp", "temperature", NULL, 0, 100, "temperature; 0 takes the likeliest token (default: the model's, else 0.8)"),
    [FM_OPT_TOP_K] = INT("top-k", NULL, NULL, -1, 1 << 30, "keep the N likeliest tokens; 0 or -1: all"),
    [FM_OPT_TOP_P] =
        FLOAT("top-p", NULL, NULL, 0, 1, "keep the likeliest tokens that sum to X (default: the model's, else 0.95)"),
    [FM_OPT_MIN_P] = FLOAT("min-p", NULL, NULL, 0, 1, "drop tokens less likely than X times the likeliest"),
    [FM_OPT_TYPICAL] = FLOAT("typical", "typical-p", NULL, 0, 1, "locally typical sampling; 1: off"),
    [FM_OPT_TOP_N_SIGMA] =
        FLOAT("top-n-sigma", "top-nsigma", NULL, -1, 1e6, "keep logits within X standard deviations of the largest"),
    [FM_OPT_XTC_PROBABILITY] = FLOAT("xtc-probability", NULL, NULL, 0, 1, "how often XTC drops the top choices"),
    [FM_OPT_XTC_THRESHOLD] = FLOAT("xtc-threshold", NULL, NULL, 0, 1, "what XTC takes for a top choice"),
    [FM_OPT_REPEAT_PENALTY] = FLOAT("repeat-penalty", NULL, NULL, 1e-3, 1e3, "divide logits of recent tokens; 1: off"),
    [FM_OPT_REPEAT_LAST_N] = INT("repeat-last-n", NULL, NULL, -1, 65536, "how many tokens are recent; -1: all"),
    [FM_OPT_PRESENCE_PENALTY] =
        FLOAT("presence-penalty", NULL, NULL, -2, 2, "subtract X from logits of tokens already written"),
    [FM_OPT_FREQUENCY_PENALTY] = FLOAT("frequency-penalty", NULL, NULL, -2, 2, "subtract X for every time a token was written"),
    [FM_OPT_DRY_MULTIPLIER] =
        FLOAT("dry-multiplier", NULL, NULL, 0, 1e3, "strength of the DRY penalty on repeated sequences; 0: off"),
    [FM_OPT_DRY_BASE] = FLOAT("dry-base", NULL, NULL, 0, 1e3, "its growth with the length of the repetition"),
    [FM_OPT_DRY_ALLOWED_LENGTH] = INT("dry-allowed-length", NULL, NULL, 1, 65536, "repetitions up to N tokens are free"),
    [FM_OPT_DRY_PENALTY_LAST_N] = INT("dry-penalty-last-n", NULL, NULL, -1, 65536, "tokens DRY looks back; -1: all"),
    [FM_OPT_DRY_BREAKER] =
        STRINGS("dry-sequence-breaker", NULL, "TEXT", "a string over which no repetition reaches; may be repeated"),
    [FM_OPT_DYNATEMP_RANGE] = FLOAT("dynatemp-range", NULL, NULL, 0, 100, "vary the temperature by X with the entropy; 0: off"),
    [FM_OPT_DYNATEMP_EXP] = FLOAT("dynatemp-exp", NULL, NULL, 0, 100, "exponent of that"),
    [FM_OPT_MIROSTAT] = INT("mirostat", NULL, NULL, 0, 2, "mirostat of version 1 or 2; 0: off"),
    [FM_OPT_MIROSTAT_LR] = FLOAT("mirostat-lr", "mirostat-eta", NULL, 0, 1, "its learning rate"),
    [FM_OPT_MIROSTAT_ENT] = FLOAT("mirostat-ent", "mirostat-tau", NULL, 0, 100, "its target surprise"),
    [FM_OPT_LOGIT_BIAS] =
        STRINGS("logit-bias", "l", "ID(+|-)X", "add to the logit of a token: 15043+1, 15043-1, 15043-inf; may be repeated"),
    [FM_OPT_SAMPLERS] = STRING("samplers", NULL, "LIST", NULL, "samplers in order, separated by ';'"),
    [FM_OPT_MIN_TOKENS] = INT("min-tokens", NULL, NULL, 0, ANY_INT, "no end before N tokens"),

    [FM_OPT_N_PREDICT] = INT("n-predict", "n predict", NULL, -1, ANY_INT, "most tokens to generate; -1: until it ends"),
    [FM_OPT_IGNORE_EOS] = FLAG("ignore-eos", NULL, NULL, "do not end at an end-of-text token"),
    [FM_OPT_STOP] = STRINGS("stop", "r reverse-prompt", "TEXT", "end before this text; may be repeated"),
    [FM_OPT_SPECIAL] = FLAG("special", "sp", NULL, "show special tokens as text"),
    [FM_OPT_ECHO] = FLAG("echo", "display-prompt", NULL, "print the prompt too"),
    [FM_OPT_CHOICES] = INT("choices", "np parallel", "1", 1, 256, "answers to one prompt, whose cost is paid once"),
    [FM_OPT_LOGPROBS] = INT("logprobs", NULL, NULL, 0, 20, "with --json: log-probabilities, and the N likeliest alternatives"),
    [FM_OPT_STATE] = PATH("state", NULL, "begin from this state file"),
    [FM_OPT_SAVE_STATE] = PATH("save-state", NULL, "save the state after the last token"),

    [FM_OPT_SPEC_TYPE] = STRING("spec-type", NULL, "none|ngram|model|both", NULL,
                                "guess tokens and check several at once, to the same text: from what was written before, by a "
                                "draft model, or both (default: none; both with -md)"),
    [FM_OPT_DRAFT_MODEL] =
        PATH("draft-model", "md model-draft spec-draft-model", "a smaller model of the same vocabulary that guesses"),
    [FM_OPT_DRAFT_MAX] = INT("draft-max", "draft draft-n spec-draft-n-max", "15", 1, 64, "most tokens guessed at once"),
    [FM_OPT_DRAFT_MIN] = INT("draft-min", "draft-n-min spec-draft-n-min", "1", 1, 64, "fewer guesses are not checked"),
    [FM_OPT_DRAFT_ADAPT] =
        FLAG("draft-adapt", NULL, "on", "check as many guesses as pay by their record; --no-draft-adapt: always --draft-max"),

    [FM_OPT_SYSTEM] = STRING("system", "sys system-prompt", "TEXT", NULL, "the system message of a chat"),
    [FM_OPT_CHAT_TEMPLATE] = {"chat-template", "chat-template-file", FM_OPT_PATH, "FILE", NULL, 0, 0,
                              "Jinja template: a file, \"chatml\" or \"falcon3\" (default: the model's)"},
    [FM_OPT_CONVERSATION] = FLAG("conversation", "cnv", "on", "talk by the chat template; without it a text is gone on with"),
    [FM_OPT_SINGLE_TURN] = FLAG("single-turn", "st", NULL, "answer once, at a terminal too"),

    [FM_OPT_HIDDEN] = FLAG("hidden", NULL, NULL, "the layers' outputs instead of logits"),
    [FM_OPT_WINDOW] = INT("window", NULL, NULL, 1, ANY_INT, "score in windows of N tokens instead of streaming"),
    [FM_OPT_RESET] = FLAG("reset", NULL, NULL, "with --window: disjoint windows, each from the zero state, remainder dropped"),
    [FM_OPT_TENSORS] = FLAG("tensors", NULL, NULL, "list every tensor"),
    [FM_OPT_TOKEN_TEXT] = FLAG("show", NULL, NULL, "print each id with its text, one a line"),

    [FM_OPT_STATE_TYPE] = STRING("type", NULL, "f32|bf16", "f32", "f32 keeps the bits; bf16 is half the size and does not"),
    [FM_OPT_MARK] = FLAG("mark", NULL, "on", "keep the state before the append for rewind; --no-mark drops it"),
    [FM_OPT_FLOAT_TYPE] =
        STRING("type", "outtype", "f32|f16|bf16", NULL, "type of the matrices (default: the source's, bf16 from quantised)"),
    [FM_OPT_QUANT_TYPE] = STRING("type", NULL, "TYPE", "q4_k", "type of the matrices: f32, f16, bf16, q8_0, q4_k ..."),
    [FM_OPT_SHARD_SIZE] = INT("shard-size", "max-shard-size", "5000", 1, 1e9,
                              "most megabytes in one safetensors file of a directory, beyond which it is split"),
    [FM_OPT_SHARD_TOKENS] = STRING("shard-tokens", NULL, "N", "0", "most tokens of one shard, as 100M; 0: one shard of all"),
    [FM_OPT_IMATRIX] = PATH("imatrix", NULL, "importance matrix in llama.cpp's GGUF form"),
    [FM_OPT_SHAPE] = STRING("shape", NULL, "NAME", NULL, "shape of a random model: falcon-mamba-7b, mamba-130m ..."),
    [FM_OPT_NAME] = STRING("name", NULL, "NAME", NULL, "the model's name in the new file"),
    [FM_OPT_TOKENIZER] = {"tokenizer", NULL, FM_OPT_PATH, "PATH", NULL, 0, 0,
                          "take the tokenizer from this directory, tokenizer.json or GGUF file"},

    [FM_OPT_BENCH_PROMPT] = STRING("n-prompt", "p", "N,...", "512", "lengths of prompts to measure; 0: none"),
    [FM_OPT_BENCH_GEN] = STRING("n-gen", "n", "N,...", "128", "numbers of tokens to decode; 0: none"),
    [FM_OPT_BATCH] = STRING("batch", NULL, "N,...", "1", "sequences at once"),
    [FM_OPT_SPEC_REPLAY] =
        PATH("spec-replay", NULL, "drafts beside plain decoding where FILE is what the model writes: a text, or a list of ids"),
    [FM_OPT_REPEATS] = INT("repetitions", "r", "5", 1, 1000, "how often each test is run"),
    [FM_OPT_ROOFLINE] =
        FLAG("roofline", NULL, NULL, "measure the machine too, and print the part of its limit that was reached"),
    [FM_OPT_PEER] = STRING("peer", NULL, "CMD", NULL, "run llama-bench by turns, and print the ratio"),
    [FM_OPT_PEER_BATCHED] =
        STRING("peer-batched", NULL, "CMD", NULL, "the same with llama-batched-bench, for several sequences at once"),
    [FM_OPT_PEER_TIMEOUT] = INT("peer-timeout", NULL, "600", 1, 1e6, "kill a run of the peer after N seconds"),

    [FM_OPT_SET] = STRINGS("set", NULL, "KEY=VALUE", "set a key of the configuration; may be repeated"),
    [FM_OPT_DECAY_FROM] = {"decay-from", NULL, FM_OPT_PATH, "PATH", NULL, 0, 0,
                           "checkpoint of a stable phase: only decay from it, over schedule.decay_tokens"},
    [FM_OPT_ESTIMATE] = FLAG("estimate", NULL, NULL, "only say what training would take: parameters, memory by mode, FLOPs"),
    [FM_OPT_EXPLAIN] = FLAG("explain", NULL, NULL, "list every key of the configuration"),
    [FM_OPT_QUIET] = FLAG("quiet", "q", NULL, "say nothing but errors; the log is written all the same"),
    [FM_OPT_STATS_EVERY] =
        STRING("stats-every", NULL, "TOKENS", NULL, "as --set run.stats_every=TOKENS: spreads of dt, B, C, h"),
    [FM_OPT_SWEEP] = STRING("sweep", NULL, "LOWEST:HIGHEST:N", NULL, "loss against learning rate: 1e-4:1e-1:8"),
    [FM_OPT_SWEEP_NORMS] = FLAG("sweep-norms", NULL, NULL, "sweep with and without the norms on dt, B and C"),
    [FM_OPT_VOCAB_SIZE] = INT("vocab-size", NULL, "32768", 256, 16777216, "tokens of the vocabulary, special ones included"),
    [FM_OPT_SPECIAL_TOKEN] =
        STRINGS("special-token", "special", "TEXT", "a special token (default: <|endoftext|>); may be repeated"),
    [FM_OPT_PRETOKENIZER] = STRING("pretokenizer", NULL, "falcon|gpt2|llama3", "falcon", "how text is cut before merging"),
    [FM_OPT_MIN_FREQUENCY] = INT("min-frequency", NULL, "2", 0, ANY_INT, "do not merge pairs that come less often"),
    [FM_OPT_MAN] = FLAG("man", NULL, NULL, "print the manual page"),
    [FM_OPT_COMPLETION] = FLAG("completion", NULL, NULL, "print the completion for bash"),
};

const fm_option *fm_option_get(fm_opt id)
{
    return &table[id];
}
