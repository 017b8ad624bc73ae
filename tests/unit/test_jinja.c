/* test_jinja.c - the template engine against recorded renderings of Python's jinja2, its errors, its limits and its taint. */
#include "chat_cases.h"

static const char *const trusted[] = {"bos_token", "eos_token"};

static fm_status render(const char *source, const char *variables, fm_jinja_output *out, fm_error *err)
{
    fm_jinja *t;
    *out = (fm_jinja_output){0};
    *err = (fm_error){0};
    fm_status status = fm_jinja_parse(&t, fm_view_of(source), NULL, err);
    if (status != FM_OK) return status;
    status = fm_jinja_render(t, fm_view_of(variables), trusted, FM_COUNT(trusted), out, err);
    fm_jinja_free(t);
    return status;
}

static void check_runs(const fm_jinja_output *o)
{
    size_t n = 0;
    for (size_t i = 0; i < o->n_runs; i++) {
        assert_true(o->runs[i].n > 0);
        if (i) assert_true(o->runs[i].tainted != o->runs[i - 1].tainted);
        n += o->runs[i].n;
    }
    assert_int_equal(n, o->text.n);
}

static size_t n_wrong;

static void check_case(const chat_case *c)
{
    fm_jinja_output o;
    fm_error err;
    const fm_status status = render(c->template.p ? c->template.p : "", c->variables.p, &o, &err);
    if (c->error ? status == FM_OK : status != FM_OK || !fm_view_eq(chat_view(&o.text), chat_view(&c->output))) {
        n_wrong++;
        print_error("%s\n  gives    %d \"%s\" %s\n  expected \"%s\"\n", c->name.p, status, o.text.p ? o.text.p : "", err.text,
                    c->error      ? "(an error)"
                    : c->output.p ? c->output.p
                                  : "");
    }
    check_runs(&o);
    fm_jinja_output_free(&o);
}

static void test_constructs(void **state)
{
    (void)state;
    n_wrong = 0;
    assert_true(chat_cases("constructs.json", check_case) >= 100);
    assert_int_equal(n_wrong, 0);
}

static void test_templates(void **state)
{
    (void)state;
    n_wrong = 0;
    assert_true(chat_cases("templates.json", check_case) >= 32);
    assert_int_equal(n_wrong, 0);
}

/* ---- Errors ---- */

static void check_error(const char *source, const char *variables, fm_status want, const char *part)
{
    fm_jinja_output o;
    fm_error err;
    const fm_status status = render(source, variables, &o, &err);
    if (status != want) print_error("%.60s: %d %s\n", source, status, err.text);
    assert_fails(status, want, err, part);
    assert_int_equal(o.text.n, 0);
}

static void test_errors_say_where(void **state)
{
    (void)state;
    check_error("a\n{{ x", "{}", FM_ERR_FORMAT, "line 2, column 1: a tag begins here");
    check_error("ab {{ 1 + }}", "{}", FM_ERR_FORMAT, "line 1, column 11: expected an expression, found '}}'");
    check_error("\n\n{% if x %}", "{}", FM_ERR_FORMAT, "add {% endif %}");
    check_error("é{% foo %}", "{}", FM_ERR_FORMAT, "line 1, column 5: no statement begins with 'foo'");
    check_error("{% include 'x' %}", "{}", FM_ERR_UNSUPPORTED, "'include' is not supported");
    check_error("{{ x|foo }}", "{}", FM_ERR_FORMAT, "column 6: no filter named 'foo'");
    check_error("{{ x|urlize }}", "{}", FM_ERR_UNSUPPORTED, "the filter 'urlize' is not supported");
    check_error("{{ x is foo }}", "{}", FM_ERR_FORMAT, "no test named 'foo'");
    check_error("{{ 'abc }}", "{}", FM_ERR_FORMAT, "a string begins here");
    check_error("{{ 'a\\xZZ' }}", "{}", FM_ERR_FORMAT, "escape");
    check_error("{% macro m() %}", "{}", FM_ERR_FORMAT, "add {% endmacro %}");
    check_error("{% set x %}", "{}", FM_ERR_FORMAT, "add {% endset %}");
    check_error("{% for x in y %}", "{}", FM_ERR_FORMAT, "add {% endfor %}");
    check_error("{# x", "{}", FM_ERR_FORMAT, "a comment begins here");
    check_error("{{ ? }}", "{}", FM_ERR_FORMAT, "unexpected character '?'");
    check_error("{{ 99999999999999999999 }}", "{}", FM_ERR_UNSUPPORTED, "64 bits");
    check_error("\n {{ x.y }}", "{}", FM_ERR_FORMAT, "line 2, column 6: 'x' is undefined");
    check_error("{{ x.y.z }}", "{\"x\": {}}", FM_ERR_FORMAT, "no attribute or element 'y'");
    check_error("{{ raise_exception('roles: ' ~ 3) }}", "{}", FM_ERR_FORMAT, "roles: 3");
    check_error("{{ [].append(1) }}", "{}", FM_ERR_UNSUPPORTED, "list.append() is not supported");
    check_error("{{ 'x'.zfill(2) }}", "{}", FM_ERR_UNSUPPORTED, "str.zfill() is not supported");
    check_error("{{ 'x'.replace('a') }}", "{}", FM_ERR_FORMAT, "old new count");
    check_error("x", "[1]", FM_ERR_FORMAT, "template variables");
    check_error("x", "{\"a\": }", FM_ERR_FORMAT, "template variables");
    check_error("\xFF", "{}", FM_ERR_FORMAT, "UTF-8");
    check_error("{{ 9223372036854775807 + 1 }}", "{}", FM_ERR_UNSUPPORTED, "64 bits");
    check_error("{{ f(*[1]) }}", "{}", FM_ERR_UNSUPPORTED, "* and **");
}

