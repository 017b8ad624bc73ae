/* jinja_internal.h - what the files of the template engine share: memory, values, tokens, the tree, the render.
 *
 * The road of a template: jinja_lex.c cuts text into tokens, jinja_parse.c and jinja_expr.c make the tree, jinja_exec.c walks
 * its statements and jinja_eval.c its expressions; filters, tests, methods and global functions are rows of tables in
 * jinja_filter.c, jinja_seq.c, jinja_test.c, jinja_method.c and jinja_global.c, all of one C signature. */
#ifndef FM_TEXT_JINJA_INTERNAL_H
#define FM_TEXT_JINJA_INTERNAL_H

#include "text/jinja.h"

/* Nodes of the tree above each other while evaluating; a macro's body counts on from its call.  It bounds the C stack. */
#define FM_J_NEST_MAX  (4 * FM_JINJA_DEPTH_MAX)
#define FM_J_RANGE_MAX 100000 /* items of a range(), as Jinja's sandbox has it */
#define FM_J_SLOTS     6      /* most parameters of a built-in function */
#define FM_J_SCAN      256    /* bytes of text looked at that count as one step */

/* ---- Memory: chunks that are released together ---- */

typedef struct fm_jchunk fm_jchunk;

typedef struct fm_jpool {
    const fm_allocator *a;
    fm_jchunk *chunks; /* newest first */
    size_t bytes;      /* of all chunks, at most FM_JINJA_MEMORY_MAX */
} fm_jpool;

fm_status fm_jpool_alloc(void **out, fm_jpool *p, size_t count, size_t size, fm_error *err);
void fm_jpool_free(fm_jpool *p);

/* ---- Values ---- */

typedef enum fm_jtype {
    FM_J_ABSENT, /* an argument that was not given; never a template's value */
    FM_J_UNDEFINED,
    FM_J_NONE,
    FM_J_BOOL,
    FM_J_INT,
    FM_J_FLOAT,
    FM_J_STRING,
    FM_J_LIST,
    FM_J_DICT,
    FM_J_NAMESPACE,
    FM_J_FUNC,
    FM_J_MACRO,
    FM_J_LOOP
} fm_jtype;

typedef struct fm_jlist fm_jlist;
typedef struct fm_jdict fm_jdict;
typedef struct fm_jfunc fm_jfunc;
typedef struct fm_jmacro fm_jmacro;
typedef struct fm_jloop fm_jloop;

/* UTF-8 text; mask (one byte per byte, 1: tainted) is NULL when all bytes have the taint of the value's `tainted`. */
typedef struct fm_jtext {
    const char *p;
    const unsigned char *mask;
    size_t n;
} fm_jtext;

typedef enum fm_jwhy { FM_J_NO_NAME, FM_J_NO_ATTRIBUTE, FM_J_NO_VALUE } fm_jwhy; /* why something is undefined */

typedef struct fm_jval {
    unsigned char type; /* fm_jtype */
    unsigned char why;  /* fm_jwhy, of an undefined value; its name is in s */
    bool tainted;       /* of a string without mask, of a number or a bool */
    union {
        bool b;
        int64_t i;
        double f;
        fm_jtext s;
        fm_jlist *list;
        fm_jdict *dict; /* of dicts and namespaces */
        fm_jfunc *func;
        fm_jmacro *macro;
        fm_jloop *loop;
    };
} fm_jval;

/* Python's list, tuple, range, generator (read once, from pos on) and the views of a dict differ only in what they allow. */
typedef enum fm_jform { FM_J_PLAIN, FM_J_TUPLE, FM_J_RANGE, FM_J_ITERATOR, FM_J_VIEW } fm_jform;

struct fm_jlist {
    fm_jform form;
    size_t n, cap, pos;
    fm_jval *v;
    int64_t start, stop, step; /* of a range, for printing */
};

struct fm_jdict {
    size_t n, cap;
    fm_jval *keys, *values; /* in the order they came */
};

typedef struct fm_jrender fm_jrender;

/* Arguments of a call: v holds n by position, then n_kw by name.  A built-in with fixed parameters gets FM_J_SLOTS values in
 * their order, FM_J_ABSENT where nothing was given. */
typedef struct fm_jargs {
    const fm_jval *v;
    const fm_view *kw;
    size_t n, n_kw;
} fm_jargs;

