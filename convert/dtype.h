/* dtype.h - the number types of checkpoints: safetensors' and, block by block, ggml's. */
#ifndef CONVERT_DTYPE_H
#define CONVERT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cv_dtype { /* those we can decode, then all others */
    CV_F32, CV_F16, CV_BF16, CV_F8_E4M3,
    CV_Q4_0, CV_Q4_1, CV_Q5_0, CV_Q5_1, CV_Q8_0,
    CV_Q2_K, CV_Q3_K, CV_Q4_K, CV_Q5_K, CV_Q6_K, CV_IQ4_NL, CV_IQ4_XS, CV_MXFP4,
    CV_OTHER
} cv_dtype;

typedef struct cv_gtype_info {  /* a type of GGUF files */
    const char *name;           /* "Q4_K" */
    uint8_t id;                 /* in files */
    uint16_t block, bytes;      /* values of a block, which lie in one row, and its bytes */
    cv_dtype dtype;             /* CV_OTHER: sized only */
} cv_gtype_info;
const cv_gtype_info *cv_gtype_find(uint64_t id);    /* NULL: no type, or one out of use */
const cv_gtype_info *cv_gtype_of(cv_dtype d);       /* NULL: not of GGUF */

extern const int8_t cv_iq4_table[16];               /* of IQ4_NL, IQ4_XS */

enum { CV_BLOCK_MAX = 256 };
/* Values of a block: 1 where each stands alone. */
size_t cv_dtype_block(cv_dtype d);
/* Bytes of n values, whole blocks of them; 0 for CV_OTHER. */
size_t cv_row_bytes(cv_dtype d, size_t n);
/* n values at p, whole blocks of them, as floats; d is not CV_OTHER.  Any alignment. */
void cv_decode(float *out, cv_dtype d, const void *p, size_t n);

#endif
