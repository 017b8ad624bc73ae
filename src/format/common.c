/* common.c - what the readers of this folder share: see internal.h. */
#include "format/internal.h"

int fm_view_cmp(fm_view a, fm_view b)
{
    const size_t n = a.n < b.n ? a.n : b.n;
    const int c = n == 0 ? 0 : memcmp(a.p, b.p, n);
    if (c != 0) return c;
    return a.n < b.n ? -1 : a.n > b.n;
}

/* Lets order[i] sink to its place in the heap order[0..n), largest on top. */
static void sink(size_t *order, size_t i, size_t n, fm_order_cmp cmp, const void *ctx)
{
    for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && cmp(ctx, order[child], order[child + 1]) < 0) child++;
        if (cmp(ctx, order[i], order[child]) >= 0) return;
        const size_t moved = order[i];
        order[i] = order[child];
        order[child] = moved;
        i = child;
    }
}

void fm_order_sort(size_t *order, size_t n, fm_order_cmp cmp, const void *ctx)
{
    for (size_t i = n / 2; i-- > 0;) sink(order, i, n, cmp, ctx);
    for (size_t end = n; end-- > 1;) {
        const size_t top = order[0];
        order[0] = order[end];
        order[end] = top;
        sink(order, 0, end, cmp, ctx);
    }
}

static bool starts(const unsigned char *p, size_t n, const char *with, size_t length)
{
    return n >= length && memcmp(p, with, length) == 0;
}

const char *fm_sniff(const unsigned char *p, size_t n)
{
    static const struct {
        const char *magic;
        unsigned length;
        const char *what;
    } known[] = {
        {"version https://git-lfs", 23, "a Git LFS pointer, not the file itself: fetch it with 'git lfs pull'"},
        {"GGUF", 4, "a GGUF file: its name should end in .gguf"},
        {"PK\x03\x04", 4, "a zip archive, perhaps a PyTorch pickle: convert it to safetensors"},
        {"\x80\x02", 2, "a Python pickle: convert it to safetensors (pickles can run code)"},
        {"\x80\x03", 2, "a Python pickle: convert it to safetensors (pickles can run code)"},
        {"\x80\x04", 2, "a Python pickle: convert it to safetensors (pickles can run code)"},
        {"\x80\x05", 2, "a Python pickle: convert it to safetensors (pickles can run code)"},
        {"<!DOCTYPE", 9, "an HTML page, not a model: the download gave an error or login page"},
        {"<!doctype", 9, "an HTML page, not a model: the download gave an error or login page"},
        {"<html", 5, "an HTML page, not a model: the download gave an error or login page"},
        {"\x1f\x8b", 2, "gzip data: unpack it first"},
        {"\x28\xb5\x2f\xfd", 4, "zstd data: unpack it first"},
        {"lmgg", 4, "an old GGML file from before GGUF: convert the original model again"},
        {"fmgg", 4, "an old GGMF file from before GGUF: convert the original model again"},
        {"tjgg", 4, "an old GGJT file from before GGUF: convert the original model again"},
        {"{", 1, "JSON text, not a model file"},
    };
    for (size_t i = 0; i < FM_COUNT(known); i++)
        if (starts(p, n, known[i].magic, known[i].length)) return known[i].what;
    if (n > 10 && p[8] == '{' && (p[9] == '"' || p[9] == '}')) return "a safetensors file: its name should end in .safetensors";
    return NULL;
}
