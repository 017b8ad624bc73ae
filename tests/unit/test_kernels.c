/* test_kernels.c - the cascade, how calls are cut, and the reference kernels against sums done by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "kernels/kernels.h"

static const fm_run all = {.part = 0, .n_parts = 1};

static void near(double got, double want)
{
    if (fabs(got - want) > 2e-6 * (1.0 + fabs(want))) fail_msg("got %.9g, expected %.9g", got, want);
}

/* Parts follow each other, cover everything, start at granules and differ by at most one granule. */
static void range_covers(void **state)
{
    (void)state;
    for (size_t n = 0; n < 200; n += 7) {
        for (size_t granule = 1; granule <= 64; granule *= 4) {
            for (unsigned n_parts = 1; n_parts <= 9; n_parts++) {
                size_t at = 0, least = SIZE_MAX, most = 0;
                for (unsigned part = 0; part < n_parts; part++) {
                    size_t begin, end;
                    fm_run_range(&(fm_run){.part = part, .n_parts = n_parts}, n, granule, &begin, &end);
                    assert_int_equal(begin, at);
                    assert_true(end >= begin && (begin % granule == 0 || begin == n));
                    const size_t granules = (end - begin + granule - 1) / granule;
                    least = granules < least ? granules : least;
                    most = granules > most ? granules : most;
                    at = end;
                }
                assert_int_equal(at, n);
                assert_true(most - least <= 1);
            }
        }
    }
}

static void range_is_safe_near_the_limit(void **state)
{
    (void)state;
    size_t begin, end;
    fm_run_range(&(fm_run){.part = 1, .n_parts = 2}, SIZE_MAX, 64, &begin, &end);
    assert_int_equal(end, SIZE_MAX);
    assert_int_equal(begin, (size_t)1 << 63);
}

/* Calls that agree on a granule deal out the same items, whatever their own ones are. */
static void range_obeys_the_run(void **state)
{
    (void)state;
    for (unsigned part = 0; part < 3; part++) {
        const fm_run run = {.part = part, .n_parts = 3, .granule = 256};
        size_t begin, end, same_begin, same_end;
        fm_run_range(&run, 1000, 16, &begin, &end);
        fm_run_range(&run, 1000, 64, &same_begin, &same_end);
        assert_int_equal(begin, part == 0 ? 0 : part == 1 ? 512 : 768);
        assert_int_equal(begin, same_begin);
        assert_int_equal(end, same_end);
    }
}

static void forms(void **state)
{
    (void)state;
    assert_int_equal(fm_xform_of(FM_F32), FM_X_F32);
    assert_int_equal(fm_xform_of(FM_F16), FM_X_F32);
    assert_int_equal(fm_xform_of(FM_BF16), FM_X_BF16);
    assert_int_equal(fm_xform_of(FM_Q8_0), FM_X_Q8_32);
    assert_int_equal(fm_xform_of(FM_IQ4_NL), FM_X_Q8_32);
    assert_int_equal(fm_xform_of(FM_Q4_K), FM_X_Q8_256);
    assert_int_equal(fm_xform_of(FM_IQ4_XS), FM_X_Q8_256);
    assert_int_equal(fm_xform_of(FM_INT4_G128), FM_X_Q8_256);
}

/* No entry is empty, whatever this machine's features are cut down to. */
static void tables_are_full(void **state)
{
    (void)state;
    static const unsigned sets[] = {0, FM_CPU_AVX2, FM_CPU_AVX2 | FM_CPU_STREAM, FM_CPU_AVX2 | FM_CPU_AVX512,
                                    FM_CPU_AVX2 | FM_CPU_AVX512 | FM_CPU_AVX512_VNNI,
                                    FM_CPU_AVX2 | FM_CPU_AVX512 | FM_CPU_AVX512_VNNI | FM_CPU_AVX512_BF16,
                                    FM_CPU_NEON, FM_CPU_NEON | FM_CPU_DOTPROD};
    for (size_t i = 0; i < FM_COUNT(sets); i++) {
        const unsigned needs = sets[i] & ~(unsigned)FM_CPU_STREAM; /* which any machine can do */
        if ((needs & fm_cpu_features()) != needs) continue;
        fm_kernels k;
        memset(&k, 0, sizeof k);
        fm_kernels_for(&k, sets[i]);
        assert_non_null(k.name);
        assert_true(k.rmsnorm && k.pack_x_bytes && k.conv_silu && k.scan && k.softmax);
        for (size_t f = 0; f < FM_XFORM_COUNT; f++) assert_true(k.pack_x[f] != NULL);
        for (size_t t = 0; t < FM_DTYPE_COUNT; t++) assert_true(k.linear[t] != NULL);
        if (i == 0) assert_string_equal(k.name, "ref");
    }
}

