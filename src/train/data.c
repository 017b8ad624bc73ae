/* data.c - see data.h. */
#include "train/data.h"

#include "base/rng.h"

/* ---- Order ---- */

enum { ROUNDS = 4 };

static uint64_t feistel(uint64_t i, unsigned half_bits, uint64_t key)
{
    const uint64_t mask = ((uint64_t)1 << half_bits) - 1;
    uint64_t left = i >> half_bits, right = i & mask;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint32_t w[4];
        fm_rng_words(w, key, round, right);
        const uint64_t next = left ^ (((uint64_t)w[1] << 32 | w[0]) & mask);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

uint64_t fm_permute(uint64_t i, uint64_t n, uint64_t key)
{
    unsigned half_bits = 1;
    FM_ASSERT(i < n && n <= (uint64_t)1 << 62);
    while ((uint64_t)1 << (2 * half_bits) < n) half_bits++;
    do i = feistel(i, half_bits, key);
    while (i >= n); /* the walk returns to i itself at the latest */
    return i;
}

/* ---- Stages ---- */

static size_t stage_length(const fm_data *d, uint64_t stage)
{
    return d->n_stages ? d->stages[stage].length : d->length;
}

static const double *stage_weights(const fm_data *d, uint64_t stage)
{
    return d->n_stages ? d->stages[stage].weights : d->weights;
}

size_t fm_data_longest(const fm_data *d)
{
    size_t longest = stage_length(d, 0);
    for (size_t i = 1; i < d->n_stages; i++)
        if (d->stages[i].length > longest) longest = d->stages[i].length;
    return longest;
}

size_t fm_data_length(const fm_data *d, const fm_cursor *c)
{
    return stage_length(d, c->stage);
}

/* ---- Sources ---- */

static size_t parts_of(const fm_data *d, size_t source)
{
    return d->n_parts[source] ? d->n_parts[source] : 1;
}

static uint64_t blocks_of(const fm_tokens *part, size_t block)
{
    return part->n ? (part->n - 1) / block : 0;
}

static uint64_t count_blocks(const fm_data *d, size_t source, size_t block)
{
    uint64_t n = 0;
    for (size_t i = 0; i < parts_of(d, source); i++) n += blocks_of(&d->sources[source][i], block);
    return n;
}

/* The n tokens at `at` of a block, and the one after them. */
static fm_status read_block(const fm_data *d, size_t source, uint64_t index, size_t at, size_t n, int32_t *out, fm_error *err)
{
    const size_t block = fm_data_longest(d);
    const fm_tokens *part = d->sources[source];
    for (uint64_t blocks; index >= (blocks = blocks_of(part, block)); part++) index -= blocks;
    return fm_tokens_copy(part, (size_t)index * block + at, n + 1, out, err);
}

/* ---- The mixture ---- */

#define WEIGHT_UNIT ((double)(1 << 20))
#define DRAWN_MAX   ((uint64_t)1 << 42) /* times a weight, below 2^63 */

/* Weights as whole numbers, so that places are compared without rounding. */
static void whole_weights(const fm_data *d, uint64_t stage, uint64_t *out)
{
    const double *w = stage_weights(d, stage);
    double most = 0.0;
    for (size_t i = 0; i < d->n_sources; i++)
        if (w[i] > most) most = w[i];
    for (size_t i = 0; i < d->n_sources; i++) {
        out[i] = (uint64_t)(w[i] / most * WEIGHT_UNIT + 0.5);
        if (out[i] == 0 && w[i] > 0.0) out[i] = 1;
    }
}

/* The source whose next draw comes first; the first of them on ties. */
static size_t next_source(const fm_data *d, const uint64_t *w, const uint64_t *taken)
{
    size_t best = FM_SOURCES_MAX;
    for (size_t i = 0; i < d->n_sources; i++)
        if (w[i] && (best == FM_SOURCES_MAX || (taken[i] + 1) * w[best] < (taken[best] + 1) * w[i])) best = i;
    return best;
}

/* All draws up to the place n / sum of weights are at most n, and lack fewer than there are sources: the rest is walked. */
static void share(const fm_data *d, const uint64_t *w, uint64_t n, uint64_t *out)
{
    uint64_t sum = 0, given = 0;
    FM_ASSERT(n < DRAWN_MAX);
    for (size_t i = 0; i < d->n_sources; i++) sum += w[i];
    for (size_t i = 0; i < d->n_sources; i++) given += out[i] = n * w[i] / sum;
    for (; given < n; given++) out[next_source(d, w, out)]++;
}

void fm_data_shares(const fm_data *d, uint64_t stage, uint64_t n, uint64_t *out)
{
    uint64_t w[FM_SOURCES_MAX];
    whole_weights(d, stage, w);
    share(d, w, n, out);
}

/* Where a stage begins in a source: windows lie at multiples of their length. */
static uint64_t first_of(const fm_cursor *c, size_t source, size_t length)
{
    return (c->taken[source] + length - 1) / length * length;
}

fm_status fm_data_window(const fm_data *d, const fm_cursor *c, uint64_t ahead, int32_t *out, fm_error *err)
{
    uint64_t w[FM_SOURCES_MAX], drawn[FM_SOURCES_MAX];
    uint32_t key[4];
    const size_t length = fm_data_length(d, c), block = fm_data_longest(d);
    whole_weights(d, c->stage, w);
    share(d, w, c->drawn + ahead, drawn);
    const size_t s = next_source(d, w, drawn);
    const uint64_t at = first_of(c, s, length) + drawn[s] * length, n = count_blocks(d, s, block);
    fm_rng_words(key, d->seed, s, at / block / n);
    const uint64_t index = fm_permute(at / block % n, n, (uint64_t)key[1] << 32 | key[0]);
    return read_block(d, s, index, (size_t)(at % block), length, out, err);
}

static void leave_stage(const fm_data *d, fm_cursor *c)
{
    uint64_t drawn[FM_SOURCES_MAX];
    const size_t length = fm_data_length(d, c);
    fm_data_shares(d, c->stage, c->drawn, drawn);
    for (size_t i = 0; i < d->n_sources; i++)
        if (drawn[i]) c->taken[i] = first_of(c, i, length) + drawn[i] * length;
    c->drawn = 0;
    c->stage++;
}

void fm_data_advance(const fm_data *d, fm_cursor *c, uint64_t windows, uint64_t tokens)
{
    c->drawn += windows;
    while (c->stage + 1 < d->n_stages && tokens >= d->stages[c->stage + 1].begin) leave_stage(d, c);
}

/* ---- Checks ---- */

static fm_status check_stage(const fm_data *d, size_t i, size_t block, fm_error *err)
{
    const fm_stage *s = &d->stages[i];
    double sum = 0.0;
    for (size_t k = 0; k < d->n_sources; k++) sum += s->weights[k];
    if (i == 0 ? s->begin != 0 : s->begin <= s[-1].begin)
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "stage %zu begins at %llu tokens: expected the first to begin at 0 and each after the one before it",
                       i + 1, (unsigned long long)s->begin);
    if (s->length == 0 || block % s->length != 0)
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "stage %zu has windows of %zu tokens: expected a divisor of the longest stage's, %zu", i + 1, s->length,
                       block);
    if (!(sum > 0.0)) return fm_fail(err, FM_ERR_ARGUMENT, "stage %zu takes nothing from any source: give one a weight", i + 1);
    return FM_OK;
}

