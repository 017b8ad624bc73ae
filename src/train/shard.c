/* shard.c - see shard.h. */
#include "train/shard.h"

#include <string.h>

#include "base/crc64.h"
#include "base/sha256.h"
#include "text/tokenizer.h"

/* Places of the header. */
enum {
    AT_VERSION = 8,
    AT_WIDTH = 12,
    AT_TOKENS = 16,
    AT_BYTES = 24,
    AT_VOCAB = 32,
    AT_EOS = 40,
    AT_TOKENIZER = 48,
    AT_SUMS = 80,
    AT_SUM_OF_SUMS = 88,
    AT_SUM = 120
};

enum { VERSION = 1 };

static void add_view(fm_sha256 *s, fm_view v)
{
    unsigned char n[8];
    fm_put_le(n, v.n, sizeof n);
    fm_sha256_add(s, n, sizeof n);
    fm_sha256_add(s, v.p, v.n);
}

void fm_tokenizer_identity(unsigned char out[32], const fm_tokenizer *t)
{
    fm_sha256 s;
    fm_view a, b;
    fm_sha256_begin(&s);
    add_view(&s, fm_view_of(fm_tokenizer_pretok_name(t)));
    for (size_t i = 0; i < fm_tokenizer_vocab(t); i++) {
        int32_t type;
        unsigned char kind[4];
        fm_tokenizer_spell(t, (int32_t)i, &a, &type);
        fm_put_le(kind, (uint64_t)type, sizeof kind);
        fm_sha256_add(&s, kind, sizeof kind);
        add_view(&s, a);
    }
    for (size_t i = 0; i < fm_tokenizer_merges(t); i++) {
        fm_tokenizer_merge(t, i, &a, &b);
        add_view(&s, a);
        add_view(&s, b);
    }
    fm_sha256_end(&s, out);
}

/* ---- Reading ---- */

static fm_status check_tokenizer(const unsigned char *h, const char *path, const fm_tokenizing *o, fm_error *err)
{
    unsigned char mine[32];
    char there[65], here[65];
    if (fm_le(h + AT_VOCAB, 8) > o->vocab)
        return fm_fail(err, FM_ERR_SHAPE, "%s: its vocabulary has %llu tokens, the model's %zu: they do not belong together",
                       path, (unsigned long long)fm_le(h + AT_VOCAB, 8), o->vocab);
    fm_tokenizer_identity(mine, o->t);
    if (memcmp(h + AT_TOKENIZER, mine, sizeof mine) == 0) return FM_OK;
    fm_hex(there, h + AT_TOKENIZER, 32);
    fm_hex(here, mine, 32);
    return fm_fail(err, FM_ERR_SHAPE,
                   "%s was made with another tokenizer (%.16s, this one is %.16s): give that one, or make the shard anew", path,
                   there, here);
}

/* Sizes as the header says them against the size that the file has. */
static fm_status check_sizes(const fm_map *m, const char *path, fm_error *err)
{
    const unsigned char *h = m->p;
    const uint64_t width = fm_le(h + AT_WIDTH, 4), n = fm_le(h + AT_TOKENS, 8), sums = fm_le(h + AT_SUMS, 8);
    size_t bytes, end;
    if (width != 2 && width != 4)
        return fm_fail(err, FM_ERR_FORMAT, "%s: tokens of %llu bytes, expected 2 or 4", path, (unsigned long long)width);
    if (!fm_mul((size_t)n, (size_t)width, &bytes) || !fm_add(bytes, FM_SHARD_HEADER + 7, &end) || sums != end / 8 * 8 ||
        !fm_add((size_t)sums, (bytes + FM_SHARD_BLOCK - 1) / FM_SHARD_BLOCK * 8, &end) || end != m->n)
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s has %zu bytes, which is not what its header says of %llu tokens: the file was cut off or damaged; "
                       "fetch it again",
                       path, m->n, (unsigned long long)n);
    if (fm_crc64(0, h + sums, m->n - (size_t)sums) != fm_le(h + AT_SUM_OF_SUMS, 8))
        return fm_fail(err, FM_ERR_FORMAT, "%s: its table of checksums is damaged: fetch the file again", path);
    return FM_OK;
}

