/* types.h - plain data that crosses the public boundary and that the text layer also reads.
 *
 * Strings are (pointer, length): model and user bytes may contain NUL. */
#ifndef CORE_BASE_TYPES_H
#define CORE_BASE_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vq_str {
    const char *p; /* not terminated; NULL means absent (JSON null), "" with n = 0 means empty */
    size_t n;
} vq_str;

typedef enum vq_role { VQ_SYSTEM, VQ_USER, VQ_ASSISTANT, VQ_TOOL } vq_role;

typedef struct vq_tool_call {
    vq_str type;      /* "function" */
    vq_str name;
    vq_str arguments; /* the JSON text of the arguments, as it is to be printed */
} vq_tool_call;

/* One message of a conversation.  Everything is borrowed. */
typedef struct vq_message {
    vq_role role;
    vq_str content;              /* p == NULL: null */
    const vq_tool_call *calls;   /* (n_calls) */
    int n_calls;
} vq_message;

/* A growing list of token ids.  Owner: whoever declared it; vq_ids_clear frees. */
typedef struct vq_ids {
    int32_t *v; /* (n) */
    size_t n, cap;
} vq_ids;

#ifdef __cplusplus
}
#endif
#endif