static void rmsnorm_by_hand(void **state)
{
    (void)state;
    fm_kernels k;
    fm_kernels_for(&k, 0);
    const float x[2] = {3.0f, 4.0f}, w[2] = {2.0f, -1.0f};
    float out[2];
    k.rmsnorm(&all, out, 2, x, 2, w, 1, 2, 0.0f);
    near((double)out[0], 6.0 / sqrt(12.5));
    near((double)out[1], -4.0 / sqrt(12.5));
    const float big[2] = {1e30f, 1e30f};
    k.rmsnorm(&all, out, 2, big, 2, NULL, 1, 2, 1e-5f);
    near((double)out[0], 1.0);
}

static double silu(double v) { return v / (1.0 + exp(-v)); }

/* Three tokens of one channel and a window of 3: weights 1, 10, 100, the last meets the current token. */
static void conv_by_hand(void **state)
{
    (void)state;
    fm_kernels k;
    fm_kernels_for(&k, 0);
    float window[2] = {0.01f, 0.02f}, out[3];
    float *const states[1] = {window};
    const float x[3] = {0.03f, 0.04f, 0.05f}, w[3] = {1.0f, 10.0f, 100.0f}, bias[1] = {0.5f};
    const size_t begin[2] = {0, 3};
    const fm_ragged ragged = {.n_seq = 1, .begin = begin};
    const fm_conv_args a = {.out = out, .out_stride = 1, .state = {.list = states}, .x = x, .x_stride = 1, .w = w, .bias = bias,
                            .ragged = &ragged, .d_inner = 1, .d_conv = 3};
    k.conv_silu(&all, &a);
    near((double)out[0], silu(0.5 + 0.01 + 0.2 + 3.0));
    near((double)out[1], silu(0.5 + 0.02 + 0.3 + 4.0));
    near((double)out[2], silu(0.5 + 0.03 + 0.4 + 5.0));
    near((double)window[0], 0.04);
    near((double)window[1], 0.05);
}

/* Two tokens of one channel with two states, equations 9 to 13 of the specification written out. */
static void scan_by_hand(void **state)
{
    (void)state;
    fm_kernels k;
    fm_kernels_for(&k, 0);
    float h[2] = {0.5f, -0.25f}, y[2];
    float *const states[1] = {h};
    const float u[2] = {1.5f, -0.5f}, dt[2] = {0.25f, 30.0f}, bias[1] = {0.5f}, A[2] = {-1.0f, -2.0f};
    const float B[4] = {0.3f, 0.7f, -0.2f, 0.4f}, C[4] = {1.1f, -0.9f, 0.6f, 0.8f}, skip[1] = {2.0f}, z[2] = {0.7f, -1.3f};
    const size_t begin[2] = {0, 2};
    const fm_ragged ragged = {.n_seq = 1, .begin = begin};
    const fm_scan_args a = {.y = y, .y_stride = 1, .h = {.list = states}, .u = u, .u_stride = 1, .dt = dt, .dt_stride = 1,
                            .dt_bias = bias, .A = A, .B = B, .C = C, .bc_stride = 2, .skip = skip, .z = z, .z_stride = 1,
                            .ragged = &ragged, .d_inner = 1, .d_state = 2};
    k.scan(&all, &a);
    const double d0 = log1p(exp(0.75)), d1 = 30.5;
    const double h0 = exp(-d0) * 0.5 + d0 * 1.5 * 0.3, h1 = exp(-2.0 * d0) * -0.25 + d0 * 1.5 * 0.7;
    near((double)y[0], (1.1 * h0 - 0.9 * h1 + 3.0) * silu(0.7));
    const double g0 = exp(-d1) * h0 + d1 * -0.5 * -0.2, g1 = exp(-2.0 * d1) * h1 + d1 * -0.5 * 0.4;
    near((double)y[1], (0.6 * g0 + 0.8 * g1 - 1.0) * silu(-1.3));
    near((double)h[0], g0);
    near((double)h[1], g1);
}

static void softmax_by_hand(void **state)
{
    (void)state;
    fm_kernels k;
    fm_kernels_for(&k, 0);
    float x[3] = {1000.0f, 1001.0f, -INFINITY}, lse;
    k.softmax(&all, x, &lse, x, 3, 1, 3);
    near((double)x[0], 1.0 / (1.0 + exp(1.0)));
    near((double)x[1], 1.0 / (1.0 + exp(-1.0)));
    assert_true(x[2] == 0.0f);
    near((double)lse, 1001.0 + log1p(exp(-1.0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_covers),   cmocka_unit_test(range_is_safe_near_the_limit), cmocka_unit_test(range_obeys_the_run),
        cmocka_unit_test(forms),          cmocka_unit_test(tables_are_full),
        cmocka_unit_test(rmsnorm_by_hand), cmocka_unit_test(conv_by_hand),
        cmocka_unit_test(scan_by_hand),   cmocka_unit_test(softmax_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
