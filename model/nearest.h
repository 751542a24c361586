/* "Did you mean": the known names that look most like a wrong one. */
#ifndef RANKD_MODEL_NEAREST_H
#define RANKD_MODEL_NEAREST_H

#include <stddef.h>

/* The number of single-character edits between two names; only the first 128 bytes count. */
unsigned rk_edit_distance(const char *a, const char *b);

/* Fills nearest[] with at most `max` of the names, best first, leaving out those that are not alike at all.
 * Returns how many. */
size_t rk_nearest_names(const char *wrong, const char *const *names, size_t num_names, const char **nearest,
                        size_t max);

/* "; did you mean 'x'?" in the buffer, or "" when nothing is alike. Returns the buffer. */
const char *rk_did_you_mean(const char *wrong, const char *const *names, size_t num_names, char *buffer, size_t size);

#endif
