/* optim.c - the optimiser's step, the norm of gradients, dropout.  Element-wise, or summed in blocks of a fixed size in
 * double. */
#include "base/rng.h"
#include "kernels/ref/ref.h"

enum { GRANULE = 1024 };

void fm_ref_adamw(const fm_run *run, const fm_adamw_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->n, GRANULE, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const fm_real g = a->clip * a->g[i];
        const fm_real m = a->beta1 * a->m[i] + (1.0f - a->beta1) * g;
        const fm_real v = a->beta2 * a->v[i] + (1.0f - a->beta2) * g * g;
        a->m[i] = m;
        a->v[i] = v;
        a->w[i] -= a->lr * (a->decay * a->w[i] + a->c1 * m / (sqrt(a->c2 * v) + a->eps));
    }
}

/* What is no number, or at the edge, is not for chance. */
static uint16_t narrow_by_chance(float v, uint32_t chance)
{
    union {
        float f;
        uint32_t u;
    } bits = {v};
    const uint32_t up = (bits.u + (chance & 0xffffu)) >> 16;
    return (up & 0x7f80u) == 0x7f80u ? fm_f32_to_bf16(v) : (uint16_t)up;
}

void fm_ref_narrow(const fm_run *run, const fm_narrow_args *a)
{
    size_t begin, end;
    uint32_t words[FM_NARROW_DRAW / 2];
    fm_run_range(run, a->n, GRANULE, &begin, &end); /* whole draws */
    for (size_t i = begin; i < end; i++) {
        const size_t at = i % FM_NARROW_DRAW;
        if (!a->by_chance) {
            a->out[i] = fm_f32_to_bf16((float)a->w[i]);
            continue;
        }
        if (at == 0) fm_rng_words(words, a->seed, a->stream, i / FM_NARROW_DRAW);
        a->out[i] = narrow_by_chance((float)a->w[i], words[at / 2] >> (at % 2 ? 16 : 0));
    }
}

void fm_ref_squares(const fm_run *run, double *sums, const fm_real *x, size_t n)
{
    const size_t n_sums = n / FM_SQUARES + (n % FM_SQUARES != 0);
    size_t begin, end;
    fm_run_range(run, n_sums, 1, &begin, &end);
    for (size_t s = begin; s < end; s++) {
        const size_t first = s * FM_SQUARES, last = n - first < FM_SQUARES ? n : first + FM_SQUARES;
        double sum = 0.0;
        for (size_t i = first; i < last; i++) sum += (double)x[i] * (double)x[i];
        sums[s] = sum;
    }
}

static void drop_row(const fm_dropout_args *a, size_t r)
{
    const uint64_t first = (a->first_row + r) * ((a->d + 3) / 4);
    const uint32_t below = (uint32_t)((double)a->p * 4294967296.0);
    const fm_real scale = 1.0f / (1.0f - a->p), *x = a->x + r * a->x_stride;
    fm_real *out = a->out + r * a->out_stride;
    for (size_t i = 0; i < a->d; i += 4) {
        uint32_t w[4];
        fm_rng_words(w, a->seed, a->stream, first + i / 4);
        for (size_t j = 0; j < 4 && i + j < a->d; j++) {
            const fm_real v = w[j] >= below ? x[i + j] * scale : 0.0f;
            out[i + j] = a->add ? out[i + j] + v : v;
        }
    }
}

void fm_ref_dropout(const fm_run *run, const fm_dropout_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) drop_row(a, r);
}
