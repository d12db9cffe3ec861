/* draft.c - the pace: how many guesses are worth computing.
 *
 * Verifying k guesses makes one pass of 1 + k rows of what may have been 1 + k passes.  With a[i] =
 * how often guesses of the i-th one's class come true, the pass yields E = 1 + a1 + a1 a2 + ...
 * ids, and k is chosen to make E / time(1 + k) largest, if that beats one id per plain pass.
 *
 * a[] is learned for nothing: every plain pass is followed by an id, and whether that was the first
 * guess is known without having computed it.  time() must be tried.  Both may deceive, so trying is
 * on an allowance: `owed` sums what verifications took beyond the plain passes they replaced, every
 * id pays back LOSS of a plain pass, and where a failure would make it positive there is no
 * verification.  However badly guesses do, decoding is then slower by LOSS and a fraction of one
 * pass at the beginning, no more.  The clock decides how many guesses are made, nothing else. */
#include "core/engine/draft.h"

#include <string.h>

static const float FADE = 0.9f;     /* per guess met: some ten are remembered */
static const float LOSS = 0.01f;    /* of a plain pass, per id: a third of the 3 % auto may lose */
/* Plain passes that may be lost before anything was won; also what the first verification may
 * lose where m rows take m times as long, as with plain C kernels: it has few guesses unless they
 * are very sure. */
static const float START = 0.75f;
static const float CREDIT = 5.0f;   /* plain passes won earlier that may be lost again */
static const float WORTH = 1.02f;   /* below this a gain is noise */
static const float LEAST = 0.02f;   /* chance below which a row is never worth its time */
enum {
    SOMETIMES = 8,          /* plain passes of which one is timed */
    FRESH = 64,             /* passes for which a plain one's time holds: contexts deepen */
    KNOWN = 256,            /* passes after which the time of m rows is tried again, and dear
                             * guesses that were given up */
    PLAIN_FIRST = 2         /* plain passes before the first verification */
};

/* Chances before anything was met, by rank, and the number of guesses they weigh. */
static const float chance0[VQ_DRAFT_CLASSES] = { .4f, .4f, .6f, .75f, .8f, .85f, .9f, .95f };
static const float weight0 = 2.0f;

/* What m rows take beside one, where nothing was measured: the first further row makes a pass lose
 * the simplicity of one, each costs arithmetic.  Only where measuring begins depends on these. */
static float guess_time(int m) { return m == 1 ? 1.0f : 1.2f + 0.1f * (float)(m - 1); }

static void start_chances(vq_pace *p)
{
    for (int i = 0; i < VQ_DRAFT_CLASSES; i++) {
        p->met[i] = weight0;
        p->hit[i] = weight0 * chance0[i];
    }
}

void vq_pace_init(vq_pace *p, vq_draft mode)
{
    *p = (vq_pace){ .by = mode == VQ_DRAFT_AUTO ? VQ_PACE_TIME : VQ_PACE_CHANCE, .untried = true };
    start_chances(p);
}

/* ---- times ---- */

/* Of two middle times a plain pass takes the lower and others the higher: in doubt drafts lose. */
static void add_time(vq_pace *p, int m, float s)
{
    vq_pace_time *t = &p->time[m];
    float v[VQ_PACE_TIMES];
    if (p->passes - t->at >= KNOWN) t->n = 0;
    t->s[t->n++ % VQ_PACE_TIMES] = s;
    const int have = t->n < VQ_PACE_TIMES ? (int)t->n : VQ_PACE_TIMES;
    memcpy(v, t->s, sizeof v);
    for (int i = 1; i < have; i++) {
        const float x = v[i];
        int j = i;
        for (; j > 0 && v[j - 1] > x; j--) v[j] = v[j - 1];
        v[j] = x;
    }
    t->median = v[(have - (m == 1)) / 2];
    t->at = p->passes;
}

static bool known(const vq_pace *p, int m)
{
    return p->time[m].n && p->passes - p->time[m].at < KNOWN;
}

/* Seconds of a pass of m rows: measured; between two sizes that were; beyond them half as steep as
 * up to there, since the first further row costs most. */
static float time_of(const vq_pace *p, int m)
{
    if (m == 1 || known(p, m)) return p->time[m].median;
    int lo = m - 1, hi = m + 1;
    while (lo > 1 && !known(p, lo)) lo--;
    while (hi <= p->top && !known(p, hi)) hi++;
    const float t = p->time[lo].median, plain = p->time[1].median;
    if (lo == 1 && hi > p->top) return plain * guess_time(m);
    if (hi > p->top)
        return t + 0.5f * (t > plain ? t - plain : 0) * (float)(m - lo) / (float)(lo - 1);
    return t + (p->time[hi].median - t) * (float)(m - lo) / (float)(hi - lo);
}

