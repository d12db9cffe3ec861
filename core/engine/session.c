/* session.c - sequences: what is queued, what is computed, what comes next.
 *
 * A session's ids are one array; ids[0..done) are in the cache, ids[done..n) are queued.  Every
 * computation is a pass over a list of rows made of the queued ids of one or many sessions, and
 * only a pass that succeeds moves `done`: an interrupted or failed one leaves its sessions as they
 * were.
 *
 * Drafts are rows behind the last queued id.  What they gave (keys and values in the cache, a line
 * of logits each) waits as `ahead`, a stock of rows that are right for one continuation.  When ids
 * are to be computed and begin with that continuation, `done` walks over them and there is nothing
 * to compute; at the first other id the rest is dropped.  Nothing else knows of drafts: ids are
 * drawn one by one from the logits after the last, drafted for or not. */
#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/engine/private.h"

#include <string.h>

enum { HEAD_ROWS = 8 }; /* rows of logits made at a time by logits_all */

/* ---- life ---- */

static vq_status start_drafting(vq_session *s, vq_err *e)
{
    const vq_engine *eng = s->eng;
    if (!eng->plan.max_draft)
        return vq_fail(e, VQ_EUSAGE, "the engine was not opened for drafts (max_draft)");
    vq_pace_init(&s->pace, s->o.draft);
    if (s->o.draft == VQ_DRAFT_MTP || (s->o.draft == VQ_DRAFT_AUTO && eng->plan.mtp))
        return vq_mtp_new(&s->drafter, s, e);
    return vq_ngram_new(&s->drafter, eng->plan.ctx, e);
}

vq_status vq_session_open(vq_session **out, vq_engine *eng, const vq_session_opts *o, vq_err *e)
{
    static const vq_session_opts greedy;
    *out = NULL;
    if (!o) o = &greedy;
    vq_status st = vq_sampling_check(&o->sampling, e);
    if (st) return st;
    int slot = 0;
    while (slot < eng->plan.max_sessions && eng->slot[slot]) slot++;
    if (slot == eng->plan.max_sessions)
        return vq_fail(e, VQ_ENOFIT, "%d sequences are open, more were not planned for", slot);
    vq_session *s = vq_calloc(1, sizeof *s);
    if (!s) return vq_fail(e, VQ_ENOMEM, "out of memory");
    s->eng = eng;
    s->slot = slot;
    s->o = *o;
    s->line = eng->logits + (size_t)slot * (size_t)(1 + eng->plan.max_draft)
                                * (size_t)eng->model.n_vocab;
    s->logits = s->line;
    st = vq_seq_init(&s->seq, eng->plan.ctx, e);
    if (!st && o->draft) st = start_drafting(s, e);
    if (!st && !(s->ids = vq_calloc(eng->plan.ctx, sizeof *s->ids)))
        st = vq_fail(e, VQ_ENOMEM, "out of memory");
    eng->slot[slot] = s;
    if (st) {
        vq_session_close(s);
        return st;
    }
    *out = s;
    return VQ_OK;
}

void vq_session_close(vq_session *s)
{
    if (!s) return;
    s->eng->slot[s->slot] = NULL;
    vq_seq_clear(&s->eng->kv, &s->seq);
    if (s->drafter) s->drafter->close(s->drafter);
    vq_free(s->ids);
    vq_free(s);
}

void vq_session_use_drafter(vq_session *s, vq_drafter *d)
{
    if (s->drafter) s->drafter->close(s->drafter);
    s->drafter = d;
    s->pace = (vq_pace){ .by = VQ_PACE_ALL };
}

/* The drafts that wait are of no use any more. */
static void drop_ahead(vq_session *s)
{
    if (s->met == s->n_ahead) return;
    s->met = s->n_ahead = 0;
    vq_seq_truncate(&s->eng->kv, &s->seq, (uint32_t)s->done);
}

vq_status vq_session_check(const vq_session *s, vq_err *e)
{
    if (!s->bad) return VQ_OK;
    char where[64];
    vq_bad_text(where, s->bad);
    return vq_fail(
        e, VQ_EFAIL,
        "%s: a value was not finite (%s, position %zu); this sequence is ended. The file may "
        "be damaged: vaquita verify",
        s->eng->file->path, where, s->bad_pos);
}

