/* jinja_test.c - what stands behind "is": defined, none, string, mapping and so on. */
#include "text/jinja_internal.h"

#define TEST(name) static fm_status name(fm_jrender *r, fm_jval self, const fm_jargs *a, fm_jval *out)

static fm_status answer(fm_jval *out, bool yes)
{
    *out = fm_j_bool(yes);
    return FM_OK;
}

#define TYPE_TEST(name, condition)                                                                                             \
    TEST(name)                                                                                                                 \
    {                                                                                                                          \
        (void)r, (void)a;                                                                                                      \
        return answer(out, condition);                                                                                         \
    }

TYPE_TEST(t_defined, self.type != FM_J_UNDEFINED)
TYPE_TEST(t_undefined, self.type == FM_J_UNDEFINED)
TYPE_TEST(t_none, self.type == FM_J_NONE)
TYPE_TEST(t_string, self.type == FM_J_STRING)
TYPE_TEST(t_number, self.type == FM_J_INT || self.type == FM_J_FLOAT || self.type == FM_J_BOOL)
TYPE_TEST(t_integer, self.type == FM_J_INT)
TYPE_TEST(t_float, self.type == FM_J_FLOAT)
TYPE_TEST(t_boolean, self.type == FM_J_BOOL)
TYPE_TEST(t_true, self.type == FM_J_BOOL && self.b)
TYPE_TEST(t_false, self.type == FM_J_BOOL && !self.b)
TYPE_TEST(t_mapping, self.type == FM_J_DICT)
TYPE_TEST(t_callable, self.type == FM_J_FUNC || self.type == FM_J_MACRO || self.type == FM_J_LOOP)
TYPE_TEST(t_sequence, self.type == FM_J_STRING || self.type == FM_J_DICT || self.type == FM_J_UNDEFINED ||
                          (self.type == FM_J_LIST && self.list->form <= FM_J_RANGE))
TYPE_TEST(t_iterable, self.type == FM_J_STRING || self.type == FM_J_DICT || self.type == FM_J_UNDEFINED ||
                          self.type == FM_J_LIST || self.type == FM_J_LOOP)

static fm_status remainder_of(fm_jrender *r, fm_jval self, fm_jval by, int64_t want, fm_jval *out)
{
    fm_jval rest;
    bool same;
    FM_TRY(fm_j_math(r, '%', self, by, &rest));
    FM_TRY(fm_j_equal(r, rest, fm_j_int(want), &same));
    return answer(out, same);
}

TEST(t_odd)
{
    (void)a;
    return remainder_of(r, self, fm_j_int(2), 1, out);
}
TEST(t_even)
{
    (void)a;
    return remainder_of(r, self, fm_j_int(2), 0, out);
}
TEST(t_divisibleby)
{
    return remainder_of(r, self, a->v[0], 0, out);
}

TEST(t_eq)
{
    bool same;
    FM_TRY(fm_j_equal(r, self, a->v[0], &same));
    return answer(out, same);
}

TEST(t_ne)
{
    bool same;
    FM_TRY(fm_j_equal(r, self, a->v[0], &same));
    return answer(out, !same);
}

/* -1, 0, 1; 2 with a NaN, for which every answer is no. */
static fm_status ordered(fm_jrender *r, fm_jval self, const fm_jargs *a, int *order)
{
    return fm_j_order(r, self, a->v[0], order);
}

#define ORDER_TEST(name, condition)                                                                                            \
    TEST(name)                                                                                                                 \
    {                                                                                                                          \
        int order;                                                                                                             \
        FM_TRY(ordered(r, self, a, &order));                                                                                   \
        return answer(out, condition);                                                                                         \
    }

ORDER_TEST(t_lt, order == -1)
ORDER_TEST(t_le, order == -1 || order == 0)
ORDER_TEST(t_gt, order == 1)
ORDER_TEST(t_ge, order == 1 || order == 0)

TEST(t_in)
{
    bool yes;
    FM_TRY(fm_j_contains(r, a->v[0], self, &yes));
    return answer(out, yes);
}

TEST(t_sameas)
{
    const fm_jval other = a->v[0];
    bool same = false;
    if (self.type == other.type && self.type == FM_J_LIST)
        same = self.list == other.list;
    else if (self.type == other.type && self.type == FM_J_DICT)
        same = self.dict == other.dict;
    else if (self.type == other.type)
        FM_TRY(fm_j_equal(r, self, other, &same));
    return answer(out, same);
}

static fm_status has_case(fm_jrender *r, fm_jval self, const char *method, fm_jval *out)
{
    fm_jval s;
    static const fm_jargs none = {0};
    FM_TRY(fm_j_str(r, self, &s));
    return fm_j_builtin(r, fm_j_string_method(fm_view_of(method)), "str.", s, &none, out);
}

TEST(t_lower)
{
    (void)a;
    return has_case(r, self, "islower", out);
}
TEST(t_upper)
{
    (void)a;
    return has_case(r, self, "isupper", out);
}

TEST(t_filter)
{
    (void)r, (void)a;
    const fm_jbuiltin *b = self.type == FM_J_STRING ? fm_j_filter(fm_j_view(self)) : NULL;
    if (!b && self.type == FM_J_STRING) b = fm_j_seq_filter(fm_j_view(self));
    return answer(out, b && b->fn);
}

TEST(t_test)
{
    (void)r, (void)a;
    const fm_jbuiltin *b = self.type == FM_J_STRING ? fm_j_test(fm_j_view(self)) : NULL;
    return answer(out, b && b->fn);
}

const fm_jbuiltin *fm_j_test(fm_view name)
{
    static const fm_jbuiltin table[] = {{"defined", "", 0, t_defined},
                                        {"undefined", "", 0, t_undefined},
                                        {"none", "", 0, t_none},
                                        {"string", "", 0, t_string},
                                        {"number", "", 0, t_number},
                                        {"integer", "", 0, t_integer},
                                        {"float", "", 0, t_float},
                                        {"boolean", "", 0, t_boolean},
                                        {"true", "", 0, t_true},
                                        {"false", "", 0, t_false},
                                        {"mapping", "", 0, t_mapping},
                                        {"callable", "", 0, t_callable},
                                        {"sequence", "", 0, t_sequence},
                                        {"iterable", "", 0, t_iterable},
                                        {"odd", "", 0, t_odd},
                                        {"even", "", 0, t_even},
                                        {"divisibleby", "num", 1, t_divisibleby},
                                        {"eq", "other", 1, t_eq},
                                        {"==", "other", 1, t_eq},
                                        {"equalto", "other", 1, t_eq},
                                        {"ne", "other", 1, t_ne},
                                        {"!=", "other", 1, t_ne},
                                        {"lt", "other", 1, t_lt},
                                        {"<", "other", 1, t_lt},
                                        {"lessthan", "other", 1, t_lt},
                                        {"le", "other", 1, t_le},
                                        {"<=", "other", 1, t_le},
                                        {"gt", "other", 1, t_gt},
                                        {">", "other", 1, t_gt},
                                        {"greaterthan", "other", 1, t_gt},
                                        {"ge", "other", 1, t_ge},
                                        {">=", "other", 1, t_ge},
                                        {"in", "seq", 1, t_in},
                                        {"sameas", "other", 1, t_sameas},
                                        {"lower", "", 0, t_lower},
                                        {"upper", "", 0, t_upper},
                                        {"filter", "", 0, t_filter},
                                        {"test", "", 0, t_test},
                                        {"escaped", "*", 0, NULL}};
    return fm_j_lookup(table, FM_COUNT(table), name);
}
