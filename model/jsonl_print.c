/* Printing requests and scores as JSON lines, with as many digits as restore every float. Plain stdio: one thread per
 * stream. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "model/jsonl.h"

static bool print_string(FILE *stream, const char *text, size_t length)
{
    json_t *string = json_stringn(text, length);
    bool fine = string != NULL && json_dumpf(string, stream, JSON_ENCODE_ANY) == 0;
    json_decref(string);
    return fine;
}

static void print_matrix(FILE *stream, const char *name, const float *values, uint32_t rows, uint32_t columns)
{
    fprintf(stream, ", \"%s\": [", name);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < columns; c++)
            fprintf(stream, "%s%.9g%s",
                    c > 0   ? ", "
                    : r > 0 ? ", ["
                            : "[",
                    (double)values[(size_t)r * columns + c], c + 1 == columns ? "]" : "");
    fputc(']', stream);
}

void rk_jsonl_print_scores(FILE *stream, const char *id, const float *logits, const float *probabilities,
                           const double *values, uint32_t num_candidates, uint32_t num_heads)
{
    fputs("{\"id\": ", stream);
    if (!print_string(stream, id, strlen(id)))
        fputs("\"\"", stream);
    print_matrix(stream, "logits", logits, num_candidates, num_heads);
    print_matrix(stream, "probabilities", probabilities, num_candidates, num_heads);
    for (uint32_t c = 0; values != NULL && c < num_candidates; c++)
        fprintf(stream, "%s%.17g", c > 0 ? ", " : ", \"values\": [", values[c]);
    fputs(values != NULL && num_candidates > 0 ? "]}\n" : "}\n", stream);
}

/* Where row r's bags begin in each feature is found by adding up lengths, so rows must be printed in order. */
static bool print_row(FILE *stream, const struct rk_named_block *block, uint32_t row, uint32_t num_rows,
                      uint64_t *starts)
{
    uint64_t width = block->num_dense / num_rows;
    bool weighted = false;
    fputs("{\"dense\": [", stream);
    for (uint64_t i = 0; i < width; i++)
        fprintf(stream, "%s%.9g", i > 0 ? ", " : "", (double)block->dense[row * width + i]);
    fputs("], \"ids\": {", stream);
    for (int pass = 0; pass < 2; pass++) {
        const char *separator = "";
        for (uint32_t f = 0; f < block->num_features; f++) {
            const struct rk_named_bags *bags = &block->features[f];
            if (pass == 1 && bags->num_weights == 0)
                continue;
            if (pass == 1 && !weighted) {
                fputs(", \"weights\": {", stream);
                weighted = true;
            }
            fputs(separator, stream);
            separator = ", ";
            if (!print_string(stream, bags->name, bags->name_bytes))
                return false;
            fputs(": [", stream);
            uint64_t length = bags->num_lengths > 0 ? bags->lengths[row] : bags->num_ids / num_rows;
            for (uint64_t i = 0; i < length; i++) {
                fputs(i > 0 ? ", " : "", stream);
                if (pass == 0)
                    fprintf(stream, "%" PRId64, bags->ids[starts[f] + i]);
                else
                    fprintf(stream, "%.9g", (double)bags->weights[starts[f] + i]);
            }
            fputc(']', stream);
        }
        if (pass == 0 || weighted)
            fputc('}', stream);
    }
    for (uint32_t f = 0; f < block->num_features; f++) {
        const struct rk_named_bags *bags = &block->features[f];
        starts[f] += bags->num_lengths > 0 ? bags->lengths[row] : bags->num_ids / num_rows;
    }
    fputc('}', stream);
    return true;
}

bool rk_jsonl_print_request(FILE *stream, const struct rk_named_request *request)
{
    uint32_t most = request->context.num_features > request->candidates.num_features ? request->context.num_features
                                                                                     : request->candidates.num_features;
    uint64_t *starts = calloc((size_t)most + 1, sizeof *starts);
    if (starts == NULL)
        return false;
    fputs("{\"id\": ", stream);
    bool fine = print_string(stream, request->id, strlen(request->id));
    fputs(", \"context\": ", stream);
    fine = fine && print_row(stream, &request->context, 0, 1, starts);
    fputs(", \"candidates\": [", stream);
    memset(starts, 0, ((size_t)most + 1) * sizeof *starts);
    for (uint32_t c = 0; fine && c < request->num_candidates; c++) {
        fputs(c > 0 ? ", " : "", stream);
        fine = print_row(stream, &request->candidates, c, request->num_candidates, starts);
    }
    fputs("]}\n", stream);
    free(starts);
    return fine && !ferror(stream);
}
