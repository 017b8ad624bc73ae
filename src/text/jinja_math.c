/* jinja_math.c - numbers: the operators + - * / // % **, and reading numbers as Python's int() and float() do.  Integers have
 * 64 bits here; where Python would go on to larger ones there is an error instead of a wrong digit. */
#include <math.h>
#include <string.h>

#include "text/jinja_internal.h"

bool fm_j_integer(fm_jval v, int64_t *out)
{
    if (v.type == FM_J_INT) *out = v.i;
    if (v.type == FM_J_BOOL) *out = v.b;
    return v.type == FM_J_INT || v.type == FM_J_BOOL;
}

bool fm_j_number(fm_jval v, double *out)
{
    int64_t i;
    if (fm_j_integer(v, &i))
        *out = (double)i;
    else if (v.type == FM_J_FLOAT)
        *out = v.f;
    else
        return false;
    return true;
}

static fm_status too_large(fm_jrender *r)
{
    return fm_j_fail(r, FM_ERR_UNSUPPORTED, "a whole number does not fit 64 bits");
}

static fm_status by_zero(fm_jrender *r)
{
    return fm_j_fail(r, FM_ERR_FORMAT, "division by zero");
}

/* base ** n for n >= 0, by squaring. */
static bool power(int64_t base, int64_t n, int64_t *out)
{
    *out = 1;
    while (n > 0) {
        if ((n & 1) && __builtin_mul_overflow(*out, base, out)) return false;
        n >>= 1;
        if (n > 0 && __builtin_mul_overflow(base, base, &base)) return false;
    }
    return true;
}

/* Rounds down, as // and % of Python do; b is not 0. */
static bool floor_div(int64_t a, int64_t b, int64_t *quotient, int64_t *rest)
{
    if (b == -1) {
        *rest = 0;
        return !__builtin_sub_overflow(0, a, quotient);
    }
    *quotient = a / b;
    *rest = a % b;
    if (*rest != 0 && (*rest < 0) != (b < 0)) {
        *rest += b;
        --*quotient;
    }
    return true;
}

static fm_status math_ints(fm_jrender *r, int op, int64_t a, int64_t b, fm_jval *out)
{
    int64_t x = 0, y = 0;
    bool ok = true;
    if (strchr("/F%", op) && b == 0) return by_zero(r);
    switch (op) {
    case '+': ok = !__builtin_add_overflow(a, b, &x); break;
    case '-': ok = !__builtin_sub_overflow(a, b, &x); break;
    case '*': ok = !__builtin_mul_overflow(a, b, &x); break;
    case 'F': ok = floor_div(a, b, &x, &y); break;
    case '%': floor_div(a, b, &y, &x); break;
    case '/': *out = fm_j_float((double)a / (double)b); return FM_OK;
    default:
        if (b < 0 && a == 0) return by_zero(r);
        if (b < 0) {
            *out = fm_j_float(pow((double)a, (double)b));
            return FM_OK;
        }
        ok = power(a, b, &x);
        break;
    }
    *out = fm_j_int(x);
    return ok ? FM_OK : too_large(r);
}

static fm_status math_floats(fm_jrender *r, int op, double a, double b, fm_jval *out)
{
    double x, rest;
    if (strchr("/F%", op) && !(b < 0 || b > 0 || isnan(b))) return by_zero(r);
    switch (op) {
    case '+': x = a + b; break;
    case '-': x = a - b; break;
    case '*': x = a * b; break;
    case '/': x = a / b; break;
    case 'P': x = pow(a, b); break;
    default:
        rest = fmod(a, b);
        if ((rest < 0 || rest > 0) && (rest < 0) != (b < 0)) rest += b;
        x = op == 'F' ? floor((a - rest) / b + 0.5) : rest;
        break;
    }
    *out = fm_j_float(x);
    return FM_OK;
}

