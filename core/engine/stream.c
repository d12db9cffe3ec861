/* stream.c - text of generated ids as it arrives, thoughts and answer apart.
 *
 * Where <think> and </think> are added tokens they are recognised by id; a tokenizer without them
 * spells them in pieces, then they are found in the text and what may still become a mark is held
 * back. Either way text waits in `held` until it surely belongs to the current part, and one call
 * takes text of one part only: what follows a mark in the same id comes with the next call. */
#include "core/base/mem.h"
#include "core/engine/private.h"

#include <string.h>

struct vq_stream {
    const vq_engine *eng;
    vq_detok detok;
    vq_buf held;            /* decoded, not yet given out */
    bool in_think;
    bool skip;              /* behind a mark: newlines belong to neither part */
    bool by_text;           /* no ids for the marks */
};

static const char OPEN[] = "<think>", CLOSE[] = "</think>";

vq_status vq_stream_open(vq_stream **out, const vq_engine *eng, bool in_think, vq_err *e)
{
    vq_stream *st = *out = vq_calloc(1, sizeof *st);
    if (!st) return vq_fail(e, VQ_ENOMEM, "out of memory");
    st->eng = eng;
    st->in_think = in_think;
    st->skip = in_think; /* the prompt ended with the opening mark */
    st->by_text = eng->info.think < 0 || eng->info.end_think < 0;
    return VQ_OK;
}

void vq_stream_close(vq_stream *st)
{
    if (!st) return;
    vq_buf_clear(&st->held);
    vq_free(st);
}

static void drop_front(vq_buf *b, size_t n)
{
    if (n) memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
    if (b->p) b->p[b->n] = 0;
}

static void skip_newlines(vq_stream *st)
{
    size_t n = 0;
    while (st->skip && n < st->held.n && st->held.p[n] == '\n') n++;
    if (n < st->held.n) st->skip = false;
    drop_front(&st->held, n);
}

/* Index of the mark in held, or of the tail that may become it, or held.n; *whole says which. */
static size_t find_mark(const vq_buf *b, const char *mark, size_t n_mark, bool *whole)
{
    *whole = false;
    for (size_t i = 0; i < b->n; i++) {
        const size_t n = b->n - i < n_mark ? b->n - i : n_mark;
        if (memcmp(b->p + i, mark, n)) continue;
        *whole = n == n_mark;
        return i;
    }
    return b->n;
}

/* Gives out what surely belongs to the current part. */
static vq_part give(vq_stream *st, vq_buf *out, bool end)
{
    for (;;) {
        skip_newlines(st);
        size_t n = st->held.n;
        bool whole = false;
        const char *mark = st->in_think ? CLOSE : OPEN;
        if (st->by_text) n = find_mark(&st->held, mark, strlen(mark), &whole);
        if (end && !whole) n = st->held.n;
        if (n == 0 && whole) {
            drop_front(&st->held, strlen(mark));
            st->in_think = !st->in_think;
            st->skip = true;
            continue;
        }
        const vq_part part = st->in_think ? VQ_PART_THINK : VQ_PART_ANSWER;
        if (n) vq_buf_add(out, st->held.p, n);
        if (st->held.oom) out->oom = true;
        drop_front(&st->held, n);
        return part;
    }
}

vq_part vq_stream_put(vq_stream *st, int32_t id, vq_buf *out)
{
    const vq_info *i = &st->eng->info;
    const vq_tok *tok = st->eng->tok;
    const bool mark = !st->by_text && (id == i->think || id == i->end_think);
    if (!tok) return st->in_think ? VQ_PART_THINK : VQ_PART_ANSWER;
    if (mark || id == i->eos) vq_detok_end(&st->detok, &st->held);
    else vq_detok_put(tok, &st->detok, id, &st->held);
    const vq_part part = give(st, out, false);
    if (mark) {
        st->in_think = id == i->think;
        st->skip = true;
    }
    return part;
}

vq_part vq_stream_end(vq_stream *st, vq_buf *out)
{
    vq_detok_end(&st->detok, &st->held);
    return give(st, out, true);
}
