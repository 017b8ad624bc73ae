// mix.cu - which steps mix.cuh is for, and the entry of the table.
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/mix.cuh"

// One token each of few sequences, f32 between the steps, Mamba's own sizes.
static bool fits(const fm_mix_args *m)
{
    const fm_scan_args *g = &m->scan;
    const fm_conv_args *v = &m->conv;
    const fm_ragged *r = v->ragged;
    const size_t rank = m->dt_proj->cols;
    return r->n_seq <= (m->always ? MIX_TOKENS : MIX_FASTER) && r->longest == 1 && r->n_tokens == r->n_seq && r->n_seq > 0 &&
           !v->half && !g->half_h && g->z && v->d_conv == MIX_TAPS && g->d_state == MIX_STATES && v->d_inner % MIX_WAY == 0 &&
           rank % 4 == 0 && m->x_proj->rows == rank + 2 * MIX_STATES && m->x_proj->rows <= MIX_ROWS;
}

static mix_fn *kernel_of(const fm_mix_args *m)
{
    const fm_dtype type = m->x_proj->type;
    if (m->dt_proj->type != type || !fm_cuda_is_floats(m->out_form)) return NULL;
    return type == FM_BF16 ? mix_of<few_float<FM_BF16>> : type == FM_F16 ? mix_of<few_float<FM_F16>> : NULL;
}

static few_args product(const fm_tensor *W, size_t n)
{
    size_t group;
    fm_linear_args a = {};
    a.W = W;
    a.n = n;
    few_args p = fm_cuda_few_args(&a, &group);
    p.n = (unsigned)n;
    return p;
}

static unsigned ways(const few_args &p)
{
    const few_cut cut = few_cut_of(p.rows, p.chunks, few_float<FM_BF16>::GROUP);
    return cut.split * cut.cluster;
}

// Meetings, then sums of x_proj's ways, then its normed rows.
static bool place_scratch(mix_args *p, const fm_stream *s)
{
    enum { MEETINGS = 256 };
    const size_t rows = (size_t)p->n * p->x.rows * sizeof(float);
    if (MEETINGS + rows * (p->ways + 1) > FM_CUDA_MIX_BYTES) return false;
    p->met = (unsigned *)s->mix;
    p->parts = (float *)((char *)s->mix + MEETINGS);
    p->normed = p->parts + (size_t)p->ways * p->n * p->x.rows;
    return true;
}

static bool mix(const fm_run *run, const fm_mix_args *m)
{
    fm_stream *s = run->stream;
    mix_fn *kernel = !s->o.f32 && fits(m) ? kernel_of(m) : NULL;
    if (!kernel) return false;
    const fm_conv_args *v = &m->conv;
    const fm_scan_args *g = &m->scan;
    mix_args p = {};
    p.n = (unsigned)v->ragged->n_seq;
    p.x = product(m->x_proj, p.n), p.dt = product(m->dt_proj, p.n);
    p.ways = ways(p.x), p.dt_ways = ways(p.dt);
    if (p.ways != v->d_inner / MIX_WAY || !place_scratch(&p, s)) return false;
    p.in = v->x, p.in_stride = v->x_stride;
    p.taps = v->w, p.bias = v->bias, p.window = v->state;
    p.z = g->z, p.z_stride = g->z_stride;
    p.dt_bias = g->dt_bias, p.A = g->A, p.skip = g->skip, p.h = g->h;
    p.d_inner = v->d_inner;
    p.rank = (unsigned)m->dt_proj->cols;
    p.eps = m->eps, p.norms = m->norms, p.hold = v->hold;
    p.out = (__nv_bfloat16 *)m->packed, p.out_stride = fm_cuda_x_stride(v->d_inner);
    if (!kernel(s, &p)) return false;
    fm_cuda_pack_forget(s, m->packed);
    return true;
}

extern "C" void fm_cuda_fill_mix(fm_kernels *k)
{
    k->mix = mix;
}
