/* fake_gpu.c - see fake_gpu.h.  What is put on its queue runs at once.  A recording runs too, but on a copy of all memory: at its
 * end everything is as it was, and nothing was recorded, so that the step runs again for good. */
#include "tests/kernelcheck/fake_gpu.h"

#include <stdlib.h>
#include <string.h>

#include "tests/draw_reference.h"

enum { PLACES = 64, LIBRARY_BYTES = 1 << 20, VOCAB_MOST = 1024 };

fake_gpu fake;

typedef struct memory {
    unsigned char *p, *before; /* before: as it was when the recording began */
    size_t bytes;
    bool there; /* the device's, which counts */
} memory;

struct fm_stream {
    fm_stream_options o;
    const char *lost;
    unsigned char *work;
    size_t work_bytes;
    bool planned;
};

static memory memories[PLACES];
static fake_gpu fake_before; /* the recording */
static fm_kernels reference;

void fake_gpu_reset(void)
{
    FM_ASSERT(fake.used == 0);
    fake = (fake_gpu){.memory = (size_t)1 << 30, .waits_left = -1};
}

/* ---- Devices ---- */

int fm_gpu_count(const char **why)
{
    *why = fake.why_none;
    return fake.why_none ? -1 : 1;
}

bool fm_gpu_describe(fm_gpu_info *out, int index, const char **why)
{
    *why = fake.why_none;
    *out = (fm_gpu_info){
        .name = "a fake", .index = index, .major = 9, .n_sm = 1, .memory = fake.memory, .memory_free = fake.memory - fake.used};
    return !fake.why_none;
}

fm_stream *fm_stream_plan(const fm_stream_options *o, const char **why)
{
    fm_stream *s = calloc(1, sizeof *s);
    *why = NULL;
    FM_ASSERT(s);
    if (o) s->o = *o;
    s->planned = true;
    return s;
}

fm_stream *fm_stream_open(int device, const fm_stream_options *o, const char **why)
{
    fm_stream *s = fm_stream_plan(o, why);
    FM_ASSERT(device == 0);
    s->planned = false;
    return s;
}

void fm_stream_close(fm_stream *s)
{
    if (s->work) fm_stream_free(s, s->work);
    free(s);
}

bool fm_stream_wait(fm_stream *s, const char **why)
{
    if (fake.waits_left >= 0 && fake.waits_left-- == 0) s->lost = "the test pulled it out";
    if (why) *why = s->lost;
    return !s->lost;
}

/* ---- Memory ---- */

static void *take(size_t bytes, bool there)
{
    memory *m = memories;
    if (there && bytes > fake.memory - fake.used) return NULL;
    while (m < memories + PLACES && m->p) m++;
    FM_ASSERT(m < memories + PLACES);
    *m = (memory){.p = aligned_alloc(256, fm_round_up(bytes ? bytes : 1, 256)), .bytes = bytes, .there = there};
    FM_ASSERT(m->p);
    memset(m->p, 0xA5, bytes);
    if (there) fake.used += bytes;
    if (fake.used > fake.most) fake.most = fake.used;
    return m->p;
}

static void give_back(void *p)
{
    memory *m = memories;
    if (!p) return;
    while (m < memories + PLACES && m->p != p) m++;
    FM_ASSERT(m < memories + PLACES);
    if (m->there) fake.used -= m->bytes;
    free(p);
    m->p = NULL;
}

void *fm_stream_alloc(fm_stream *s, size_t bytes)
{
    FM_ASSERT(!s->planned);
    return take(bytes, true);
}

void fm_stream_free(fm_stream *s, void *p)
{
    (void)s;
    give_back(p);
}

void *fm_stream_alloc_host(fm_stream *s, size_t bytes)
{
    FM_ASSERT(!s->planned);
    return take(bytes, false);
}

void fm_stream_free_host(fm_stream *s, void *p)
{
    (void)s;
    give_back(p);
}

