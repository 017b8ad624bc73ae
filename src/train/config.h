/* config.h - how a run of training is described: one table of keys, read from YAML and from KEY=VALUE.
 *
 * To add a key, add a field and a line in config.c's table; `fmamba train --explain` prints that table. */
#ifndef FM_TRAIN_CONFIG_H
#define FM_TRAIN_CONFIG_H

#include "train/trainer.h"

#define FM_TRAIN_FILES_MAX 32

typedef struct fm_train_list {
    char *items[FM_TRAIN_FILES_MAX];
    size_t n;
} fm_train_list;

/* Norms on dt, B and C of a model that is drawn. */
typedef enum fm_norms { FM_NORMS_SHAPE, FM_NORMS_ON, FM_NORMS_OFF } fm_norms;
#define FM_NORMS "shape|true|false"

/* Strings belong to the configuration.  Counts of tokens may be written 500k, 1.5M, 2G in the file. */
typedef struct fm_train_config {
    char *from, *shape, *tokenizer;
    fm_norms norms;
    uint64_t d_model, n_layer, d_state, d_conv, dt_rank, d_inner; /* over the shape's; 0: the shape's */

    fm_train_list train;  /* "path" or "path*weight" */
    fm_train_list stages; /* see stages.h */
    char *val;
    bool carry;
    uint64_t length, batch, batch_begin, batch_ramp, micro_batch, chunk;

    double rate, final, beta1, beta2, eps, weight_decay, clip, z_loss, dropout;
    bool scale_with_batch;
    fm_params_kind weights;
    uint64_t tokens, warmup, decay_tokens;
    fm_decay decay;
    char *decay_from;

    fm_outlier_action outlier_action;
    double loss_z, norm_z;
    uint64_t outlier_window, outlier_limit;

    char *out;
    uint64_t seed, save_every, keep, milestone_every, eval_every, log_every;
    char *sample;
    uint64_t sample_every, sample_tokens, stats_every;
    double peak;
    bool recompute, truncate;
    const fm_allocator *a;
} fm_train_config;

/* Every key at its default. */
fm_status fm_train_config_open(fm_train_config *c, const fm_allocator *a, fm_error *err);
void fm_train_config_free(fm_train_config *c);
/* One key: "schedule.rate" = "1e-3".  A list is one string a call, the first of which (index 0) replaces the default.
 * FM_ERR_ARGUMENT names the nearest key, or what was expected and found; `where` (a file and line, or "--set") begins the
 * sentence. */
fm_status fm_train_config_set(fm_train_config *c, const char *key, size_t index, const char *value, const char *where,
                              fm_error *err);
/* A YAML file: mappings of mappings, whose paths are keys. */
fm_status fm_train_config_read(fm_train_config *c, const char *path, fm_error *err);
/* What is impossible in itself or missing, before anything is opened. */
fm_status fm_train_config_check(const fm_train_config *c, fm_error *err);

/* 512, 500k, 1.5M, 2G; whole in the end. */
bool fm_parse_count(const char *s, uint64_t *out);

/* The table, for --explain; false past the end. */
typedef struct fm_train_key {
    const char *key, *type, *fallback, *help;
    const char *words; /* of which the value is one; NULL: any */
} fm_train_key;
bool fm_train_config_key(size_t i, fm_train_key *out);

#endif
