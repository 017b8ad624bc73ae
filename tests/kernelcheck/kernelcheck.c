/* kernelcheck.c - runs the checks (or, with --bench, the timings) of every op on every table this machine can run. */
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "tests/kernelcheck/kernelcheck.h"

static const kc_op *const ops[] = {&kc_op_rmsnorm,   &kc_op_conv,      &kc_op_scan,      &kc_op_softmax, &kc_op_linear,
                                   &kc_op_norm_back, &kc_op_conv_back, &kc_op_scan_back, &kc_op_xent,    &kc_op_adamw,
                                   &kc_op_narrow,    &kc_op_sums,      &kc_op_product};

/* Feature sets, oldest first, each with a table of its own; those with FM_CPU_STREAM, which any machine can do, differ in their
 * products. */
static const unsigned feature_sets[] = {
    0,
    FM_CPU_AVX2,
    FM_CPU_AVX2 | FM_CPU_AVX512,
    FM_CPU_AVX2 | FM_CPU_AVX512 | FM_CPU_AVX512_VNNI,
    FM_CPU_AVX2 | FM_CPU_AVX512 | FM_CPU_AVX512_VNNI | FM_CPU_AVX512_BF16,
    FM_CPU_AVX2 | FM_CPU_AVX512 | FM_CPU_AVX512_VNNI | FM_CPU_AMX_INT8,
    FM_CPU_STREAM | FM_CPU_AVX2,
    FM_CPU_STREAM | FM_CPU_AVX2 | FM_CPU_AVX512,
    FM_CPU_NEON,
    FM_CPU_NEON | FM_CPU_DOTPROD,
};

typedef struct options {
    const char *only, *table, *device;
    bool bench, list, f32;
    uint64_t seed;
    kc_machine machine; /* with bench */
} options;

static const char usage[] = "usage: kernelcheck [--list] [--only OP] [--table NAME] [--bench] [--seed N]\n"
                            "       kernelcheck --device cuda [--only OP] [--bench] [--quick] [--activations f32] [--seed N]\n";

static bool options_parse(options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--list") == 0) {
            o->list = true;
        } else if (strcmp(argv[i], "--bench") == 0) {
            o->bench = true;
        } else if (strcmp(argv[i], "--quick") == 0) {
            kc_quick();
        } else if (value && strcmp(argv[i], "--only") == 0) {
            o->only = argv[++i];
        } else if (value && strcmp(argv[i], "--table") == 0) {
            o->table = argv[++i];
        } else if (value && strcmp(argv[i], "--device") == 0) {
            o->device = argv[++i];
            if (strcmp(o->device, "cuda") != 0) return false;
        } else if (value && strcmp(argv[i], "--activations") == 0) {
            o->f32 = strcmp(argv[++i], "f32") == 0;
            if (!o->f32 && strcmp(argv[i], "bf16") != 0) return false;
        } else if (value && strcmp(argv[i], "--seed") == 0) {
            if (!fm_parse_u64(fm_view_of(argv[++i]), &o->seed)) return false;
        } else {
            return false;
        }
    }
    return true;
}

/* False when a check failed. */
static bool run_op(const kc_op *op, size_t index, const fm_kernels *k, const fm_kernels *ref, const options *o)
{
    kc *t = calloc(1, sizeof *t);
    if (!t) abort();
    *t = (kc){.op = op->name, .k = *k, .ref = *ref, .seed = o->seed, .stream = index, .machine = &o->machine};
    if (!o->bench) {
        op->check(t);
        kc_release(t);
        printf("%-12s %-10s %8zu checks, largest error %.3f of its bound: %s\n", k->name, op->name, t->n_checks, t->worst,
               t->n_failed ? "FAILED" : "passed");
        fflush(stdout);
    } else if (op->bench) {
        op->bench(t);
        kc_release(t);
    }
    const bool ok = t->n_failed == 0;
    free(t);
    return ok;
}

static bool run_table(unsigned features, const options *o, size_t *n_run)
{
    fm_kernels k, ref;
    bool ok = true;
    fm_kernels_for(&k, features);
    fm_kernels_for(&ref, 0);
    const bool stream = (features & FM_CPU_STREAM) != 0;
    char name[32];
    snprintf(name, sizeof name, "%s%s", k.name, stream ? "+stream" : "");
    k.name = name;
    if (o->table && strcmp(o->table, name) != 0) return true;
    for (size_t i = 0; i < FM_COUNT(ops); i++) {
        if (stream && ops[i] != &kc_op_linear) continue;
        if (o->only && strcmp(o->only, ops[i]->name) != 0) continue;
        ++*n_run;
        if (o->list)
            printf("%s %s\n", k.name, ops[i]->name);
        else
            ok &= run_op(ops[i], i, &k, &ref, o);
    }
    return ok;
}

/* Those of a device's table that CPUs share, and its own; products of few columns have another check. */
static const kc_op *const device_ops[] = {&kc_op_rmsnorm, &kc_op_conv, &kc_op_scan,   &kc_op_softmax, &kc_op_rows,
                                          &kc_op_many,    &kc_op_mix,  &kc_op_sample, &kc_op_narrow};

static bool check_device(fm_stream *s, const fm_kernels *k, const options *o)
{
    fm_kernels ref;
    bool ok = true;
    fm_kernels_for(&ref, 0);
    kc_use_device(s, (fm_stream_options){.f32 = o->f32});
    for (size_t i = 0; i < FM_COUNT(device_ops); i++)
        if (!o->only || strcmp(o->only, device_ops[i]->name) == 0) ok &= run_op(device_ops[i], i, k, &ref, o);
    return ok;
}

/* The table of the first GPU. */
static int run_device(const options *o)
{
    const char *why = NULL;
    fm_kernels k;
    fm_stream *s = fm_gpu_count(&why) > 0 ? fm_stream_open(0, &(fm_stream_options){.f32 = o->f32}, &why) : NULL;
    if (!s) {
        fprintf(stderr, "kernelcheck: no CUDA device: %s\n", why ? why : "none was found");
        return 2;
    }
    fm_kernels_for(&k, 0);
    fm_kernels_fill_cuda(&k);
    bool ok = true;
    if (o->bench)
        kc_bench_device(s, &k, o->only);
    else
        ok = check_device(s, &k, o);
    fm_stream_close(s);
    return !ok;
}

static void begin_bench(options *o, unsigned features)
{
    kc_machine *m = &o->machine;
    kc_machine_measure(m, features);
    printf("one core: reads %.1f GB/s", m->read * 1e-9);
    for (int k = 0; k < FM_PEAK_COUNT; k++)
        if (m->peak[k] > 0.0) printf("; %s %.0f G/s", fm_peak_name((fm_peak_kind)k), m->peak[k] * 1e-9);
    printf("\n%-15s %-8s %-24s %15s\n", "table", "op", "what", "best time");
}

int main(int argc, char **argv)
{
    options o = {.seed = 42};
    if (!options_parse(&o, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    if (o.device) return run_device(&o);
    const unsigned have = fm_cpu_features();
    size_t n_run = 0;
    bool ok = true;
    if (!o.list) printf("seed %llu\n", (unsigned long long)o.seed);
    if (o.bench && !o.list) begin_bench(&o, have);
    for (size_t i = 0; i < FM_COUNT(feature_sets); i++) {
        const unsigned needs = feature_sets[i] & ~(unsigned)FM_CPU_STREAM;
        if ((needs & have) == needs) ok &= run_table(feature_sets[i], &o, &n_run);
    }
    if (n_run == 0) fputs("kernelcheck: no such op or table on this machine: see --list\n", stderr);
    return n_run == 0 ? 2 : !ok;
}