static fm_status check_header(const fm_map *m, const char *path, fm_error *err)
{
    if (m->n < FM_SHARD_HEADER)
        return fm_fail(err, FM_ERR_FORMAT, "%s: %zu bytes, but a shard begins with %zu of header: the file was cut off", path,
                       m->n, FM_SHARD_HEADER);
    if (fm_crc64(0, m->p, AT_SUM) != fm_le(m->p + AT_SUM, 8))
        return fm_fail(err, FM_ERR_FORMAT, "%s: its header is damaged: fetch the file again", path);
    if (fm_le(m->p + AT_VERSION, 4) != VERSION)
        return fm_fail(err, FM_ERR_UNSUPPORTED, "%s: version %llu of token shards, this program knows %d", path,
                       (unsigned long long)fm_le(m->p + AT_VERSION, 4), VERSION);
    return check_sizes(m, path, err);
}

fm_status fm_shard_open(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err)
{
    *out = (fm_tokens){.a = o->a};
    FM_TRY(fm_map_open(&out->map, path, FM_MAP_SHARED, err));
    const unsigned char *h = out->map.p;
    fm_status status = check_header(&out->map, path, err);
    if (status == FM_OK) status = check_tokenizer(h, path, o, err);
    if (status == FM_OK) {
        out->packed = h + FM_SHARD_HEADER;
        out->width = (unsigned)fm_le(h + AT_WIDTH, 4);
        out->n = (size_t)fm_le(h + AT_TOKENS, 8);
        out->n_bytes = (size_t)fm_le(h + AT_BYTES, 8);
        status = fm_tokens_check_later(out, h + fm_le(h + AT_SUMS, 8), path, o, err);
    }
    if (status != FM_OK) fm_tokens_free(out);
    return status;
}

/* ---- Writing ---- */

typedef struct writer {
    fm_shards *s;
    const fm_tokenizing *o;
    fm_shard_info info;
    unsigned width;
    fm_str path;
    fm_out out;
    uint64_t n_tokens, n_bytes; /* of the shard that is open */
    bool open;
    unsigned char *block; /* (FM_SHARD_BLOCK) */
    size_t n_block;
    unsigned char *sums;
    size_t n_sums, cap_sums; /* in bytes */
} writer;

static fm_status open_shard(writer *w, fm_error *err)
{
    static const unsigned char no_header[FM_SHARD_HEADER];
    fm_str_reset(&w->path);
    if (w->s->limit)
        fm_str_printf(&w->path, "%s-%05llu" FM_SHARD_ENDING, w->s->out, (unsigned long long)w->s->n_written);
    else
        fm_str_puts(&w->path, w->s->out);
    FM_TRY(fm_str_ok(&w->path, "the name of a shard", err));
    FM_TRY(fm_out_open(&w->out, w->path.p, w->o->a, err));
    w->open = true;
    w->n_tokens = w->n_bytes = w->n_block = w->n_sums = 0;
    return fm_out_write(&w->out, no_header, sizeof no_header, err);
}

static fm_status end_block(writer *w, fm_error *err)
{
    if (w->n_block == 0) return FM_OK;
    FM_TRY(fm_grow((void **)&w->sums, &w->cap_sums, w->n_sums + 8, 1, w->o->a, "checksums", err));
    fm_put_le(w->sums + w->n_sums, fm_crc64(0, w->block, w->n_block), 8);
    w->n_sums += 8;
    FM_TRY(fm_out_write(&w->out, w->block, w->n_block, err));
    w->n_block = 0;
    return FM_OK;
}

static void fill_header(const writer *w, unsigned char *h)
{
    memset(h, 0, FM_SHARD_HEADER);
    memcpy(h, FM_SHARD_MAGIC, 8);
    fm_put_le(h + AT_VERSION, VERSION, 4);
    fm_put_le(h + AT_WIDTH, w->width, 4);
    fm_put_le(h + AT_TOKENS, w->n_tokens, 8);
    fm_put_le(h + AT_BYTES, w->n_bytes, 8);
    fm_put_le(h + AT_VOCAB, w->info.vocab, 8);
    fm_put_le(h + AT_EOS, (uint32_t)w->info.eos, 4);
    memcpy(h + AT_TOKENIZER, w->info.tokenizer, sizeof w->info.tokenizer);
    fm_put_le(h + AT_SUMS, fm_round_up(FM_SHARD_HEADER + w->n_tokens * w->width, 8), 8);
    fm_put_le(h + AT_SUM_OF_SUMS, fm_crc64(0, w->sums, w->n_sums), 8);
    fm_put_le(h + AT_SUM, fm_crc64(0, h, AT_SUM), 8);
}

