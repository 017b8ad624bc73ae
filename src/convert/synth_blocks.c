/* synth_blocks.c - random rows drawn directly in a type's blocks (layouts: spec falcon-mamba.md 4.4).  A block is filled with
 * random bits; then its scales are set such that the decoded values have standard deviation 0.02 and a mean near zero. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "convert/internal.h"

#define SD 0.02f

typedef enum how {
    FREE,     /* every byte but d may be anything */
    NIBBLES,  /* Q2_K: 16 bytes with scale in the low and min in the high nibble, 8 .. 15 and equal */
    SIX_BITS  /* Q4_K, Q5_K: 8 scales and 8 mins of 6 bits in 12 bytes, 32 .. 63 and equal */
} how;

/* `unit` is the standard deviation of a value when d = 1; the offset field, where there is one, is set to `middle` * d, the
 * middle of the codes.  Fields at -1 are absent. */
static const struct layout {
    fm_dtype type;
    float unit, middle;
    int d_at, min_at, scales_at;
    how scales;
} layouts[] = {
    {FM_Q8_0, 73.9f, 0, 0, -1, -1, FREE},
    {FM_Q4_0, 4.61f, 0, 0, -1, -1, FREE},
    {FM_Q4_1, 4.61f, -7.5f, 0, 2, -1, FREE},
    {FM_Q5_0, 9.23f, 0, 0, -1, -1, FREE},
    {FM_Q5_1, 9.23f, -15.5f, 0, 2, -1, FREE},
    {FM_Q2_K, 11.73f * 1.118f, 1.5f, 80, 82, 0, NIBBLES},
    {FM_Q3_K, 18.48f * 2.345f, 0, 108, -1, -1, FREE},
    {FM_Q4_K, 48.4f * 4.61f, 7.5f, 0, 2, 4, SIX_BITS},
    {FM_Q5_K, 48.4f * 9.23f, 15.5f, 0, 2, 4, SIX_BITS},
    {FM_Q6_K, 73.9f * 18.48f, 0, 208, -1, -1, FREE},
    {FM_IQ4_NL, 67.4f, 0, 0, -1, -1, FREE},
    {FM_IQ4_XS, 67.4f * 18.48f, 0, 0, -1, -1, FREE},
    {FM_INT4_G128, 4.61f, 1.0f, 0, 2, -1, FREE}, /* the second scale in place of an offset */
};

static const struct layout *layout_of(fm_dtype type)
{
    for (size_t i = 0; i < FM_COUNT(layouts); i++)
        if (layouts[i].type == type) return &layouts[i];
    FM_ASSERT(!"a block format that synth_blocks.c does not list");
    return NULL;
}

static void put_f16(unsigned char *p, float v)
{
    const uint16_t h = fm_f32_to_f16(v);
    memcpy(p, &h, sizeof h);
}

/* Random bytes in the place of the scales become scales. */
static void fix_scales(unsigned char *s, how scales)
{
    if (scales == NIBBLES)
        for (size_t i = 0; i < 16; i++) s[i] = (unsigned char)((8 | (s[i] & 7)) * 17);
    if (scales == SIX_BITS)
        for (size_t i = 0; i < 4; i++) {
            const unsigned low = 32 | (s[i] & 31u), high = 32 | (s[i + 4] & 31u);
            s[i] = s[i + 4] = (unsigned char)(low | (high >> 4) << 6);
            s[i + 8] = (unsigned char)((high & 15) * 17);
        }
}

static void random_blocks(fm_dtype type, unsigned char *dst, size_t n, uint64_t seed, uint64_t stream, uint64_t at)
{
    const struct layout *l = layout_of(type);
    const fm_dtype_traits *t = fm_dtype_get(type);
    const float d = SD / l->unit;
    for (size_t b = 0; b < n / t->block; b++, dst += t->bytes) {
        const uint64_t block = at / t->block + b;
        uint32_t words[4];
        for (size_t i = 0; i < t->bytes; i += sizeof words) {
            const size_t left = t->bytes - i;
            fm_rng_words(words, seed, stream, block * 16 + i / sizeof words); /* 16 draws are enough for 256 bytes */
            memcpy(dst + i, words, left < sizeof words ? left : sizeof words);
        }
        put_f16(dst + l->d_at, d);
        if (l->min_at >= 0) put_f16(dst + l->min_at, d * l->middle);
        if (l->scales_at >= 0) fix_scales(dst + l->scales_at, l->scales);
    }
}

/* Uniform with the same deviation: +-0.02 sqrt(3).  Eight values of 16 random bits per draw. */
static void random_floats(fm_dtype type, void *dst, size_t n, uint64_t seed, uint64_t stream, uint64_t at)
{
    const float scale = SD * sqrtf(3.0f) / 32768.0f;
    const size_t bytes = fm_dtype_get(type)->bytes;
    int16_t bits[8];
    uint64_t have = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        const uint64_t k = at + i;
        if (k / 8 != have) {
            uint32_t words[4];
            have = k / 8;
            fm_rng_words(words, seed, stream, have);
            memcpy(bits, words, sizeof bits);
        }
        const float v = ((float)bits[k % 8] + 0.5f) * scale;
        fm_dtype_get(type)->encode((unsigned char *)dst + i * bytes, &v, NULL, 1);
    }
}

void fm_random_row(fm_dtype type, void *dst, size_t n, uint64_t seed, uint64_t stream, uint64_t at)
{
    if (fm_dtype_get(type)->is_float) random_floats(type, dst, n, seed, stream, at);
    else random_blocks(type, dst, n, seed, stream, at);
}
