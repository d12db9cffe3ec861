/* messages.c - conversations from JSON for verbs that know nothing of the text layer (app.h). */
#include "core/app/app.h"

#include "core/base/mem.h"
#include "core/text/chat.h"

vq_status app_messages_parse(app_messages *out, const char *p, size_t n, const char *what,
                             vq_err *e)
{
    *out = (app_messages){ 0 };
    vq_messages *own = vq_calloc(1, sizeof *own);
    if (!own) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", what);
    const vq_status st = vq_messages_parse(own, p, n, what, e);
    if (st) {
        vq_free(own);
        return st;
    }
    *out = (app_messages){ own->m, own->n, own->add_generation, own };
    return VQ_OK;
}

void app_messages_clear(app_messages *m)
{
    if (m->own_) vq_messages_clear(m->own_);
    vq_free(m->own_);
    *m = (app_messages){ 0 };
}
