/* kernelcheck.c - runs the checks (or, with --bench, the timings) of every op on every table this machine can run. */
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "tests/kernelcheck/kernelcheck.h"

static const kc_op *const ops[] = {&kc_op_rmsnorm, &kc_op_conv, &kc_op_scan, &kc_op_softmax, &kc_op_linear};

/* Feature sets, oldest first, each with a table of its own. */
static const unsigned feature_sets[] = {
    0,
    FM_CPU_AVX2,
    FM_CPU_AVX2 | FM_CPU_AVX512,
    FM_CPU_AVX2 | FM_CPU_AVX512 | FM_CPU_AVX512_VNNI,
    FM_CPU_AVX2 | FM_CPU_AVX512 | FM_CPU_AVX512_VNNI | FM_CPU_AVX512_BF16,
    FM_CPU_AVX2 | FM_CPU_AVX512 | FM_CPU_AVX512_VNNI | FM_CPU_AMX_INT8,
    FM_CPU_NEON,
    FM_CPU_NEON | FM_CPU_DOTPROD,
};

typedef struct options {
    const char *only, *table;
    bool bench, list;
    uint64_t seed;
    kc_machine machine; /* with bench */
} options;

static const char usage[] = "usage: kernelcheck [--list] [--only OP] [--table NAME] [--bench] [--seed N]\n";

static bool options_parse(options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--list") == 0) {
            o->list = true;
        } else if (strcmp(argv[i], "--bench") == 0) {
            o->bench = true;
        } else if (value && strcmp(argv[i], "--only") == 0) {
            o->only = argv[++i];
        } else if (value && strcmp(argv[i], "--table") == 0) {
            o->table = argv[++i];
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
    if (o->table && strcmp(o->table, k.name) != 0) return true;
    for (size_t i = 0; i < FM_COUNT(ops); i++) {
        if (o->only && strcmp(o->only, ops[i]->name) != 0) continue;
        ++*n_run;
        if (o->list)
            printf("%s %s\n", k.name, ops[i]->name);
        else
            ok &= run_op(ops[i], i, &k, &ref, o);
    }
    return ok;
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
    const unsigned have = fm_cpu_features();
    size_t n_run = 0;
    bool ok = true;
    if (!o.list) printf("seed %llu\n", (unsigned long long)o.seed);
    if (o.bench && !o.list) begin_bench(&o, have);
    for (size_t i = 0; i < FM_COUNT(feature_sets); i++)
        if ((feature_sets[i] & have) == feature_sets[i]) ok &= run_table(feature_sets[i], &o, &n_run);
    if (n_run == 0) fputs("kernelcheck: no such op or table on this machine: see --list\n", stderr);
    return n_run == 0 ? 2 : !ok;
}