/* ---- Limits ---- */

/* head, `open` many times, middle, `close` as often, tail. */
static char *nested(const char *head, const char *open, const char *middle, const char *close, const char *tail)
{
    enum { TIMES = 100000 };
    fm_str s = {0};
    fm_str_puts(&s, head);
    for (size_t i = 0; i < TIMES; i++) fm_str_puts(&s, open);
    fm_str_puts(&s, middle);
    for (size_t i = 0; i < TIMES; i++) fm_str_puts(&s, close);
    fm_str_puts(&s, tail);
    assert_false(s.failed);
    return s.p;
}

static void check_deep(const char *open, const char *middle, const char *close)
{
    const bool statement = open[0] == '{' && open[1] == '%';
    char *source = nested(statement ? "" : "{{ ", open, middle, close, statement ? "" : " }}");
    check_error(source, "{}", FM_ERR_LIMIT, "deeper than");
    free(source);
}

/* JSON of 100 lists in each other, and deep values that the template itself makes. */
static void check_deep_values(void)
{
    char json[256] = "{\"x\": ";
    memset(json + 6, '[', 100);
    memset(json + 106, ']', 100);
    memcpy(json + 206, "}", 2);
    check_error("{{ x }}", json, FM_ERR_FORMAT, "template variables");
    static const char *const uses[] = {"{{ ns.x }}", "{{ ns.x|tojson }}", "{{ ns.x == ns.y }}", "{{ ns.x < ns.y }}",
                                       "{{ [ns.x]|sort }}[{{ ns.x|string }}"};
    for (size_t i = 0; i < FM_COUNT(uses); i++) {
        char source[512];
        snprintf(source, sizeof source,
                 "{%% set ns = namespace(x=[], y=[]) %%}{%% for i in range(500) %%}{%% set ns.x = [ns.x] %%}"
                 "{%% set ns.y = [ns.y] %%}{%% endfor %%}%s",
                 uses[i]);
        check_error(source, "{}", FM_ERR_LIMIT, "deeper than 256");
    }
}

static void test_limits(void **state)
{
    (void)state;
    check_deep("(", "1", ")");
    check_deep("[", "", "]");
    check_deep("{1:", "1", "}");
    check_deep("-", "1", "");
    check_deep("not ", "1", "");
    check_deep("x[", "1", "]");
    check_deep("f(", "1", ")");
    check_deep("1 if 1 else ", "1", "");
    check_deep("", "x", ".a");
    check_deep("", "1", "|string");
    check_deep("", "1", " if 1");
    check_deep("{% if 1 %}", "", "{% endif %}");
    check_deep("{% for x in y %}", "", "{% endfor %}");
    check_deep("{% macro m() %}", "", "{% endmacro %}");
    check_deep_values();
    check_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{}", FM_ERR_LIMIT, "deeper than");
    check_error("{% set l = range(999) %}{% for i in l %}{% for k in l %}"
                "{{ '' if k + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 < 0 }}{% endfor %}{% endfor %}",
                "{}", FM_ERR_LIMIT, "more than 1000000 steps");
    check_error("{{ range(100001) }}", "{}", FM_ERR_LIMIT, "100000");
    check_error("{{ 'ab' * 3000000 }}", "{}", FM_ERR_LIMIT, "");
    check_error("{% set x = 'abcdefgh' * 8192 %}{% for i in range(999) %}{{ x }}{% endfor %}", "{}", FM_ERR_LIMIT,
                "writes more than 4194304 bytes");
    check_error("{% set ns = namespace(x='abcdefgh') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "{}",
                FM_ERR_LIMIT, "memory");
    check_error("{{ 'a' * 9223372036854775807 }}", "{}", FM_ERR_LIMIT, "");
}

