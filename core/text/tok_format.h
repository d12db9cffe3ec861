/* tok_format.h - the tokenizer section of a container, byte for byte (FORMAT.md, "Tokenizer").
 *
 * The section is the tokenizer: tok.c works on it in place.  It is a header and eight parts, in the
 * order of the struct's comment, each padded with zeros to a multiple of 8 bytes; their sizes
 * follow from the counts in the header, so there are no offsets that could be wrong. */
#ifndef CORE_TEXT_TOK_FORMAT_H
#define CORE_TEXT_TOK_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VAQ_TOK_VERSION = 1,
    VAQ_TOK_MAX_IDS = 1 << 22,      /* ids are smaller; the largest vocabulary of today has 2^18 */
    VAQ_TOK_MAX_TEXT = 1 << 28      /* bytes of all tokens together */
};

typedef enum vaq_splitter {         /* regular expressions that cut text into pieces: split.c */
    VAQ_SPLIT_DEEPSEEK = 1,
    VAQ_SPLIT_QWEN = 2,
    VAQ_SPLIT_LLAMA3 = 3,
    VAQ_SPLIT_SMOLLM = 4
} vaq_splitter;

enum { /* vaq_tok_header.flags */
    VAQ_TOK_NFC = 1,                /* text is normalized before it is split */
    VAQ_TOK_IGNORE_MERGES = 2,      /* a piece that is a token is that token, merges or not */
    VAQ_TOK_PAIRS = 4               /* merges are listed; else a merge's rank is its result's id */
};

/* Parts: i32 byte_id[256], u32 start[n_ids + 1], i32 slot[n_slot], vaq_tok_pair pair[n_pair_slot],
 * i32 added[n_added], u8 kind[n_ids], u8 text[text_size]. */
typedef struct vaq_tok_header {
    uint32_t version;               /* VAQ_TOK_VERSION */
    uint32_t splitter;              /* vaq_splitter */
    uint32_t flags;
    uint32_t n_ids;                 /* ids 0 .. n_ids-1; some may be unused */
    uint32_t n_slot;                /* power of two, more than the number of plain tokens */
    uint32_t n_pair_slot;           /* power of two, more than merges; 0 without VAQ_TOK_PAIRS */
    uint32_t n_added;
    uint32_t text_size;
    uint32_t max_len;               /* bytes of the longest plain token */
    int32_t bos, eos;               /* -1: none */
    uint32_t pad[5];                /* zero */
} vaq_tok_header;
static_assert(sizeof(vaq_tok_header) == 64, "tokenizer header");

enum { /* kind[id] */
    VAQ_TOK_UNUSED = 0,
    VAQ_TOK_PLAIN = 1,              /* made by merges */
    VAQ_TOK_ADDED = 2,              /* found in the text before it is split */
    VAQ_TOK_ADDED_NORM = 4,         /* found in the normalized text */
    VAQ_TOK_WHOLE = 8               /* beside PLAIN: a piece of exactly these bytes is this token */
};

typedef struct vaq_tok_pair {       /* a merge; an empty slot has a = -1 */
    int32_t a, b;
    int32_t rank;                   /* lower merges first */
    int32_t id;                     /* of the result */
} vaq_tok_pair;
static_assert(sizeof(vaq_tok_pair) == 16, "pair");

/* Hashes: slot number = hash & (n - 1), then upwards, wrapping, until the entry or an empty one. */
static inline uint32_t vaq_tok_hash(const uint8_t *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325; /* FNV-1a */
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3;
    return (uint32_t)(h ^ h >> 32);
}
static inline uint32_t vaq_tok_hash_pair(int32_t a, int32_t b)
{
    uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9e3779b97f4a7c15;
    return (uint32_t)(h >> 32);
}

#endif
