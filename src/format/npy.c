/* npy.c - the header of a .npy file, format 1.0: magic, version, length, a Python dictionary, blanks up to a multiple of 64. */
#include "format/npy.h"

#define HEADER_ALIGN 64u
#define DIMS_MAX     32u /* NumPy's own limit of long standing */

static void put_header(fm_str *s, const size_t *shape, unsigned n_dims)
{
    fm_str_puts(s, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (unsigned d = 0; d < n_dims; d++) fm_str_printf(s, "%s%zu", d > 0 ? ", " : "", shape[d]);
    fm_str_puts(s, n_dims == 1 ? ",), }" : "), }");
    /* 10 bytes stand before the dictionary and a newline after it. */
    while (!s->failed && (10 + s->n + 1) % HEADER_ALIGN != 0) fm_str_putc(s, ' ');
    fm_str_putc(s, '\n');
}

static fm_status write_header(fm_out *o, const fm_str *s, fm_error *err)
{
    FM_TRY(fm_str_ok(s, "a .npy header", err));
    FM_ASSERT(s->n <= UINT16_MAX);
    const unsigned char magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, s->n & 0xFFu, (s->n >> 8) & 0xFFu};
    FM_TRY(fm_out_write(o, magic, sizeof(magic), err));
    return fm_out_write(o, s->p, s->n, err);
}

fm_status fm_npy_create_f32(fm_out *o, const char *path, const size_t *shape, unsigned n_dims, fm_error *err)
{
    fm_str s = {.p = NULL};
    FM_ASSERT(n_dims <= DIMS_MAX);
    FM_TRY(fm_out_open(o, path, NULL, err));
    put_header(&s, shape, n_dims);
    const fm_status status = write_header(o, &s, err);
    fm_str_free(&s);
    if (status != FM_OK) fm_out_abort(o);
    return status;
}
