// select.cu - which steps select.cuh and select_wide.cuh are for, and the entry of the table.
#include "kernels/cuda/select.cuh"

// One token each of some sequences, states of f32, Mamba's own number of them.
static bool fits(const fm_stream *s, const fm_select_args *m)
{
    const fm_scan_args *g = &m->scan;
    const size_t rank = m->dt_proj->cols;
    return !s->o.f32 && fm_is_one_each(g->ragged) && g->ragged->n_seq > 0 && !g->half_h && g->z &&
           g->d_state == SELECT_STATES && rank % 4 == 0 && rank <= SELECT_RANK;
}

// Of up to FM_CUDA_FEW tokens: rows of f32, and a pack of either kind.
static bool fits_few(const fm_select_args *m)
{
    const fm_scan_args *g = &m->scan;
    const bool even = fm_cuda_is_floats(g->form) ? fm_cuda_x_stride(g->d_inner) == g->d_inner : g->d_inner % FM_CHUNK == 0;
    return !g->half && even && fm_aligned(m->x_proj.y, m->dt_proj->cols);
}

// Of more, as long as their inputs are records in all three products.
static bool fits_records(const fm_stream *s, const fm_select_args *m)
{
    const size_t n = m->scan.ragged->n_seq;
    return fm_cuda_is_records(s, m->scan.form, n) && fm_cuda_is_records(s, fm_xform_of(m->dt_proj->type), n) &&
           fm_cuda_is_records(s, fm_xform_of(m->x_proj.W->type), n) && n <= FM_CUDA_WIDE && fits_few(m);
}

static select_fn *kernel_of(const fm_stream *s, const fm_select_args *m)
{
    const fm_dtype type = m->dt_proj->type;
    const bool few = m->scan.ragged->n_seq <= FM_CUDA_FEW;
    if (!fits(s, m) || !(few ? fits_few(m) : fits_records(s, m))) return NULL;
    return (fm_is_float(type) ? fm_cuda_select_float : fm_cuda_select_quant)(type);
}

static select_args args_of(const fm_select_args *m)
{
    const fm_scan_args *g = &m->scan;
    select_args p = {};
    p.dt = fm_cuda_few_within(m->dt_proj, g->ragged->n_seq);
    p.ways = few_ways(p.dt, m->dt_proj->type);
    p.q = m->x_proj.y;
    p.rank = (unsigned)m->dt_proj->cols, p.rank_reciprocal = 1.0 / (double)p.rank;
    p.norms = m->norms, p.eps = m->eps;
    p.u = g->u, p.u_stride = g->u_stride;
    p.z = g->z, p.z_stride = g->z_stride;
    p.dt_bias = g->dt_bias, p.A = g->A, p.skip = g->skip, p.h = g->h;
    p.d_inner = g->d_inner, p.hold = g->hold;
    p.form = g->form;
    if (fm_cuda_is_floats(g->form))
        p.rows = (__nv_bfloat16 *)g->packed;
    else
        p.records = fm_records_at(g->packed, g->ragged->n_seq, g->d_inner);
    return p;
}

static bool select(const fm_run *run, const fm_select_args *m)
{
    select_fn *const kernel = kernel_of(run->stream, m);
    if (!kernel) return false;
    const select_args p = args_of(m);
    if (!kernel(run->stream, &p, &m->x_proj)) return false;
    fm_cuda_pack_forget(run->stream, m->scan.packed);
    return true;
}

extern "C" void fm_cuda_fill_select(fm_kernels *k)
{
    k->select = select;
}
