/* journal.h - what is durable of a container in the making, in a file beside it.
 *
 * A head that says which container this is to become, then one entry after the other, each: so far
 * the body stands on the disk, these are its hashes.  An entry is written only after the bytes it
 * speaks of are durable, and is chained to those before it by its hash: one torn by a crash, and
 * everything behind it, does not count. */
#ifndef CORE_FILE_JOURNAL_H
#define CORE_FILE_JOURNAL_H

#include "core/file/file.h"

/* Everything an entry adds to lies in the front of the container, which is not written before the
 * end: the hashes of the chunks and the error figures of the tensors, in file order. */
typedef struct vq_journal {
    vq_fd fd;               /* locked; -1: none */
    char *path;             /* owned */
    const q_kern *kern;
    uint8_t chain[32];      /* hash of the last entry */
    uint64_t size;          /* bytes of the journal that count */
    vq_mark last;           /* its last entry; pos = 0: none */
} vq_journal;

typedef struct vq_journal_head {
    uint8_t key[32];        /* hash of all that is known beforehand: layout, config, metadata */
    uint8_t stamp[32];      /* of the source */
    const void *meta;       /* (meta_size) metadata records: to say what is different */
    size_t meta_size;
} vq_journal_head;

typedef enum vq_journal_is {
    VQ_JOURNAL_NONE,        /* not there, empty, or its head was torn */
    VQ_JOURNAL_SAME,        /* of the same container */
    VQ_JOURNAL_OTHER
} vq_journal_is;

char *vq_journal_name(const char *path);    /* vq_free; NULL: out of memory */
/* Opens and locks PATH.journal, making it when it is not there (*made).  VQ_EFAIL: another process
 * has it. */
vq_status vq_journal_open(vq_journal *j, const char *path, const q_kern *kern, bool *made,
                          vq_err *e);
/* Compares the head with ours.  OTHER: *why says what is different.  SAME: *touched when the stamp
 * is another. */
vq_journal_is vq_journal_head_is(const vq_journal *j, const vq_journal_head *head, bool *touched,
                                 char why[300]);
/* Reads entries as long as they are whole and end at or before `until` of the file; fills the
 * hashes (32 bytes each, n_hash of them) and the error figures (n_tensor) they bring. */
vq_status vq_journal_read(vq_journal *j, uint64_t until, uint8_t *hash, uint64_t n_hash,
                          vaq_tensor *tensor, uint32_t n_tensor, vq_err *e);
/* Empty but for a head; durable. */
vq_status vq_journal_start(vq_journal *j, const vq_journal_head *head, vq_err *e);
/* Adds the entry m: hashes and figures beyond those of the last. */
vq_status vq_journal_add(vq_journal *j, const vq_mark *m, const uint8_t *hash,
                         const vaq_tensor *tensor, vq_err *e);
void vq_journal_close(vq_journal *j, bool remove);  /* takes one that is not open */

#endif
