/* test_quant.c - the block formats against ggml: tests/data/quant/ggml.txt holds what ggml_quantize_chunk() made of the rows
 * below, with and without importance (tests/oracles/quant_oracle.py), and every format must give the same bytes. */
#include <math.h>

#include "tensor/dtype.h"
#include "unit/testing.h"

enum { COLS = 512 };

static const char *const cases[] = {"normal", "small", "outlier", "positive", "zero", "constant", "steps"};

/* The finaliser of MurmurHash3: the rows of the oracle script, made again. */
static uint32_t mix(uint32_t k)
{
    k = (k ^ k >> 16) * 0x85EBCA6Bu;
    k = (k ^ k >> 13) * 0xC2B2AE35u;
    return k ^ k >> 16;
}

static float uniform(uint32_t seed, uint32_t i)
{
    return (float)(mix(i + (seed << 16)) >> 8) / 8388608.0f - 1.0f;
}

static float element(uint32_t k, uint32_t i)
{
    const char *name = cases[k];
    const float sum = uniform(4 * k, i) + uniform(4 * k + 1, i) + uniform(4 * k + 2, i);
    if (!strcmp(name, "small")) return sum * 0x1p-20f;
    if (!strcmp(name, "outlier")) return i % 37 ? sum : sum * 32.0f;
    if (!strcmp(name, "positive")) return fabsf(sum);
    if (!strcmp(name, "zero")) return sum * 0.0f;
    if (!strcmp(name, "constant")) return 0.375f;
    if (!strcmp(name, "steps")) return rintf(sum * 4.0f) * 0.25f;
    return sum;
}

static void make_row(float row[COLS], const char *name)
{
    for (uint32_t k = 0; k < FM_COUNT(cases); k++)
        if (!strcmp(cases[k], name))
            for (uint32_t i = 0; i < COLS; i++) row[i] = element(k, i);
}

static void make_importance(float row[COLS])
{
    for (uint32_t i = 0; i < COLS; i++) {
        const float u = uniform(1000, i) + 1.0f;
        row[i] = u * u + 0.0009765625f;
    }
}

static size_t read_hex(unsigned char *out, const char *hex)
{
    size_t n = 0;
    for (unsigned byte; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++) out[n] = (unsigned char)byte;
    return n;
}

static void bytes_are_those_of_ggml(void **state)
{
    (void)state;
    char type_name[16], name[16];
    static char hex[4096];
    int weighted, n_lines = 0;
    float row[COLS], importance[COLS];
    unsigned char want[2048], ours[2048];
    FILE *f = fopen(FM_SOURCE_DIR "/tests/data/quant/ggml.txt", "r");
    assert_non_null(f);
    make_importance(importance);
    for (; fscanf(f, "%15s %15s %d %4095s", type_name, name, &weighted, hex) == 4; n_lines++) {
        fm_dtype type;
        size_t bytes;
        assert_true(fm_dtype_from_name(fm_view_of(type_name), &type));
        assert_true(fm_dtype_bytes(type, 1, COLS, &bytes));
        assert_int_equal(read_hex(want, hex), bytes);
        make_row(row, name);
        fm_dtype_get(type)->encode(ours, row, weighted ? importance : NULL, COLS);
        if (memcmp(want, ours, bytes)) fail_msg("%s differs from ggml: case %s, importance %d", type_name, name, weighted);
    }
    fclose(f);
    assert_int_equal(n_lines, 12 * FM_COUNT(cases) * 2);
}

/* ---- Readers by the formulae of the specification, one element at a time ---- */

