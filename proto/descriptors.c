/* Looks into the tables that embed_descriptors.py has made. Pure; any thread. */
#include "proto/descriptors.h"

#include <stdlib.h>
#include <string.h>

const struct rk_descriptor_file *rk_descriptor_file_named(const char *name)
{
    for (size_t i = 0; i < rk_num_descriptor_files; i++) {
        if (strcmp(rk_descriptor_files[i].name, name) == 0)
            return &rk_descriptor_files[i];
    }
    return NULL;
}

static int compare(const void *name, const void *symbol)
{
    return strcmp(name, ((const struct rk_descriptor_symbol *)symbol)->name);
}

const struct rk_descriptor_file *rk_descriptor_file_of(const char *symbol)
{
    const struct rk_descriptor_symbol *found =
        bsearch(symbol, rk_descriptor_symbols, rk_num_descriptor_symbols, sizeof *rk_descriptor_symbols, compare);
    return found != NULL ? &rk_descriptor_files[found->file] : NULL;
}
