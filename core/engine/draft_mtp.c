/* draft_mtp.c - guesses by the model's own draft head (model/mtp.c).
 *
 * The head has keys and values of its own, a row per position, each made from the model's state
 * there and the id that came next.  Rows are made when both are known and somebody asks: a prompt's
 * at once, from the states of the pass; those of single ids wait, states kept, until the next
 * proposal or until there is no more room, so that a head that is switched off costs little; if
 * even that is more than its owner allows (a model of a few layers), none are made any more.
 * Invariant: rows are made for all positions below `made`, and state[i] belongs to
 * position made + i.  When positions are missed (ids computed before the drafter came) there is
 * nothing to go on from and no more guesses are made.
 *
 * Guess k feeds on guess k - 1 and on what the head itself knew there; those rows are written over
 * once the true ids are known. */
#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/engine/draft.h"
#include "core/engine/private.h"

#include <string.h>

enum {
    ROOM = VQ_MTP_STATES - 2,   /* states that wait; two more for the chain of guesses */
    PROMPT = 8                  /* ids of a pass from which on their rows are made at once */
};

typedef struct mtp {
    vq_drafter base;
    vq_engine *eng;
    vq_seq *seq;                /* of the session */
    size_t made;                /* rows */
    int waiting;                /* states */
    bool lost;                  /* a position was missed */
    double row_s;               /* seconds of a row made behind a pass; 0: not known */
    float *state;               /* (VQ_MTP_STATES, hidden) */
    float *logits;              /* (n_vocab) */
} mtp;

static float *state_at(const mtp *d, int i)
{
    return d->state + (size_t)i * (size_t)d->eng->model.hidden;
}

/* Rows of `n` positions from d->made on, states `ld` floats apart; the last may want more. */
static bool make_rows(mtp *d, const int32_t *ids, int n, const float *state, size_t ld,
                      float *state_out, float *logits)
{
    vq_mtp_row row[ROOM];
    vq_engine *eng = d->eng;
    const uint32_t from = (uint32_t)d->made;
    if (!vq_seq_reserve(&eng->kv, d->seq, from, from + (uint32_t)n)) return false;
    for (int i = 0; i < n;) {
        int m = n - i < ROOM ? n - i : ROOM;
        if (m > eng->plan.max_rows) m = eng->plan.max_rows;
        for (int j = 0; j < m; j++, i++) {
            const bool last = i + 1 == n;
            row[j] = (vq_mtp_row){ .seq = d->seq, .pos = (uint32_t)d->made + (uint32_t)j,
                                   .token = ids[d->made + (size_t)j + 1],
                                   .state = state + (size_t)i * ld,
                                   .state_out = last ? state_out : NULL,
                                   .logits = last ? logits : NULL };
        }
        if (vq_fw_mtp(eng->fw, row, m, NULL)) return false;
        d->made += (size_t)m;
    }
    return true;
}

/* Rows of the waiting states up to position `end`. */
static bool catch_up(mtp *d, const int32_t *ids, size_t end, float *state_out, float *logits)
{
    const int n = (int)(end - d->made), hidden = d->eng->model.hidden;
    if (n <= 0) return true;
    const int left = d->waiting - n;
    if (!make_rows(d, ids, n, d->state, (size_t)hidden, state_out, logits)) return false;
    memmove(d->state, state_at(d, n), (size_t)left * (size_t)hidden * sizeof *d->state);
    d->waiting = left;
    return true;
}

static void cut(vq_drafter *base, const int32_t *ids, size_t n)
{
    mtp *d = (mtp *)base;
    (void)ids;
    const size_t rows = n ? n - 1 : 0; /* the row of a position knows the id behind it */
    if (rows < d->made) {
        d->made = rows;
        d->waiting = 0;
    } else if (d->made + (size_t)d->waiting > n) {
        d->waiting = (int)(n - d->made);
    }
    if (!n) d->lost = false;
}

