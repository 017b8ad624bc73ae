/* int4_g128.c - our own 4.125 bits: groups of 128 with a scale, codes -8 .. 7; two groups to a block of 256.
 *
 *   f16 d[2]; u8 q[128]
 *
 * Codes are nibbles in two's complement and lie as tensor cores take them, so that a GPU's copy is the file's: word
 * 16 (b / 4) + 4 t + b % 4 has columns 32 b + 4 t .. + 3 in its bytes' low halves and 32 b + 16 + 4 t .. + 3 in the high ones. */
#include <math.h>
#include <string.h>

#include "base/compiler.h"
#include "tensor/quant/codes.h"
#include "tensor/quant/lanes.h"
#include "tensor/quant/search.h"

enum { N = FM_INT4_G128_BLOCK, GROUP = 128, CODES_AT = 4, TRIALS = 24 };

/* The byte in which column j lies, and whether in its high half. */
static size_t byte_of(size_t j)
{
    const size_t b = j / 32, t = j % 16 / 4;
    return CODES_AT + 4 * (b / 4 * 16 + 4 * t + b % 4) + j % 4;
}

static int shift_of(size_t j)
{
    return j % 32 / 16 * 4;
}

static void decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += FM_INT4_G128_BYTES)
        for (size_t j = 0; j < N; j++) {
            const int code = p[byte_of(j)] >> shift_of(j) & 15;
            dst[i + j] = fm_get_f16(p + j / GROUP * 2) * (float)((code ^ 8) - 8);
        }
}

/* Inverse scale of a trial: the peak, which takes the end with one code more, comes to lie between 7 and 13 steps from zero.
 * Beyond 8 it is cut off, which pays where one element stands out of 128. */
static float inverse_of(int trial, float peak)
{
    return -(7.0f + 0.25f * (float)trial) / peak;
}

typedef struct trial4 {
    fm_lanes products, squares; /* weighted sums of x * code and of code^2 */
} trial4;

static trial4 try4(const float *x, const float *weight, fm_lanes inverse)
{
    const fm_lanes low = fm_lanes_all(-8.0f), high = fm_lanes_all(7.0f);
    trial4 t = {fm_lanes_all(0.0f), fm_lanes_all(0.0f)};
    for (size_t i = 0; i < GROUP; i++) {
        fm_lanes code = fm_lanes_round(inverse * x[i]);
        code = fm_lanes_pick(code < low, low, code);
        code = fm_lanes_pick(code > high, high, code);
        t.products += weight[i] * x[i] * code;
        t.squares += weight[i] * (code * code);
    }
    return t;
}

/* The scale by least squares for the codes of the best trial; 0 for a group of zeros. */
static float fit(const float *x, const float *weight)
{
    const float peak = fm_peak(x, GROUP);
    float best = 0.0f, scale = 0.0f;
    if (!(fabsf(peak) >= FM_TINY_GROUP)) return 0.0f;
    for (int k = 0; k < TRIALS; k += FM_LANES) {
        fm_lanes inverse;
        for (int l = 0; l < FM_LANES; l++) inverse[l] = inverse_of(k + l, peak);
        const trial4 t = try4(x, weight, inverse);
        for (int l = 0; l < FM_LANES; l++) {
            const float gain = t.products[l] * t.products[l]; /* over squares: what the fit takes from the error */
            if (!(t.squares[l] > 0.0f && gain > best * t.squares[l])) continue;
            best = gain / t.squares[l];
            scale = t.products[l] / t.squares[l];
        }
    }
    return scale;
}

/* The nearest codes for the scale as it is stored. */
static void encode_group(uint8_t *p, size_t group, const float *x, const float *weight)
{
    fm_put_f16(p + 2 * group, fit(x, weight));
    const float d = fm_get_f16(p + 2 * group), inverse = d != 0.0f ? 1.0f / d : 0.0f;
    for (size_t i = 0; i < GROUP; i++) {
        const size_t j = group * GROUP + i;
        const int code = fm_clamp_int(fm_round_even(x[i] * inverse), -8, 7);
        p[byte_of(j)] |= (uint8_t)((code & 15) << shift_of(j));
    }
}

static void encode(void *dst, const float *src, const float *importance, size_t n)
{
    uint8_t *p = dst;
    const float sigma2 = importance ? fm_sum_squares(src, n) / (float)n : 0.0f;
    float weight[GROUP];
    for (size_t i = 0; i < GROUP; i++) weight[i] = 1.0f;
    memset(dst, 0, n / N * FM_INT4_G128_BYTES);
    for (size_t i = 0; i < n; i += GROUP) {
        if (importance) fm_importance_weights(weight, src + i, importance + i, GROUP, sigma2);
        encode_group(p + i / N * FM_INT4_G128_BYTES, i / GROUP % 2, src + i, weight);
    }
}

const fm_dtype_traits fm_dtype_INT4_G128 = FM_DTYPE_TRAITS(INT4_G128, false, decode, encode);