vq_status vq_session_fork(vq_session **out, vq_session *s, const vq_session_opts *o, vq_err *e)
{
    *out = NULL;
    vq_status st = vq_session_check(s, e);
    if (!st) st = vq_session_open(out, s->eng, o, e);
    if (st) return st;
    vq_session *t = *out;
    memcpy(t->ids, s->ids, s->n * sizeof *t->ids);
    t->n = s->n;
    t->done = s->done;
    t->has_logits = s->has_logits;
    if (t->has_logits)
        memcpy(t->logits, s->logits, (size_t)s->eng->model.n_vocab * sizeof *t->logits);
    vq_seq_share(&s->eng->kv, &t->seq, &s->seq, (uint32_t)s->done);
    return VQ_OK;
}

/* A prompt of n ids and at least one of an answer need more positions than there are. */
static vq_status too_long(const vq_engine *eng, size_t n, vq_err *e)
{
    const uint32_t ctx = eng->plan.ctx, limit = eng->info.ctx_model;
    if (ctx < limit && n < limit)
        return vq_fail(e, VQ_ENOFIT,
                       "a prompt of %zu tokens and its answer do not fit a context of %u "
                       "positions: take a larger --ctx (up to %u) or a shorter prompt",
                       n, ctx, limit);
    return vq_fail(e, VQ_ENOFIT,
                   "a prompt of %zu tokens and its answer do not fit a context of %u positions, "
                   "and this model takes %u: shorten the prompt", n, ctx, limit);
}

static vq_status append(vq_session *s, const int32_t *ids, size_t n, vq_err *e)
{
    const vq_engine *eng = s->eng;
    if (n > eng->plan.ctx - s->n) return too_long(eng, s->n + n, e);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= eng->model.n_vocab)
            return vq_fail(e, VQ_EUSAGE, "id %d is not in the vocabulary (0 to %d)", (int)ids[i],
                           eng->model.n_vocab - 1);
    if (n) memcpy(s->ids + s->n, ids, n * sizeof *ids);
    s->n += n;
    return VQ_OK;
}

vq_status vq_session_add(vq_session *s, const int32_t *ids, size_t n, vq_err *e)
{
    vq_status st = vq_session_check(s, e);
    if (!st) st = append(s, ids, n, e);
    if (st) return st;
    s->finish = VQ_RUNNING;
    s->n_new = 0;
    return VQ_OK;
}

vq_status vq_session_truncate(vq_session *s, size_t n, vq_err *e)
{
    vq_status st = vq_session_check(s, e);
    if (st) return st;
    if (n > s->n) return vq_fail(e, VQ_EUSAGE, "cannot cut %zu ids to %zu", s->n, n);
    if (n < s->done) {
        drop_ahead(s);
        s->done = n;
        s->has_logits = false;
        vq_seq_truncate(&s->eng->kv, &s->seq, (uint32_t)n);
        vq_pace_forget(&s->pace);
    }
    if (s->drafter && s->drafter->cut && n < s->n) s->drafter->cut(s->drafter, s->ids, n);
    s->n = n;
    s->finish = VQ_RUNNING;
    s->n_new = 0;
    return VQ_OK;
}

/* ---- computing ---- */

/* What is queued and was computed ahead is taken over. */
static void take_ahead(vq_session *s)
{
    if (!s->drafter) return;
    while (s->done < s->n) {
        const int32_t id = s->ids[s->done];
        vq_pace_meet(&s->pace, id);
        if (s->met == s->n_ahead) break;
        if (s->ahead[s->met] != id) {
            drop_ahead(s);
            break;
        }
        s->met++;
        s->done++;
        s->logits += s->eng->model.n_vocab;
        s->stats.accepted++;
    }
}

/* Asks for drafts behind the one queued id, at most `room`; what was chosen goes to s->ahead. */
static int choose_drafts(vq_session *s, size_t room, bool alone)
{
    const vq_engine *eng = s->eng;
    vq_pace *p = &s->pace;
    if (!s->drafter || s->n - s->done != 1) return 0;
    /* A pass with k drafts is good for k + 1 ids: no more than fit and are wanted. */
    size_t left = eng->plan.ctx - s->n;
    if (s->o.max_new && s->o.max_new - s->n_new < left) left = s->o.max_new - s->n_new;
    if (room >= left) room = left ? left - 1 : 0;
    if (room > (size_t)eng->plan.max_draft) room = (size_t)eng->plan.max_draft;
    const bool may = room > 0 && (alone || p->by != VQ_PACE_TIME), dear = s->drafter->dear;
    vq_noalloc_enter();
    vq_pace_forget(p);
    if (may && dear) room = (size_t)vq_pace_afford(p, (int)room, s->drafter->behind_s);
    if (room && (may || !dear))
        p->n = s->drafter->propose(s->drafter, s->ids, s->n, p->guess, (int)room);
    for (int i = 0; i < p->n; i++)
        if (p->guess[i].id < 0 || p->guess[i].id >= eng->model.n_vocab) p->n = i;
    const int k = !p->n || !may ? 0 : dear ? p->n : vq_pace_choose(p);
    vq_noalloc_leave();
    for (int i = 0; i < k; i++) s->ahead[i] = p->guess[i].id;
    return k;
}

