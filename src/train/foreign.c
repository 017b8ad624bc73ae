/* foreign.c - see foreign.h. */
#include "train/foreign.h"

#include <string.h>

/* ---- llm.c ---- */

enum { LLMC_HEADER = 1024, LLMC_GPT2 = 20240520, LLMC_LLAMA3 = 20240801, LLMC_EVAL = 20240522 };

bool fm_llmc_is(const char *path, const unsigned char *head, size_t n)
{
    (void)path;
    const uint64_t magic = n >= 4 ? fm_le(head, 4) : 0;
    return magic == LLMC_GPT2 || magic == LLMC_LLAMA3 || magic == LLMC_EVAL;
}

static fm_status read_llmc(fm_tokens *t, const char *path, fm_error *err)
{
    const unsigned char *h = t->map.p;
    if (t->map.n < LLMC_HEADER)
        return fm_fail(err, FM_ERR_FORMAT, "%s: %zu bytes, but llm.c's header takes %d: the file was cut off", path, t->map.n,
                       LLMC_HEADER);
    const uint64_t magic = fm_le(h, 4), version = fm_le(h + 4, 4), n = fm_le(h + 8, 4);
    if (magic == LLMC_EVAL)
        return fm_fail(err, FM_ERR_UNSUPPORTED, "%s holds llm.c's multiple-choice questions, not text to train on", path);
    if (version != (magic == LLMC_GPT2 ? 1 : 7))
        return fm_fail(err, FM_ERR_UNSUPPORTED, "%s: version %llu of llm.c's tokens, expected 1 (uint16) or 7 (uint32)", path,
                       (unsigned long long)version);
    t->width = magic == LLMC_GPT2 ? 2 : 4;
    if (LLMC_HEADER + n * t->width != t->map.n)
        return fm_fail(err, FM_ERR_FORMAT, "%s has %zu bytes, but its header promises %llu tokens of %u: fetch it again", path,
                       t->map.n, (unsigned long long)n, t->width);
    t->packed = h + LLMC_HEADER;
    t->n = (size_t)n;
    return FM_OK;
}

/* After reading, with `status`: checks the ids, and lets go of everything after a failure. */
static fm_status finish(fm_tokens *t, fm_status status, const char *path, const fm_tokenizing *o, fm_error *err)
{
    if (status == FM_OK) status = fm_tokens_check(t, path, o, err);
    if (status != FM_OK) fm_tokens_free(t);
    return status;
}

fm_status fm_llmc_open(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err)
{
    *out = (fm_tokens){.a = o->a};
    FM_TRY(fm_map_open(&out->map, path, FM_MAP_SHARED, err));
    return finish(out, read_llmc(out, path, err), path, o, err);
}

/* ---- Megatron ---- */

enum { IDX_HEADER = 34, IDX_VERSION = 9, IDX_DTYPE = 17, IDX_SEQUENCES = 18, IDX_DOCUMENTS = 26 };

/* Bytes of a token by dtype code; 0: not whole numbers. */
static const unsigned char dtype_widths[] = {0, 1, 1, 2, 4, 8, 0, 0, 2};

bool fm_megatron_is(const char *path, const unsigned char *head, size_t n)
{
    (void)head, (void)n;
    return fm_view_ends(fm_view_of(path), ".idx") || fm_view_ends(fm_view_of(path), ".bin");
}

static fm_status check_idx_header(const fm_map *idx, const char *path, fm_error *err)
{
    if (idx->n < IDX_HEADER || memcmp(idx->p, "MMIDIDX\0\0", IDX_VERSION) != 0)
        return fm_fail(err, FM_ERR_FORMAT, "%s is not Megatron's index: expected it to begin with MMIDIDX", path);
    if (fm_le(idx->p + IDX_VERSION, 8) != 1)
        return fm_fail(err, FM_ERR_UNSUPPORTED, "%s: version %llu of Megatron's index, expected 1", path,
                       (unsigned long long)fm_le(idx->p + IDX_VERSION, 8));
    const unsigned code = idx->p[IDX_DTYPE];
    if (code >= sizeof dtype_widths || dtype_widths[code] == 0)
        return fm_fail(err, FM_ERR_UNSUPPORTED, "%s: its tokens have dtype code %u, expected a whole number (1-5 or 8)", path,
                       code);
    return FM_OK;
}

