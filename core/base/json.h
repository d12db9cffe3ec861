/* json.h - RFC 8259 reader (strict) for configs, tokenizers, indexes and requests, and a writer.
 *
 * The reader makes one flat array of nodes over the text, which must stay alive; nothing recurses,
 * so depth is limited by a number (VQ_JSON_DEPTH), not by the stack.  Strings with escapes are
 * unescaped into the document's own arena.  Lone surrogates become U+FFFD; invalid UTF-8, control
 * characters in strings, NaN, comments, trailing commas, leading zeros are errors with an offset.
 * Duplicate keys are kept; vq_json_get returns the last one. */
#ifndef CORE_BASE_JSON_H
#define CORE_BASE_JSON_H

#include "core/base/str.h"

enum { VQ_JSON_DEPTH = 1024 };

typedef enum vq_jtype {
    VQ_JNULL, VQ_JFALSE, VQ_JTRUE, VQ_JNUM, VQ_JSTR, VQ_JARR, VQ_JOBJ
} vq_jtype;

typedef struct vq_jnode {
    uint8_t type;   /* vq_jtype */
    uint8_t depth_;
    uint16_t pad_;
    uint32_t count; /* arrays: elements; objects: members */
    uint32_t next;  /* index of the node behind this value and all it contains */
    uint32_t off_;
    vq_str s;       /* strings: unescaped text; numbers: their spelling */
} vq_jnode;

typedef struct vq_json {
    vq_jnode *node; /* (n); node[0] is the root */
    size_t n, cap;
    char *arena;    /* unescaped strings */
    size_t arena_n;
} vq_json;

/* `what` names the source in messages ("config.json").  On failure *j is cleared. */
vq_status vq_json_parse(vq_json *j, const char *p, size_t n, const char *what, vq_err *e);
void vq_json_clear(vq_json *j);

/* Navigation by node index; 0 is the root and doubles as "not there" for members and elements. */
/* 0: absent, or obj not an object */
uint32_t vq_json_get(const vq_json *j, uint32_t obj, const char *key);
/* First element, or first key of an object; 0: empty */
uint32_t vq_json_first(const vq_json *j, uint32_t v);
/* After element v, or key -> value -> key; 0: end */
uint32_t vq_json_next(const vq_json *j, uint32_t parent, uint32_t v);
vq_jtype vq_json_type(const vq_json *j, uint32_t v);
/* False for v == 0 unless the root itself is meant: use type() there */
bool vq_json_is(const vq_json *j, uint32_t v, vq_jtype t);
/* Absent when not a string */
vq_str vq_json_str(const vq_json *j, uint32_t v);
/* Integers only, "1.0" and "1e3" are not */
bool vq_json_i64(const vq_json *j, uint32_t v, int64_t *out);
bool vq_json_f64(const vq_json *j, uint32_t v, double *out);
bool vq_json_bool(const vq_json *j, uint32_t v, bool *out);

/* Writer: appends to a vq_buf, puts commas itself. */
typedef struct vq_jw {
    vq_buf *b;
    uint64_t has; /* bit per level: something was written at this level */
    int level;
} vq_jw;
/* '{' or '['; key NULL inside arrays and at the top */
void vq_jw_open(vq_jw *w, const char *key, char c);
void vq_jw_close(vq_jw *w, char c);                      /* '}' or ']' */
void vq_jw_str(vq_jw *w, const char *key, const char *p, size_t n);
void vq_jw_cstr(vq_jw *w, const char *key, const char *s); /* NULL -> null */
void vq_jw_i64(vq_jw *w, const char *key, int64_t v);
void vq_jw_u64(vq_jw *w, const char *key, uint64_t v);
/* Shortest of %.6g .. %.17g that reads back; non-finite -> null */
void vq_jw_f64(vq_jw *w, const char *key, double v);
void vq_jw_bool(vq_jw *w, const char *key, bool v);

#endif