/* Appends up to `room` queued ids of s as rows, and the drafts chosen; the last queued one and they
 * get logits. */
static vq_status make_rows(vq_session *s, int at, size_t room, bool logits, vq_err *e)
{
    vq_engine *eng = s->eng;
    const size_t left = s->n - s->done, n = left < room ? left : room;
    const size_t all = n + (size_t)s->drafts;
    float *line = s->line;
    s->rows = 0;
    if (!n) return VQ_OK;
    if (!vq_seq_reserve(&eng->kv, &s->seq, (uint32_t)s->done, (uint32_t)(s->done + all)))
        return vq_fail(e, VQ_ENOFIT, "the cache is full"); /* cannot be: see kv.c */
    for (size_t i = 0; i < all; i++) {
        const bool wanted = logits && s->done + i + 1 >= s->n;
        eng->row[at + (int)i] = (vq_row){ .seq = &s->seq, .pos = (uint32_t)(s->done + i),
                                          .token = i < n ? s->ids[s->done + i] : s->ahead[i - n],
                                          .logits = wanted ? line : NULL };
        if (wanted) line += eng->model.n_vocab;
    }
    s->rows = (int)n;
    return VQ_OK;
}

/* What row i of the session said; the first bad one ends it. */
static void take_rows(vq_session *s, const vq_row *row)
{
    for (int i = 0; i < s->rows && !s->bad; i++) {
        if (!row[i].bad) continue;
        s->bad = row[i].bad;
        s->bad_pos = row[i].pos;
    }
}

/* The queued ids were computed.  Drafts up to the first that is not finite wait. */
static void take_pass(vq_session *s, const vq_row *row)
{
    s->done += (size_t)s->rows;
    s->has_logits = s->done == s->n;
    s->logits = s->line;
    s->met = s->n_ahead = 0;
    if (!s->drafts) return;
    s->stats.verifications++;
    s->stats.drafted += (uint64_t)s->drafts;
    while (s->n_ahead < s->drafts && !row[s->rows + s->n_ahead].bad) s->n_ahead++;
    if (s->n_ahead < s->drafts)
        vq_seq_truncate(&s->eng->kv, &s->seq, (uint32_t)(s->done + (size_t)s->n_ahead));
}

/* Row `at` of the pass was the session's first: tells the drafter what the model knew there.  Rows
 * that were not finite are behind those that are told. */
static void tell_drafter(vq_session *s, int at)
{
    const vq_fw *fw = s->eng->fw;
    if (!s->drafter || !s->drafter->saw || !s->rows || s->bad) return;
    const float *state = vq_fw_state(fw, at);
    s->drafter->allowed_s = vq_pace_upkeep(&s->pace);
    vq_noalloc_enter();
    s->drafter->saw(s->drafter, s->ids, s->n, s->done - (size_t)s->rows, s->rows + s->n_ahead,
                    state, (size_t)(vq_fw_state(fw, at + 1) - state));
    vq_noalloc_leave();
}

static bool stopping(const vq_engine *eng)
{
    return atomic_load_explicit(&eng->stop, memory_order_relaxed) != 0;
}

static vq_status run_pass(vq_engine *eng, int n, vq_err *e)
{
    vq_noalloc_enter();
    const vq_status st = vq_fw_run(eng->fw, eng->row, n, e);
    vq_noalloc_leave();
    if (!st && vq_map_hurt(&eng->file->map))
        return vq_fail(e, VQ_EFORMAT,
                       "%s: the file changed or was cut while in use; vaquita verify tells more",
                       eng->file->path);
    return st;
}