/* Places in tokens stay below 2^63, and windows below DRAWN_MAX with those of a step. */
fm_status fm_data_check_cursor(const fm_data *d, const fm_cursor *c, const char *path, fm_error *err)
{
    const uint64_t most = (uint64_t)1 << 62;
    bool far = false;
    if (c->stage > 0 && c->stage >= d->n_stages)
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "%s: the run is in stage %llu of its data, but data.stages has %zu: give them back", path,
                       (unsigned long long)c->stage + 1, d->n_stages);
    for (size_t i = 0; i < FM_SOURCES_MAX; i++) far |= c->taken[i] >= most;
    if (!far && c->drawn < DRAWN_MAX / 2 && c->drawn < most / fm_data_length(d, c)) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT, "%s: no run comes as far as it says (%llu windows of a stage): the file is damaged",
                   path, (unsigned long long)c->drawn);
}

static size_t count_tokens(const fm_data *d, size_t source)
{
    size_t n = 0;
    for (size_t i = 0; i < parts_of(d, source); i++) n += d->sources[source][i].n;
    return n;
}

/* A step of a stage reads no window twice. */
static fm_status check_batch(const fm_data *d, uint64_t stage, uint64_t batch, fm_error *err)
{
    const size_t block = fm_data_longest(d), length = stage_length(d, stage);
    const double *weights = stage_weights(d, stage);
    uint64_t n = 0;
    for (size_t i = 0; i < d->n_sources; i++)
        if (weights[i] > 0.0) n += count_blocks(d, i, block) * (block / length);
    if (n >= batch) return FM_OK;
    return fm_fail(
        err, FM_ERR_ARGUMENT,
        "a step takes %llu windows of %zu tokens, but there is text for %llu: give more text, or a smaller batch.size",
        (unsigned long long)batch, length, (unsigned long long)n);
}

fm_status fm_data_check(const fm_data *d, uint64_t batch, fm_error *err)
{
    const size_t block = fm_data_longest(d);
    for (size_t i = 0; i < d->n_stages; i++) FM_TRY(check_stage(d, i, block, err));
    for (size_t i = 0; i < d->n_sources; i++)
        if (count_blocks(d, i, block) == 0)
            return fm_fail(err, FM_ERR_ARGUMENT,
                           "source %zu has %zu tokens, a window takes %zu and the one after them: give more text or a shorter "
                           "sequence",
                           i + 1, count_tokens(d, i), block);
    for (uint64_t i = 0; i < (d->n_stages ? d->n_stages : 1); i++) FM_TRY(check_batch(d, i, batch, err));
    return FM_OK;
}
