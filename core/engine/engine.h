/* engine.h - what bench and tests may do beyond vaquita.h. */
#ifndef CORE_ENGINE_ENGINE_H
#define CORE_ENGINE_ENGINE_H

#include "core/engine/draft.h"
#include "core/file/file.h"
#include "core/vaquita.h"

enum { VQ_SESSIONS_MOST = 4096 }; /* of one engine */

/* vq_engine_open on a file that is open already.  Takes f over: closed with the engine, and also on
 * failure. */
vq_status vq_engine_open_file(vq_engine **out, vq_file *f, const vq_engine_opts *o, vq_err *e);
/* Cache bytes that one position adds: what a decode step reads per cached position. */
uint64_t vq_engine_kv_bytes(const vq_engine *eng);
/* Lengthens an idle session to n ids without computing them: the cache holds arbitrary finite
 * values. For measuring decode at a depth. */
vq_status vq_session_pad(vq_session *s, size_t n, vq_err *e);
/* The session drafts with d from now on, all that d proposes, up to the engine's max_draft (not 0).
 * Takes d over: closed with the session.  For measuring and tests that guess right and wrong. */
void vq_session_use_drafter(vq_session *s, vq_drafter *d);

#endif
