/* Requests and scores as JSON lines: the form that people keep in files.
 *
 *   {"id": "r0", "context": {"dense": [...], "ids": {"user": [7]}, "weights": {"history": [...]}},
 *    "candidates": [{"dense": [...], "ids": {"game": [3]}}, ...]}
 *   {"id": "r0", "logits": [[...], ...], "probabilities": [[...], ...], "values": [...]}
 *                 [candidates][heads]           likewise                [candidates], may be left out
 */
#ifndef RANKD_MODEL_JSONL_H
#define RANKD_MODEL_JSONL_H

#include <stdbool.h>
#include <stdio.h>

#include "model/request.h"

#define RK_JSONL_MAX_LINE (256u << 20) /* bytes; a longer line is refused */

/* Parses one line into the arena; needs no model. Errors say where in the line: "candidates[3].ids.game[0] is 1.5, not
 * a whole number". Every candidate must have the same features; a missing one is an error that names the candidate. */
enum rk_status rk_jsonl_parse(const char *line, size_t length, struct rk_arena *arena, struct rk_named_request *request,
                              struct rk_error *error);

/* Prints one line with enough digits to restore the numbers (%.9g, %.17g). values: [num_candidates], or NULL. */
void rk_jsonl_print_scores(FILE *stream, const char *id, const float *logits, const float *probabilities,
                           const double *values, uint32_t num_candidates, uint32_t num_heads);

/* Reads `path` ("-": standard input) line by line; each non-empty line is parsed into an arena that is reset after it
 * and given to `visit` with its line number (from 1). Stops at the first status other than RK_OK; the error text starts
 * with "path:line: ". */
typedef enum rk_status rk_jsonl_visit_fn(void *context, uint64_t line, struct rk_named_request *request,
                                         struct rk_arena *arena, struct rk_error *error);
enum rk_status rk_jsonl_read(const char *path, rk_jsonl_visit_fn *visit, void *context, struct rk_error *error);

/* The same, pulled: one line after the other, empty ones left out. A line is valid until the next call. */
struct rk_jsonl_reader;
enum rk_status rk_jsonl_open(const char *path, struct rk_jsonl_reader **reader, struct rk_error *error);
/* *line is NULL at the end. */
enum rk_status rk_jsonl_next(struct rk_jsonl_reader *reader, const char **line, size_t *length, uint64_t *number,
                             struct rk_error *error);
void rk_jsonl_close(struct rk_jsonl_reader *reader);

/* Prints a request as one line that rk_jsonl_parse() reads back to the same numbers. Returns false when memory runs
 * out. */
bool rk_jsonl_print_request(FILE *stream, const struct rk_named_request *request);

/* A line of scores, as rankpack score, rankctl and a trainer write them. */
struct rk_named_scores {
    const char *id; /* "" when there is none */
    uint32_t num_candidates, num_heads;
    double *logits; /* [num_candidates][num_heads] */
    double *labels; /* likewise, or NULL */
};
enum rk_status rk_jsonl_parse_scores(const char *line, size_t length, struct rk_arena *arena,
                                     struct rk_named_scores *scores, struct rk_error *error);

#endif