/* Lengths and places of all sequences must cover the .bin file without gaps: then it is one stream of tokens. */
static fm_status check_sequences(const fm_map *idx, size_t bin_bytes, const char *path, fm_error *err)
{
    const unsigned width = dtype_widths[idx->p[IDX_DTYPE]];
    const uint64_t n = fm_le(idx->p + IDX_SEQUENCES, 8), documents = fm_le(idx->p + IDX_DOCUMENTS, 8);
    uint64_t at = 0;
    if (n > idx->n / 12 || documents > idx->n / 8 || IDX_HEADER + 12 * n + 8 * documents > idx->n)
        return fm_fail(err, FM_ERR_FORMAT, "%s has %zu bytes, too few for %llu sequences and %llu documents: fetch it again",
                       path, idx->n, (unsigned long long)n, (unsigned long long)documents);
    const unsigned char *lengths = idx->p + IDX_HEADER, *places = lengths + 4 * n;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t length = fm_le(lengths + 4 * i, 4);
        if (fm_le(places + 8 * i, 8) != at || length > INT32_MAX)
            return fm_fail(err, FM_ERR_FORMAT, "%s: sequence %llu of %llu tokens lies at byte %llu, expected at byte %llu",
                           path, (unsigned long long)i, (unsigned long long)length,
                           (unsigned long long)fm_le(places + 8 * i, 8), (unsigned long long)at);
        at += length * width;
    }
    if (at == bin_bytes) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT, "%s lists %llu bytes of tokens, its .bin file has %zu: they do not belong together",
                   path, (unsigned long long)at, bin_bytes);
}

static fm_status read_megatron(fm_tokens *t, const char *idx_path, fm_error *err)
{
    fm_map idx;
    FM_TRY(fm_map_open(&idx, idx_path, FM_MAP_SHARED, err));
    fm_status status = check_idx_header(&idx, idx_path, err);
    if (status == FM_OK) status = check_sequences(&idx, t->map.n, idx_path, err);
    if (status == FM_OK) {
        t->width = dtype_widths[idx.p[IDX_DTYPE]];
        t->packed = t->map.p;
        t->n = t->map.n / t->width;
    }
    fm_map_close(&idx);
    return status;
}

/* The same name with another ending of as many letters. */
static char *with_ending(const char *path, const char *ending, const fm_allocator *a, fm_error *err)
{
    const size_t n = strlen(path);
    char *p = fm_strdup(a, path, n, err);
    if (p) memcpy(p + n - strlen(ending), ending, strlen(ending));
    return p;
}

fm_status fm_megatron_open(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err)
{
    *out = (fm_tokens){.a = o->a};
    char *bin = with_ending(path, ".bin", o->a, err), *idx = with_ending(path, ".idx", o->a, err);
    fm_status status = bin && idx ? FM_OK : FM_ERR_MEMORY;
    if (status == FM_OK && !fm_path_exists(idx))
        status = fm_fail(err, FM_ERR_FORMAT,
                         "%s is no token file that this program knows: not llm.c's (magic 20240520), and without %s beside it "
                         "not Megatron's; `fmamba shard` makes one from text",
                         path, idx);
    if (status == FM_OK) status = fm_map_open(&out->map, bin, FM_MAP_SHARED, err);
    if (status == FM_OK) status = finish(out, read_megatron(out, idx, err), bin, o, err);
    fm_free(o->a, bin);
    fm_free(o->a, idx);
    return status;
}
