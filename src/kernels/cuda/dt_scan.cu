// dt_scan.cu - which steps dt_scan.cuh is for, and the entry of the table.
#include "kernels/cuda/dt_scan.cuh"
#include "kernels/cuda/linear.cuh"

// One token of each of few sequences, f32 between the steps, Mamba's own number of states; of the output the pack alone.
static bool fits(const fm_stream *s, const fm_dt_scan_args *m)
{
    const fm_scan_args *g = &m->scan;
    const fm_ragged *r = g->ragged;
    const bool floats = fm_cuda_is_floats(g->form);
    return !s->o.f32 && fm_is_one_each(r) && r->n_seq > 0 && r->n_seq <= FM_CUDA_FEW && !g->half && !g->half_h && !g->kept &&
           g->packed && g->alone && g->z && g->d_state == DT_STATES &&
           g->d_inner % (floats ? (size_t)DT_CHANNELS : FM_CHUNK) == 0;
}

static few_args product(fm_stream *s, const fm_dt_scan_args *m)
{
    size_t group;
    fm_linear_args a = {};
    a.W = m->W, a.x = m->x, a.n = m->scan.ragged->n_seq;
    const fm_lazy_pack *lazy = fm_cuda_pack_source(s, a.x);
    if (lazy) fm_cuda_pack_now(lazy, fm_xform_of(a.W->type));
    few_args p = fm_cuda_few_args(&a, &group);
    p.n = (unsigned)a.n;
    return p;
}

static dt_scan_args args_of(fm_stream *s, const fm_dt_scan_args *m)
{
    const fm_scan_args *g = &m->scan;
    dt_scan_args p = {};
    p.dt = product(s, m);
    p.ways = few_ways(p.dt, m->W->type);
    p.u = g->u, p.u_stride = g->u_stride;
    p.z = g->z, p.z_stride = g->z_stride;
    p.B = g->B, p.C = g->C, p.bc_stride = g->bc_stride;
    p.dt_bias = g->dt_bias, p.A = g->A, p.skip = g->skip, p.h = g->h;
    p.d_inner = g->d_inner, p.hold = g->hold;
    p.form = g->form;
    if (fm_cuda_is_floats(g->form))
        p.rows = (__nv_bfloat16 *)g->packed;
    else
        p.records = fm_records_at(g->packed, g->ragged->n_seq, g->d_inner);
    return p;
}

static bool dt_scan(const fm_run *run, const fm_dt_scan_args *m)
{
    const fm_dtype type = m->W->type;
    dt_scan_fn *const kernel = (fm_is_float(type) ? fm_cuda_dt_scan_float : fm_cuda_dt_scan_quant)(type);
    if (!kernel || !fits(run->stream, m)) return false;
    const dt_scan_args p = args_of(run->stream, m);
    return kernel(run->stream, &p);
}

extern "C" void fm_cuda_fill_dt_scan(fm_kernels *k)
{
    k->dt_scan = dt_scan;
}
