/* budget.c - the budget solver: what each matrix costs, and where a byte saves most.
 *
 * Divergences of small errors in different matrices add up, and grow with the square of the error;
 * so what a type costs is the cost of N4s times a factor of the type.  The factors are measured: a
 * trained model of 5 M weights with all matrices in one type.
 *
 * They are convex in bytes, so the best choice for almost any budget is to start from the smallest
 * types and to buy, again and again, the step that saves most per byte.  Near the end of the budget
 * steps no longer fit; what is left is then improved: one matrix up, one or more down for it.
 * All experts of a layer get one type for gate and up, and one for down: tries tell them apart no
 * better than their few tokens do, and the engine's jobs are cut alike for all. */
#include "convert/budget.h"

#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/file/check.h"

#include <string.h>

enum { PAIRS = 2048 };      /* more units are not tried in pairs: that is quadratic */

/* In the order of size. */
static const struct { int type; double left; } options[] = {
    { Q_P5, 9.0 }, { Q_P6, 4.3 }, { Q_N4S, 1.0 }, { Q_N4, 0.735 }, { Q_N5, 0.175 },
    { Q_L6, 0.050 }, { Q_L8, 0.005 },
};
enum { N_OPTION = sizeof options / sizeof options[0] };

double cv_budget_left(int type)
{
    for (int i = 0; i < N_OPTION; i++) {
        if (options[i].type == type) return options[i].left;
    }
    return 0;
}

static bool is_choice(const vaq_tensor *t)
{
    return t->layout != VAQ_VECTOR && t->role != VAQ_ROUTER;
}

/* How much a weight matters without calibration, as a multiple of the FFN's gate and up: the mean
 * over layers of what tries found on that model, whose first layer costs three times the others;
 * what only R1 has, on a trained one of 4 M weights.  A draft that fails costs time, not sense. */
static double role_weight(const vaq_config *c, const vaq_tensor *t)
{
    const bool drafts = t->layer != VAQ_NO_LAYER && t->layer >= c->n_layer;
    const double first = t->layer < (c->n_layer + 7) / 8 ? 3.0 : drafts ? 0.25 : 1.0;
    switch (t->role) {
    case VAQ_EMBED: return c->flags & VAQ_F_TIED ? 7.0 : 3.0;
    case VAQ_HEAD: return 4.0;
    case VAQ_Q:
    case VAQ_O: return 0.5 * first;
    case VAQ_K: return 1.2 * first;
    case VAQ_V: return 1.7 * first;
    case VAQ_GATE_UP: return first;
    case VAQ_DOWN: return 1.3 * first;
    case VAQ_EXPERT_GATE_UP: return first / c->n_expert;
    case VAQ_EXPERT_DOWN: return 1.3 * first / c->n_expert;
    case VAQ_KV_A: return 5.0 * first;
    case VAQ_K_UP: return 0.5 * first;
    case VAQ_SHARED_GATE_UP: return 0.5 * first;
    case VAQ_SHARED_DOWN: return 0.7 * first;
    default: return 2.0 * first; /* latents of queries, values; the draft head */
    }
}

/* The matrix of the expert before, of the same kind. */
static size_t before(const cv_plan *p, size_t i)
{
    const uint16_t role = p->tensor[i].role;
    do i--;
    while (p->tensor[i].role != role);
    return i;
}

/* ---- tries that are kept: what they gave, then this hash of key and that ---- */

static void hash_of(uint8_t out[32], const cv_tries *t, const double *kl, size_t n)
{
    vq_sha256 s;
    vq_sha256_init(&s, t->kern);
    vq_sha256_add(&s, t->key, sizeof t->key);
    vq_sha256_add(&s, kl, n * sizeof *kl);
    vq_sha256_end(&s, out);
}

void cv_tries_recall(cv_tries *t, double *kl, size_t n)
{
    vq_buf b = { 0 };
    uint8_t sum[32];
    const uint64_t most = n * sizeof *kl + sizeof sum;
    if (t->path && !vq_file_read(t->path, most, &b, NULL) && b.n >= sizeof sum) {
        const size_t k = (b.n - sizeof sum) / sizeof *kl;
        memcpy(kl, b.p, k * sizeof *kl);
        hash_of(sum, t, kl, k);
        if (!memcmp(sum, b.p + k * sizeof *kl, sizeof sum)) t->done = k;
    }
    vq_buf_clear(&b);
}

static vq_status keep(cv_tries *t, const double *kl, vq_err *e)
{
    vq_buf b = { 0 };
    uint8_t sum[32];
    if (!t->path) return VQ_OK;
    hash_of(sum, t, kl, t->done);
    vq_buf_add(&b, kl, t->done * sizeof *kl);
    vq_buf_add(&b, sum, sizeof sum);
    const vq_status st = b.oom ? vq_fail(e, VQ_ENOMEM, "%s: out of memory", t->path)
                               : vq_file_write_atomic(t->path, b.p, b.n, e);
    vq_buf_clear(&b);
    t->saved = vq_now();
    return st;
}

