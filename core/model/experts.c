/* experts.c - which experts are in memory (experts.h).
 *
 * A table says for every expert of the model in which slot it lies, a slot knows its expert and its
 * read.  The victim of a miss is the slot whose expert was wanted longest ago, where each earlier
 * use counts as a stay of one token: experts that come often survive a token that went elsewhere.
 * Slots named in begin are pinned.  Guesses only ever take slots that are neither pinned nor fresh,
 * and give way: a guess that nobody has begun to read is taken back when its slot is needed. */
#include "core/model/experts.h"

#include "core/base/mem.h"
#include "core/base/os.h"

enum {
    READERS = 6,            /* threads: enough requests under way for an SSD */
    USES_MOST = 8           /* tokens that past uses keep an expert for */
};

typedef struct slot {
    vq_read read;
    int owner;              /* layer * n_expert + expert, -1 none */
    uint64_t last;          /* tick of the latest use */
    int uses;
    bool pinned, guess;     /* guess: nobody wanted it yet */
} slot;

struct vq_experts {
    const vq_model *m;
    vq_fetch *fetch;
    int n_expert, n_slot, layers;
    size_t slot_bytes;
    uint8_t *mem;           /* (n_slot, slot_bytes) */
    slot *slot;             /* (n_slot) */
    int *where;             /* (layers, n_expert) slot, -1: not in memory */
    uint64_t tick;          /* layers begun */
    vq_experts_stats stats;
};

static size_t up_page(size_t n)
{
    return (n + VQ_FETCH_ALIGN - 1) / VQ_FETCH_ALIGN * VQ_FETCH_ALIGN;
}

static const vq_moe *moe_of(const vq_model *m, int layer) { return &m->layer[layer].moe; }

static size_t matrix_bytes(const vq_matrix *w)
{
    return (size_t)((w->rows + Q_ROWS - 1) / Q_ROWS) * w->group;
}

/* From the start of gate and up to the end of down; 0: they do not lie side by side. */
static size_t span_of(const vq_moe *o, int e)
{
    const vq_matrix *g = &o->gate_up[e], *d = &o->down[e];
    const size_t first = up_page(matrix_bytes(g));
    return d->w == g->w + first ? first + up_page(matrix_bytes(d)) : 0;
}

uint64_t vq_experts_bytes(const vq_model *m, uint64_t *largest)
{
    uint64_t all = 0;
    *largest = 0;
    for (int l = 0; l < m->n_layer + m->n_mtp; l++)
        for (int e = 0; moe_of(m, l)->router.rows && e < (int)m->cfg->n_expert; e++) {
            const uint64_t n = span_of(moe_of(m, l), e);
            all += n;
            if (n > *largest) *largest = n;
        }
    return all;
}

static vq_status check_spans(const vq_model *m, vq_err *e)
{
    for (int l = 0; l < m->n_layer + m->n_mtp; l++)
        for (int x = 0; moe_of(m, l)->router.rows && x < (int)m->cfg->n_expert; x++)
            if (!span_of(moe_of(m, l), x))
                return vq_fail(e, VQ_EFORMAT, "%s: expert %d of layer %d does not lie in one "
                                              "piece, so experts cannot be streamed; convert "
                                              "again", m->file->path, x, l);
    return VQ_OK;
}

/* All but the routed experts is read for every token. */
static void lock_rest(const vq_model *m)
{
    for (uint32_t i = 0; i < m->file->n_tensor; i++) {
        const vaq_tensor *t = &m->file->tensor[i];
        if (t->expert >= 0) continue;
        vq_map_advise_willneed(&m->file->map, t->off, t->size);
        vq_map_lock(&m->file->map, t->off, t->size);
    }
}

vq_status vq_experts_new(vq_experts **out, const vq_model *m, uint64_t budget, vq_err *e)
{
    uint64_t largest, all = vq_experts_bytes(m, &largest);
    *out = NULL;
    vq_status st = check_spans(m, e);
    if (st) return st;
    if (!largest || budget < largest) {
        char has[16], needs[16];
        vq_fmt_size(has, budget);
        vq_fmt_size(needs, largest);
        return vq_fail(e, VQ_ENOFIT, "%s: %s for experts are less than one of them needs: %s",
                       m->file->path, has, needs);
    }
    if (budget > all) budget = all;
    vq_experts *x = vq_calloc(1, sizeof *x);
    if (!x) return vq_fail(e, VQ_ENOMEM, "out of memory");
    x->m = m;
    x->n_expert = (int)m->cfg->n_expert;
    x->layers = m->n_layer + m->n_mtp;
    x->slot_bytes = (size_t)largest;
    const size_t table = (size_t)x->layers * (size_t)x->n_expert;
    const uint64_t slots = budget / largest;
    x->n_slot = slots < table ? (int)slots : (int)table;
    x->slot = vq_calloc((size_t)x->n_slot, sizeof *x->slot);
    x->where = vq_calloc(table, sizeof *x->where);
    x->mem = vq_pages_alloc((size_t)x->n_slot * x->slot_bytes);
    if (x->slot && x->where && x->mem) st = vq_fetch_new(&x->fetch, m->file->path, READERS, e);
    else st = vq_fail(e, VQ_ENOMEM, "out of memory for a cache of %d experts", x->n_slot);
    if (st) {
        vq_experts_free(x);
        return st;
    }
    for (size_t i = 0; i < table; i++) x->where[i] = -1;
    for (int i = 0; i < x->n_slot; i++) x->slot[i].owner = -1;
    lock_rest(m);
    *out = x;
    return VQ_OK;
}

