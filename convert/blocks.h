/* blocks.h - floats into the types of GGUF files: cv_decode's other direction. */
#ifndef CONVERT_BLOCKS_H
#define CONVERT_BLOCKS_H

#include "convert/dtype.h"

/* F32 F16 BF16 Q8_0 Q4_0 IQ4_NL Q6_K. */
bool cv_encodes(cv_dtype d);
/* n values, whole blocks of d, into cv_row_bytes(d, n) bytes: the same on every machine.  False: a
 * value is too large for the type's half-precision numbers. */
bool cv_encode(void *out, cv_dtype d, const float *x, size_t n);

#endif
