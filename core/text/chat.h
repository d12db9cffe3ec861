/* chat.h - conversations into prompts: the templates of models.md 8, hard-coded.
 *
 * The rendering is a sequence of marks (added tokens, by id) and stretches of caller's text (always
 * plain), so no user text can become a control token.  The text that a Jinja renderer would print
 * comes beside it for people and tests. */
#ifndef CORE_TEXT_CHAT_H
#define CORE_TEXT_CHAT_H

#include "core/base/types.h"
#include "core/text/tok.h"

/* Recognises chat_template text; a vaq_template id, 0 (none) when absent or unknown. */
int vq_chat_recognise(vq_str chat_template);

typedef struct vq_chat_opts {
    int template_id;        /* vaq_template; must not be 0 */
    bool add_generation;    /* open the assistant's turn at the end */
    bool force_think;       /* R1 family: print "<think>\n" there although the template does not */
} vq_chat_opts;

/* Appends to ids and text (either may be NULL).  VQ_EUSAGE: a message the template cannot print
 * (null content without tool calls), naming which. */
vq_status vq_chat_render(const vq_tok *t, const vq_chat_opts *o, const vq_message *m, size_t n,
                         vq_ids *ids, vq_buf *text, vq_err *e);

/* Do prompts made by this template (with these opts) end inside the thoughts?  (Not behind tool
 * results: there the turn goes on.) */
bool vq_chat_opens_think(const vq_chat_opts *o);
/* The same of a rendered prompt: is its last think mark an opening one? */
bool vq_chat_ids_open_think(const vq_tok *t, const int32_t *id, size_t n);

/* Messages from JSON: an array of {role, content, tool_calls[]} or an object with "messages".
 * Strings live in *out. */
typedef struct vq_messages {
    vq_message *m;          /* (n) */
    size_t n;
    bool add_generation;    /* of an object's "add_generation_prompt"; true when absent */
    struct vq_json *doc_;
    vq_tool_call *calls_;
    char *text_;
} vq_messages;
vq_status vq_messages_parse(vq_messages *out, const char *p, size_t n, const char *what, vq_err *e);
void vq_messages_clear(vq_messages *m);


#endif
