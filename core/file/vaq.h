/* vaq.h - the structs of a .vaq container, byte for byte.  FORMAT.md is normative; this is it in C.
 *
 * A file is a front and a body.  The front (header, section directory, sections) is hashed whole
 * at open; the body holds the tensors, each 4096-aligned, in the order the kernels read them,
 * hashed in chunks of 1 MiB whose hashes are a section of the front.  One root covers every byte.
 *
 *   0                 vaq_header (256 B), then n_sections x vaq_section
 *   sections          each 64-aligned, in any order, no overlaps
 *   body_off          multiple of 4096; zero padding in between
 *   tensors           each at a multiple of 4096, zero padding in between
 *   file_size         = body_off + body_size, a multiple of 4096: the last tensor is padded too
 *
 * All integers little-endian, all floats IEEE; the host must be little-endian. */
#ifndef CORE_FILE_VAQ_H
#define CORE_FILE_VAQ_H

#include <assert.h>
#include <stdint.h>

#define VAQ_MAGIC "\x89VAQ\r\n\x1a\n" /* 8 bytes; catches text-mode transfers as PNG's does */
enum {
    VAQ_VERSION = 1,
    VAQ_ARITH = 1,          /* exact.md's number */
    VAQ_ENC = 1,            /* the encoder's number */
    VAQ_PAGE = 4096,        /* alignment of the body and of every tensor */
    VAQ_CHUNK = 1 << 20,    /* bytes of the body per hash */
    VAQ_MAX_SECTIONS = 64,
    VAQ_MAX_HEAD_DIM = 1024,
    VAQ_MAX_LAYERS = 1024,
    VAQ_MAX_EXPERTS = 4096,
    VAQ_MAX_MTP = 16
};

typedef struct vaq_header {
    char magic[8];
    uint32_t version;       /* VAQ_VERSION: a reader refuses a larger one */
    uint32_t arith;         /* VAQ_ARITH: a reader refuses any other */
    uint64_t file_size;
    uint64_t body_off;      /* multiple of 4096 */
    uint64_t body_size;     /* file_size - body_off */
    uint32_t n_sections;
    uint32_t enc;           /* encoder number, informative */
    uint8_t root[32];       /* SHA-256 of the header with this field zero, then the directory */
    uint8_t pad[176];       /* zero */
} vaq_header;
static_assert(sizeof(vaq_header) == 256, "header");

typedef enum vaq_section_id {
    VAQ_SEC_META = 1,       /* typed metadata: see below */
    VAQ_SEC_CONFIG = 2,     /* vaq_config */
    VAQ_SEC_ROPE = 3,       /* f64[rope_dim / 2] */
    VAQ_SEC_TENSORS = 4,    /* vaq_tensor[], sorted by (role, layer, expert), unique */
    VAQ_SEC_CHUNKS = 5,     /* u8[ceil(body_size / VAQ_CHUNK)][32] */
    VAQ_SEC_TOKENIZER = 6   /* vaq_tok_header ...; absent: ids only */
} vaq_section_id;

typedef struct vaq_section {
    uint32_t id;            /* vaq_section_id; unknown ones: skipped if bit 31 is set, or refused */
    uint32_t pad;           /* zero */
    uint64_t off;           /* from the file's start, multiple of 64 */
    uint64_t size;
    uint8_t sha256[32];     /* of the section's bytes */
    uint64_t pad2;          /* zero */
} vaq_section;
static_assert(sizeof(vaq_section) == 64, "section");

/* Metadata: records of { u32 key_len, u32 type, u64 value_len, key bytes, value bytes, zeros up to
 * a multiple of 8 }.  type 1 = UTF-8 text, 2 = u64, 3 = f64.  Keys of today: name, distill_of,
 * licence, source (folder or repository name), source_sha256 (hex; of headers and config:
 * see convert), recipe, rules, template, chat_template, tool (writer's version),
 * quality.* (convert/quality.h). */
enum { VAQ_META_TEXT = 1, VAQ_META_U64 = 2, VAQ_META_F64 = 3 };

