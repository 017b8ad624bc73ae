/* chat.h - a chat prompt from messages: template, variables, and tokenization that respects the taint. */
#ifndef FM_TEXT_CHAT_H
#define FM_TEXT_CHAT_H

#include "text/jinja.h"

/* As fm_chat_open(), for callers below the model: `source` is a template's text, "chatml", "falcon3" or NULL (ChatML);
 * `t` gives bos_token, eos_token and the ids; it must outlive the chat. */
fm_status fm_chat_build(fm_chat **out, const char *source, const fm_tokenizer *t, const fm_allocator *a, fm_error *err);

/* Renders with messages, tools and further variables given as one JSON object ("messages", "add_generation_prompt", ...). */
fm_status fm_chat_render_json(const fm_chat *c, fm_view variables, fm_jinja_output *out, fm_error *err);

#endif
