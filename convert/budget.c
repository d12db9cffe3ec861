/* budget.c - the budget solver: what each matrix costs, and where a byte saves most.
 *
 * Divergences of small errors in different matrices add up, and grow with the square of the error;
 * so what a type costs is the cost of N4s times a factor of the type.  The factors are measured: a
 * trained model of 5 M weights with all matrices in one type.
 *
 * They are convex in bytes, so the best choice for almost any budget is to start from the smallest
 * types and to buy, again and again, the step that saves most per byte.  Near the end of the budget
 * steps no longer fit; what is left is then improved: one matrix up, one or more down for it. */
#include "convert/budget.h"

#include "core/base/mem.h"
#include "core/file/check.h"

#include <string.h>

enum { PAIRS = 2048 };      /* more matrices are not tried in pairs: that is quadratic */

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
 * over layers of what tries found on that model, whose first layer costs three times the others. */
static double role_weight(const vaq_config *c, const vaq_tensor *t)
{
    const double first = t->layer < (c->n_layer + 7) / 8 ? 3.0 : 1.0;
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
    default: return 2.0; /* few and shared by many: latents, shared experts, the draft head */
    }
}

vq_status cv_budget_costs(double *cost, const cv_plan *p, const vaq_config *c, cv_calib *calib,
                          bool (*progress)(void *, uint64_t, uint64_t), void *ctx, vq_err *e)
{
    for (size_t i = 0; i < p->n; i++) {
        const vaq_tensor *t = &p->tensor[i];
        cost[i] = 0;
        if (!is_choice(t)) continue;
        double kl = -1;
        if (calib) {
            const vq_status st = cv_calib_try(calib, t, Q_N4S, &kl, e);
            if (st) return st;
            if (progress && progress(ctx, i + 1, p->n)) return vq_fail(e, VQ_EINTR, "interrupted");
        }
        if (kl < 0) kl = role_weight(c, t) * (double)t->params / (double)p->params * 0.01;
        cost[i] = kl > 0 ? kl : 1e-12;
    }
    return VQ_OK;
}

/* ---- spending ---- */

typedef struct spending {
    const cv_plan *p;
    const double *cost;
    int option[N_OPTION], n;    /* indices of the types that this build knows */
    uint8_t *at;                /* (p->n) index into option */
    uint64_t bytes, limit;
} spending;

static uint64_t size_of(const vaq_tensor *t, int type)
{
    return q_matrix_bytes(type, t->rows, (int)t->cols);
}

static uint64_t size_at(const spending *s, size_t i, int at)
{
    return size_of(&s->p->tensor[i], options[s->option[at]].type);
}

static double cost_at(const spending *s, size_t i, int at)
{
    return s->cost[i] * options[s->option[at]].left;
}

/* The step up that saves most per byte of those that fit; false: there is none. */
static bool best_step(const spending *s, size_t *best)
{
    double most = 0;
    for (size_t i = 0; i < s->p->n; i++) {
        if (!(s->cost[i] > 0) || s->at[i] + 1 >= s->n) continue;
        const uint64_t more = size_at(s, i, s->at[i] + 1) - size_at(s, i, s->at[i]);
        if (s->bytes + more > s->limit) continue;
        const double gain = (cost_at(s, i, s->at[i]) - cost_at(s, i, s->at[i] + 1)) / (double)more;
        if (gain <= most) continue;
        most = gain;
        *best = i;
    }
    return most > 0;
}

static void move(spending *s, size_t i, int at)
{
    s->bytes += size_at(s, i, at);
    s->bytes -= size_at(s, i, s->at[i]);
    s->at[i] = (uint8_t)at;
}

