/* dtype.c - the table of types, their names and sizes, and the 16-bit float conversions. */
#include "tensor/dtype.h"

#include "base/alloc.h"
#include "base/compiler.h"

static const fm_dtype_traits *const dtypes[FM_DTYPE_COUNT] = {
#define X(name, gguf, ftype, block, bytes) [FM_##name] = &fm_dtype_##name,
    FM_DTYPE_LIST(X)
#undef X
};

/* The tensor types of ggml, by number: an error message names also those that we cannot compute with. */
static const char *const gguf_names[] = {
    [0] = "F32",      [1] = "F16",     [2] = "Q4_0",    [3] = "Q4_1",   [6] = "Q5_0",    [7] = "Q5_1",
    [8] = "Q8_0",     [9] = "Q8_1",    [10] = "Q2_K",   [11] = "Q3_K",  [12] = "Q4_K",   [13] = "Q5_K",
    [14] = "Q6_K",    [15] = "Q8_K",   [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
    [20] = "IQ4_NL",  [21] = "IQ3_S",  [22] = "IQ2_S",  [23] = "IQ4_XS", [24] = "I8",    [25] = "I16",
    [26] = "I32",     [27] = "I64",    [28] = "F64",    [29] = "IQ1_M", [30] = "BF16",   [34] = "TQ1_0",
    [35] = "TQ2_0",   [39] = "MXFP4",  [40] = "NVFP4",  [41] = "Q1_0",
};

/* The mixes of llama.cpp that carry a type's name and a size letter. */
static const struct {
    fm_dtype type;
    const char *sizes;
} mixes[] = {{FM_Q2_K, "S"}, {FM_Q3_K, "SML"}, {FM_Q4_K, "SM"}, {FM_Q5_K, "SM"}};

const fm_dtype_traits *fm_dtype_get(fm_dtype t)
{
    FM_ASSERT((unsigned)t < FM_DTYPE_COUNT);
    return dtypes[t];
}

bool fm_dtype_from_gguf(uint32_t gguf, fm_dtype *out)
{
    for (unsigned t = 0; t < FM_DTYPE_COUNT; t++) {
        if (dtypes[t]->gguf != gguf) continue;
        *out = (fm_dtype)t;
        return true;
    }
    return false;
}

fm_status fm_dtype_fail(const char *name, fm_error *err)
{
    fm_str list = {0};
    for (unsigned t = 0; t < FM_DTYPE_COUNT; t++) fm_str_printf(&list, "%s%s", t ? ", " : "", dtypes[t]->name);
    fm_fail(err, FM_ERR_ARGUMENT, "\"%s\" is not a type: expected one of %s, in capitals or not", name, list.p ? list.p : "");
    fm_str_free(&list);
    return FM_ERR_ARGUMENT;
}

const char *fm_gguf_type_name(uint32_t gguf)
{
    fm_dtype own;
    if (gguf < FM_COUNT(gguf_names)) return gguf_names[gguf];
    return fm_dtype_from_gguf(gguf, &own) ? dtypes[own]->name : NULL;
}

/* ASCII only: the locale must not change what a type is called. */
static char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static bool same_name(fm_view v, const char *name)
{
    size_t i = 0;
    while (i < v.n && name[i] != '\0' && upper(v.p[i]) == name[i]) i++;
    return i == v.n && name[i] == '\0';
}

static bool is_mix(fm_dtype t, char size)
{
    for (size_t i = 0; i < FM_COUNT(mixes); i++) {
        if (mixes[i].type != t) continue;
        for (const char *s = mixes[i].sizes; *s != '\0'; s++) {
            if (*s == size) return true;
        }
    }
    return false;
}

bool fm_dtype_from_name(fm_view name, fm_dtype *out)
{
    bool sized = name.n > 2 && name.p[name.n - 2] == '_';
    for (unsigned t = 0; t < FM_DTYPE_COUNT; t++) {
        bool mix = sized && is_mix((fm_dtype)t, upper(name.p[name.n - 1])) &&
                   same_name((fm_view){name.p, name.n - 2}, dtypes[t]->name);
        if (!mix && !same_name(name, dtypes[t]->name)) continue;
        *out = (fm_dtype)t;
        return true;
    }
    return false;
}

bool fm_dtype_bytes(fm_dtype t, size_t rows, size_t cols, size_t *out)
{
    const fm_dtype_traits *d = fm_dtype_get(t);
    size_t row;
    if (cols % d->block != 0 || !fm_mul(cols / d->block, d->bytes, &row)) return false;
    return fm_mul(rows, row, out);
}

static uint32_t bits_of(float f)
{
    union { float f; uint32_t u; } v = {f};
    return v.u;
}

static float float_of(uint32_t u)
{
    union { uint32_t u; float f; } v = {u};
    return v.f;
}

float fm_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, mag = (uint32_t)(h & 0x7fffu) << 13;
    if (mag >= 0x0f800000u) return float_of(sign | 0x70000000u | mag); /* infinity and NaN */
    /* The exponent is re-biased by a product with 2^112, which is exact and normalises subnormals on the way. */
    return float_of(sign | bits_of(float_of(mag) * 0x1p112f));
}

uint16_t fm_f32_to_f16(float f)
{
    uint32_t u = bits_of(f), mag = u & 0x7fffffffu;
    uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
    if (mag > 0x7f800000u) return sign | 0x7e00u;
    if (mag >= 0x47800000u) return sign | 0x7c00u; /* 65536 and above; 65520 and above carry into infinity below */
    /* Below 2^-14 the result's unit is 2^-24, which is the unit of 0.5: the sum rounds as wanted. */
    if (mag < 0x38800000u) return sign | (uint16_t)(bits_of(float_of(mag) + 0.5f) - bits_of(0.5f));
    mag += 0xfffu + ((mag >> 13) & 1u);
    return sign | (uint16_t)((mag >> 13) - (112u << 10));
}

uint16_t fm_f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 64u); /* a NaN stays one, and quiet */
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