/* Every filter, test, method and global function: `self` is the filtered or tested value or the method's object. */
typedef fm_status (*fm_jfn)(fm_jrender *r, fm_jval self, const fm_jargs *a, fm_jval *out);

typedef struct fm_jbuiltin {
    const char *name;
    const char *params; /* names separated by blanks; "*": as they come */
    size_t required;    /* that many of them must be given */
    fm_jfn fn;          /* NULL: known in Jinja or Python, outside the subset */
} fm_jbuiltin;

struct fm_jfunc {
    const fm_jbuiltin *builtin;
    const char *kind; /* "str.", "list.", "dict.", or "" for a global */
    fm_jval self;
};

struct fm_jloop {
    const fm_jval *v;
    size_t n, i;
    unsigned depth;
    fm_jval last; /* arguments of the last loop.changed() */
};

typedef struct fm_jvar {
    fm_view name;
    fm_jval value;
} fm_jvar;

typedef struct fm_jscope {
    struct fm_jscope *parent;
    fm_jvar *v;
    size_t n, cap;
} fm_jscope;

/* ---- Tokens and tree ---- */

typedef enum fm_jtok {
    FM_JT_TEXT,
    FM_JT_VAR_BEGIN,
    FM_JT_VAR_END,
    FM_JT_BLOCK_BEGIN,
    FM_JT_BLOCK_END,
    FM_JT_NAME,
    FM_JT_INT,
    FM_JT_FLOAT,
    FM_JT_STRING,
    FM_JT_OP,
    FM_JT_END
} fm_jtok;

/* Operators are their character; those of two characters and the words have these. */
enum {
    FM_J_POW = 'P',
    FM_J_FLOOR = 'F',
    FM_J_EQ = 'E',
    FM_J_NE = 'N',
    FM_J_LE = 'L',
    FM_J_GE = 'G',
    FM_J_IN = 'I',
    FM_J_NOT_IN = 'O'
};

typedef struct fm_jtoken {
    unsigned char type; /* fm_jtok */
    unsigned char op;
    uint32_t at;  /* byte of the (normalised) source */
    fm_view text; /* as in the source; of a string without its quotes */
} fm_jtoken;

typedef enum fm_jkind {
    FM_JN_CONST,
    FM_JN_NAME,
    FM_JN_LIST,
    FM_JN_TUPLE,
    FM_JN_DICT,
    FM_JN_COND,
    FM_JN_AND,
    FM_JN_OR,
    FM_JN_NOT,
    FM_JN_NEG,
    FM_JN_POS,
    FM_JN_MATH,
    FM_JN_CONCAT,
    FM_JN_COMPARE,
    FM_JN_ATTR,
    FM_JN_ITEM,
    FM_JN_SLICE,
    FM_JN_CALL,
    FM_JN_FILTER,
    FM_JN_TEST,
    FM_JN_TEXT,
    FM_JN_OUTPUT,
    FM_JN_BODY,
    FM_JN_IF,
    FM_JN_FOR,
    FM_JN_SET,
    FM_JN_SET_BLOCK,
    FM_JN_MACRO,
    FM_JN_CALL_BLOCK,
    FM_JN_FILTER_BLOCK,
    FM_JN_WITH,
    FM_JN_BREAK,
    FM_JN_CONTINUE
} fm_jkind;

/* One node; what kids, names and ops are is said where the node is made.  Missing kids are NULL. */
typedef struct fm_jnode fm_jnode;
struct fm_jnode {
    unsigned char kind; /* fm_jkind */
    unsigned char flags;
    uint32_t at; /* byte of the source, for errors */
    size_t n, n_names;
    fm_jnode **kids;
    const fm_view *names;
    const unsigned char *ops;
    fm_view name;
    const fm_jbuiltin *fn;
    fm_jval value;
};

/* Flags of a macro: the special names its body uses.  Of a set: its target is an attribute of the namespace node->name; or it
 * unpacks, also into one name. */
enum { FM_JF_CALLER = 1, FM_JF_VARARGS = 2, FM_JF_KWARGS = 4, FM_JF_ATTRIBUTE = 8, FM_JF_TUPLE = 16 };

struct fm_jmacro {
    const fm_jnode *node;
    fm_jscope *scope; /* where it was defined */
    fm_view name;
};

