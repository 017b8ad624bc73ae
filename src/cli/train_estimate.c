/* train_estimate.c - see train_estimate.h. */
#include "cli/train_estimate.h"

#include <stdio.h>

#include "base/memory.h"

typedef struct amount {
    char text[24];
} amount;

static amount amount_of(uint64_t bytes)
{
    amount a;
    const double mib = (double)bytes / 1048576.0;
    snprintf(a.text, sizeof a.text, mib < 1024.0 ? "%.1f MiB" : "%.2f GiB", mib < 1024.0 ? mib : mib / 1024.0);
    return a;
}

static void put_mode(fm_str *out, const fm_estimate *e, fm_train_mode mode, uint64_t free)
{
    const size_t total = fm_estimate_total(e, mode);
    fm_str keys = {0};
    if (!total) return;
    fm_str_puts(&keys, fm_train_mode_keys(mode));
    if (mode == FM_TRAIN_CHUNKS) fm_str_printf(&keys, "=%zu", e->chunk);
    if (mode == FM_TRAIN_TRUNCATED) {
        fm_str_reset(&keys);
        fm_str_printf(&keys, "batch.chunk=%zu batch.truncate=true", e->chunk);
    }
    fm_str_printf(out, "  %-40s %12s %12s%s%s\n", keys.p ? keys.p : "", amount_of(e->pass[mode]).text, amount_of(total).text,
                  total > free ? "  more than is free" : "", mode == e->mode ? "  <- as configured" : "");
    fm_str_free(&keys);
}

fm_status fm_estimate_free(uint64_t *free, const fm_estimate *e, const fm_train_options *o, fm_error *err)
{
    fm_device *d;
    size_t left, all;
    *free = fm_memory_free();
    if (!e->on_device) return FM_OK;
    *free = UINT64_MAX;
    FM_TRY(fm_device_open(&d, o->device, NULL, NULL, err));
    fm_device_memory(d, &left, &all);
    fm_device_free(d);
    *free = left;
    return FM_OK;
}

void fm_estimate_put(fm_str *out, const fm_estimate *e, const char *name, const fm_train_options *o)
{
    uint64_t free;
    fm_estimate_free(&free, e, o, NULL); /* where there is no such device it is not known */
    fm_str_printf(out, "%s: %llu parameters\n", name, (unsigned long long)e->n_params);
    fm_str_printf(out, "a token: %.1f MFLOP forward, %.4g GFLOP with its gradients\n", e->forward_flops / 1e6,
                  3 * e->forward_flops / 1e9);
    fm_str_printf(out, "weights %s, gradients %s, moments %s%s; %s free here\n", amount_of(e->weights).text,
                  amount_of(e->gradients).text, amount_of(e->moments).text, e->on_device ? " of a GPU" : "",
                  free == UINT64_MAX ? "?" : amount_of(free).text);
    fm_str_printf(out, "  %-40s %12s %12s\n", "", "a pass", "in all");
    for (int mode = 0; mode < FM_TRAIN_MODES; mode++) put_mode(out, e, (fm_train_mode)mode, free);
    fm_str_printf(out, "a pass: %zu window%s of %zu tokens; text takes 4 bytes a token, shards are mapped\n", o->micro_batch,
                  o->micro_batch == 1 ? "" : "s", o->length);
}

fm_status fm_estimate_check(const fm_estimate *e, const char *name, uint64_t free, fm_error *err)
{
    fm_train_mode best = e->mode;
    if (e->total <= free) return FM_OK;
    for (int mode = 0; mode < FM_TRAIN_MODES; mode++) {
        const size_t total = fm_estimate_total(e, (fm_train_mode)mode);
        if (total && total < fm_estimate_total(e, best)) best = (fm_train_mode)mode;
        if (total && total <= free) break; /* the first that fits: the later ones cost more */
    }
    const size_t least = fm_estimate_total(e, best);
    const amount need = amount_of(e->total), have = amount_of(free), other = amount_of(least),
                 pass = amount_of(e->pass[e->mode]);
    if (best == e->mode)
        return fm_fail(err, FM_ERR_MEMORY,
                       "training %s takes %s (weights, gradients and moments %s, a pass %s), but %s are free: choose a smaller "
                       "model.shape, or a shorter data.length",
                       name, need.text, amount_of(e->weights + e->gradients + e->moments).text, pass.text, have.text);
    return fm_fail(err, FM_ERR_MEMORY, "training %s takes %s (of that a pass %s), but %s are free: %s takes %s%s", name,
                   need.text, pass.text, have.text, fm_train_mode_keys(best), other.text,
                   least <= free ? "" : ", still too much: choose a smaller model.shape");
}