void vq_experts_free(vq_experts *x)
{
    if (!x) return;
    vq_fetch_free(x->fetch);
    if (x->mem) vq_pages_free(x->mem, (size_t)x->n_slot * x->slot_bytes);
    vq_free(x->slot);
    vq_free(x->where);
    vq_free(x);
}

int vq_experts_slots(const vq_experts *x) { return x->n_slot; }

static uint8_t *memory_of(const vq_experts *x, int i) { return x->mem + (size_t)i * x->slot_bytes; }

static void vacate(vq_experts *x, slot *s)
{
    if (s->owner >= 0) x->where[s->owner] = -1;
    s->owner = -1;
    s->guess = false;
    s->uses = 0;
}

/* A slot that may be filled, its owner gone; -1: all are pinned, or for a guess fresh. */
static int find_slot(vq_experts *x, bool guess)
{
    for (;;) {
        int best = -1, busy = -1;
        uint64_t least = UINT64_MAX;
        for (int i = 0; i < x->n_slot; i++) {
            const slot *s = &x->slot[i];
            if (s->owner < 0) return i;
            if (s->pinned || (guess && s->last + 1 >= x->tick)) continue;
            if (atomic_load(&s->read.state) == VQ_FETCH_READING) {
                busy = i;
                continue;
            }
            const int uses = s->uses < USES_MOST ? s->uses : USES_MOST;
            const uint64_t key = s->last + (uint64_t)uses * (uint64_t)x->layers;
            if (key >= least) continue;
            least = key;
            best = i;
        }
        if (best < 0 && (busy < 0 || guess)) return -1;
        slot *s = &x->slot[best >= 0 ? best : busy];
        if (best < 0 || (atomic_load(&s->read.state) == VQ_FETCH_QUEUED
                         && !vq_fetch_cancel(x->fetch, &s->read))) {
            vq_fetch_wait(x->fetch, &s->read); /* begun just now: it will be over soon */
            continue;
        }
        vacate(x, s);
        return best;
    }
}

static void fill(vq_experts *x, int i, int layer, int e, bool guess)
{
    const vq_moe *o = moe_of(x->m, layer);
    slot *s = &x->slot[i];
    s->owner = layer * x->n_expert + e;
    s->guess = guess;
    s->last = x->tick;
    x->where[s->owner] = i;
    s->read.off = (uint64_t)(o->gate_up[e].w - x->m->file->map.p);
    s->read.len = span_of(o, e);
    s->read.to = memory_of(x, i);
    vq_fetch_put(x->fetch, &s->read, !guess);
}

/* The expert is there, on its way, or asked for now; false: no slot is left. */
static bool want(vq_experts *x, int layer, int e)
{
    int i = x->where[layer * x->n_expert + e];
    if (i >= 0 && atomic_load(&x->slot[i].read.state) == VQ_FETCH_FAILED) {
        vacate(x, &x->slot[i]); /* once more */
        i = -1;
    }
    if (i >= 0) {
        x->stats.hits++;
        x->stats.right += x->slot[i].guess;
        vq_fetch_hurry(x->fetch, &x->slot[i].read);
    } else {
        i = find_slot(x, false);
        if (i < 0) return false;
        x->stats.misses++;
        fill(x, i, layer, e, false);
    }
    slot *s = &x->slot[i];
    s->pinned = true;
    s->guess = false;
    s->last = x->tick;
    s->uses++;
    return true;
}

int vq_experts_begin(vq_experts *x, int layer, const int *expert, int from, int n)
{
    const int end = n - from < x->n_slot ? n : from + x->n_slot;
    int i = from;
    x->tick++;
    /* Those that are there first, so that none of them is the victim of another. */
    for (int j = from; j < end; j++) {
        const int at = x->where[layer * x->n_expert + expert[j]];
        if (at >= 0) x->slot[at].pinned = true;
    }
    while (i < end && want(x, layer, expert[i])) i++;
    return i;
}

void vq_experts_end(vq_experts *x)
{
    for (int i = 0; i < x->n_slot; i++) x->slot[i].pinned = false;
}

const uint8_t *vq_experts_wait(vq_experts *x, int layer, int e, const uint8_t **down)
{
    const int i = x->where[layer * x->n_expert + e];
    if (!vq_fetch_wait(x->fetch, &x->slot[i].read)) return NULL;
    *down = memory_of(x, i) + up_page(matrix_bytes(&moe_of(x->m, layer)->gate_up[e]));
    return memory_of(x, i);
}

void vq_experts_guess(vq_experts *x, int layer, const int32_t *expert, int n)
{
    for (int j = 0; j < n; j++) {
        if (x->where[layer * x->n_expert + expert[j]] >= 0) continue;
        const int i = find_slot(x, true);
        if (i < 0) return;
        x->stats.guessed++;
        fill(x, i, layer, expert[j], true);
    }
}

vq_status vq_experts_error(vq_experts *x, vq_err *e) { return vq_fetch_error(x->fetch, e); }

void vq_experts_stalled(vq_experts *x, double seconds) { x->stats.stall_s += seconds; }

vq_experts_stats vq_experts_get_stats(const vq_experts *x)
{
    const vq_fetch_stats f = vq_fetch_get_stats(x->fetch);
    vq_experts_stats s = x->stats;
    s.slots = x->n_slot;
    s.bytes = (uint64_t)x->n_slot * x->slot_bytes;
    s.read_bytes = f.bytes;
    s.read_s = f.seconds;
    s.direct = f.direct;
    return s;
}
