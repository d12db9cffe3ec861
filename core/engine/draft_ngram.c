/* draft_ngram.c - guesses that need no weights: a text that repeats itself goes on as before.
 *
 * Every place of the sequence is filed under a hash of the 2 ids before it: `head` holds the latest
 * place of each hash, `prev` the place before it with the same one, so the places of a hash are a
 * list of falling positions.  The latest ids are looked up, the few newest places are compared with
 * them, and the one whose past agrees furthest back is continued.  In a long text two ids came more
 * often than that, so the place that was continued last is compared as well: what copies a passage
 * does not lose it at a common word.
 *
 * Places are filed in rising order and taken out again in falling order when the sequence is cut.
 * Invariant: a place is the head of its list or behind a later one, prev[p] < p. */
#include "core/base/mem.h"
#include "core/engine/draft.h"

enum {
    GRAM = 2,               /* after two ids half of the guesses come true (SmolLM2); what that is
                             * worth the pace knows, it counts them apart */
    PLACES = 16,            /* that agree, from which the best is taken */
    STEPS = 32,             /* of a list: where most places came under their hash by chance */
    FAR = 64                /* ids back to which agreement is counted */
};

typedef struct ngram {
    vq_drafter base;
    int32_t *head;          /* (1 << bits) latest place under a hash; 0: none */
    int32_t *prev;          /* (ctx + 1) */
    int bits;
    size_t filed;           /* places GRAM .. filed are filed */
    size_t from, at;        /* ids[at] was last guessed to be ids[from]; 0: never */
} ngram;

static int bits_for(uint32_t ctx)
{
    int bits = 8;
    while (bits < 16 && (uint32_t)1 << bits < ctx) bits++;
    return bits;
}

/* Of the GRAM ids before v. */
static uint32_t hash(const ngram *g, const int32_t *v)
{
    uint32_t h = 0;
    for (int i = 1; i <= GRAM; i++) h = (h ^ (uint32_t)v[-i]) * 0x9e3779b1u; /* 2^32 / golden */
    return h >> (32 - g->bits);
}

static void file(ngram *g, const int32_t *ids, size_t place)
{
    int32_t *head = &g->head[hash(g, ids + place)];
    g->prev[place] = *head;
    *head = (int32_t)place;
}

static int agreement(const int32_t *ids, size_t a, size_t n) /* a < n */
{
    int l = 0;
    while (l < FAR && (size_t)l < a && ids[a - 1 - (size_t)l] == ids[n - 1 - (size_t)l]) l++;
    return l;
}

static int rank_of(int length)
{
    static const int least[] = { 3, 4, 5, 7, 10, 16, 32 };
    int r = 0;
    while (r < (int)(sizeof least / sizeof least[0]) && length >= least[r]) r++;
    return r;
}

static int propose(vq_drafter *d, const int32_t *ids, size_t n, vq_guess *out, int most)
{
    ngram *g = (ngram *)d;
    if (n < GRAM) return 0;
    if (g->filed < GRAM) g->filed = GRAM - 1;
    for (; g->filed + 1 < n; g->filed++) file(g, ids, g->filed + 1);
    size_t from = 0;
    int longest = GRAM - 1;
    if (g->at && n > g->at) {
        const size_t on = g->from + (n - g->at);
        const int l = agreement(ids, on, n);
        if (l > longest) {
            longest = l;
            from = on;
        }
    }
    int32_t p = g->head[hash(g, ids + n)];
    for (int i = 0, steps = 0; p && i < PLACES && steps < STEPS; p = g->prev[p]) {
        const int l = agreement(ids, (size_t)p, n);
        if (l > longest) {
            longest = l;
            from = (size_t)p;
        }
        i += l >= GRAM;
        steps++;
    }
    if (!from) return 0;
    g->from = from;
    g->at = n;
    const int there = n - from < (size_t)most ? (int)(n - from) : most;
    for (int i = 0; i < most; i++) /* a period shorter than the draft goes round */
        out[i] = (vq_guess){ i < there ? ids[from + (size_t)i] : out[i - there].id,
                             rank_of(longest + i) };
    return most;
}

static void cut(vq_drafter *d, const int32_t *ids, size_t n)
{
    ngram *g = (ngram *)d;
    if (g->at > n) g->at = 0;
    for (; g->filed >= GRAM && g->filed >= n; g->filed--)
        g->head[hash(g, ids + g->filed)] = g->prev[g->filed];
}

static void release(vq_drafter *d)
{
    ngram *g = (ngram *)d;
    vq_free(g->head);
    vq_free(g->prev);
    vq_free(g);
}

vq_status vq_ngram_new(vq_drafter **out, uint32_t ctx, vq_err *e)
{
    *out = NULL;
    ngram *g = vq_calloc(1, sizeof *g);
    if (!g) return vq_fail(e, VQ_ENOMEM, "out of memory");
    g->base = (vq_drafter){ .propose = propose, .cut = cut, .close = release };
    g->bits = bits_for(ctx);
    g->head = vq_calloc((size_t)1 << g->bits, sizeof *g->head);
    g->prev = vq_calloc((size_t)ctx + 1, sizeof *g->prev);
    if (!g->head || !g->prev) {
        release(&g->base);
        return vq_fail(e, VQ_ENOMEM, "out of memory");
    }
    *out = &g->base;
    return VQ_OK;
}
