/* chat_open.c - a model's chat: its own template, or one that the caller gives. */
#include "model/model.h"
#include "text/chat.h"

FM_API const char *fm_model_chat_template(const fm_model *m)
{
    return m->chat_template;
}

FM_API fm_status fm_chat_open(fm_chat **out, const fm_model *m, const char *source, fm_error *err)
{
    *out = NULL;
    if (!m->tokenizer)
        return fm_fail(err, FM_ERR_UNSUPPORTED, "%s came without a tokenizer, which a chat needs", m->source.path);
    return fm_chat_build(out, source ? source : m->chat_template, m->tokenizer, m->a, err);
}