struct fm_jinja {
    fm_jpool pool;
    fm_view source; /* newlines normalised */
    const fm_jnode *body;
};

typedef struct fm_jparser {
    fm_jinja *t;
    fm_error *err;
    fm_jtoken *tokens;
    size_t n_tokens, cap_tokens, i;
    unsigned depth, loops; /* nesting; loops around this place within the same macro */
    unsigned char used;    /* FM_JF_* names seen in the macro being parsed */
} fm_jparser;

fm_status fm_jparse_fail(const fm_jparser *p, fm_status code, uint32_t at, const char *fmt, ...) FM_PRINTF(4, 5);
fm_status fm_jlex(fm_jparser *p);
fm_status fm_jparse_template(fm_jparser *p);

typedef enum fm_jtuple { FM_J_FULL, FM_J_NO_COND } fm_jtuple; /* without: "x if y" ends before the if */

fm_status fm_jparse_expression(fm_jparser *p, bool with_cond, fm_jnode **out);
fm_status fm_jparse_tuple(fm_jparser *p, bool with_cond, bool parentheses, fm_jnode **out);
fm_status fm_jparse_primary(fm_jparser *p, fm_jnode **out);
fm_status fm_jparse_filters(fm_jparser *p, fm_jnode **node, bool started); /* | f(...) | g(...) around *node, NULL: a block */
fm_status fm_jparse_node(fm_jparser *p, fm_jkind kind, fm_jnode **out);
fm_status fm_jparse_add(fm_jparser *p, fm_jnode *node, fm_jnode *kid);
fm_status fm_jparse_name(fm_jparser *p, fm_jnode *node, fm_view name); /* to node->names */
fm_status fm_jparse_enter(fm_jparser *p);

static inline const fm_jtoken *fm_jpeek(const fm_jparser *p)
{
    return &p->tokens[p->i];
}
const fm_jtoken *fm_jtake(fm_jparser *p);
bool fm_jis_op(const fm_jparser *p, int op);
bool fm_jis_word(const fm_jparser *p, const char *word);
bool fm_jskip_op(fm_jparser *p, int op);
bool fm_jskip_word(fm_jparser *p, const char *word);
fm_status fm_jexpect_op(fm_jparser *p, int op, const char *where);
fm_status fm_jexpect(fm_jparser *p, fm_jtok type, const char *what, const fm_jtoken **out);
fm_status fm_junexpected(const fm_jparser *p, const char *expected);

/* ---- The render ---- */

typedef enum fm_jflow { FM_J_GO_ON, FM_J_BREAK, FM_J_CONTINUE } fm_jflow;

/* A string that grows in the pool and knows the taint of each byte. */
typedef struct fm_jbuf {
    fm_jrender *r;
    char *p;
    unsigned char *mask;  /* NULL while all bytes agree */
    size_t n, cap, limit; /* limit 0: only the pool's */
    bool tainted;
} fm_jbuf;

struct fm_jrender {
    fm_jpool pool;
    const fm_jinja *t;
    fm_error *err;
    uint32_t at; /* the node being evaluated */
    unsigned depth, calls, loops;
    size_t steps, scanned;
    fm_jdict *variables;
    fm_jscope *scope;
    fm_jbuf *out;
    fm_jflow flow;
    fm_jval block; /* what a filter block filters */
    fm_str scratch;
};

fm_status fm_j_fail(fm_jrender *r, fm_status code, const char *fmt, ...) FM_PRINTF(3, 4);
fm_status fm_j_type_error(fm_jrender *r, const char *what, fm_jval v); /* "<what>, not a list" */
fm_status fm_j_undefined_error(fm_jrender *r, fm_jval v);
fm_status fm_j_step(fm_jrender *r, size_t n);
fm_status fm_j_scan(fm_jrender *r, size_t bytes);
fm_status fm_j_enter(fm_jrender *r); /* one level deeper, or FM_ERR_LIMIT; fm_j_leave() undoes it */
static inline void fm_j_leave(fm_jrender *r)
{
    r->depth--;
}
fm_status fm_j_alloc(fm_jrender *r, void **out, size_t count, size_t size);

fm_status fm_jbuf_put(fm_jbuf *b, const char *p, size_t n, bool tainted);
fm_status fm_jbuf_puts(fm_jbuf *b, const char *text); /* untainted */
fm_status fm_jbuf_add(fm_jbuf *b, fm_jval string);
fm_status fm_jbuf_cp(fm_jbuf *b, uint32_t cp, bool tainted);
fm_jval fm_jbuf_value(const fm_jbuf *b);