fm_status fm_j_repeat(fm_jrender *r, fm_jval v, int64_t times, fm_jval *out)
{
    if (times < 0) times = 0;
    if (v.type == FM_J_STRING) {
        fm_jbuf b = {.r = r};
        for (int64_t i = 0; v.s.n && i < times; i++) {
            FM_TRY(fm_j_step(r, 1));
            FM_TRY(fm_jbuf_add(&b, v));
        }
        *out = fm_jbuf_value(&b);
        return FM_OK;
    }
    fm_jlist *l;
    FM_TRY(fm_j_list(r, v.list->form, 0, &l));
    for (int64_t i = 0; v.list->n && i < times; i++)
        for (size_t k = 0; k < v.list->n; k++) FM_TRY(fm_j_push(r, l, v.list->v[k]));
    *out = fm_j_list_value(l);
    return FM_OK;
}

static bool is_sequence(fm_jval v)
{
    return v.type == FM_J_STRING || (v.type == FM_J_LIST && v.list->form <= FM_J_TUPLE);
}

static fm_status join_two(fm_jrender *r, fm_jval a, fm_jval b, fm_jval *out)
{
    if (a.type == FM_J_STRING) {
        fm_jbuf buf = {.r = r};
        FM_TRY(fm_jbuf_add(&buf, a));
        FM_TRY(fm_jbuf_add(&buf, b));
        *out = fm_jbuf_value(&buf);
        return FM_OK;
    }
    fm_jlist *l;
    FM_TRY(fm_j_list(r, a.list->form, a.list->n + b.list->n, &l));
    for (size_t i = 0; i < a.list->n; i++) FM_TRY(fm_j_push(r, l, a.list->v[i]));
    for (size_t i = 0; i < b.list->n; i++) FM_TRY(fm_j_push(r, l, b.list->v[i]));
    *out = fm_j_list_value(l);
    return FM_OK;
}

fm_status fm_j_math(fm_jrender *r, int op, fm_jval a, fm_jval b, fm_jval *out)
{
    int64_t i = 0, k = 0;
    double f, g;
    fm_status status;
    FM_TRY(fm_j_step(r, 1));
    if (fm_j_integer(a, &i) && fm_j_integer(b, &k)) {
        status = math_ints(r, op, i, k, out);
    } else if (fm_j_number(a, &f) && fm_j_number(b, &g)) {
        status = math_floats(r, op, f, g, out);
    } else if (op == '*' && is_sequence(a) && fm_j_integer(b, &k)) {
        return fm_j_repeat(r, a, k, out);
    } else if (op == '*' && is_sequence(b) && fm_j_integer(a, &k)) {
        return fm_j_repeat(r, b, k, out);
    } else if (op == '+' && is_sequence(a) && a.type == b.type && (a.type == FM_J_STRING || a.list->form == b.list->form)) {
        return join_two(r, a, b, out);
    } else {
        if (a.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, a);
        if (b.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, b);
        if (op == '%' && a.type == FM_J_STRING)
            return fm_j_fail(r, FM_ERR_UNSUPPORTED, "formatting with %% is not supported; use ~ to join texts");
        return fm_j_fail(r, FM_ERR_FORMAT, "%s and %s cannot be put together with '%s'", fm_j_type_name(a), fm_j_type_name(b),
                         op == 'F'   ? "//"
                         : op == 'P' ? "**"
                                     : (const char[]){(char)op, 0});
    }
    out->tainted = a.tainted || b.tainted;
    return status;
}

fm_status fm_j_sign(fm_jrender *r, bool negative, fm_jval v, fm_jval *out)
{
    int64_t i;
    if (v.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, v);
    if (fm_j_integer(v, &i)) {
        if (negative && __builtin_sub_overflow(0, i, &i)) return too_large(r);
        *out = fm_j_int(i);
    } else if (v.type == FM_J_FLOAT) {
        *out = fm_j_float(negative ? -v.f : v.f);
    } else {
        return fm_j_type_error(r, "only a number has a sign", v);
    }
    out->tainted = v.tainted;
    return FM_OK;
}