/* ---- the allowance ---- */

static void settle(vq_pace *p)
{
    if (!p->rows || p->by != VQ_PACE_TIME) return;
    const float plain = p->time[1].median, least = -CREDIT * plain;
    p->owed += time_of(p, p->rows) - plain * (float)(1 + p->gained);
    if (p->owed < least) p->owed = least;
    p->rows = 0;
}

void vq_pace_pass(vq_pace *p, int rows, double seconds)
{
    settle(p);
    p->passes++;
    if (p->by == VQ_PACE_ALL || seconds < 0 || rows < 1 || rows > VQ_DRAFT_MOST + 1) return;
    if (rows > p->top) p->top = rows;
    float s = (float)seconds;
    if (rows > 1) {
        /* Drafts that were asked for come before any plain pass: a guess until there is one. */
        if (!p->time[1].n) add_time(p, 1, s / guess_time(rows));
        /* More than so many plain passes: something else took the machine. */
        const float most = p->time[1].median * (float)rows;
        p->untried = false;
        add_time(p, rows, s < most ? s : most);
        p->rows = rows;
        p->gained = 0;
        return;
    }
    const bool first = p->time[1].n == 0;
    add_time(p, 1, s);
    s = p->time[1].median;
    if (first) p->owed = -START * s;
}

bool vq_pace_wants_time(const vq_pace *p, int guesses)
{
    return p->by != VQ_PACE_ALL
           && (guesses > 0 || p->time[1].n < VQ_PACE_TIMES || p->passes % SOMETIMES == 0
               || p->passes - p->time[1].at >= FRESH);
}

float vq_pace_upkeep(const vq_pace *p)
{
    return p->by == VQ_PACE_TIME ? LOSS * p->time[1].median : 0;
}

/* ---- chances ---- */

static float chance(const vq_pace *p, int rank) { return p->hit[rank] / p->met[rank]; }

void vq_pace_meet(vq_pace *p, int32_t id)
{
    const float plain = p->time[1].median, least = -START * plain;
    if (p->owed > least) {
        p->owed -= LOSS * plain;
        if (p->owed < least) p->owed = least;
    }
    if (p->at == p->n) return;
    const vq_guess *g = &p->guess[p->at];
    const bool right = g->id == id;
    p->met[g->rank] = p->met[g->rank] * FADE + 1;
    p->hit[g->rank] = p->hit[g->rank] * FADE + (right ? 1 : 0);
    if (right && p->rows && p->at + 1 < p->rows) p->gained++;
    p->at = right ? p->at + 1 : p->n;
}

void vq_pace_forget(vq_pace *p)
{
    settle(p);
    p->n = p->at = 0;
}

/* ---- the choice ---- */

/* behind: seconds of a drafter's catching up, once, in which a trial may fail as well. */
static int choose(vq_pace *p, float behind)
{
    if (p->by == VQ_PACE_ALL) return p->n;
    const bool timed = p->by == VQ_PACE_TIME;
    if (timed) {
        settle(p);
        if (p->time[1].n < PLAIN_FIRST || p->passes - p->time[1].at >= FRESH) return 0;
    }
    const float plain = p->time[1].n ? p->time[1].median : 1;
    float yield = 1, all = 1, best = timed ? WORTH : 0;
    int k = 0;
    for (int i = 0; i < p->n; i++) {
        const float t = p->time[1].n ? time_of(p, i + 2) : guess_time(i + 2);
        all *= chance(p, p->guess[i].rank);
        if (all < LEAST) break;
        yield += all;
        if (timed && p->untried && i > 0 && (float)(i + 2) - yield > START) break;
        if (yield * plain / t <= best) continue;
        if (timed && p->owed + t + behind - plain > 0) continue;
        best = yield * plain / t;
        k = i + 1;
    }
    return k;
}

int vq_pace_choose(vq_pace *p) { return choose(p, 0); }

int vq_pace_afford(vq_pace *p, int most, float behind)
{
    if (p->untried && most > 1) most = 1;
    for (int i = 0; i < most; i++)
        p->guess[i].rank = i < VQ_DRAFT_CLASSES ? VQ_DRAFT_CLASSES - 1 - i : 0;
    p->n = most;
    const int k = choose(p, behind);
    p->n = 0;
    /* Of guesses that are not made nothing is learned: from time to time the past is past. */
    if (!k && p->passes % KNOWN == 0) start_chances(p);
    return k;
}