static fm_status close_shard(writer *w, fm_error *err)
{
    unsigned char header[FM_SHARD_HEADER];
    if (!w->open) return FM_OK;
    FM_TRY(end_block(w, err));
    FM_TRY(fm_out_pad(&w->out, 8, err));
    FM_TRY(fm_out_write(&w->out, w->sums, w->n_sums, err));
    fill_header(w, header);
    FM_TRY(fm_out_rewrite(&w->out, 0, header, sizeof header, err));
    FM_TRY(fm_out_commit(&w->out, err));
    w->open = false;
    w->s->n_written++;
    w->s->n_tokens += w->n_tokens;
    w->s->n_bytes += w->n_bytes;
    return FM_OK;
}

static fm_status put_some(writer *w, const int32_t *ids, size_t n, fm_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (w->n_block == FM_SHARD_BLOCK) FM_TRY(end_block(w, err));
        fm_put_le(w->block + w->n_block, (uint32_t)ids[i], w->width);
        w->n_block += w->width;
    }
    w->n_tokens += n;
    return FM_OK;
}

/* Bytes of text go where their tokens go, as nearly as can be said. */
static fm_status put(void *ctx, const int32_t *ids, size_t n, size_t n_bytes, fm_error *err)
{
    writer *w = ctx;
    while (n > 0) {
        const uint64_t left = w->s->limit ? w->s->limit - w->n_tokens : n;
        if (left == 0) {
            FM_TRY(close_shard(w, err));
            FM_TRY(open_shard(w, err));
            continue;
        }
        const size_t k = n < left ? n : (size_t)left;
        const size_t bytes = k == n ? n_bytes : (size_t)((double)n_bytes * (double)k / (double)n);
        FM_TRY(put_some(w, ids, k, err));
        w->n_bytes += bytes;
        n_bytes -= bytes;
        ids += k, n -= k;
    }
    return FM_OK;
}

/* A folder of shards is read whole, so one that an earlier, longer run left would be trained on. */
static fm_status check_leftover(writer *w, fm_error *err)
{
    if (!w->s->limit) return FM_OK;
    fm_str_reset(&w->path);
    fm_str_printf(&w->path, "%s-%05llu" FM_SHARD_ENDING, w->s->out, (unsigned long long)w->s->n_written);
    FM_TRY(fm_str_ok(&w->path, "the name of a shard", err));
    if (!fm_path_exists(w->path.p)) return FM_OK;
    return fm_fail(err, FM_ERR_IO, "%s is there from an earlier run: all %llu shards before it are written; remove it",
                   w->path.p, (unsigned long long)w->s->n_written);
}

static fm_status write_files(writer *w, fm_error *err)
{
    FM_TRY(fm_alloc((void **)&w->block, w->o->a, FM_SHARD_BLOCK, 1, "a block of tokens", err));
    FM_TRY(open_shard(w, err));
    for (size_t i = 0; i < w->s->n_files; i++) FM_TRY(fm_tokenize_file(w->o, w->s->files[i], (fm_token_sink){put, w}, err));
    FM_TRY(close_shard(w, err));
    return check_leftover(w, err);
}

fm_status fm_shards_write(fm_shards *s, const fm_tokenizing *o, fm_error *err)
{
    writer w = {.s = s, .o = o, .path = {.a = o->a}, .out = {.fd = -1}};
    w.info = (fm_shard_info){.vocab = fm_tokenizer_vocab(o->t), .eos = fm_tokenizer_eos(o->t)};
    fm_tokenizer_identity(w.info.tokenizer, o->t);
    w.width = w.info.vocab <= 65536 ? 2 : 4;
    s->n_tokens = s->n_bytes = s->n_written = 0;
    const fm_status status = write_files(&w, err);
    fm_out_abort(&w.out);
    fm_str_free(&w.path);
    fm_free(o->a, w.block);
    fm_free(o->a, w.sums);
    return status;
}