typedef enum vaq_arch { VAQ_QWEN2 = 1, VAQ_LLAMA = 2, VAQ_QWEN3 = 3, VAQ_DEEPSEEK3 = 4 } vaq_arch;

typedef enum vaq_template { /* chat.h renders them */
    VAQ_TPL_NONE = 0,       /* no template: raw prompts only */
    VAQ_TPL_R1_2501 = 1,    /* R1 of January 2025: the answer starts after the Assistant mark */
    VAQ_TPL_R1_2502 = 2,    /* R1 of February 2025, R1-Zero: ends in <think>\n */
    VAQ_TPL_DISTILL = 3,    /* R1-Distill: ends in <think>\n, last system message only */
    VAQ_TPL_R1_0528 = 4,    /* R1-0528 and R1-0528-Qwen3-8B */
    VAQ_TPL_CHATML = 5,     /* <|im_start|>role\n...<|im_end|>\n, no default system text */
    VAQ_TPL_SMOLLM = 6,     /* ChatML with SmolLM2's default system text */
    VAQ_TPL_DISTILL_2501 = 7 /* R1-Distill before February 2025: without the <think>\n tail */
} vaq_template;

enum { /* vaq_config.flags */
    VAQ_F_TIED = 1,         /* no head tensor: the embedding is the head */
    VAQ_F_QK_NORM = 2,
    VAQ_F_ROPE_PAIRS = 4,   /* neighbours (2i, 2i+1); else half-split */
    VAQ_F_QKV_BIAS = 8,
    VAQ_F_NORM_TOPK = 16,   /* router weights are divided by their sum */
    VAQ_F_MTP_EMBED = 32,   /* MTP's embedding is the main one: stored once */
    VAQ_F_MTP_HEAD = 64     /* MTP's head is the main one (when tied: the embedding) */
};

typedef struct vaq_config {
    uint32_t arch;          /* vaq_arch */
    uint32_t flags;
    uint32_t n_layer;       /* without MTP layers */
    uint32_t hidden;
    uint32_t n_head, n_head_kv; /* MLA: one latent for all heads, n_head_kv = 1 */
    uint32_t head_dim;      /* dims of a q and k head: for MLA nope + rope */
    uint32_t v_dim;         /* dims of a v head */
    uint32_t inter;         /* rows of gate and of up (dense layers) */
    uint32_t n_vocab;       /* rows of embedding and head */
    uint32_t n_ids;         /* ids 0..n_ids-1 may be sampled; <= n_vocab */
    uint32_t ctx;           /* positions the model was made for */
    float eps;              /* of every rmsnorm */
    float attn_scale;       /* whole factor on q.k, rounded once from f64 */
    uint32_t rope_dim;      /* dims rotated; the rope section has rope_dim / 2 entries */
    uint32_t template_id;   /* vaq_template */
    double rope_mult;       /* on cos and sin */
    int32_t bos, eos;       /* -1: none */
    /* MLA (VAQ_DEEPSEEK3), else 0 */
    uint32_t q_lora, kv_lora, nope_dim;
    /* experts, else 0 */
    uint32_t n_expert, n_expert_used, n_expert_shared, n_group, n_group_used, n_dense_layer;
    uint32_t moe_inter;
    float routed_scale;
    uint32_t n_mtp;         /* MTP layers kept, numbered n_layer .. */
    float temperature;      /* the checkpoint's advice, NaN-free; 0.6 and 0.95 when it has none */
    float top_p;
    uint32_t pad[26];       /* zero */
} vaq_config;
static_assert(sizeof(vaq_config) == 240, "config");


