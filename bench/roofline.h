/* roofline.h - the machine's limits with the run's threads: bytes read per second, int8 products
 * per second. */
#ifndef BENCH_ROOFLINE_H
#define BENCH_ROOFLINE_H

#include "core/base/err.h"

#include <stdint.h>

typedef struct bn_roof bn_roof;

/* Allocates the buffer that is read: 1 GiB, or a quarter of the available memory if that is less.
 */
vq_status bn_roof_open(bn_roof **out, int threads, const char *level, vq_err *e);
void bn_roof_close(bn_roof *r);
uint64_t bn_roof_bytes(const bn_roof *r); /* memory it holds */
/* Both go on for `seconds` at least, all threads together: limits that wander want to be watched
 * about as long as what they limit. */
double bn_roof_read(bn_roof *r, double seconds); /* GB/s, of at least 1 GiB */
double bn_roof_int8(bn_roof *r, double seconds); /* GMAC/s, of some 30 ms at least */

#endif
