/* chat.c - a chat prompt from messages: the template is rendered, and what came from a message forms no special token. */
#include "text/chat.h"

#include <string.h>

#include "base/json.h"
#include "text/tokenizer.h"

/* Built-in templates.  ChatML with BOS: the instruct models of Falcon Mamba (spec falcon-mamba.md 6.1); falcon3: 6.2. */
#define CHATML                                                                                                                 \
    "{{bos_token}}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'" \
    " + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
#define FALCON3                                                                                                                \
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"                                 \
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"                                                        \
    "{% if not (loop.last and message['role'] == 'assistant') %}{{ '\\n' }}{% endif %}{% endfor %}"                            \
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"

static const struct {
    const char *name, *source;
} built_in[] = {{"chatml", CHATML}, {"falcon3", FALCON3}};

/* Variables whose text is as good as the template's own, because they always come from the tokenizer. */
static const char *const trusted[] = {"bos_token", "eos_token"};

struct fm_chat {
    fm_allocator allocator_copy;
    const fm_allocator *a;
    const fm_tokenizer *t;
    fm_jinja *jinja;
};

static const char *find_source(const char *source)
{
    if (!source) return CHATML;
    for (size_t i = 0; i < FM_COUNT(built_in); i++)
        if (!strcmp(source, built_in[i].name)) return built_in[i].source;
    return source;
}

fm_status fm_chat_build(fm_chat **out, const char *source, const fm_tokenizer *t, const fm_allocator *a, fm_error *err)
{
    fm_chat *c;
    *out = NULL;
    FM_TRY(fm_alloc((void **)&c, a, 1, sizeof *c, "a chat template", err));
    if (a) {
        c->allocator_copy = *a;
        c->a = &c->allocator_copy;
    }
    c->t = t;
    const fm_status status = fm_jinja_parse(&c->jinja, fm_view_of(find_source(source)), c->a, err);
    if (status != FM_OK)
        fm_chat_free(c);
    else
        *out = c;
    return status;
}

FM_API void fm_chat_free(fm_chat *c)
{
    if (!c) return;
    const fm_allocator copy = c->allocator_copy;
    const fm_allocator *a = c->a ? &copy : NULL;
    fm_jinja_free(c->jinja);
    fm_free(a, c);
}

/* ---- Variables ---- */

static void put_token(fm_str *out, bool comma, const char *key, const fm_tokenizer *t, int32_t id)
{
    size_t n = 0;
    const char *text = id >= 0 ? fm_token_text(t, id, true, &n) : "";
    fm_jsonw w = {.out = out};
    fm_str_printf(out, "%s\"%s\":", comma ? "," : "", key);
    fm_jsonw_string(&w, (fm_view){text, n});
}

/* The caller's object with the tokenizer's tokens behind its members, where they take the place of any the caller gave: a
 * request must not choose what is trusted. */
static fm_status put_tokens(fm_str *out, const fm_chat *c, fm_view variables, fm_error *err)
{
    fm_json j = fm_json_begin(variables.p, variables.n, "chat variables");
    fm_view key;
    bool members = false;
    if (fm_json_enter_object(&j))
        for (; fm_json_key(&j, &key); members = true) fm_json_skip(&j);
    FM_TRY(fm_json_finish(&j, err));
    size_t n = variables.n;
    while (variables.p[n - 1] != '}') n--;
    fm_str_put(out, variables.p, n - 1);
    put_token(out, members, "bos_token", c->t, fm_tokenizer_bos(c->t));
    put_token(out, true, "eos_token", c->t, fm_tokenizer_eos(c->t));
    fm_str_putc(out, '}');
    return fm_str_ok(out, "the chat's variables", err);
}

fm_status fm_chat_render_json(const fm_chat *c, fm_view variables, fm_jinja_output *out, fm_error *err)
{
    fm_str json = {.a = c->a};
    *out = (fm_jinja_output){.text.a = c->a};
    fm_status status = put_tokens(&json, c, variables, err);
    if (status == FM_OK) status = fm_jinja_render(c->jinja, (fm_view){json.p, json.n}, trusted, FM_COUNT(trusted), out, err);
    fm_str_free(&json);
    return status;
}

static fm_status put_messages(fm_str *out, const fm_message *messages, size_t n, bool generation_prompt, fm_error *err)
{
    fm_jsonw w = {.out = out};
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "messages");
    fm_jsonw_array(&w);
    for (size_t i = 0; i < n; i++) {
        if (!messages[i].role || !messages[i].content)
            return fm_fail(err, FM_ERR_ARGUMENT, "message %zu has no %s", i, messages[i].role ? "content" : "role");
        fm_jsonw_object(&w);
        fm_jsonw_key(&w, "role"), fm_jsonw_cstr(&w, messages[i].role);
        fm_jsonw_key(&w, "content"), fm_jsonw_cstr(&w, messages[i].content);
        fm_jsonw_end(&w, '}');
    }
    fm_jsonw_end(&w, ']');
    fm_jsonw_key(&w, "add_generation_prompt"), fm_jsonw_bool(&w, generation_prompt);
    fm_jsonw_end(&w, '}');
    return fm_str_ok(out, "the messages", err);
}

static fm_status render(const fm_chat *c, const fm_message *messages, size_t n, bool generation_prompt, fm_jinja_output *out,
                        fm_error *err)
{
    fm_str json = {.a = c->a};
    *out = (fm_jinja_output){0};
    fm_status status = put_messages(&json, messages, n, generation_prompt, err);
    if (status == FM_OK) status = fm_chat_render_json(c, (fm_view){json.p, json.n}, out, err);
    fm_str_free(&json);
    return status;
}

/* ---- The public face ---- */

static fm_status tokenize(const fm_chat *c, const fm_jinja_output *o, int32_t *ids, size_t *n_ids, fm_error *err)
{
    uint8_t *tainted;
    size_t at = 0;
    FM_TRY(fm_alloc((void **)&tainted, c->a, o->text.n, 1, "a chat prompt", err));
    for (size_t i = 0; i < o->n_runs; at += o->runs[i++].n) memset(tainted + at, o->runs[i].tainted, o->runs[i].n);
    const fm_status status = fm_tokenize_tainted(c->t, (fm_view){o->text.p, o->text.n}, tainted, ids, n_ids, err);
    fm_free(c->a, tainted);
    return status;
}

FM_API fm_status fm_chat_tokenize(const fm_chat *c, const fm_message *messages, size_t n, bool generation_prompt, int32_t *ids,
                                  size_t *n_ids, fm_error *err)
{
    fm_jinja_output o;
    const fm_status rendered = render(c, messages, n, generation_prompt, &o, err);
    const fm_status status = rendered == FM_OK ? tokenize(c, &o, ids, n_ids, err) : rendered;
    if (rendered != FM_OK)
        *n_ids = 0;
    else
        fm_jinja_output_free(&o);
    return status;
}

/* The text is the C library's, since whoever releases it has no allocator at hand. */
FM_API fm_status fm_chat_render(const fm_chat *c, const fm_message *messages, size_t n, bool generation_prompt, char **out,
                                fm_error *err)
{
    fm_jinja_output o;
    *out = NULL;
    FM_TRY(render(c, messages, n, generation_prompt, &o, err));
    *out = fm_strdup(NULL, o.text.p ? o.text.p : "", o.text.n, err);
    fm_jinja_output_free(&o);
    return *out ? FM_OK : FM_ERR_MEMORY;
}

FM_API void fm_text_free(char *text)
{
    fm_free(NULL, text);
}
