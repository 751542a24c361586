/* Scores in arrays that double when they are full. One thread. */
#include "model/score_list.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void rk_score_list_init(struct rk_score_list *list, uint32_t num_heads)
{
    *list = (struct rk_score_list){.num_heads = num_heads, .labelled = true};
    rk_arena_init(&list->arena, 1u << 14);
}

void rk_score_list_deinit(struct rk_score_list *list)
{
    free(list->first);
    free(list->ids);
    free(list->logits);
    free(list->labels);
    rk_arena_deinit(&list->arena);
}

/* realloc() that leaves *array alone when it fails. */
static bool resize(void *array, size_t count, size_t element_bytes)
{
    void *moved = reallocarray(*(void **)array, count, element_bytes);
    if (moved != NULL)
        *(void **)array = moved;
    return moved != NULL;
}

static bool reserve(struct rk_score_list *list, size_t num_candidates)
{
    if (list->num_requests == list->request_capacity) {
        const size_t capacity = 2 * list->request_capacity + 64;
        if (!resize(&list->first, capacity + 1, sizeof *list->first) ||
            !resize(&list->ids, capacity, sizeof *list->ids))
            return false;
        list->request_capacity = capacity;
        list->first[0] = 0;
    }
    if (list->num_candidates + num_candidates > list->candidate_capacity) {
        const size_t capacity = 2 * (list->num_candidates + num_candidates);
        if (!resize(&list->logits, capacity, list->num_heads * sizeof *list->logits) ||
            !resize(&list->labels, capacity, list->num_heads * sizeof *list->labels))
            return false;
        list->candidate_capacity = capacity;
    }
    return true;
}

enum rk_status rk_score_list_add(struct rk_score_list *list, const char *id, uint32_t num_candidates,
                                 const double *logits, const double *labels, struct rk_error *error)
{
    const size_t count = (size_t)num_candidates * list->num_heads;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(logits[i]))
            return rk_error_set(error, RK_CORRUPT, "request '%.64s', candidate %zu: logit %zu is %g, not finite", id,
                                i / list->num_heads, i % list->num_heads, logits[i]);
    const char *copy = rk_arena_string(&list->arena, id, strlen(id));
    if (copy == NULL || !reserve(list, num_candidates))
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the scores of %zu requests",
                            list->num_requests + 1);
    const size_t at = list->num_candidates * list->num_heads;
    for (size_t i = 0; i < count; i++) {
        list->logits[at + i] = logits[i];
        list->labels[at + i] = labels != NULL && labels[i] > 0.5;
    }
    list->labelled = list->labelled && labels != NULL;
    list->ids[list->num_requests++] = copy;
    list->num_candidates += num_candidates;
    list->first[list->num_requests] = list->num_candidates;
    return RK_OK;
}

static enum rk_status add_line(struct rk_score_list *list, const char *line, size_t length, struct rk_arena *arena,
                               struct rk_error *error)
{
    struct rk_named_scores scores;
    enum rk_status status = rk_jsonl_parse_scores(line, length, arena, &scores, error);
    if (status == RK_OK && scores.num_candidates > 0 && scores.num_heads != list->num_heads)
        status = rk_error_set(error, RK_INVALID, "there are logits of %u heads, the model has %u", scores.num_heads,
                              list->num_heads);
    return status == RK_OK
               ? rk_score_list_add(list, scores.id, scores.num_candidates, scores.logits, scores.labels, error)
               : status;
}

enum rk_status rk_score_list_read(struct rk_score_list *list, const char *path, struct rk_error *error)
{
    struct rk_error local = {0};
    struct rk_jsonl_reader *reader;
    struct rk_arena arena;
    const char *line;
    size_t length;
    uint64_t number;
    enum rk_status status = rk_jsonl_open(path, &reader, error);
    if (status != RK_OK)
        return status;
    rk_arena_init(&arena, 1u << 16);
    while ((status = rk_jsonl_next(reader, &line, &length, &number, &local)) == RK_OK && line != NULL) {
        rk_arena_reset(&arena, SIZE_MAX);
        status = add_line(list, line, length, &arena, &local);
        if (status != RK_OK) {
            rk_error_prefix(&local, "%s:%" PRIu64, path, number);
            break;
        }
    }
    rk_arena_deinit(&arena);
    rk_jsonl_close(reader);
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "%s", local.text);
}

enum rk_status rk_score_list_match(const struct rk_score_list *list, const char *name,
                                   const struct rk_score_list *other, const char *other_name, struct rk_error *error)
{
    if (list->num_heads != other->num_heads)
        return rk_error_set(error, RK_INVALID, "%s has %u heads, %s has %u", name, list->num_heads, other_name,
                            other->num_heads);
    for (size_t r = 0; r < list->num_requests && r < other->num_requests; r++) {
        const size_t count = list->first[r + 1] - list->first[r], others = other->first[r + 1] - other->first[r];
        if (strcmp(list->ids[r], other->ids[r]) != 0)
            return rk_error_set(error, RK_INVALID, "request %zu is '%.64s' in %s and '%.64s' in %s", r + 1,
                                list->ids[r], name, other->ids[r], other_name);
        if (count != others)
            return rk_error_set(error, RK_INVALID, "request '%.64s' has %zu candidates in %s and %zu in %s",
                                list->ids[r], count, name, others, other_name);
    }
    if (list->num_requests != other->num_requests)
        return rk_error_set(error, RK_INVALID, "there are %zu requests in %s and %zu in %s", list->num_requests, name,
                            other->num_requests, other_name);
    return RK_OK;
}