vq_status vq_step(vq_engine *eng, vq_session *const *s, int n, int chunk, size_t *left, vq_err *e)
{
    const int most = chunk > 0 && chunk < eng->plan.max_rows ? chunk : eng->plan.max_rows;
    size_t queued = 0;
    int rows = 0, busy = 0;
    vq_session *single = NULL;
    vq_status st = VQ_OK;
    *left = 0;
    for (int i = 0; i < n; i++) {
        if (s[i]->eng != eng) return vq_fail(e, VQ_EUSAGE, "a session of another engine");
        for (int j = 0; j < i; j++)
            if (s[j] == s[i]) return vq_fail(e, VQ_EUSAGE, "a session is listed twice");
    }
    for (int i = 0; i < n; i++) {
        s[i]->rows = s[i]->drafts = 0;
        if (s[i]->bad || s[i]->n == s[i]->done) continue;
        if (stopping(eng)) st = vq_fail(e, VQ_EINTR, "interrupted"); /* as a pass would find */
        else take_ahead(s[i]);
        queued += s[i]->n - s[i]->done;
        if (s[i]->n > s[i]->done) {
            busy++;
            single = s[i];
        }
    }
    /* Making dear guesses belongs to the time of their pass. */
    const bool paced = busy == 1 && queued == 1 && single->drafter;
    const bool dear = paced && single->drafter->dear;
    double start = dear ? vq_now() : 0;
    /* Drafts take the rows that queued ids leave. */
    size_t spare = queued < (size_t)most ? (size_t)most - queued : 0;
    for (int i = 0; i < n && !st; i++) {
        if (s[i]->bad) continue;
        s[i]->drafts = choose_drafts(s[i], spare, busy == 1);
        spare -= (size_t)s[i]->drafts;
        st = make_rows(s[i], rows, (size_t)(most - rows), true, e);
        rows += s[i]->rows + s[i]->drafts;
    }
    const bool timed = paced && vq_pace_wants_time(&single->pace, single->drafts);
    if (timed && !dear) start = vq_now();
    if (!st && rows) st = run_pass(eng, rows, e);
    const vq_row *row = eng->row;
    const vq_session *ended = NULL;
    for (int i = 0; i < n; i++) {
        if (!st && s[i]->rows) {
            take_rows(s[i], row);
            if (!s[i]->bad) take_pass(s[i], row);
            else if (!ended) ended = s[i];
            tell_drafter(s[i], (int)(row - eng->row));
            row += s[i]->rows + s[i]->drafts;
        }
        if (!s[i]->bad) *left += s[i]->n - s[i]->done;
    }
    if (!st && paced) vq_pace_pass(&single->pace, rows, timed ? vq_now() - start : -1);
    return st ? st : ended ? vq_session_check(ended, e) : VQ_OK;
}

void vq_session_on_prefill(vq_session *s, vq_prefill_fn *fn, void *ctx)
{
    s->prefill = fn;
    s->prefill_ctx = ctx;
}

static vq_status tell(const vq_session *s, size_t done, size_t total, vq_err *e)
{
    if (s->prefill && s->prefill(s->prefill_ctx, done, total))
        return vq_fail(e, VQ_EINTR, "interrupted");
    return VQ_OK;
}

/* Computes what is queued; after a cut the last id has no logits: then that one again. */
static vq_status catch_up(vq_session *s, vq_err *e)
{
    if (s->n == 0)
        return vq_fail(e, VQ_EUSAGE, "the sequence is empty: there is nothing to go on from");
    const bool again = s->n == s->done && !s->has_logits;
    if (again) s->done--;
    const size_t from = s->done, total = s->n - from;
    while (s->done < s->n) {
        size_t left;
        vq_status st = vq_step(s->eng, &s, 1, 0, &left, e);
        if (!st && total > 1) st = tell(s, s->done - from, total, left ? e : NULL);
        if (st && (st != VQ_EINTR || s->done < s->n)) {
            if (again) s->done = s->n; /* its keys and values stand: the same were written again */
            return st;
        }
    }
    return VQ_OK;
}

/* ---- drawing ---- */

vq_status vq_session_sample(vq_session *s, int32_t *id, vq_err *e)
{
    vq_status st = vq_session_check(s, e);
    if (st) return st;
    if (s->done < s->n) return vq_fail(e, VQ_EUSAGE, "%zu ids are still queued", s->n - s->done);
    st = catch_up(s, e);
    if (st) return st;
    vq_noalloc_enter();
    *id = vq_sample(&s->eng->sampler, &s->eng->kern, s->logits, &s->o.sampling, (uint32_t)s->n);
    vq_noalloc_leave();
    return VQ_OK;
}

vq_status vq_session_next(vq_session *s, int32_t *id, vq_err *e)
{
    vq_status st = vq_session_check(s, e);
    if (st) return st;
    if (s->finish) return vq_fail(e, VQ_EUSAGE, "the sequence is finished");
    if (s->n == s->eng->plan.ctx)
        return too_long(s->eng, s->n, e);
    st = catch_up(s, e);
    if (!st) st = vq_session_sample(s, id, e);
    if (!st) st = append(s, id, 1, e);
    if (st) return st;
    s->n_new++;
    if (*id == s->eng->info.eos && !s->o.ignore_eos) s->finish = VQ_FINISH_STOP;
    else if (s->n_new == s->o.max_new || s->n == s->eng->plan.ctx) s->finish = VQ_FINISH_LENGTH;
    return VQ_OK;
}