/* ---- jinja_value.c ---- */

static inline fm_jval fm_j_none(void)
{
    return (fm_jval){.type = FM_J_NONE};
}
static inline fm_jval fm_j_bool(bool b)
{
    return (fm_jval){.type = FM_J_BOOL, .b = b};
}
static inline fm_jval fm_j_int(int64_t i)
{
    return (fm_jval){.type = FM_J_INT, .i = i};
}
static inline fm_jval fm_j_float(double f)
{
    return (fm_jval){.type = FM_J_FLOAT, .f = f};
}
static inline fm_jval fm_j_list_value(fm_jlist *l)
{
    return (fm_jval){.type = FM_J_LIST, .list = l};
}
static inline fm_jval fm_j_dict_value(fm_jdict *d)
{
    return (fm_jval){.type = FM_J_DICT, .dict = d};
}
static inline bool fm_j_given(fm_jval v)
{
    return v.type != FM_J_ABSENT;
}
static inline bool fm_j_is_list(fm_jval v, fm_jform form)
{
    return v.type == FM_J_LIST && v.list->form == form;
}

fm_jval fm_j_string(fm_view v, bool tainted);
fm_jval fm_j_text(const char *literal);
fm_jval fm_j_undefined(fm_jwhy why, fm_view name);
fm_view fm_j_view(fm_jval string);
bool fm_j_is(fm_jval v, const char *text); /* a string of exactly this text */
bool fm_j_any_taint(fm_jval string);
bool fm_j_taint_at(fm_jval string, size_t i);
fm_jval fm_j_cut(fm_jval string, size_t from, size_t n); /* bytes */
const char *fm_j_type_name(fm_jval v);                   /* as Python calls it */

fm_status fm_j_list(fm_jrender *r, fm_jform form, size_t cap, fm_jlist **out);
fm_status fm_j_push(fm_jrender *r, fm_jlist *l, fm_jval v);
fm_status fm_j_pair(fm_jrender *r, fm_jval a, fm_jval b, fm_jval *out); /* a tuple of two */
fm_status fm_j_dict(fm_jrender *r, fm_jdict **out);
fm_status fm_j_put(fm_jrender *r, fm_jdict *d, fm_jval key, fm_jval value);
fm_status fm_j_find(fm_jrender *r, const fm_jdict *d, fm_jval key, fm_jval *out); /* FM_J_ABSENT when there is none */

bool fm_j_truth(fm_jval v);
fm_status fm_j_equal(fm_jrender *r, fm_jval a, fm_jval b, bool *out);
fm_status fm_j_order(fm_jrender *r, fm_jval a, fm_jval b, int *out); /* sign of a - b; 2 when not a number is involved */
fm_status fm_j_contains(fm_jrender *r, fm_jval in, fm_jval what, bool *out);
fm_status fm_j_length(fm_jrender *r, fm_jval v, int64_t *out);
fm_status fm_j_items(fm_jrender *r, fm_jval v, fm_jlist **out); /* all a loop over v would see; do not change */

/* ---- jinja_print.c: str(), repr(), JSON ---- */

fm_status fm_j_print(fm_jbuf *b, fm_jval v);                /* str(v) */
fm_status fm_j_str(fm_jrender *r, fm_jval v, fm_jval *out); /* str(v), a string as it is */
size_t fm_j_float_text(char out[40], double f);             /* as Python's repr() */
fm_status fm_j_load_json(fm_jrender *r, fm_view json, const char *const *trusted, size_t n_trusted);
fm_status fm_j_tojson(fm_jrender *r, fm_jval self, const fm_jargs *a, fm_jval *out);

/* ---- jinja_math.c ---- */

fm_status fm_j_math(fm_jrender *r, int op, fm_jval a, fm_jval b, fm_jval *out);
fm_status fm_j_sign(fm_jrender *r, bool negative, fm_jval v, fm_jval *out);
fm_status fm_j_repeat(fm_jrender *r, fm_jval v, int64_t times, fm_jval *out);
bool fm_j_number(fm_jval v, double *out);                                  /* int, float or bool */
bool fm_j_integer(fm_jval v, int64_t *out);                                /* int or bool */
bool fm_j_parse_int(fm_view text, int base, int64_t *out, bool *overflow); /* as Python's int(text, base) */
bool fm_j_parse_float(fm_view text, double *out);                          /* as Python's float(text) */
fm_status fm_j_float_to_int(fm_jrender *r, double f, fm_jval *out);        /* towards zero */