/* The edges themselves are still inside. */
static void test_just_within_limits(void **state)
{
    (void)state;
    fm_jinja_output o;
    fm_error err;
    assert_int_equal(render("{% set x = 'abcdefgh' * 8192 %}{% for i in range(64) %}{{ x }}{% endfor %}", "{}", &o, &err),
                     FM_OK);
    assert_int_equal(o.text.n, FM_JINJA_OUTPUT_MAX);
    fm_jinja_output_free(&o);
    assert_int_equal(render("{{ range(100000)|length }}", "{}", &o, &err), FM_OK);
    assert_string_equal(o.text.p, "100000");
    fm_jinja_output_free(&o);
}

/* ---- Taint ---- */

/* The output with tainted bytes in brackets. */
static void check_taint(const char *source, const char *variables, const char *want)
{
    fm_jinja_output o;
    fm_error err;
    fm_str s = {0};
    size_t at = 0;
    if (render(source, variables, &o, &err) != FM_OK) fail_msg("%s: %s", source, err.text);
    check_runs(&o);
    for (size_t i = 0; i < o.n_runs; i++) {
        if (o.runs[i].tainted) fm_str_putc(&s, '<');
        fm_str_put(&s, o.text.p + at, o.runs[i].n);
        if (o.runs[i].tainted) fm_str_putc(&s, '>');
        at += o.runs[i].n;
    }
    if (strcmp(s.p, want) != 0) fail_msg("%s: \"%s\", expected \"%s\"", source, s.p, want);
    fm_str_free(&s);
    fm_jinja_output_free(&o);
}

static void test_taint(void **state)
{
    (void)state;
    static const char v[] =
        "{\"m\": \"xYz\", \"n\": 5, \"bos_token\": \"B\", \"l\": [\"p\", \"q\"], \"d\": {\"k\": \"v\"}, \"yes\": true}";
    check_taint("a{{ m }}b{{ bos_token }}", v, "a<xYz>bB");
    check_taint("{{ 'a' + m + 'b' }}", v, "a<xYz>b");
    check_taint("{{ ('a' ~ m ~ n)|upper }}", v, "A<XYZ5>");
    check_taint("{{ ('a' ~ m ~ 'b')[::-1] }}", v, "b<zYx>a");
    check_taint("{{ ('a' ~ m ~ 'b')[1:3] }}|{{ (' ' ~ m ~ ' ')|trim }}", v, "<xY>|<xYz>");
    check_taint("{{ 'a-b'|replace('-', m) }}{{ m|replace('Y', '-') }}", v, "a<xYz>b<x>-<z>");
    check_taint("{{ l|join('-') }} {{ ('a,' ~ m).split(',')[1] }}", v, "<p>-<q> <xYz>");
    check_taint("{{ d|tojson }} {{ l }}", v, "{\"<k>\": \"<v>\"} ['<p>', '<q>']");
    check_taint("{{ n + 1 }} {{ n|string }} {{ '5'|int }} {{ m|length }} {{ yes }}", v, "<6> <5> 5 3 <True>");
    check_taint("{% set x %}a{{ m }}{% endset %}{{ x }}{% filter lower %}A{{ m }}{% endfilter %}", v, "a<xYz>a<xyz>");
    check_taint("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(m) }}{{ f('c') }}", v, "[<xYz>][c]");
    check_taint("{% for c in m %}{{ c }}.{% endfor %}{{ m * 2 }}", v, "<x>.<Y>.<z>.<xYzxYz>");
    check_taint("{{ ('ab' ~ m)|indent(2, true) }}", v, "  ab<xYz>");
    check_taint("{{ 'a' if yes else m }}{{ m or 'a' }}{{ (m ~ '1')|int(7) }}", v, "a<xYz7>");
    check_taint("{{ ['b' ~ m, 'a']|sort|first }}{{ {'k': m}.k }}{{ (m, 'a')|last }}", v, "a<xYz>a");
    check_taint("{{ m.partition('Y')|join('-') }}{{ ('x' ~ m).title() }}", v, "<x>-<Y>-<z>X<xyz>");
}

