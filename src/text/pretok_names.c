/* pretok_names.c - the pre-tokenisers by the names that GGUF files give them. */
#include "text/tokenizer.h"

/* The NeoX family's stand for NFC too, and Llama 3's for a BOS, neither of which a GGUF always has a key for. */
static const fm_pretok_kind kinds[] = {
    {"falcon", FM_PRETOK_FALCON, false, false, false},  {"gpt-2", FM_PRETOK_GPT2, false, false, false},
    {"phi-2", FM_PRETOK_GPT2, false, false, false},     {"mpt", FM_PRETOK_GPT2, true, false, false},
    {"olmo", FM_PRETOK_GPT2, true, false, false},       {"gpt-neox", FM_PRETOK_GPT2, true, false, false},
    {"llama-bpe", FM_PRETOK_LLAMA3, false, true, true}, {"llama3", FM_PRETOK_LLAMA3, false, true, true},
    {"llama-v3", FM_PRETOK_LLAMA3, false, true, true},  {"falcon3", FM_PRETOK_LLAMA3, false, true, true},
    {"falcon-h1", FM_PRETOK_LLAMA3, false, true, true},
};

static fm_view usual_name(fm_view arch)
{
    if (fm_view_starts(arch, "falcon")) return FM_VIEW("falcon");
    return fm_view_is(arch, "gptneox") ? FM_VIEW("mpt") : FM_VIEW("gpt-2");
}

fm_status fm_pretok_find(const fm_pretok_kind **out, fm_view name, fm_view arch, const char *path, fm_error *err)
{
    if (name.n == 0 || fm_view_is(name, "default")) name = usual_name(arch);
    *out = NULL;
    for (size_t i = 0; i < FM_COUNT(kinds) && !*out; i++)
        if (fm_view_is(name, kinds[i].name)) *out = &kinds[i];
    if (*out) return FM_OK;
    return fm_fail(err, FM_ERR_UNSUPPORTED,
                   "%s: its pre-tokeniser is \"%s\" (tokenizer.ggml.pre), which this version does not know; it knows falcon, "
                   "gpt-2, mpt, olmo, llama-bpe, falcon3 and falcon-h1",
                   path, fm_quote_of(name).text);
}
