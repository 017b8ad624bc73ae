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
    return r->n_seq <= MIX_TOKENS && fm_is_one_each(r) && r->n_seq > 0 && !v->half && !g->half_h && g->z &&
           v->d_conv == MIX_TAPS && g->d_state == MIX_STATES && rank % 4 == 0 && m->x_proj->rows == rank + 2 * MIX_STATES &&
           m->x_proj->rows <= MIX_ROWS;
}

// Records of out_proj are 256 columns in a row, which only a cluster of quantised x_proj has.
static mix_fn *kernel_of(const fm_mix_args *m)
{
    const bool floats = fm_is_float(m->x_proj->type);
    if (floats && !fm_cuda_is_floats(m->out_form)) return NULL;
    return (floats ? fm_cuda_mix_float : fm_cuda_mix_quant)(m->x_proj->type, m->dt_proj->type);
}

static void place_out(mix_args *p, const fm_mix_args *m)
{
    const size_t n = m->conv.ragged->n_seq;
    p->out = (uint8_t *)m->packed;
    p->out_form = m->out_form;
    p->out_tokens = (unsigned)fm_record_tokens(n);
    p->out_stride = fm_cuda_is_floats(m->out_form) ? (unsigned)fm_cuda_x_stride(m->conv.d_inner) * 2
                                                   : (unsigned)fm_record_bytes(m->out_form == FM_X_Q8_256, p->out_tokens);
}

// Launches, then the parts of x_proj's rows: those of one token and of two have places of their own, so that what a launch leaves
// is soon overwritten.
static bool place_scratch(mix_args *p, const fm_stream *s)
{
    enum { LAUNCHES = 256 };
    const size_t one = (size_t)p->ways * p->x.rows * sizeof(uint64_t);
    if (LAUNCHES + 3 * one > FM_CUDA_MIX_BYTES) return false;
    p->launch = (unsigned *)s->mix;
    p->parts = (uint64_t *)((char *)s->mix + LAUNCHES + (p->x.n > 1 ? one : 0));
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
    p.x = fm_cuda_few_within(m->x_proj, v->ragged->n_seq), p.dt = fm_cuda_few_within(m->dt_proj, v->ragged->n_seq);
    p.ways = few_ways(p.x, m->x_proj->type), p.dt_ways = few_ways(p.dt, m->dt_proj->type);
    const size_t channels = fm_is_float(m->x_proj->type) ? 4 * 64 : 2 * FM_CHUNK; // of a way
    if (p.ways * channels != v->d_inner || !place_scratch(&p, s)) return false;
    p.in = v->x, p.in_stride = v->x_stride;
    p.taps = v->w, p.bias = v->bias, p.window = v->state;
    p.z = g->z, p.z_stride = g->z_stride;
    p.dt_bias = g->dt_bias, p.A = g->A, p.skip = g->skip, p.h = g->h;
    p.d_inner = v->d_inner;
    p.rank = (unsigned)m->dt_proj->cols;
    p.eps = m->eps, p.norms = m->norms, p.hold = v->hold;
    p.rank_reciprocal = 1.0 / (double)p.rank;
    place_out(&p, m);
    if (!kernel(s, &p)) return false;
    fm_cuda_pack_forget(s, m->packed);
    return true;
}

extern "C" void fm_cuda_fill_mix(fm_kernels *k)
{
    k->mix = mix;
}