/* ---- strftime_now, threads of use, memory ---- */

static void test_strftime(void **state)
{
    (void)state;
    fm_jinja_output o;
    fm_error err;
    assert_int_equal(render("{{ strftime_now('%Y-%m-%d') }}{{ strftime_now('') }}", "{}", &o, &err), FM_OK);
    assert_int_equal(o.text.n, 10);
    assert_true(o.text.p[0] == '2' && o.text.p[4] == '-');
    fm_jinja_output_free(&o);
    check_error("{{ strftime_now(3) }}", "{}", FM_ERR_FORMAT, "strftime_now() takes a format");
}

/* As Python's round() of an int: to an int, half to even. */
static void test_rounded_ints(void **state)
{
    static const struct {
        const char *source, *want;
    } cases[] = {{"{{ 1234|round(-2) }} {{ 7|round(-1) }} {{ 7|round(2) }}", "1200 10 7"},
                 {"{{ 25|round(-1) }} {{ 35|round(-1) }} {{ (-25)|round(-1) }} {{ (-26)|round(-1) }}", "20 40 -20 -30"},
                 {"{{ 9223372036854775807|round(-30) }} {{ true|round }} {{ 250|round(-3) }}", "0 1 0"},
                 {"{{ 7|round(-1, 'floor') }} {{ 2.5|round }} {{ 1250.0|round(-2) }}", "0.0 2.0 1200.0"}};
    (void)state;
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        fm_jinja_output o;
        fm_error err;
        assert_int_equal(render(cases[i].source, "{}", &o, &err), FM_OK);
        assert_string_equal(o.text.p, cases[i].want);
        fm_jinja_output_free(&o);
    }
}

static void test_render_again(void **state)
{
    (void)state;
    fm_jinja *t;
    fm_jinja_output o;
    assert_int_equal(fm_jinja_parse(&t, FM_VIEW("{{ x }}{% set x = 9 %}{{ x }}"), NULL, NULL), FM_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fm_jinja_render(t, FM_VIEW("{\"x\": 1}"), NULL, 0, &o, NULL), FM_OK);
        assert_string_equal(o.text.p, "19");
        fm_jinja_output_free(&o);
    }
    fm_jinja_free(t);
    fm_jinja_free(NULL);
}

static fm_status parse_and_render(const fm_allocator *a, void *ctx)
{
    static const char source[] =
        "{% macro m(a, b=1) %}{{ a|tojson(indent=2) }}{{ caller() }}{% endmacro %}{% set ns = namespace(x=1) %}"
        "{% for x in xs if x %}{% set ns.x = ns.x ~ x %}{{ loop.index }}{% endfor %}{% call m(d) %}{{ ns.x }}{% endcall %}"
        "{{ (xs|map('string')|sort|join(',') ~ 'a\\n').split('\\n') }}{{ s.upper()[::-1] }}";
    fm_jinja *t;
    fm_jinja_output o;
    fm_status status = fm_jinja_parse(&t, FM_VIEW(source), a, NULL);
    if (status != FM_OK) return status;
    status = fm_jinja_render(t, fm_view_of(ctx), trusted, 2, &o, NULL);
    if (status == FM_OK) fm_jinja_output_free(&o);
    fm_jinja_free(t);
    return status;
}

static void test_allocation_failures(void **state)
{
    (void)state;
    char variables[20100] = "{\"xs\": [1, 2, 3], \"d\": {\"k\": \"\\u00e9\\n\"}, \"s\": \"";
    size_t n = strlen(variables);
    memset(variables + n, 'q', 20000);
    memcpy(variables + n + 20000, "\"}", 3);
    assert_true(test_every_allocation(parse_and_render, variables) > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constructs),         cmocka_unit_test(test_templates),
        cmocka_unit_test(test_errors_say_where),   cmocka_unit_test(test_limits),
        cmocka_unit_test(test_just_within_limits), cmocka_unit_test(test_taint),
        cmocka_unit_test(test_strftime),           cmocka_unit_test(test_rounded_ints),
        cmocka_unit_test(test_render_again),       cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
