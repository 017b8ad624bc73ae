// walks.cuh - which sequences a block of a scan walks, one after the other.
//
// Sequences of uneven length are more blocks than run at once, and the last of them run alone.  Those that begin in the same rows can
// be one walk, so that one wave of blocks does all of them: which rows, the host decides, where it knows where sequences begin; which
// sequences, a block looks up.
#ifndef FM_KERNELS_CUDA_WALKS_CUH
#define FM_KERNELS_CUDA_WALKS_CUH

#include "kernels/cuda/cuda.cuh"

// Tokens of the longest walk, when sequences that begin in the same `rows` rows are one.
static inline size_t fm_longest_walk(const fm_ragged *r, size_t rows)
{
    size_t longest = 0, walk = 0, tokens = 0;
    for (size_t i = 0; i < r->n_seq; i++) {
        if (r->on_host[i] / rows != walk) walk = r->on_host[i] / rows, tokens = 0;
        tokens += r->on_host[i + 1] - r->on_host[i];
        if (tokens > longest) longest = tokens;
    }
    return longest;
}

// Rows of each walk, of whatever number gives the shortest longest one, when `wave` blocks run at once and a walk has `columns` of
// them.  0: sequences stay apart, since all of them run at once, or some walk would wait too long for another.
static inline size_t fm_walk_rows(const fm_ragged *r, size_t columns, size_t wave)
{
    size_t best = 0, least = SIZE_MAX;
    if (!r->on_host || columns * r->n_seq <= wave) return 0;
    for (size_t walks = wave / columns; walks > 0; walks--) {
        const size_t rows = (r->n_tokens + walks - 1) / walks, longest = fm_longest_walk(r, rows);
        if (longest < least) least = longest, best = rows;
    }
    return best && least * wave <= r->n_tokens * columns * 5 / 4 ? best : 0;
}

// How many walks there are.
static inline size_t fm_walks(const fm_ragged *r, size_t walk_rows)
{
    return walk_rows ? (r->n_tokens + walk_rows - 1) / walk_rows : r->n_seq;
}

// The first sequence that begins at `row` or behind it.
__device__ static inline size_t fm_first_from(const size_t *begin, size_t n_seq, size_t row)
{
    size_t low = 0, high = n_seq;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (begin[middle] < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Sequences first, first + step, ... < end.
typedef struct fm_walk {
    size_t first, end, step;
} fm_walk;

// Walk number `walk` of `walks`: the sequences that begin in its rows, or every walks-th.
__device__ static inline fm_walk fm_walk_of(const size_t *begin, size_t n_seq, size_t walk_rows, size_t walk, size_t walks)
{
    if (!walk_rows) return {walk, n_seq, walks};
    return {fm_first_from(begin, n_seq, walk * walk_rows), fm_first_from(begin, n_seq, (walk + 1) * walk_rows), 1};
}

#endif