/* ---- jinja_unicode.c ---- */

bool fm_j_space(uint32_t cp);
bool fm_j_printable(uint32_t cp);
bool fm_j_cased(uint32_t cp);
uint32_t fm_j_upper(uint32_t cp); /* of one code point to one */
uint32_t fm_j_lower(uint32_t cp);
size_t fm_j_spaces_before(fm_view v); /* bytes of white space at the beginning */
size_t fm_j_spaces_behind(fm_view v); /* and at the end */

typedef enum fm_jcase { FM_J_UPPER, FM_J_LOWER, FM_J_TITLE, FM_J_CAPITALIZE } fm_jcase;
fm_status fm_j_recase(fm_jrender *r, fm_jval s, fm_jcase to, fm_jval *out);

/* ---- jinja_string.c ---- */

typedef enum fm_jside { FM_J_LEFT = 1, FM_J_RIGHT = 2, FM_J_BOTH = 3 } fm_jside;

size_t fm_j_points(fm_view v);             /* code points */
size_t fm_j_point_at(fm_view v, size_t i); /* byte where code point i begins, v.n when there are fewer */
fm_status fm_j_search(fm_jrender *r, fm_view in, fm_view what, size_t from, size_t *at); /* in.n + 1 when it is not there */
fm_status fm_j_replace(fm_jrender *r, fm_jval s, fm_jval from, fm_jval to, int64_t count, fm_jval *out);
fm_status fm_j_strip(fm_jrender *r, fm_jval s, fm_jval chars, fm_jside side, fm_jval *out);
fm_status fm_j_splitlines(fm_jrender *r, fm_jval s, fm_jlist **out);
fm_status fm_j_join(fm_jrender *r, fm_jval by, const fm_jlist *items, bool convert, fm_jval *out);
fm_status fm_j_slice(fm_jrender *r, fm_jval v, const fm_jval part[3], fm_jval *out); /* start, stop, step */
const fm_jbuiltin *fm_j_string_method(fm_view name);

/* ---- jinja_global.c, jinja_filter.c, jinja_seq.c, jinja_test.c ---- */

bool fm_j_global(fm_jrender *r, fm_view name, fm_status *status, fm_jval *out);
const fm_jbuiltin *fm_j_list_method(fm_view name);
const fm_jbuiltin *fm_j_dict_method(fm_view name);
const fm_jbuiltin *fm_j_loop_method(fm_view name);
const fm_jbuiltin *fm_j_lookup(const fm_jbuiltin *table, size_t n, fm_view name);
const fm_jbuiltin *fm_j_filter(fm_view name);
const fm_jbuiltin *fm_j_seq_filter(fm_view name);
const fm_jbuiltin *fm_j_test(fm_view name);

/* ---- jinja_eval.c, jinja_exec.c ---- */

fm_status fm_j_eval(fm_jrender *r, const fm_jnode *n, fm_jval *out);
fm_status fm_j_attribute(fm_jrender *r, fm_jval v, fm_view name, fm_jval *out); /* v.name */
fm_status fm_j_item(fm_jrender *r, fm_jval v, fm_jval key, fm_jval *out);       /* v[key] */
fm_status fm_j_call(fm_jrender *r, fm_jval callee, const fm_jargs *a, fm_jval *out);
fm_status fm_j_builtin(fm_jrender *r, const fm_jbuiltin *b, const char *kind, fm_jval self, const fm_jargs *a, fm_jval *out);
fm_status fm_j_arguments(fm_jrender *r, const fm_jnode *n, size_t first, fm_jval *room, fm_jargs *out);
fm_status fm_j_assign(fm_jrender *r, fm_view name, fm_jval v);
fm_status fm_j_push_scope(fm_jrender *r, fm_jscope *parent, fm_jscope **out);
fm_status fm_j_exec(fm_jrender *r, const fm_jnode *n);
fm_status fm_j_call_macro(fm_jrender *r, const fm_jmacro *m, const fm_jargs *a, fm_jval *out);

#endif
