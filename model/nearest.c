/* Edit distance (Levenshtein, one row of the matrix at a time) and the few best of a list. No allocation; any thread.
 */
#include "model/nearest.h"

#include <stdio.h>
#include <string.h>

#define MAX_LENGTH 128

unsigned rk_edit_distance(const char *a, const char *b)
{
    size_t a_length = strnlen(a, MAX_LENGTH), b_length = strnlen(b, MAX_LENGTH);
    unsigned row[MAX_LENGTH + 1];
    for (size_t j = 0; j <= b_length; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
            unsigned shorter = row[j - 1] < row[j] ? row[j - 1] : row[j];
            diagonal = row[j];
            row[j] = replace < shorter + 1 ? replace : shorter + 1;
        }
    }
    return row[b_length];
}

size_t rk_nearest_names(const char *wrong, const char *const *names, size_t num_names, const char **nearest, size_t max)
{
    /* Alike: at most half of the longer name differs. */
    size_t wrong_length = strnlen(wrong, MAX_LENGTH), count = 0;
    unsigned distances[8];
    if (max > sizeof distances / sizeof distances[0])
        max = sizeof distances / sizeof distances[0];
    for (size_t i = 0; i < num_names; i++) {
        unsigned distance = rk_edit_distance(wrong, names[i]);
        size_t length = strnlen(names[i], MAX_LENGTH);
        if (2 * (size_t)distance > (length > wrong_length ? length : wrong_length))
            continue;
        size_t at = count < max ? count : max;
        while (at > 0 && distances[at - 1] > distance) {
            if (at < max) {
                distances[at] = distances[at - 1];
                nearest[at] = nearest[at - 1];
            }
            at--;
        }
        if (at < max) {
            distances[at] = distance;
            nearest[at] = names[i];
            count += count < max;
        }
    }
    return count;
}

const char *rk_did_you_mean(const char *wrong, const char *const *names, size_t num_names, char *buffer, size_t size)
{
    const char *best;
    if (rk_nearest_names(wrong, names, num_names, &best, 1) == 1)
        snprintf(buffer, size, "; did you mean '%.128s'?", best);
    else
        snprintf(buffer, size, "%s", "");
    return buffer;
}
