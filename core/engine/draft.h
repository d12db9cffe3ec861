/* draft.h - guesses of the ids to come, and how many of them to have computed ahead.
 *
 * A drafter proposes ids that may follow a sequence.  The session computes some of them as further
 * rows of the pass that computes its last id and keeps what they gave; when the ids drawn later are
 * the guessed ones, their rows are there already (session.c).  A guess can therefore cost or save
 * time and never change a bit, whoever makes it: that is the whole contract between the two.
 *
 * The pace decides how many guesses are worth a row.  It learns how often guesses of a class come
 * true, also from those it did not verify, and what a pass of m rows takes; VQ_DRAFT_AUTO makes
 * none where that loses, drafts that were asked for are made in any case, the best number. */
#ifndef CORE_ENGINE_DRAFT_H
#define CORE_ENGINE_DRAFT_H

#include "core/vaquita.h"

enum {
    VQ_DRAFT_MOST = 31,     /* guesses of one pass, the most an engine can be opened with */
    VQ_DRAFT_CLASSES = 8,   /* kinds of guesses whose success is counted apart */
    VQ_PACE_TIMES = 5       /* latest passes of one size: their median is what such a pass takes */
};

typedef struct vq_guess {
    int32_t id;
    int rank;               /* class, 0 <= rank < VQ_DRAFT_CLASSES: higher = surer.  An n-gram's
                             * length, say, or the step of a draft head */
} vq_guess;

/* A source of guesses: the first member of the struct of its maker.  Called between passes by the
 * owner of the session; may not allocate after it was made. */
typedef struct vq_drafter vq_drafter;
struct vq_drafter {
    /* Guesses for ids[n], ids[n + 1], ...: at most `most` into out, returns how many. */
    int (*propose)(vq_drafter *d, const int32_t *ids, size_t n, vq_guess *out, int most);
    /* The sequence is about to be cut to its first n ids; ids still holds all it had.  NULL: of no
     * interest. */
    void (*cut)(vq_drafter *d, const int32_t *ids, size_t n);
    /* A pass computed positions first .. first + rows - 1 of the sequence, whose ids are known up
     * to n; those from n on were guesses.  state: (rows, ld) the model's state at each.  NULL: of
     * no interest. */
    void (*saw)(vq_drafter *d, const int32_t *ids, size_t n, size_t first, int rows,
                const float *state, size_t ld);
    float allowed_s;        /* seconds that following may take per position while no guesses are
                             * asked for: a source that needs more gives up.  0: any */
    float behind_s;         /* seconds that it takes to catch up before the next guesses */
    bool dear;              /* guesses take time: only those are asked for that will be computed */
    void (*close)(vq_drafter *d);
};

/* Guesses from the sequence itself: what followed when its latest 2 or more ids came before
 * (draft_ngram.c).  All memory is taken here: 4 bytes per position and at most 256 KiB. */
vq_status vq_ngram_new(vq_drafter **out, uint32_t ctx, vq_err *e);

/* Guesses by the draft head of the model; VQ_EUSAGE when it has none (draft_mtp.c). */
vq_status vq_mtp_new(vq_drafter **out, vq_session *s, vq_err *e);

/* ---- how many ---- */

typedef struct vq_pace_time {
    float s[VQ_PACE_TIMES]; /* seconds, a ring */
    uint32_t n;             /* measured so far; 0: not known */
    float median;           /* of those in the ring */
    uint64_t at;            /* pass of the latest */
} vq_pace_time;

typedef struct vq_pace {
    enum { VQ_PACE_ALL, VQ_PACE_CHANCE, VQ_PACE_TIME } by;
    float hit[VQ_DRAFT_CLASSES], met[VQ_DRAFT_CLASSES]; /* guesses that came true, all; fading */
    vq_guess guess[VQ_DRAFT_MOST]; /* the latest proposal: guess[at..n) have not been met */
    int n, at;
    vq_pace_time time[VQ_DRAFT_MOST + 2]; /* [m] of passes of 1 <= m <= VQ_DRAFT_MOST + 1 rows */
    uint64_t passes;
    int top;                /* the largest m that was timed */
    bool untried;           /* no verification was timed yet */
    float owed;             /* seconds that drafts lost so far, less what may be lost (draft.c) */
    int rows;               /* of the verification that is not settled; 0: none */
    int gained;             /* of its guesses came true */
} vq_pace;

void vq_pace_init(vq_pace *p, vq_draft mode);
/* Is the time of the next pass, of so many guesses, of interest?  Clocks are slow on some machines:
 * of plain passes some are enough. */
bool vq_pace_wants_time(const vq_pace *p, int guesses);
/* How many of p->guess[0..n), which were just proposed, to compute beside one queued id. */
int vq_pace_choose(vq_pace *p);
/* The same before there are guesses, for a drafter whose i-th guess has the i-th highest rank and
 * that is behind_s. */
int vq_pace_afford(vq_pace *p, int most, float behind_s);
/* Seconds per position that a drafter may take to follow what it does not guess: allowed_s. */
float vq_pace_upkeep(const vq_pace *p);
/* A pass of this sequence alone: `rows` rows, all but the first guesses; seconds < 0:
 * not timed. */
void vq_pace_pass(vq_pace *p, int rows, double seconds);
/* The next id of the sequence, whoever chose it. */
void vq_pace_meet(vq_pace *p, int32_t id);
/* The sequence goes on elsewhere: the proposal is void. */
void vq_pace_forget(vq_pace *p);

#endif
