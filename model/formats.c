/* The number formats of a model in a few words. */
#include <stdio.h>
#include <string.h>

#include "model/spec.h"

/* Text that grows in somebody else's buffer, cut off at its end. */
struct words {
    char *text;
    size_t size, used;
};

static void add(struct words *words, const char *word)
{
    const size_t left = words->size - words->used;
    const int length = snprintf(words->text + words->used, left, "%s", word);
    words->used += (size_t)length < left ? (size_t)length : left - 1;
}

const char *rk_model_spec_formats(const struct rk_model_spec *spec, char *text, size_t size)
{
    bool rows[RK_ROW_FORMAT_COUNT] = {false}, towers[RK_DENSE_FORMAT_COUNT] = {false};
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    const size_t num_layers = rk_model_spec_layers(spec, layers);
    struct words words = {text, size, 0};
    const char *between = "";
    text[0] = '\0';
    for (uint32_t t = 0; t < spec->num_tables; t++)
        rows[spec->tables[t].format] = true;
    for (size_t l = 0; l < num_layers; l++)
        towers[layers[l].layer->format] = true;
    if (spec->interaction.op == RK_INTERACTION_DOT)
        towers[spec->interaction.format] = true;
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        if (rows[f]) {
            add(&words, between);
            add(&words, rk_row_format_name((enum rk_row_format)f));
            between = "/";
        }
    add(&words, between[0] != '\0' ? " rows, " : "");
    between = "";
    for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
        if (towers[f]) {
            add(&words, between);
            add(&words, rk_dense_format_name((enum rk_dense_format)f));
            between = "/";
        }
    add(&words, " towers");
    return text;
}