/* ---- Reading numbers ---- */

static fm_view trim(fm_view v)
{
    const size_t before = fm_j_spaces_before(v);
    v.p += before;
    v.n -= before;
    v.n -= fm_j_spaces_behind(v);
    return v;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'z') return c - 'a' + 10;
    if (c >= 'A' && c <= 'Z') return c - 'A' + 10;
    return 99;
}

/* Steps over 0x, 0o or 0b when the base allows it; gives the base. */
static int base_prefix(fm_view v, int base, size_t *i)
{
    if (v.n - *i > 2 && v.p[*i] == '0') {
        const char c = (char)(v.p[*i + 1] | 32);
        const int found = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (found && (base == 0 || base == found)) {
            *i += 2;
            if (*i < v.n && v.p[*i] == '_') ++*i;
            return found;
        }
    }
    return base ? base : 10;
}

bool fm_j_parse_int(fm_view text, int base, int64_t *out, bool *overflow)
{
    const fm_view v = trim(text);
    size_t i = v.n && (v.p[0] == '-' || v.p[0] == '+');
    const bool negative = i && v.p[0] == '-', any_base = base == 0;
    const size_t first = i;
    int64_t n = 0;
    bool fits = true;
    base = base_prefix(v, base, &i);
    const bool leading_zero = any_base && i == first && i < v.n && v.p[i] == '0';
    if (i >= v.n) return false;
    for (size_t from = i; i < v.n; i++) {
        if (v.p[i] == '_' && i > from && v.p[i - 1] != '_' && i + 1 < v.n) continue;
        const int d = digit_value(v.p[i]);
        if (d >= base || (leading_zero && d > 0)) return false;
        if (__builtin_mul_overflow(n, base, &n) || __builtin_sub_overflow(n, d, &n)) fits = false;
    }
    if (!negative && __builtin_sub_overflow(0, n, &n)) fits = false;
    *overflow = !fits;
    if (fits) *out = n;
    return fits;
}

bool fm_j_parse_float(fm_view text, double *out)
{
    fm_view v = trim(text);
    char clean[400];
    size_t n = 0, i = 0;
    if (v.n > 0 && v.p[0] == '+') v = (fm_view){v.p + 1, v.n - 1};
    const bool negative = v.n > 0 && v.p[0] == '-';
    const fm_view word = negative ? (fm_view){v.p + 1, v.n - 1} : v;
    char lower[9] = "";
    for (; i < word.n && i < 8; i++) lower[i] = (char)(word.p[i] | 32);
    const bool whole = i == word.n;
    if (whole && (strcmp(lower, "inf") == 0 || strcmp(lower, "infinity") == 0))
        return *out = negative ? -HUGE_VAL : HUGE_VAL, true;
    if (whole && strcmp(lower, "nan") == 0) return *out = (double)NAN, true;
    if (v.n + 2 > sizeof clean) return false;
    for (i = 0; i < v.n; i++) {
        const bool between =
            v.p[i] == '_' && i > 0 && i + 1 < v.n && digit_value(v.p[i - 1]) < 10 && digit_value(v.p[i + 1]) < 10;
        const bool bare = v.p[i] == '.' && (n == 0 || digit_value(clean[n - 1]) > 9);
        if (bare) clean[n++] = '0';
        if (!between) clean[n++] = v.p[i];
        if (n + 2 > sizeof clean) return false;
    }
    if (n && clean[n - 1] == '.') n--;
    if (v.n == 1 && v.p[0] == '.') return false;
    return fm_parse_f64((fm_view){clean, n}, out);
}

fm_status fm_j_float_to_int(fm_jrender *r, double f, fm_jval *out)
{
    if (isnan(f) || isinf(f)) return fm_j_fail(r, FM_ERR_FORMAT, "nan and infinity are not whole numbers");
    if (!(f > -9.2e18 && f < 9.2e18)) return too_large(r);
    *out = fm_j_int((int64_t)f);
    return FM_OK;
}
