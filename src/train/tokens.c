/* tokens.c - see tokens.h. */
#include "train/tokens.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crc64.h"
#include "base/memory.h"
#include "train/foreign.h"
#include "train/shard.h"

#define SMALL ((size_t)1 << 24) /* tokens for which nobody is asked */

typedef struct list {
    fm_tokens *t;
    size_t room;
} list;

/* A list that is to double: what the system would promise but not have is refused here. */
static fm_status check_growth(const list *l, size_t need, fm_error *err)
{
    if (need < l->room || l->room < SMALL || l->room > SIZE_MAX / 8 || 2 * l->room * sizeof(int32_t) <= fm_memory_free())
        return FM_OK;
    return fm_fail(
        err, FM_ERR_MEMORY,
        "after %zu tokens of text there is no memory for twice as many: make shards of it with `fmamba shard`, which "
        "are mapped",
        l->t->n);
}

static fm_status put(void *ctx, const int32_t *ids, size_t n, size_t n_bytes, fm_error *err)
{
    list *l = ctx;
    size_t need;
    if (!fm_add(l->t->n, n, &need)) return fm_fail(err, FM_ERR_MEMORY, "too many tokens");
    FM_TRY(check_growth(l, need, err));
    FM_TRY(
        fm_grow((void **)&l->t->ids, &l->room, need + 1, sizeof *ids, l->t->a, "the tokens (shards are mapped instead)", err));
    if (n) memcpy(l->t->ids + l->t->n, ids, n * sizeof *ids);
    l->t->n = need;
    l->t->n_bytes += n_bytes;
    return FM_OK;
}

static fm_status tokenize(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err)
{
    *out = (fm_tokens){.a = o->a};
    list l = {.t = out};
    const fm_status status = fm_tokenize_file(o, path, (fm_token_sink){put, &l}, err);
    if (status != FM_OK) fm_tokens_free(out);
    return status;
}

static bool is_shard(const char *path, const unsigned char *head, size_t n)
{
    (void)path;
    return n >= 8 && memcmp(head, FM_SHARD_MAGIC, 8) == 0;
}

static bool is_any(const char *path, const unsigned char *head, size_t n)
{
    (void)path, (void)head, (void)n;
    return true;
}

/* What a file may be, tried in this order. */
static const struct kind {
    bool (*is)(const char *path, const unsigned char *head, size_t n);
    fm_status (*open)(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err);
} kinds[] = {{is_shard, fm_shard_open}, {fm_llmc_is, fm_llmc_open}, {fm_megatron_is, fm_megatron_open}, {is_any, tokenize}};

/* The first bytes; none of what cannot be read, which opening will say, and of a FIFO, whose bytes come only once. */
static size_t read_head(const char *path, unsigned char *head, size_t room)
{
    fm_map m;
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || fm_map_open(&m, path, FM_MAP_SHARED, NULL) != FM_OK) return 0;
    const size_t n = m.n < room ? m.n : room;
    memcpy(head, m.p, n);
    fm_map_close(&m);
    return n;
}

fm_status fm_tokens_read(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err)
{
    unsigned char head[16];
    const size_t n = read_head(path, head, sizeof head);
    const struct kind *k = kinds;
    while (!k->is(path, head, n)) k++;
    return k->open(out, path, o, err);
}

/* ---- Mapped tokens ---- */

typedef struct checking {
    const fm_tokens *t;
    size_t vocab, n_blocks;
    atomic_size_t wrong; /* the first block that is; n_blocks: none */
} checking;

static size_t tokens_of_block(const fm_tokens *t)
{
    return FM_SHARD_BLOCK / t->width;
}

static size_t count_blocks(const fm_tokens *t)
{
    const size_t each = tokens_of_block(t);
    return t->n / each + (t->n % each > 0);
}

/* The tokens of a block. */
static void block_range(const fm_tokens *t, size_t block, size_t *begin, size_t *end)
{
    const size_t each = tokens_of_block(t);
    *begin = block * each;
    *end = t->n - *begin < each ? t->n : *begin + each;
}

static bool sum_is_right(const fm_tokens *t, size_t block)
{
    size_t begin, end;
    block_range(t, block, &begin, &end);
    return !t->sums || fm_crc64(0, t->packed + begin * t->width, (end - begin) * t->width) == fm_le(t->sums + 8 * block, 8);
}

/* The largest of n numbers; two loops that compilers turn into vectors, for the widths that files mostly have. */
static uint64_t largest(const unsigned char *p, size_t n, unsigned width)
{
    uint64_t most = 0;
    uint32_t most32 = 0;
    uint16_t most16 = 0;
    for (size_t i = 0; width == 2 && i < n; i++) {
        const uint16_t v = (uint16_t)(p[2 * i] | p[2 * i + 1] << 8);
        most16 = v > most16 ? v : most16;
    }
    for (size_t i = 0; width == 4 && i < n; i++) {
        const uint32_t v = (uint32_t)fm_le(p + 4 * i, 4);
        most32 = v > most32 ? v : most32;
    }
    for (size_t i = 0; width != 2 && width != 4 && i < n; i++) {
        const uint64_t v = fm_le(p + i * width, width);
        most = v > most ? v : most;
    }
    return width == 2 ? most16 : width == 4 ? most32 : most;
}

