/* vocab_bytes.c - a made-up vocabulary for made-up models: one end token, the 256 bytes, then pairs of bytes, ASCII first, each
 * with its merge.  Every text can be spelled in it and every id (up to 65,793) has text. */
#include "base/utf8.h"
#include "convert/internal.h"
#include "text/tokenizer.h"

#define FIRST_PAIR ((size_t)257)
#define PAIRS      ((size_t)65536)


/* GPT-2's printable byte alphabet: what prints stands for itself, the others follow from U+0100 on. */
static uint32_t printable(unsigned byte)
{
    uint32_t next = 0x100;
    for (unsigned b = 0; b <= byte; b++) {
        const bool prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte) return prints ? b : next;
        next += !prints;
    }
    return next;
}

/* Pair i, ordered by its larger byte: pairs of small bytes come first. */
static void pair_at(size_t i, unsigned *left, unsigned *right)
{
    size_t shell = 0;
    while ((shell + 1) * (shell + 1) <= i) shell++;
    const size_t k = i - shell * shell;
    *left = (unsigned)(k <= shell ? k : shell);
    *right = (unsigned)(k <= shell ? shell : k - shell - 1);
}

/* Letters first, so that small vocabularies have the useful pairs: byte (96 + i) mod 256. */
static unsigned byte_of(unsigned i) { return (i + 96) % 256; }

static void put_byte(fm_str *s, unsigned byte)
{
    char utf8[4];
    fm_str_put(s, utf8, fm_utf8_encode(utf8, printable(byte)));
}

static void spell(fm_str *s, size_t id, bool blank)
{
    unsigned left, right;
    if (id == 0) {
        fm_str_puts(s, "<|endoftext|>");
    } else if (id < FIRST_PAIR) {
        put_byte(s, (unsigned)id - 1);
    } else if (id - FIRST_PAIR < PAIRS) {
        pair_at(id - FIRST_PAIR, &left, &right);
        put_byte(s, byte_of(left));
        if (blank) fm_str_putc(s, ' ');
        put_byte(s, byte_of(right));
    } else {
        fm_str_printf(s, "[PAD%zu]", id);
    }
}

static int32_t type_of(size_t id)
{
    return id == 0 ? FM_TOKEN_CONTROL : id < FIRST_PAIR + PAIRS ? FM_TOKEN_NORMAL : FM_TOKEN_UNUSED;
}

/* The spellings of ids begin .. end as an array of strings. */
static fm_status put_array(fm_gguf_writer *w, const char *key, size_t begin, size_t end, bool blank, const fm_allocator *a,
                           fm_error *err)
{
    fm_str text = {.a = a};
    fm_view *views = NULL;
    const size_t n = end > begin ? end - begin : 0;
    fm_status status = fm_alloc((void **)&views, a, n, sizeof *views, "the vocabulary", err);
    for (size_t i = 0; i < n && status == FM_OK; i++) {
        const size_t at = text.n;
        spell(&text, begin + i, blank);
        views[i].n = text.n - at;
    }
    if (status == FM_OK) status = fm_str_ok(&text, "the vocabulary", err);
    if (status == FM_OK) {
        const char *p = text.p;
        for (size_t i = 0; i < n; p += views[i++].n) views[i].p = p;
        fm_gguf_put_strings(w, key, views, n);
    }
    fm_free(a, views);
    fm_str_free(&text);
    return status;
}

fm_status fm_tok_put_synthetic(fm_gguf_writer *w, const fm_job *j, fm_error *err)
{
    const size_t vocab = j->config.vocab;
    int32_t *types;
    fm_gguf_put_string(w, "tokenizer.ggml.model", FM_VIEW("gpt2"));
    fm_gguf_put_string(w, "tokenizer.ggml.pre", FM_VIEW("gpt-2"));
    FM_TRY(put_array(w, "tokenizer.ggml.tokens", 0, vocab, false, j->a, err));
    FM_TRY(fm_alloc((void **)&types, j->a, vocab, sizeof *types, "the vocabulary", err));
    for (size_t i = 0; i < vocab; i++) types[i] = type_of(i);
    fm_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, vocab);
    fm_free(j->a, types);
    const size_t end = vocab < FIRST_PAIR + PAIRS ? vocab : FIRST_PAIR + PAIRS;
    FM_TRY(put_array(w, "tokenizer.ggml.merges", FIRST_PAIR, end, true, j->a, err));
    fm_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 0);
    fm_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 0);
    fm_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false);
    fm_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false);
    return FM_OK;
}