bool fm_stream_register(fm_stream *s, void *p, size_t bytes)
{
    (void)s, (void)p, (void)bytes;
    return false;
}

void fm_stream_unregister(fm_stream *s, void *p)
{
    (void)s, (void)p;
}

void fm_stream_upload(fm_stream *s, void *to, const void *from, size_t bytes)
{
    FM_ASSERT(!s->planned);
    if (bytes) memcpy(to, from, bytes);
}

void fm_stream_download(fm_stream *s, void *to, const void *from, size_t bytes)
{
    FM_ASSERT(!s->planned);
    fake.downloaded += bytes;
    if (bytes) memcpy(to, from, bytes);
}

void fm_stream_copy(fm_stream *s, void *to, const void *from, size_t bytes)
{
    fm_stream_upload(s, to, from, bytes);
}

void fm_stream_zero(fm_stream *s, void *p, size_t bytes)
{
    FM_ASSERT(!s->planned);
    if (bytes) memset(p, 0, bytes);
}

void fm_stream_mark(fm_stream *s, unsigned which)
{
    FM_ASSERT(!s->planned && which < FM_STREAM_MARKS);
}

void fm_stream_reach(fm_stream *s, unsigned which)
{
    fm_stream_mark(s, which);
}

/* ---- Recording ---- */

void fm_stream_record_begin(fm_stream *s)
{
    (void)s;
    fake_before = fake;
    for (memory *m = memories; m < memories + PLACES; m++) {
        if (!m->p) continue;
        m->before = malloc(m->bytes ? m->bytes : 1);
        FM_ASSERT(m->before);
        memcpy(m->before, m->p, m->bytes);
    }
}

fm_graph *fm_stream_record_end(fm_stream *s)
{
    (void)s;
    for (memory *m = memories; m < memories + PLACES; m++) {
        if (!m->p) continue;
        memcpy(m->p, m->before, m->bytes);
        free(m->before);
    }
    fake = fake_before;
    fake.n_recorded++;
    return NULL;
}

void fm_graph_launch(fm_stream *s, fm_graph *g)
{
    (void)s, (void)g;
    FM_ASSERT(!"nothing was recorded");
}

void fm_graph_free(fm_graph *g)
{
    FM_ASSERT(!g);
}

size_t fm_graph_launches(const fm_graph *g)
{
    (void)g;
    return 0;
}

/* ---- Products ---- */

bool fm_stream_reserve(fm_stream *s, size_t bytes)
{
    if (bytes <= s->work_bytes) return true;
    if (s->work) fm_stream_free(s, s->work);
    s->work = fm_stream_alloc(s, bytes);
    s->work_bytes = s->work ? bytes : 0;
    return s->work;
}

size_t fm_cuda_work_bytes(const fm_stream *s, const fm_tensor *W, size_t n)
{
    return n <= 16 || s->o.invariant ? 0 : W->rows * W->cols * sizeof(float);
}

size_t fm_cuda_library_bytes(const fm_stream *s, size_t n)
{
    return n <= 16 || s->o.invariant ? 0 : LIBRARY_BYTES;
}

size_t fm_cuda_back_work_bytes(const fm_stream *s, const fm_tensor *W, size_t n, bool half)
{
    (void)s, (void)W, (void)n, (void)half;
    return 0;
}

/* As in the file; but it has no IQ4_XS. */
size_t fm_cuda_row_bytes(fm_dtype type, size_t cols)
{
    size_t bytes;
    return type != FM_IQ4_XS && fm_dtype_bytes(type, 1, cols, &bytes) ? bytes : 0;
}

void fm_cuda_store(fm_stream *s, void *out, const void *raw, fm_dtype type, size_t rows, size_t cols)
{
    fm_stream_copy(s, out, raw, rows * fm_cuda_row_bytes(type, cols));
}

fm_gpu_peaks fm_cuda_peaks(fm_stream *s)
{
    (void)s;
    return (fm_gpu_peaks){0};
}

