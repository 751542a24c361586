/* Any bytes as a line of requests and of scores. What is read as a request is printed and read again to the same shape.
 */
#include <stdio.h>
#include <stdlib.h>

#include "model/jsonl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void print_and_read_again(const struct rk_named_request *request, struct rk_arena *arena)
{
    char *text = NULL;
    size_t length;
    struct rk_named_request again;
    struct rk_error error = {0};
    FILE *stream = open_memstream(&text, &length);
    if (stream == NULL || !rk_jsonl_print_request(stream, request) || fclose(stream) != 0)
        abort();
    if (rk_jsonl_parse(text, length, arena, &again, &error) != RK_OK ||
        again.num_candidates != request->num_candidates ||
        again.candidates.num_dense != request->candidates.num_dense ||
        again.candidates.num_features != request->candidates.num_features ||
        again.context.num_features != request->context.num_features)
        abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rk_arena arena;
    struct rk_error error = {0};
    struct rk_named_request request;
    struct rk_named_scores scores;
    rk_arena_init(&arena, 4096);
    enum rk_status status = rk_jsonl_parse((const char *)data, size, &arena, &request, &error);
    if ((status == RK_OK) != (error.text[0] == '\0'))
        abort();
    if (status == RK_OK)
        print_and_read_again(&request, &arena);
    error = (struct rk_error){0};
    status = rk_jsonl_parse_scores((const char *)data, size, &arena, &scores, &error);
    if ((status == RK_OK) != (error.text[0] == '\0'))
        abort();
    rk_arena_deinit(&arena);
    return 0;
}