vq_draft_stats vq_session_draft_stats(const vq_session *s) { return s->stats; }
vq_finish vq_session_finished(const vq_session *s) { return s->finish; }
size_t vq_session_len(const vq_session *s) { return s->n; }
const int32_t *vq_session_ids(const vq_session *s) { return s->ids; }

const float *vq_session_logits(const vq_session *s)
{
    return s->has_logits && s->done == s->n && !s->bad ? s->logits : NULL;
}

/* ---- whole stretches ---- */

/* Hands out the logits of the rows of the latest pass, HEAD_ROWS at a time. */
static vq_status give_rows(vq_session *s, float *buf, vq_logits_fn *row, void *ctx, vq_err *e)
{
    vq_engine *eng = s->eng;
    const size_t vocab = (size_t)eng->model.n_vocab;
    const int n = s->rows;
    for (int i = 0; i < n; i += HEAD_ROWS) {
        const int m = n - i < HEAD_ROWS ? n - i : HEAD_ROWS;
        vq_fw_head(eng->fw, i, m, buf, vocab);
        take_rows(s, eng->row);
        vq_status st = vq_session_check(s, e);
        for (int j = 0; !st && j < m; j++)
            st = row(ctx, eng->row[i + j].pos, buf + (size_t)j * vocab, e);
        if (st) return st;
        if (i + m == n) memcpy(s->line, buf + (size_t)(m - 1) * vocab, vocab * sizeof *buf);
    }
    return VQ_OK;
}

static vq_status all_logits(vq_session *s, int chunk, float *buf, vq_logits_fn *row, void *ctx,
                            vq_err *e)
{
    vq_engine *eng = s->eng;
    const size_t from = s->done, total = s->n - from;
    const int most = chunk > 0 && chunk < eng->plan.max_rows ? chunk : eng->plan.max_rows;
    drop_ahead(s);
    s->drafts = 0;
    while (s->done < s->n) {
        vq_status st = make_rows(s, 0, (size_t)most, !buf, e);
        if (!st) st = run_pass(eng, s->rows, e);
        if (st) return st;
        take_rows(s, eng->row);
        st = vq_session_check(s, e);
        if (!st && buf) st = give_rows(s, buf, row, ctx, e);
        if (st) return st;
        take_pass(s, eng->row);
        tell_drafter(s, 0);
        st = tell(s, s->done - from, total, e);
        if (st && s->done < s->n) return st;
    }
    return buf ? VQ_OK : row(ctx, s->n - 1, s->logits, e);
}

vq_status vq_session_logits_all(vq_session *s, const int32_t *ids, size_t n, int chunk,
                                bool last_only, vq_logits_fn *row, void *ctx, vq_err *e)
{
    const size_t before = s->n;
    vq_status st = vq_session_check(s, e);
    if (st) return st;
    if (s->done < s->n) return vq_fail(e, VQ_EUSAGE, "%zu ids are still queued", s->n - s->done);
    if (!n) return VQ_OK;
    st = vq_session_add(s, ids, n, e);
    if (st) return st;
    float *buf = NULL;
    if (!last_only) {
        buf = vq_aligned(64, HEAD_ROWS * (size_t)s->eng->model.n_vocab * sizeof *buf);
        if (!buf) st = vq_fail(e, VQ_ENOMEM, "out of memory");
    }
    if (!st) st = all_logits(s, chunk, buf, row, ctx, e);
    vq_aligned_free(buf);
    if (st && !s->bad) vq_session_truncate(s, before, NULL);
    return st;
}

vq_status vq_session_pad(vq_session *s, size_t n, vq_err *e)
{
    vq_engine *eng = s->eng;
    if (n < s->n || s->done < s->n || n > eng->plan.ctx)
        return vq_fail(e, VQ_EUSAGE, "cannot pad %zu ids to %zu", s->n, n);
    drop_ahead(s);
    const int first = s->seq.n;
    if (!vq_seq_reserve(&eng->kv, &s->seq, (uint32_t)s->n, (uint32_t)n))
        return vq_fail(e, VQ_ENOFIT, "the cache is full");
    /* Written, not left as untouched zero pages: those would be read from cache, not from memory.
     * Bytes of 1 are valid codes and, as floats, tiny and positive. */
    for (int i = first; i < s->seq.n; i++)
        memset(eng->kv.mem + (size_t)s->seq.block[i] * eng->kv.block_bytes, 1, eng->kv.block_bytes);
    memset(s->ids + s->n, 0, (n - s->n) * sizeof *s->ids);
    s->n = s->done = n;
    s->has_logits = false;
    return VQ_OK;
}
