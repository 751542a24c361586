/* The best candidates of a request. */
#ifndef RANKD_SERVER_TOP_K_H
#define RANKD_SERVER_TOP_K_H

#include <stdint.h>

/* Writes the positions of the k highest of scores[count] (k <= count), best first, to positions[k]. Equal scores stand
 * in the order of their positions. No score is NaN. O(count log k). */
void rk_top_k(const double *scores, uint32_t count, uint32_t k, uint32_t *positions);

#endif