/* One more is tried. */
static vq_status tried(cv_tries *t, const double *kl, size_t all, vq_err *e)
{
    const bool stop = t->progress && t->progress(t->ctx, t->done, all);
    const vq_status st = stop || vq_now() - t->saved >= 1 ? keep(t, kl, e) : VQ_OK;
    if (st || !stop) return st;
    if (!t->path) return vq_fail(e, VQ_EINTR, "interrupted");
    return vq_fail(e, VQ_EINTR, "interrupted; tries of %zu of %zu matrices are kept: the same "
                   "command goes on from there",
                   t->done, all);
}

static vq_status try_all(double *kl, const cv_plan *p, cv_tries *tries, vq_err *e)
{
    for (size_t i = tries->done; i < p->n; i++) {
        const vaq_tensor *t = &p->tensor[i];
        kl[i] = -1;
        if (!is_choice(t) || t->expert > 0) continue;
        vq_status st = cv_calib_try(tries->calib, t, Q_N4S, &kl[i], e);
        tries->done = i + 1;
        if (!st) st = tried(tries, kl, p->n, e);
        if (st) return st;
    }
    tries->done = p->n;
    return keep(tries, kl, e);
}

vq_status cv_budget_costs(double *cost, const cv_plan *p, const vaq_config *c, cv_tries *tries,
                          vq_err *e)
{
    double tried_kl = 0, guessed = 0; /* sums over matrices that could be tried */
    const vq_status st = tries ? try_all(cost, p, tries, e) : VQ_OK;
    if (st) return st;
    for (size_t i = 0; i < p->n; i++) {
        const vaq_tensor *t = &p->tensor[i];
        const double kl = tries ? cost[i] : -1;
        cost[i] = 0;
        if (!is_choice(t)) continue;
        const double guess = role_weight(c, t) * (double)t->params / (double)p->params * 0.01;
        if (tries && t->expert > 0) {
            cost[i] = cost[before(p, i)];
            continue;
        }
        const double n = t->expert < 0 ? 1 : c->n_expert;
        if (kl >= 0) {
            tried_kl += kl;
            guessed += guess * n;
            cost[i] = kl > 0 ? kl / n : 1e-12;
        } else {
            cost[i] = tries ? -guess : guess; /* told apart below */
        }
    }
    const double scale = tried_kl > 0 ? tried_kl / guessed : 1;
    for (size_t i = 0; i < p->n; i++) {
        if (cost[i] < 0) cost[i] *= -scale;
    }
    return VQ_OK;
}

/* ---- spending ---- */

/* Matrices that get one type: all of a kind that the experts of a layer have, else one. */
typedef struct unit {
    size_t first, n;            /* in the plan; how many */
    int at;                     /* index into option */
} unit;

typedef struct spending {
    const cv_plan *p;
    const double *cost;
    int option[N_OPTION], n;    /* indices of the types that this build knows */
    unit *unit;                 /* (n_unit) */
    size_t n_unit;
    uint64_t bytes, limit;
} spending;

static uint64_t size_of(const vaq_tensor *t, int type)
{
    return q_matrix_bytes(type, t->rows, (int)t->cols);
}

static uint64_t size_at(const spending *s, const unit *u, int at)
{
    return u->n * size_of(&s->p->tensor[u->first], options[s->option[at]].type);
}

static double cost_at(const spending *s, const unit *u, int at)
{
    return (double)u->n * s->cost[u->first] * options[s->option[at]].left;
}

/* The step up that saves most per byte of those that fit; NULL: there is none. */
static unit *best_step(const spending *s)
{
    double most = 0;
    unit *best = NULL;
    for (unit *u = s->unit; u < s->unit + s->n_unit; u++) {
        if (u->at + 1 >= s->n) continue;
        const uint64_t more = size_at(s, u, u->at + 1) - size_at(s, u, u->at);
        if (s->bytes + more > s->limit) continue;
        const double gain = (cost_at(s, u, u->at) - cost_at(s, u, u->at + 1)) / (double)more;
        if (gain <= most) continue;
        most = gain;
        best = u;
    }
    return best;
}

static void move(spending *s, unit *u, int at)
{
    s->bytes += size_at(s, u, at);
    s->bytes -= size_at(s, u, u->at);
    u->at = at;
}

/* One unit up, another down, by any number of steps each; true: something was gained. */
static bool best_pair(spending *s)
{
    unit *const end = s->unit + s->n_unit;
    for (unit *u = s->unit; u < end; u++) {
        for (unit *d = s->unit; d < end; d++) {
            for (int up = u->at + 1; d != u && up < s->n; up++) {
                for (int down = 0; down < d->at; down++) {
                    const uint64_t bytes = s->bytes + size_at(s, u, up) + size_at(s, d, down)
                                         - size_at(s, u, u->at) - size_at(s, d, d->at);
                    const double was = cost_at(s, u, u->at) + cost_at(s, d, d->at);
                    const double is = cost_at(s, u, up) + cost_at(s, d, down);
                    if (bytes > s->limit || is >= was * (1 - 1e-9)) continue;
                    move(s, u, up);
                    move(s, d, down);
                    return true;
                }
            }
        }
    }
    return false;
}

