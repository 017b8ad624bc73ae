/* bench_rows.c - the results of "fmamba bench": a table for people, CSV, or JSON. */
#include <stdio.h>

#include "cli/bench.h"

/* ---- One list of columns for CSV and JSON ---- */

typedef struct columns {
    fm_bench_rows *r;
    bool header; /* of the CSV: the names instead of the values */
    size_t n;
} columns;

static void separate(columns *c)
{
    if (!c->r->json && c->n++) putchar(',');
}

static void text(columns *c, const char *name, const char *value)
{
    separate(c);
    if (c->r->json)
        fm_jsonw_key(&c->r->w, name), fm_jsonw_cstr(&c->r->w, value);
    else
        fputs(c->header ? name : value ? value : "", stdout);
}

static void whole(columns *c, const char *name, size_t value)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%zu", value);
    if (!c->r->json)
        text(c, name, digits);
    else
        fm_jsonw_key(&c->r->w, name), fm_jsonw_u64(&c->r->w, value);
}

/* A number that was not measured is null, or an empty field. */
static void number(columns *c, const char *name, double value)
{
    char digits[32] = "";
    if (value != 0) snprintf(digits, sizeof digits, "%.4f", value);
    if (!c->r->json)
        text(c, name, digits);
    else if (fm_jsonw_key(&c->r->w, name), value != 0)
        fm_jsonw_f64(&c->r->w, value);
    else
        fm_jsonw_null(&c->r->w);
}

static void peer_columns(columns *c, const fm_bench_row *row)
{
    number(c, "peer_tok_s", row->peer.median);
    number(c, "peer_min", row->peer.min);
    number(c, "peer_max", row->peer.max);
    number(c, "ratio", row->ratio.median);
    number(c, "ratio_min", row->ratio.min);
    number(c, "ratio_max", row->ratio.max);
}

static void roofline_columns(columns *c, const fm_bench_row *row)
{
    number(c, "limit_tok_s", row->limit.median);
    text(c, "limited_by", row->limited_by);
    number(c, "reached", row->reached.median);
    number(c, "read_gb_s", row->machine.read * 1e-9);
    number(c, "f32_gflop_s", row->machine.peak[FM_PEAK_F32] * 1e-9);
    number(c, "bf16_gflop_s", row->machine.peak[FM_PEAK_BF16] * 1e-9);
    number(c, "int8_gop_s", row->machine.peak[FM_PEAK_I8] * 1e-9);
    number(c, "amx_bf16_gflop_s", row->machine.peak[FM_PEAK_AMX_BF16] * 1e-9);
    number(c, "amx_int8_gop_s", row->machine.peak[FM_PEAK_AMX_I8] * 1e-9);
}

static void put_columns(fm_bench_rows *r, const fm_bench_row *row, bool header)
{
    const fm_model_info i = fm_model_get_info(r->m);
    columns c = {.r = r, .header = header};
    char test[32];
    snprintf(test, sizeof test, "%s%zu", row->test.prefill ? "pp" : "tg", row->test.length);
    text(&c, "model", i.name);
    text(&c, "type", i.type);
    text(&c, "kernels", fm_session_kernels(r->s));
    whole(&c, "threads", fm_session_threads(r->s));
    text(&c, "test", test);
    whole(&c, "batch", row->test.batch);
    number(&c, "tok_s", row->ours.median);
    number(&c, "min", row->ours.min);
    number(&c, "max", row->ours.max);
    if (r->has_peer) peer_columns(&c, row);
    if (r->roofline) roofline_columns(&c, row);
    if (!r->json) putchar('\n');
}

/* ---- For people ---- */

static void print_machine(const fm_bench_rows *r, const fm_bench_machine *machine, double mapped)
{
    const fm_peaks *peaks = fm_bench_roofline_peaks(r->roofline);
    if (!peaks) {
        printf("%s: reads %.0f GB/s; bf16 %.0f G/s (8192 x 8192 x 8192, cuBLASLt)\n", fm_model_device(r->m),
               machine->read * 1e-9, machine->peak[FM_PEAK_BF16] * 1e-9);
        return;
    }
    printf("this machine, %u threads: reads %.1f GB/s", fm_session_threads(r->s), machine->read * 1e-9);
    if (mapped > 0) printf(", the mapped file %.1f", mapped * 1e-9);
    for (int k = 0; k < FM_PEAK_COUNT; k++)
        if (peaks->kind[k].how)
            printf("; %s %.0f G/s (%s)", fm_peak_name((fm_peak_kind)k), machine->peak[k] * 1e-9, peaks->kind[k].how);
    putchar('\n');
}

static void print_head(const fm_bench_rows *r)
{
    const fm_model_info i = fm_model_get_info(r->m);
    printf("%s %s, kernels %s, %u threads\n%-10s %6s %10s %10s %10s", i.name, i.type, fm_session_kernels(r->s),
           fm_session_threads(r->s), "test", "batch", "tok/s", "min", "max");
    if (r->has_peer) printf(" %10s %7s %7s %7s", "peer", "ratio", "min", "max");
    if (r->roofline) printf(" %10s %8s  %s", "limit", "reached", "limited by");
    putchar('\n');
}

static void print_row(const fm_bench_rows *r, const fm_bench_row *row)
{
    printf("%s%-8zu %6zu %10.2f %10.2f %10.2f", row->test.prefill ? "pp" : "tg", row->test.length, row->test.batch,
           row->ours.median, row->ours.min, row->ours.max);
    if (r->has_peer && row->peer.median > 0)
        printf(" %10.2f %7.2f %7.2f %7.2f", row->peer.median, row->ratio.median, row->ratio.min, row->ratio.max);
    else if (r->has_peer)
        printf(" %10s %7s %7s %7s", "-", "-", "-", "-");
    if (r->roofline) printf(" %10.2f %6.1f %%  %s", row->limit.median, 100 * row->reached.median, row->limited_by);
    putchar('\n');
}

void fm_bench_rows_begin(fm_bench_rows *r, const fm_bench_machine *machine, double mapped)
{
    r->json = fm_opt_flag(&r->c->options, FM_OPT_JSON);
    r->csv = !r->json && fm_opt_flag(&r->c->options, FM_OPT_CSV);
    r->w = (fm_jsonw){.out = &r->out};
    if (r->json)
        fm_jsonw_array(&r->w);
    else if (r->csv)
        put_columns(r, &(fm_bench_row){0}, true);
    else {
        if (r->roofline) print_machine(r, machine, mapped);
        print_head(r);
    }
    fflush(stdout);
}

void fm_bench_rows_put(fm_bench_rows *r, const fm_bench_row *row)
{
    if (r->json) {
        fm_jsonw_object(&r->w);
        put_columns(r, row, false);
        fm_jsonw_end(&r->w, '}');
    } else if (r->csv) {
        put_columns(r, row, false);
    } else {
        print_row(r, row);
    }
    fflush(stdout);
}

int fm_bench_rows_end(fm_bench_rows *r)
{
    if (!r->json) return FM_EXIT_OK;
    fm_jsonw_end(&r->w, ']');
    fm_str_putc(&r->out, '\n');
    return fm_cli_put(&r->out);
}