static float half_at(const uint8_t *p)
{
    return fm_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static float spec_element(fm_dtype type, const uint8_t *p, unsigned j)
{
    static const int table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    const unsigned nibble = j < 16 ? 0 : 4, at = j % 16, n = j / 128, part = j % 128 / 32, l = j % 32, g32 = j / 32,
                   g16 = j / 16;
    const uint8_t *s;
    int sc, mn, x;
    switch (type) {
    case FM_Q8_0: return half_at(p) * (float)(int8_t)p[2 + j];
    case FM_Q4_0: return half_at(p) * (float)((p[2 + at] >> nibble & 15) - 8);
    case FM_Q4_1: return half_at(p) * (float)(p[4 + at] >> nibble & 15) + half_at(p + 2);
    case FM_Q5_0: return half_at(p) * (float)(((p[6 + at] >> nibble & 15) | (p[2 + j / 8] >> j % 8 & 1) << 4) - 16);
    case FM_Q5_1: return half_at(p) * (float)((p[8 + at] >> nibble & 15) | (p[4 + j / 8] >> j % 8 & 1) << 4) + half_at(p + 2);
    case FM_IQ4_NL: return half_at(p) * (float)table[p[2 + at] >> nibble & 15];
    case FM_Q2_K:
        x = p[16 + 32 * n + l] >> 2 * part & 3;
        return half_at(p + 80) * (float)(p[g16] & 15) * (float)x - half_at(p + 82) * (float)(p[g16] >> 4);
    case FM_Q3_K:
        s = p + 96;
        sc = (g16 < 8 ? s[g16] & 15 : s[g16 - 8] >> 4) | (s[8 + g16 % 4] >> 2 * (g16 / 4) & 3) << 4;
        x = (p[32 + 32 * n + l] >> 2 * part & 3) - (p[l] >> g32 & 1 ? 0 : 4);
        return half_at(p + 108) * (float)(sc - 32) * (float)x;
    case FM_Q4_K:
    case FM_Q5_K:
        s = p + 4;
        sc = g32 < 4 ? s[g32] & 63 : (s[g32 + 4] & 15) | (s[g32 - 4] >> 6) << 4;
        mn = g32 < 4 ? s[g32 + 4] & 63 : s[g32 + 4] >> 4 | (s[g32] >> 6) << 4;
        x = p[(type == FM_Q5_K ? 48 : 16) + 32 * (j / 64) + l] >> (g32 % 2 ? 4 : 0) & 15;
        if (type == FM_Q5_K) x |= (p[16 + l] >> g32 & 1) << 4;
        return half_at(p) * (float)sc * (float)x - half_at(p + 2) * (float)mn;
    case FM_Q6_K:
        x = (p[64 * n + 32 * (part % 2) + l] >> (part < 2 ? 0 : 4) & 15) | (p[128 + 32 * n + l] >> 2 * part & 3) << 4;
        return half_at(p + 208) * (float)(int8_t)p[192 + g16] * (float)(x - 32);
    case FM_INT4_G128:
        x = p[4 + 64 * n + 16 * (l % 16 / 4) + 4 * (g32 % 4) + j % 4] >> (l < 16 ? 0 : 4) & 15;
        return half_at(p + 2 * n) * (float)(x < 8 ? x : x - 16);
    default:
        assert_int_equal(type, FM_IQ4_XS);
        sc = (p[4 + g32 / 2] >> 4 * (g32 % 2) & 15) | ((p[2] | p[3] << 8) >> 2 * g32 & 3) << 4;
        return half_at(p) * (float)(sc - 32) * (float)table[p[8 + 16 * g32 + l % 16] >> (l < 16 ? 0 : 4) & 15];
    }
}

static void decoding_is_the_formula(void **state)
{
    (void)state;
    for (int t = FM_Q8_0; t < FM_DTYPE_COUNT; t++) {
        const fm_dtype_traits *type = fm_dtype_get((fm_dtype)t);
        uint8_t block[256];
        float out[256];
        for (uint32_t trial = 0; trial < 500; trial++) {
            for (uint32_t i = 0; i < type->bytes; i++) block[i] = (uint8_t)mix(trial << 10 | i);
            type->decode(out, block, type->block);
            for (unsigned j = 0; j < type->block; j++) {
                const float want = spec_element((fm_dtype)t, block, j);
                if (memcmp(&want, &out[j], sizeof want) && !(isnan(want) && isnan(out[j])))
                    fail_msg("%s element %u: %a, the formula gives %a", type->name, j, (double)out[j], (double)want);
            }
        }
    }
}

/* ---- Our own format has no other program to agree with: its error is held to that of formats with more bits ---- */

static double weighted_error(fm_dtype type, const void *bytes, const float row[COLS], const float *importance)
{
    float out[COLS];
    double sum = 0;
    fm_dtype_get(type)->decode(out, bytes, COLS);
    for (size_t i = 0; i < COLS; i++) {
        const double error = (double)out[i] - (double)row[i];
        sum += (importance ? (double)importance[i] : 1) * error * error;
    }
    return sum;
}

static double error_of(fm_dtype type, const float row[COLS])
{
    unsigned char bytes[COLS * 4];
    fm_dtype_get(type)->encode(bytes, row, NULL, COLS);
    return weighted_error(type, bytes, row, NULL);
}

static void int4_is_no_worse_than_its_bits(void **state)
{
    (void)state;
    float row[COLS], importance[COLS];
    make_row(row, "normal");
    const double own = error_of(FM_INT4_G128, row);
    assert_true(own < 1.35 * error_of(FM_Q4_0, row)); /* a scale for 128 elements, not for 32 */
    assert_true(own > error_of(FM_Q4_K, row));
    for (size_t i = 0; i < COLS; i++) importance[i] = i % 16 ? 1e-3f : 1.0f;
    unsigned char plain[COLS], heeding[COLS];
    fm_dtype_get(FM_INT4_G128)->encode(plain, row, NULL, COLS);
    fm_dtype_get(FM_INT4_G128)->encode(heeding, row, importance, COLS);
    const double without = weighted_error(FM_INT4_G128, plain, row, importance);
    assert_true(weighted_error(FM_INT4_G128, heeding, row, importance) < 0.95 * without);
    make_row(row, "steps"); /* multiples of a scale that a half holds, -12 .. 12: most of them exactly, peaks cut off */
    for (size_t i = 0; i < COLS; i++) row[i] = fminf(fmaxf(row[i], -2.0f), 1.75f);
    row[0] = row[128] = row[256] = row[384] = -2.0f;
    assert_true(error_of(FM_INT4_G128, row) < 1e-9);
}

/* ---- Rows that no model should have ---- */

static void strange_rows_do_no_harm(void **state)
{
    (void)state;
    const float values[] = {0.0f, NAN, INFINITY, -INFINITY, 3.4e38f, -3.4e38f, 1e-45f, 1.0f};
    float row[COLS], importance[COLS];
    unsigned char *out = malloc(COLS * 4);
    assert_non_null(out);
    for (int t = 0; t < FM_DTYPE_COUNT; t++)
        for (uint32_t trial = 0; trial < 64; trial++) {
            size_t bytes;
            assert_true(fm_dtype_bytes((fm_dtype)t, 1, COLS, &bytes));
            for (uint32_t i = 0; i < COLS; i++) {
                row[i] = values[mix(trial << 10 | i) % FM_COUNT(values)];
                importance[i] = trial % 2 ? 0.0f : values[mix(trial << 11 | i) % FM_COUNT(values)];
            }
            unsigned char guard[16];
            memset(out + bytes, 0x5A, sizeof guard > COLS * 4 - bytes ? 0 : sizeof guard);
            fm_dtype_get((fm_dtype)t)->encode(out, row, trial % 3 ? importance : NULL, COLS);
            for (size_t i = 0; bytes + sizeof guard <= COLS * 4 && i < sizeof guard; i++)
                assert_int_equal(out[bytes + i], 0x5A);
        }
    free(out);
}

static void halves_round_to_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = fm_f16_to_f32((uint16_t)h), b = fm_bf16_to_f32((uint16_t)h);
        if (!isnan(f)) assert_int_equal(fm_f32_to_f16(f), h);
        if (!isnan(b))
            assert_int_equal(fm_f32_to_bf16(b), h);
        else
            assert_true(isnan(fm_bf16_to_f32(fm_f32_to_bf16(b))));
        if (isnan(f)) assert_true(isnan(fm_f16_to_f32(fm_f32_to_f16(f))));
    }
    assert_int_equal(fm_f32_to_f16(65519.996f), 0x7BFF); /* the largest that does not round to infinity */
    assert_int_equal(fm_f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(fm_f32_to_f16(0x1p-25f), 0); /* half of the smallest, a tie: to even */
    assert_int_equal(fm_f32_to_f16(0x1.8p-25f), 1);
    assert_int_equal(fm_f32_to_f16(1.0f + 0x1p-11f), 0x3C00);
    assert_int_equal(fm_f32_to_f16(1.0f + 0x3p-11f), 0x3C02);
    assert_int_equal(fm_f32_to_bf16(1.0f + 0x1p-8f), 0x3F80);
    assert_int_equal(fm_f32_to_bf16(1.0f + 0x3p-8f), 0x3F82);
}