/* One matrix up, another down, by any number of steps each; true: something was gained. */
static bool best_pair(spending *s)
{
    for (size_t i = 0; i < s->p->n; i++) {
        if (!(s->cost[i] > 0)) continue;
        for (size_t j = 0; j < s->p->n; j++) {
            if (j == i || !(s->cost[j] > 0)) continue;
            for (int up = s->at[i] + 1; up < s->n; up++) {
                for (int down = 0; down < s->at[j]; down++) {
                    const uint64_t bytes = s->bytes + size_at(s, i, up) + size_at(s, j, down)
                                         - size_at(s, i, s->at[i]) - size_at(s, j, s->at[j]);
                    const double before = cost_at(s, i, s->at[i]) + cost_at(s, j, s->at[j]);
                    const double after = cost_at(s, i, up) + cost_at(s, j, down);
                    if (bytes > s->limit || after >= before * (1 - 1e-9)) continue;
                    move(s, i, up);
                    move(s, j, down);
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
    for (size_t i = 0; i < s->p->n; i++) sum += cost_at(s, i, s->at[i]);
    return sum;
}

/* Of the others the step down that costs least per byte. */
static bool cheapest_step_down(const spending *s, size_t but, size_t *best)
{
    double least = 0;
    bool any = false;
    for (size_t i = 0; i < s->p->n; i++) {
        if (i == but || !(s->cost[i] > 0) || !s->at[i]) continue;
        const uint64_t less = size_at(s, i, s->at[i]) - size_at(s, i, s->at[i] - 1);
        const double loss = (cost_at(s, i, s->at[i] - 1) - cost_at(s, i, s->at[i])) / (double)less;
        if (any && loss >= least) continue;
        any = true;
        least = loss;
        *best = i;
    }
    return any;
}

static void fill(spending *s)
{
    for (size_t i = 0; best_step(s, &i);) move(s, i, s->at[i] + 1);
}

/* One matrix a step up, whatever others must go down for it; true: something was gained. */
static bool best_chain(spending *s, uint8_t *saved)
{
    const size_t n = s->p->n;
    const double before = sum_of(s);
    const uint64_t bytes = s->bytes;
    memcpy(saved, s->at, n);
    for (size_t i = 0, j = 0; i < n; i++) {
        if (!(s->cost[i] > 0) || s->at[i] + 1 >= s->n) continue;
        move(s, i, s->at[i] + 1);
        while (s->bytes > s->limit && cheapest_step_down(s, i, &j)) move(s, j, s->at[j] - 1);
        if (s->bytes <= s->limit) {
            fill(s);
            if (sum_of(s) < before * (1 - 1e-9)) return true;
        }
        memcpy(s->at, saved, n);
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

vq_status cv_budget_spend(cv_plan *p, const double *cost, uint64_t limit, vq_err *e)
{
    spending s = { .p = p, .cost = cost, .limit = limit };
    for (int i = 0; i < N_OPTION; i++) {
        const q_typeinfo *t = q_type_info(options[i].type);
        if (t && t->known) s.option[s.n++] = i;
    }
    s.at = vq_calloc(2 * p->n, 1);
    if (!s.at) return vq_fail(e, VQ_ENOMEM, "out of memory");
    for (size_t i = 0; i < p->n; i++) {
        const vaq_tensor *t = &p->tensor[i];
        if (cost[i] > 0) s.bytes += size_at(&s, i, 0);
        else if (t->layout == VAQ_VECTOR) s.bytes += (uint64_t)t->cols * sizeof(float);
        else s.bytes += size_of(t, t->type);
    }
    const vq_status st = s.bytes > limit ? too_small(&s, e) : VQ_OK;
    if (!st) {
        fill(&s);
        bool more = p->n <= PAIRS;
        for (int again = 0; more && again < 1000; again++) {
            more = best_pair(&s) || best_chain(&s, s.at + p->n);
            fill(&s);
        }
    }
    for (size_t i = 0; !st && i < p->n; i++) {
        if (cost[i] > 0) p->tensor[i].type = (uint16_t)options[s.option[s.at[i]]].type;
    }
    vq_free(s.at);
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