static void saw(vq_drafter *base, const int32_t *ids, size_t n, size_t first, int rows,
                const float *state, size_t ld)
{
    mtp *d = (mtp *)base;
    const size_t hidden = (size_t)d->eng->model.hidden;
    if (d->lost) return;
    if (first < d->made) cut(base, ids, first + 1); /* computed again */
    if (first < d->made + (size_t)d->waiting) d->waiting = (int)(first - d->made);
    d->lost = first != d->made + (size_t)d->waiting;
    /* Of positions below n - 1 the next id is known. */
    const size_t end = first + (size_t)rows < n ? first + (size_t)rows : n - 1, made = d->made;
    const bool full = d->waiting + rows > ROOM && end < first + PROMPT;
    const double start = full || end >= first + PROMPT ? vq_now() : 0;
    if (full && base->allowed_s > 0 && d->row_s > base->allowed_s) d->lost = true;
    if (!d->lost && end >= first + PROMPT) {
        d->lost = !catch_up(d, ids, first, NULL, NULL)
               || !make_rows(d, ids, (int)(end - first), state, ld, NULL, NULL);
        state += (end - first) * ld;
        rows -= (int)(end - first);
    }
    if (!d->lost && full) d->lost = !catch_up(d, ids, first, NULL, NULL);
    if (d->made > made) d->row_s = (vq_now() - start) / (double)(d->made - made);
    for (int i = 0; !d->lost && i < rows; i++)
        memcpy(state_at(d, d->waiting++), state + (size_t)i * ld, hidden * sizeof *state);
    /* The row of the latest is part of guessing. */
    base->behind_s = d->waiting > 1 ? (float)(d->row_s * (d->waiting - 1)) : 0;
}

static int propose(vq_drafter *base, const int32_t *ids, size_t n, vq_guess *out, int most)
{
    mtp *d = (mtp *)base;
    const vq_engine *eng = d->eng;
    float *chain[2] = { state_at(d, ROOM), state_at(d, ROOM + 1) };
    if (d->lost || n < 2 || d->made + (size_t)d->waiting < n - 1 || d->made >= n - 1) return 0;
    if (!catch_up(d, ids, n - 1, chain[0], d->logits)) {
        d->lost = true;
        return 0;
    }
    d->waiting = 0; /* what is behind was computed for other ids */
    for (int i = 0; i < most; i++) {
        out[i].id = eng->kern.argmax(d->logits, eng->model.n_ids);
        out[i].rank = i < VQ_DRAFT_CLASSES ? VQ_DRAFT_CLASSES - 1 - i : 0;
        if (i + 1 == most) break;
        const uint32_t pos = (uint32_t)(n - 1) + (uint32_t)i;
        const vq_mtp_row row = { .seq = d->seq, .pos = pos, .token = out[i].id,
                                 .state = chain[i % 2], .state_out = chain[(i + 1) % 2],
                                 .logits = d->logits };
        if (!vq_seq_reserve(&d->eng->kv, d->seq, pos, pos + 1)
            || vq_fw_mtp(eng->fw, &row, 1, NULL))
            return i + 1;
    }
    return most;
}

static void release(vq_drafter *base)
{
    mtp *d = (mtp *)base;
    vq_free(d->state);
    vq_free(d->logits);
    vq_free(d);
}

vq_status vq_mtp_new(vq_drafter **out, vq_session *s, vq_err *e)
{
    vq_engine *eng = s->eng;
    *out = NULL;
    if (!eng->plan.mtp)
        return vq_fail(e, VQ_EUSAGE, "%s: this model has no draft head (MTP); n-gram drafts need "
                                     "none", eng->file->path);
    mtp *d = vq_calloc(1, sizeof *d);
    if (!d) return vq_fail(e, VQ_ENOMEM, "out of memory");
    d->base = (vq_drafter){
        .propose = propose, .cut = cut, .saw = saw, .dear = true, .close = release
    };
    d->eng = eng;
    d->seq = &s->seq;
    d->lost = s->done > 0;
    d->state = vq_calloc(VQ_MTP_STATES * (size_t)eng->model.hidden, sizeof *d->state);
    d->logits = vq_calloc((size_t)eng->model.n_vocab, sizeof *d->logits);
    if (!d->state || !d->logits) {
        release(&d->base);
        return vq_fail(e, VQ_ENOMEM, "out of memory");
    }
    *out = &d->base;
    return VQ_OK;
}