static void names_and_sizes(void **state)
{
    (void)state;
    fm_dtype t;
    size_t bytes;
    assert_true(fm_dtype_from_name(FM_VIEW("q4_k_m"), &t) && t == FM_Q4_K);
    assert_true(fm_dtype_from_name(FM_VIEW("Q4_K_S"), &t) && t == FM_Q4_K);
    assert_true(fm_dtype_from_name(FM_VIEW("q3_k_l"), &t) && t == FM_Q3_K);
    assert_true(fm_dtype_from_name(FM_VIEW("iq4_xs"), &t) && t == FM_IQ4_XS);
    assert_false(fm_dtype_from_name(FM_VIEW("q4_k_xl"), &t));
    assert_false(fm_dtype_from_name(FM_VIEW(""), &t));
    assert_true(fm_dtype_from_gguf(12, &t) && t == FM_Q4_K);
    assert_false(fm_dtype_from_gguf(16, &t));
    assert_string_equal(fm_gguf_type_name(16), "IQ2_XXS");
    assert_null(fm_gguf_type_name(4));
    assert_true(fm_dtype_from_name(FM_VIEW("int4_g128"), &t) && t == FM_INT4_G128);
    assert_string_equal(fm_gguf_type_name(4128), "INT4_G128");
    assert_true(fm_dtype_bytes(FM_Q4_K, 3, 512, &bytes) && bytes == 3 * 288);
    assert_false(fm_dtype_bytes(FM_Q4_K, 3, 500, &bytes));
    assert_false(fm_dtype_bytes(FM_F32, SIZE_MAX / 2, 4, &bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_ggml), cmocka_unit_test(decoding_is_the_formula),
        cmocka_unit_test(int4_is_no_worse_than_its_bits), cmocka_unit_test(strange_rows_do_no_harm),
        cmocka_unit_test(halves_round_to_even), cmocka_unit_test(names_and_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