/* The first id of a block that is too large; there is one. */
static size_t find_wrong_id(const fm_tokens *t, size_t vocab, size_t block)
{
    size_t i, end;
    block_range(t, block, &i, &end);
    while (i + 1 < end && fm_le(t->packed + i * t->width, t->width) < vocab) i++;
    return i;
}

static bool block_is_right(const fm_tokens *t, size_t vocab, size_t block)
{
    size_t begin, end;
    block_range(t, block, &begin, &end);
    return sum_is_right(t, block) && largest(t->packed + begin * t->width, end - begin, t->width) < vocab;
}

static fm_status fail_block(const fm_tokens *t, size_t vocab, size_t block, const char *path, fm_error *err)
{
    size_t begin, end;
    block_range(t, block, &begin, &end);
    if (!sum_is_right(t, block))
        return fm_fail(err, FM_ERR_FORMAT, "%s: tokens %zu .. %zu are damaged (their checksum is wrong): fetch the file again",
                       path, begin, end - 1);
    const size_t i = find_wrong_id(t, vocab, block);
    return fm_fail(err, FM_ERR_SHAPE, "%s: token %zu is %llu, expected 0 .. %zu: tokens of another vocabulary?", path, i,
                   (unsigned long long)fm_le(t->packed + i * t->width, t->width), vocab - 1);
}

static void check_blocks(void *ctx, unsigned part, unsigned n_parts)
{
    checking *c = ctx;
    size_t block = part, wrong;
    while (block < (wrong = atomic_load(&c->wrong)) && block_is_right(c->t, c->vocab, block)) block += n_parts;
    while (block < wrong && !atomic_compare_exchange_weak(&c->wrong, &wrong, block)) continue;
}

fm_status fm_tokens_check(const fm_tokens *t, const char *path, const fm_tokenizing *o, fm_error *err)
{
    checking c = {.t = t, .vocab = o->vocab, .n_blocks = count_blocks(t)};
    atomic_init(&c.wrong, c.n_blocks);
    fm_pool_run(o->pool, check_blocks, &c);
    const size_t wrong = atomic_load(&c.wrong);
    return wrong == c.n_blocks ? FM_OK : fail_block(t, o->vocab, wrong, path, err);
}

fm_status fm_tokens_check_later(fm_tokens *t, const unsigned char *sums, const char *path, const fm_tokenizing *o,
                                fm_error *err)
{
    t->sums = sums;
    t->vocab = o->vocab;
    t->path = fm_strdup(t->a, path, strlen(path), err);
    if (!t->path) return FM_ERR_MEMORY;
    return fm_alloc((void **)&t->checked, t->a, count_blocks(t), sizeof *t->checked, "the list of a shard's blocks", err);
}

/* The blocks under n tokens, of which there is one at least. */
static fm_status check_range(const fm_tokens *t, size_t at, size_t n, fm_error *err)
{
    const size_t each = tokens_of_block(t);
    for (size_t block = at / each; block <= (at + n - 1) / each; block++) {
        if (t->checked[block]) continue;
        if (!block_is_right(t, t->vocab, block)) return fail_block(t, t->vocab, block, t->path, err);
        t->checked[block] = true;
    }
    return FM_OK;
}

fm_status fm_tokens_copy(const fm_tokens *t, size_t at, size_t n, int32_t *out, fm_error *err)
{
    FM_ASSERT(at <= t->n && n <= t->n - at);
    if (n && t->checked) FM_TRY(check_range(t, at, n, err));
    if (t->ids && n) memcpy(out, t->ids + at, n * sizeof *out);
    for (size_t i = 0; i < n && !t->ids; i++) out[i] = (int32_t)fm_le(t->packed + (at + i) * t->width, t->width);
    return FM_OK;
}

/* What mapped tokens need beside their ids. */
static void forget_mapping(fm_tokens *t)
{
    fm_free(t->a, t->checked);
    fm_free(t->a, t->path);
    fm_map_close(&t->map);
    t->packed = t->sums = NULL;
    t->checked = NULL;
    t->path = NULL;
}

fm_status fm_tokens_load(fm_tokens *t, fm_error *err)
{
    int32_t *ids;
    if (t->ids) return FM_OK;
    FM_TRY(fm_alloc((void **)&ids, t->a, t->n, sizeof *ids, "the tokens", err));
    const fm_status status = fm_tokens_copy(t, 0, t->n, ids, err);
    if (status != FM_OK) {
        fm_free(t->a, ids);
        return status;
    }
    forget_mapping(t);
    t->ids = ids;
    return FM_OK;
}

void fm_tokens_free(fm_tokens *t)
{
    fm_free(t->a, t->ids);
    forget_mapping(t);
    *t = (fm_tokens){0};
}
