/* llama_options.c - see llama_options.h.  What has a meaning here is an option or an alias in option_table.c. */
#include "cli/llama_options.h"

#include "base/str.h"

#define ALONE  FM_LLAMA_ALONE
#define VALUE  FM_LLAMA_VALUE
#define SWITCH FM_LLAMA_SWITCH

#define NO_CACHE     "there is no KV cache: the state of a sequence has one size, however long it is"
#define NO_LIMIT     "there is no context to run out of: a state takes any number of tokens"
#define NO_POSITIONS "there are no positions to scale: the order of tokens is in the state"
#define ONE_DEVICE   "the whole model is where --device says"
#define PLACEMENT    "threads are placed by the system: taskset, nice and numactl change that"
#define NO_GRAMMAR   "text is not held to a grammar or a schema here"
#define NO_ADAPTERS  "adapters are not applied here: merge them into the weights before converting"
#define NO_PICTURES  "the models here read text alone"
#define NO_DOWNLOAD  "nothing is downloaded: fetch the file, and give it with -m"
#define A_STATE      "--save-state FILE saves the state after the last token, --state FILE goes on from it"
#define A_TEMPLATE   "what stands around a turn is the chat template's: --chat-template"
#define THE_TALK     "`fmamba run` talks, `fmamba generate` goes on with a text"

static const fm_llama_option table[] = {
    {"jinja", ALONE, FM_LLAMA_SAME, NULL},
    {"no-cnv no-conversation", ALONE, FM_LLAMA_SAME, NULL}, /* of `run` it is an option */
    {"no-display-prompt", ALONE, FM_LLAMA_SAME, NULL},
    {"no-warmup warmup", ALONE, FM_LLAMA_SAME, NULL},
    {"simple-io", ALONE, FM_LLAMA_SAME, NULL},
    {"log-disable", ALONE, FM_LLAMA_SAME, NULL},
    {"offline", ALONE, FM_LLAMA_SAME, NULL},
    {"no-op-offload nopo no-repack nr", ALONE, FM_LLAMA_SAME, NULL},

    {"fa flash-attn", SWITCH, FM_LLAMA_NOTED, "there is no attention to compute"},
    {"ctk cache-type-k ctv cache-type-v", VALUE, FM_LLAMA_NOTED, NO_CACHE},
    {"dt defrag-thold cram cache-ram cache-reuse ctxcp ctx-checkpoints swa-checkpoints", VALUE, FM_LLAMA_NOTED, NO_CACHE},
    {"nkvo no-kv-offload kvo kv-offload kvu kv-unified no-kv-unified swa-full", ALONE, FM_LLAMA_NOTED, NO_CACHE},
    {"context-shift no-context-shift", ALONE, FM_LLAMA_NOTED, NO_LIMIT},
    {"keep", VALUE, FM_LLAMA_NOTED, NO_LIMIT},
    {"rope-scaling rope-scale rope-freq-base rope-freq-scale yarn-orig-ctx yarn-ext-factor yarn-attn-factor yarn-beta-slow "
     "yarn-beta-fast gan grp-attn-n gaw grp-attn-w",
     VALUE, FM_LLAMA_NOTED, NO_POSITIONS},

    {"ngl gpu-layers n-gpu-layers mg main-gpu sm split-mode ts tensor-split ot override-tensor ncmoe n-cpu-moe fit", VALUE,
     FM_LLAMA_NOTED, ONE_DEVICE},
    {"cmoe cpu-moe", ALONE, FM_LLAMA_NOTED, ONE_DEVICE},
    {"tb threads-batch", VALUE, FM_LLAMA_NOTED, "prompts and single tokens take the same threads, -t"},
    {"C cpu-mask Cr cpu-range cpu-strict prio poll numa Cb cpu-mask-batch Crb cpu-range-batch cpu-strict-batch prio-batch "
     "poll-batch",
     VALUE, FM_LLAMA_NOTED, PLACEMENT},

    {"i interactive if interactive-first", ALONE, FM_LLAMA_NOTED, THE_TALK},
    {"mli multiline-input", ALONE, FM_LLAMA_NOTED, "in a talk a text between two \"\"\" has several lines"},
    {"no-jinja", ALONE, FM_LLAMA_NOTED, "chat templates are always read as Jinja"},
    {"reasoning-format reasoning-budget", VALUE, FM_LLAMA_NOTED, "what the model writes is shown as it is"},
    {"verbose-prompt", ALONE, FM_LLAMA_NOTED, "`fmamba tokenize --show` prints the tokens of a text"},
    {"perf no-perf show-timings no-show-timings", ALONE, FM_LLAMA_NOTED, "-v says how long it took"},
    {"lv verbosity log-verbosity", VALUE, FM_LLAMA_NOTED, "-v is all that can be said"},
    {"log-prefix log-timestamps", ALONE, FM_LLAMA_NOTED, "--log FILE has one form"},
    {"log-colors", SWITCH, FM_LLAMA_NOTED, "--log FILE has one form"},

    {"cnv conversation st single-turn", ALONE, FM_LLAMA_REFUSED, THE_TALK},
    {"display-prompt", ALONE, FM_LLAMA_REFUSED, THE_TALK}, /* of `generate` it is an option */
    {"in-prefix in-suffix", VALUE, FM_LLAMA_REFUSED, A_TEMPLATE},
    {"in-prefix-bos", ALONE, FM_LLAMA_REFUSED, A_TEMPLATE},
    {"prompt-cache", VALUE, FM_LLAMA_REFUSED, A_STATE},
    {"prompt-cache-all prompt-cache-ro", ALONE, FM_LLAMA_REFUSED, A_STATE},
    {"grammar grammar-file j json-schema jf json-schema-file", VALUE, FM_LLAMA_REFUSED, NO_GRAMMAR},
    {"sampler-seq sampling-seq", VALUE, FM_LLAMA_REFUSED, "--samplers takes names: --samplers 'top_k;top_p;temperature'"},
    {"lora lora-scaled control-vector control-vector-scaled", VALUE, FM_LLAMA_REFUSED, NO_ADAPTERS},
    {"mm mmproj mmu mmproj-url image audio", VALUE, FM_LLAMA_REFUSED, NO_PICTURES},
    {"hf hfr hf-repo hff hf-file hft hf-token mu model-url dr docker-repo", VALUE, FM_LLAMA_REFUSED, NO_DOWNLOAD},
};

const fm_llama_option *fm_llama_option_find(const char *name, size_t n)
{
    for (size_t i = 0; i < FM_COUNT(table); i++)
        if (fm_word_find((fm_view){name, n}, table[i].names, ' ', NULL)) return &table[i];
    return NULL;
}

bool fm_llama_option_takes(const fm_llama_option *o, const char *next)
{
    if (o->takes == FM_LLAMA_SWITCH) return next && fm_word_find(fm_view_of(next), "on off auto 1 0 true false", ' ', NULL);
    return o->takes == FM_LLAMA_VALUE;
}