/* ---- The table: the reference, and what only a device has, made of it ---- */

static void decode(float *out, const fm_tensor *W)
{
    for (size_t r = 0; r < W->rows; r++) fm_dtype_get(W->type)->decode(out + r * W->cols, fm_tensor_row(W, r), W->cols);
}

static float *take_floats(size_t n)
{
    float *p = malloc((n ? n : 1) * sizeof *p);
    FM_ASSERT(p);
    return p;
}

static void multiply(const fm_run *run, fm_product_args a)
{
    a.scratch = take_floats(reference.product_floats(a.m));
    reference.product(run, &a);
    free(a.scratch);
}

static void linear_gx(const fm_run *run, const fm_linear_gx_args *a)
{
    float *W = take_floats(a->W->rows * a->W->cols);
    FM_ASSERT(!a->half_x && !a->half_y);
    decode(W, a->W);
    multiply(run, (fm_product_args){.out = a->g_x,
                                    .out_stride = a->g_x_stride,
                                    .a = a->g_y,
                                    .a_stride = a->g_y_stride,
                                    .b = W,
                                    .b_stride = a->W->cols,
                                    .m = a->n,
                                    .n = a->W->cols,
                                    .k = a->W->rows,
                                    .add = a->add});
    free(W);
}

static void linear_gw(const fm_run *run, const fm_linear_gw_args *a)
{
    FM_ASSERT(!a->half_x && !a->half_y);
    multiply(run, (fm_product_args){.out = a->g_W,
                                    .out_stride = a->cols,
                                    .a = a->g_y,
                                    .a_stride = a->g_y_stride,
                                    .b = a->x,
                                    .b_stride = a->x_stride,
                                    .m = a->rows,
                                    .n = a->cols,
                                    .k = a->n,
                                    .turned = true,
                                    .add = true});
}

static void linear(const fm_run *run, const fm_linear_args *a)
{
    for (size_t r = 0; r < a->n && a->old; r++)
        memcpy(a->y + r * a->y_stride, a->old + r * a->y_stride, a->W->rows * sizeof *a->y);
    reference.linear[a->W->type](run, a);
}

static void rmsnorm_back(const fm_run *run, const fm_rmsnorm_back_args *a)
{
    reference.rmsnorm_back(run, a);
    if (a->g_w) reference.rmsnorm_gw(run, a->g_w, a);
}

void fm_kernels_fill_cuda(fm_kernels *k)
{
    fm_kernels_fill_ref(&reference);
    *k = reference;
    for (int t = 0; t < FM_DTYPE_COUNT; t++) k->linear[t] = linear;
    k->linear_gx = linear_gx;
    k->linear_gw = linear_gw;
    k->rmsnorm_back = rmsnorm_back;
}

/* ---- Choosing ---- */

static int32_t turned(int32_t id, const float *row, size_t vocab)
{
    for (size_t i = 0; i < vocab; i++)
        if (!isfinite(row[i])) return ~id;
    return id;
}

void fm_cuda_argmax(fm_stream *s, int32_t *ids, const float *logits, size_t stride, size_t n, size_t vocab)
{
    (void)s;
    fake.n_argmax += n;
    for (size_t i = 0; i < n; i++) {
        const float *row = logits + i * stride;
        ids[i] = turned(draw_likeliest(row, vocab), row, vocab);
    }
}

void fm_cuda_sample(fm_stream *s, int32_t *ids, const float *logits, size_t stride, const fm_draw *draws, size_t n,
                    size_t vocab)
{
    static draw_entry room[VOCAB_MOST];
    (void)s;
    FM_ASSERT(vocab <= VOCAB_MOST);
    fake.n_sample += n;
    for (size_t i = 0; i < n; i++) {
        bool sure;
        const float *row = logits + i * stride;
        ids[i] = turned(draw_reference(room, row, vocab, &draws[i], &sure), row, vocab);
    }
}
