/* test_training.c - training against PyTorch: gradients of packed documents, gradients through given states, the first losses of
 * a run with AdamW (train.safetensors of two golden models, by tests/oracles/train_oracle.py). */
#include "base/cpu.h"
#include "golden/golden.h"
#include "model/model.h"
#include "train/gradients.h"
#include "train/trainer.h"

static const char *const names[] = {"falcon-odd", "mamba-noconvb"};

typedef struct world {
    const char *name;
    fm_model *m;
    fm_st st;
    fm_kernels k;
    fm_pool *pool;
} world;

static void world_open(world *w, const char *name, unsigned threads)
{
    char path[512];
    unsigned features;
    fm_error err = {0};
    *w = (world){.name = name};
    snprintf(path, sizeof path, "%s/tests/data/golden/%s", FM_SOURCE_DIR, name);
    if (fm_model_open(&w->m, path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/tests/data/golden/%s/train.safetensors", FM_SOURCE_DIR, name);
    if (fm_st_open(&w->st, path, FM_MAP_SHARED, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    if (fm_cpu_cap(&features, "auto", &err) != FM_OK || fm_pool_open(&w->pool, threads, NULL, &err) != FM_OK)
        fail_msg("%s", err.text);
    fm_kernels_for(&w->k, features);
}

static void world_close(world *w)
{
    fm_pool_free(w->pool);
    fm_model_free(w->m);
    fm_st_close(&w->st);
}

static void near(const world *w, const char *what, double got, double want, double within)
{
    if (!(fabs(got - want) <= within)) fail_msg("%s: %s is %.9g, expected %.9g within %.1e", w->name, what, got, want, within);
}

static double number(const world *w, const char *name, size_t i)
{
    const golden_tensor t = golden_get(&w->st, name);
    assert_true(i < t.n);
    return (double)golden_at(&t, i);
}

/* ---- Gradients of pieces ---- */

enum { PIECES = 4 };

typedef struct pieces {
    fm_piece p[PIECES];
    int32_t *ids, *targets, *n_tokens;
    size_t T, n_scored;
    float *states, *g_states, *list[PIECES], *loss; /* (PIECES, state_floats) */
    fm_gradients g;
} pieces;

static void *zeros(size_t n)
{
    void *p = calloc(n, sizeof(float));
    assert_non_null(p);
    return p;
}

static void pieces_open(pieces *p, const world *w)
{
    size_t n;
    fm_error err = {0};
    *p = (pieces){0};
    p->ids = golden_ids(&w->st, "pieces.ids", &p->T);
    p->targets = golden_ids(&w->st, "pieces.targets", &n);
    p->n_tokens = golden_ids(&w->st, "pieces.n", &n);
    assert_int_equal(n, PIECES);
    p->states = zeros(PIECES * w->m->state_floats), p->g_states = zeros(PIECES * w->m->state_floats), p->loss = zeros(p->T);
    for (size_t i = 0, at = 0; i < PIECES; at += (size_t)p->n_tokens[i++]) {
        p->list[i] = p->g_states + i * w->m->state_floats;
        p->p[i] = (fm_piece){.tokens = p->ids + at, .n = (size_t)p->n_tokens[i], .state = p->states + i * w->m->state_floats};
    }
    for (size_t i = 0; i < p->T; i++) p->n_scored += p->targets[i] >= 0;
    if (fm_gradients_open(&p->g, w->m, NULL, &err) != FM_OK) fail_msg("%s", err.text);
}

static void pieces_close(pieces *p)
{
    void *const owned[] = {p->ids, p->targets, p->n_tokens, p->states, p->g_states, p->loss};
    for (size_t i = 0; i < FM_COUNT(owned); i++) free(owned[i]);
    fm_gradients_free(&p->g);
}

static fm_backward pass_of(const world *w, pieces *p, bool forget, bool recompute)
{
    return (fm_backward){.m = w->m,
                         .k = &w->k,
                         .pool = w->pool,
                         .pieces = p->p,
                         .n_pieces = PIECES,
                         .forget = forget,
                         .targets = p->targets,
                         .scale = 1.0f / (float)p->n_scored,
                         .recompute = recompute,
                         .g = p->g.g,
                         .g_state = forget ? NULL : p->list,
                         .loss = p->loss};
}

/* Mean loss; gradients are in p->g and p->g_states. */
static double pass(const world *w, pieces *p, bool forget, bool recompute)
{
    const fm_backward b = pass_of(w, p, forget, recompute);
    fm_pass memory;
    fm_error err = {0};
    double sum = 0.0;
    if (fm_pass_open(&memory, &b, p->T, NULL, &err) != FM_OK || fm_pass_run(&memory, &b, &err) != FM_OK)
        fail_msg("%s", err.text);
    fm_gradients_settle(&p->g, &w->k, w->pool);
    fm_pass_free(&memory);
    for (size_t i = 0; i < p->T; i++) sum += (double)p->loss[i];
    return sum / (double)p->n_scored;
}

/* As test_gradients.c: the file that is written against "<prefix>grad.*", within a relative L2 of 1e-4 a tensor. */
static void check_gradients(const world *w, const fm_gradients *g, const char *prefix)
{
    char path[] = "test_training_XXXXXX", key[128];
    const int fd = mkstemp(path);
    fm_st got;
    fm_error err = {0};
    size_t n = 0;
    assert_true(fd >= 0);
    close(fd);
    if (fm_gradients_write(g, 0.0, path, &err) != FM_OK || fm_st_open(&got, path, FM_MAP_READ, NULL, &err) != FM_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < got.n_tensors; i++) {
        if (strcmp(got.tensors[i].name, "loss") == 0) continue;
        snprintf(key, sizeof key, "%s%s", prefix, got.tensors[i].name);
        const golden_tensor a = golden_get(&got, got.tensors[i].name), b = golden_get(&w->st, key);
        double diff = 0, norm = 0;
        assert_int_equal(a.n, b.n);
        for (size_t j = 0; j < a.n; j++) {
            diff += pow((double)golden_at(&a, j) - (double)golden_at(&b, j), 2);
            norm += pow((double)golden_at(&b, j), 2);
        }
        if (!(sqrt(diff) <= 1e-4 * sqrt(norm))) fail_msg("%s: %s is %.2e away", w->name, key, sqrt(diff / norm));
        n++;
    }
    for (size_t i = 0; i < w->st.n_tensors; i++)
        n -= strncmp(w->st.tensors[i].name, prefix, strlen(prefix)) == 0 && strstr(w->st.tensors[i].name, "grad.") != NULL;
    assert_int_equal(n, 0); /* none is missing */
    fm_st_close(&got);
    unlink(path);
}

/* "state.*" is (pieces, layers, floats of a layer) and a state has a layer at an offset: copies one into the other. */
static void take_states(const world *w, float *states, const char *name)
{
    const golden_tensor t = golden_get(&w->st, name);
    const size_t n_layer = w->m->config.n_layer, floats = t.n / (PIECES * n_layer);
    for (size_t i = 0; i < t.n; i++)
        states[i / floats / n_layer * w->m->state_floats + w->m->layers[i / floats % n_layer].state_offset + i % floats] =
            golden_at(&t, i);
}

static void check_states(const world *w, const float *states, const char *name)
{
    float *want = zeros(PIECES * w->m->state_floats);
    take_states(w, want, name);
    double diff = 0, norm = 0;
    for (size_t i = 0; i < PIECES * w->m->state_floats; i++) {
        diff += pow((double)states[i] - (double)want[i], 2);
        norm += pow((double)want[i], 2);
    }
    if (!(sqrt(diff) <= 1e-4 * sqrt(norm))) fail_msg("%s: %s is %.2e away", w->name, name, sqrt(diff / norm));
    free(want);
}

/* One pass against the golden numbers "packed.*" or "state.*". */
static void check_pass(const world *w, bool packed, bool recompute)
{
    pieces p;
    pieces_open(&p, w);
    if (!packed) {
        take_states(w, p.states, "state.before");
        take_states(w, p.g_states, "state.weight");
    }
    near(w, "the loss", pass(w, &p, packed, recompute), number(w, packed ? "packed.loss" : "state.loss", 0), 1e-5);
    check_gradients(w, &p.g, packed ? "packed." : "state.");
    if (!packed) {
        check_states(w, p.states, "state.after");
        check_states(w, p.g_states, "state.grad");
    }
    pieces_close(&p);
}

static void check_passes(bool packed)
{
    for (size_t i = 0; i < FM_COUNT(names); i++) {
        world w;
        world_open(&w, names[i], 2);
        check_pass(&w, packed, false);
        check_pass(&w, packed, true);
        world_close(&w);
    }
}

/* Documents packed into one step give the gradients of each alone. */
static void packed_documents(void **state)
{
    (void)state;
    check_passes(true);
}

/* States go in and come out; so do their gradients, the other way. */
static void given_states(void **state)
{
    (void)state;
    check_passes(false);
}

/* Weights, states and their gradients of one thread, and of as many as there may be. */
static void threads_change_no_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < FM_COUNT(names); i++) {
        pieces one;
        for (unsigned threads = 1; threads <= 5; threads++) {
            world w;
            pieces p;
            world_open(&w, names[i], threads);
            pieces_open(&p, &w);
            take_states(&w, p.states, "state.before");
            take_states(&w, p.g_states, "state.weight");
            pass(&w, &p, false, threads % 2);
            if (threads == 1) one = p;
            const size_t bytes = PIECES * w.m->state_floats * sizeof(float);
            assert_memory_equal(p.g.memory, one.g.memory, one.g.floats * sizeof(float));
            assert_memory_equal(p.states, one.states, bytes);
            assert_memory_equal(p.g_states, one.g_states, bytes);
            assert_memory_equal(p.loss, one.loss, p.T * sizeof(float));
            if (threads > 1) pieces_close(&p);
            world_close(&w);
        }
        pieces_close(&one);
    }
}

/* ---- Twenty steps ---- */

enum { LENGTH = 24, WINDOWS = 8, STEPS = 20 };

/* As at the top of train_oracle.py: everything that a run may have, in twenty steps. */
static fm_train_options options(void)
{
    fm_train_options o = fm_train_defaults();
    o.schedule = (fm_schedule){.peak = 4e-3,
                               .final = 1.0 / 16,
                               .warmup = 200,
                               .decay_begin = 1000,
                               .total = 1600,
                               .decay = FM_DECAY_GEOMETRIC,
                               .batch_begin = 2,
                               .batch_end = 4,
                               .ramp = 700,
                               .scale_with_batch = true};
    o.length = LENGTH;
    o.eos = 3;
    o.beta1 = 0.9f, o.beta2 = 0.95f, o.eps = 1e-8f, o.weight_decay = 0.1f;
    o.clip = 0.5f, o.z_loss = 1e-3f;
    o.threads = 2;
    return o;
}

static void check_run(world *w, size_t micro_batch)
{
    size_t n;
    int32_t *ids = golden_ids(&w->st, "train.windows", &n);
    fm_tokens windows[WINDOWS];
    fm_data data = {.n_sources = WINDOWS, .length = LENGTH, .seed = 1}; /* one window each: they come in turn */
    fm_train_options o = options();
    fm_trainer *t;
    fm_error err = {0};
    assert_int_equal(n, WINDOWS * (LENGTH + 1));
    for (size_t i = 0; i < WINDOWS; i++) {
        windows[i] = (fm_tokens){.ids = ids + i * (LENGTH + 1), .n = LENGTH + 1};
        data.sources[i] = &windows[i];
        data.weights[i] = 1.0;
    }
    o.micro_batch = micro_batch;
    if (fm_trainer_open(&t, w->m, &data, &o, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    for (size_t i = 0; i < STEPS; i++) {
        const fm_train_step s = fm_trainer_step(t);
        assert_int_equal(s.batch, number(w, "train.batch", i));
        near(w, "the rate", s.rate, number(w, "train.rate", i), 1e-6 * s.rate);
        near(w, "the loss", s.loss, number(w, "train.loss", i), 1e-4);
        near(w, "the norm of the gradients", s.grad_norm, number(w, "train.grad_norm", i), 1e-3 * s.grad_norm);
    }
    fm_trainer_free(t);
    free(ids);
}

static void the_first_losses_of_a_run(void **state)
{
    (void)state;
    for (size_t i = 0; i < FM_COUNT(names); i++)
        for (size_t micro_batch = 1; micro_batch <= 3; micro_batch += 2) {
            world w;
            world_open(&w, names[i], 2);
            assert_true(number(&w, "train.loss", STEPS - 1) < number(&w, "train.loss", 0) - 0.1); /* it learnt something */
            check_run(&w, micro_batch);
            world_close(&w);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_documents),
        cmocka_unit_test(given_states),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(the_first_losses_of_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
