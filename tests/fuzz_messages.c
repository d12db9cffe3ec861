/* fuzz_messages.c - any bytes as a conversation: parsed or refused, and its strings can be read. */
#include "core/text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static size_t sum(vq_str s)
{
    size_t t = 0;
    for (size_t i = 0; i < s.n; i++) t += (unsigned char)s.p[i];
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    vq_messages m;
    vq_err e;
    if (vq_messages_parse(&m, (const char *)p, n, "fuzz", &e)) return 0;
    size_t t = 0;
    for (size_t i = 0; i < m.n; i++) {
        t += sum(m.m[i].content);
        for (int k = 0; k < m.m[i].n_calls; k++) {
            const vq_tool_call *c = &m.m[i].calls[k];
            t += sum(c->name) + sum(c->arguments) + sum(c->type);
        }
    }
    vq_messages_clear(&m);
    return t == SIZE_MAX;
}