/* What a tensor is.  Never renumbered.  (rows x cols) in terms of vaq_config. */
typedef enum vaq_role {
    VAQ_EMBED = 1,          /* n_vocab x hidden, matrix */
    VAQ_HEAD = 2,           /* n_vocab x hidden, matrix; absent when tied */
    VAQ_NORM_OUT = 3,       /* hidden, vector */
    VAQ_NORM_ATTN = 4,      /* hidden, vector; and so on per layer */
    VAQ_NORM_FFN = 5,
    VAQ_Q = 6,              /* n_head * head_dim x hidden */
    VAQ_K = 7,              /* n_head_kv * head_dim x hidden */
    VAQ_V = 8,              /* n_head_kv * v_dim x hidden */
    VAQ_O = 9,              /* hidden x n_head * v_dim */
    VAQ_Q_BIAS = 10, VAQ_K_BIAS = 11, VAQ_V_BIAS = 12,  /* vectors */
    VAQ_Q_NORM = 13, VAQ_K_NORM = 14,                   /* head_dim, vectors */
    VAQ_GATE_UP = 15,       /* 2 * round16(inter) x hidden: row groups gate 0, up 0, gate 1, ... */
    VAQ_DOWN = 16,          /* hidden x inter */
    /* VAQ_DEEPSEEK3.  Attention of every layer; 6 when q_lora = 0, else 32-34. */
    VAQ_Q_A = 32,           /* q_lora x hidden */
    VAQ_Q_A_NORM = 33,      /* q_lora, vector */
    VAQ_Q_B = 34,           /* n_head * head_dim x q_lora */
    VAQ_KV_A = 35,          /* kv_lora + rope_dim x hidden */
    VAQ_KV_A_NORM = 36,     /* kv_lora, vector */
    VAQ_K_UP = 37,          /* n_head * kv_lora x nope_dim: WK^T of each head, absorbed into q */
    VAQ_V_UP = 38,          /* n_head * v_dim x kv_lora: WV of each head */
    /* Layers with experts; those before n_dense_layer have 15 and 16 instead. */
    VAQ_ROUTER = 39,        /* n_expert x hidden, f32 */
    VAQ_ROUTER_BIAS = 40,   /* n_expert, vector: for the selection only */
    VAQ_SHARED_GATE_UP = 41, /* 2 * round16(n_expert_shared * moe_inter) x hidden */
    VAQ_SHARED_DOWN = 42,   /* hidden x n_expert_shared * moe_inter */
    VAQ_EXPERT_GATE_UP = 43, /* 2 * round16(moe_inter) x hidden, per expert */
    VAQ_EXPERT_DOWN = 44,   /* hidden x moe_inter, per expert */
    /* Layers n_layer .. n_layer + n_mtp - 1 besides all of the above */
    VAQ_MTP_EMBED = 48,     /* n_vocab x hidden; absent with VAQ_F_MTP_EMBED */
    VAQ_MTP_HEAD = 49,      /* n_vocab x hidden; absent with VAQ_F_MTP_HEAD */
    VAQ_MTP_ENORM = 50, VAQ_MTP_HNORM = 51, /* hidden, vectors */
    VAQ_MTP_EH = 52,        /* hidden x 2 * hidden: the columns of the embedding first */
    VAQ_MTP_NORM = 53       /* hidden, vector: before the head */
} vaq_role;

typedef struct vaq_tensor {
    uint64_t off;           /* from the file's start, multiple of 4096 */
    uint64_t size;          /* bytes; for a matrix q_matrix_bytes(type, rows, cols) */
    uint32_t rows, cols;    /* logical shape; vector: rows = 1 */
    uint16_t role;          /* vaq_role */
    uint16_t type;          /* q_type id; vectors are F32 */
    uint16_t layout;        /* 0 = vector (row-major f32), 1 = T16, 2 = T16 gate/up interleaved */
    uint16_t layer;         /* 0xffff when it belongs to no layer */
    int32_t expert;         /* -1 when it belongs to none */
    float rel_rmse;         /* of encoding: sqrt(sum (w-q)^2 / sum w^2), informative */
    uint64_t params;        /* weights of the checkpoint in it (without padding) */
    uint64_t pad[2];        /* zero */
} vaq_tensor;
static_assert(sizeof(vaq_tensor) == 64, "tensor");

#endif