static double sum_of(const spending *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->n_unit; i++) sum += cost_at(s, &s->unit[i], s->unit[i].at);
    return sum;
}

/* Of the others the step down that costs least per byte; NULL: there is none. */
static unit *cheapest_step_down(const spending *s, const unit *but)
{
    double least = 0;
    unit *best = NULL;
    for (unit *u = s->unit; u < s->unit + s->n_unit; u++) {
        if (u == but || !u->at) continue;
        const uint64_t less = size_at(s, u, u->at) - size_at(s, u, u->at - 1);
        const double loss = (cost_at(s, u, u->at - 1) - cost_at(s, u, u->at)) / (double)less;
        if (best && loss >= least) continue;
        least = loss;
        best = u;
    }
    return best;
}

static void fill(spending *s)
{
    for (unit *u; (u = best_step(s)) != NULL;) move(s, u, u->at + 1);
}

/* One unit a step up, whatever others must go down for it; true: something was gained. */
static bool best_chain(spending *s, unit *saved)
{
    const double was = sum_of(s);
    const uint64_t bytes = s->bytes;
    memcpy(saved, s->unit, s->n_unit * sizeof *saved);
    for (unit *u = s->unit, *d; u < s->unit + s->n_unit; u++) {
        if (u->at + 1 >= s->n) continue;
        move(s, u, u->at + 1);
        while (s->bytes > s->limit && (d = cheapest_step_down(s, u)) != NULL)
            move(s, d, d->at - 1);
        if (s->bytes <= s->limit) {
            fill(s);
            if (sum_of(s) < was * (1 - 1e-9)) return true;
        }
        memcpy(s->unit, saved, s->n_unit * sizeof *saved);
        s->bytes = bytes;
    }
    return false;
}

static vq_status too_small(const spending *s, vq_err *e)
{
    return vq_fail(e, VQ_EUSAGE, "all matrices in the smallest type have %.2f bits per weight, the "
                   "budget leaves %.2f: give it more",
                   8 * (double)s->bytes / (double)s->p->params,
                   8 * (double)s->limit / (double)s->p->params);
}

/* A matrix joins the unit of the expert before it, or begins one. */
static void add_unit(spending *s, size_t i)
{
    const vaq_tensor *t = &s->p->tensor[i];
    unit *u = s->unit + s->n_unit;
    if (t->expert > 0) {
        do u--;
        while (s->p->tensor[u->first].role != t->role);
        u->n++;
    } else {
        *u = (unit){ .first = i, .n = 1 };
        s->n_unit++;
    }
    s->bytes += size_of(t, options[s->option[0]].type);
}

vq_status cv_budget_spend(cv_plan *p, const double *cost, uint64_t limit, vq_err *e)
{
    spending s = { .p = p, .cost = cost, .limit = limit };
    for (int i = 0; i < N_OPTION; i++) {
        const q_typeinfo *t = q_type_info(options[i].type);
        if (t && t->known) s.option[s.n++] = i;
    }
    s.unit = vq_calloc(2 * p->n, sizeof *s.unit);
    if (!s.unit) return vq_fail(e, VQ_ENOMEM, "out of memory");
    for (size_t i = 0; i < p->n; i++) {
        const vaq_tensor *t = &p->tensor[i];
        if (cost[i] > 0) add_unit(&s, i);
        else if (t->layout == VAQ_VECTOR) s.bytes += (uint64_t)t->cols * sizeof(float);
        else s.bytes += size_of(t, t->type);
    }
    const vq_status st = s.bytes > limit ? too_small(&s, e) : VQ_OK;
    if (!st) {
        fill(&s);
        bool more = s.n_unit <= PAIRS;
        for (int again = 0; more && again < 1000; again++) {
            more = best_pair(&s) || best_chain(&s, s.unit + s.n_unit);
            fill(&s);
        }
    }
    for (const unit *u = s.unit; !st && u < s.unit + s.n_unit; u++) {
        p->tensor[u->first].type = (uint16_t)options[s.option[u->at]].type;
    }
    for (size_t i = 0; !st && i < p->n; i++) {
        if (cost[i] > 0 && p->tensor[i].expert > 0)
            p->tensor[i].type = p->tensor[before(p, i)].type;
    }
    vq_free(s.unit);
    return st;
}

void cv_budget_text(vq_buf *out, const cv_plan *p)
{
    const char *comma = "";
    for (int k = 0; k < N_OPTION; k++) {
        size_t n = 0;
        for (size_t i = 0; i < p->n; i++) {
            n += is_choice(&p->tensor[i]) && p->tensor[i].type == options[k].type;
        }
        if (!n) continue;
        vq_buf_printf(out, "%s%s %zu", comma, q_type_info(options[k].type)->name, n);
        comma = ", ";
    }
}
