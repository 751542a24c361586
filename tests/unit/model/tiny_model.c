/* The tiny checkpoint. Weights are a pure function of the tensor's name, so that every run makes the same bytes. */
#include "tests/unit/model/tiny_model.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Large enough that no ReLU of the top MLP is off: every row counts in every score. */
static const float alive[] = {8, 8, 8};

const struct tiny_tensor tiny_tensors[] = {
    {"emb.a", "F32", 2, {5, 4}, NULL},         {"emb.b", "F32", 2, {3, 4}, NULL},
    {"bot.weight", "F32", 2, {4, 3}, NULL},    {"bot.bias", "F32", 1, {4}, NULL},
    {"top.0.weight", "F32", 2, {3, 10}, NULL}, {"top.0.bias", "F32", 1, {3}, alive},
    {"top.1.weight", "F32", 2, {2, 3}, NULL},  {"top.1.bias", "F32", 1, {2}, NULL},
};
const size_t tiny_num_tensors = sizeof tiny_tensors / sizeof tiny_tensors[0];

static size_t dtype_bytes(const char *dtype)
{
    return strcmp(dtype, "F64") == 0 || strcmp(dtype, "I64") == 0 ? 8
           : strcmp(dtype, "F32") == 0                            ? 4
           : strcmp(dtype, "U8") == 0                             ? 1
                                                                  : 2;
}

unsigned char *tiny_safetensors(const struct tiny_tensor *tensors, size_t count, size_t *bytes)
{
    char header[8192];
    size_t used = (size_t)snprintf(header, sizeof header, "{\"__metadata__\":{\"format\":\"pt\"}"), end = 0;
    for (size_t t = 0; t < count; t++) {
        size_t elements = 1;
        used += (size_t)snprintf(header + used, sizeof header - used, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[",
                                 tensors[t].name, tensors[t].dtype);
        for (unsigned i = 0; i < tensors[t].rank; i++) {
            elements *= tensors[t].shape[i];
            used += (size_t)snprintf(header + used, sizeof header - used, "%s%llu", i > 0 ? "," : "",
                                     (unsigned long long)tensors[t].shape[i]);
        }
        size_t length = elements * dtype_bytes(tensors[t].dtype);
        used +=
            (size_t)snprintf(header + used, sizeof header - used, "],\"data_offsets\":[%zu,%zu]}", end, end + length);
        end += length;
    }
    used += (size_t)snprintf(header + used, sizeof header - used, "}");
    cr_assert_lt(used, sizeof header);
    *bytes = 8 + used + end;
    unsigned char *file = malloc(*bytes);
    cr_assert_not_null(file);
    uint64_t length = used;
    memcpy(file, &length, 8); /* tests run on little-endian machines */
    memcpy(file + 8, header, used);
    unsigned char *data = file + 8 + used;
    for (size_t t = 0; t < count; t++) {
        size_t elements = 1;
        for (unsigned i = 0; i < tensors[t].rank; i++)
            elements *= tensors[t].shape[i];
        size_t size = elements * dtype_bytes(tensors[t].dtype);
        if (tensors[t].data != NULL) {
            memcpy(data, tensors[t].data, size);
        } else {
            cr_assert_str_eq(tensors[t].dtype, "F32");
            uint32_t state = (uint32_t)strlen(tensors[t].name) * 2654435761u + (uint32_t)t;
            for (size_t i = 0; i < elements; i++) {
                state = state * 1664525u + 1013904223u;
                float value = (float)(state >> 8) * 0x1p-23f - 1;
                memcpy(data + 4 * i, &value, sizeof value);
            }
        }
        data += size;
    }
    return file;
}

void tiny_write(const struct tiny *tiny, const char *name, const void *data, size_t bytes)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", tiny->path, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file, "%s", path);
    cr_assert_eq(fwrite(data, 1, bytes, file), bytes);
    cr_assert_eq(fclose(file), 0);
}

unsigned char *tiny_read(const struct tiny *tiny, const char *name, size_t *bytes)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", tiny->path, name);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    unsigned char *data = malloc(1u << 20);
    cr_assert_not_null(data);
    *bytes = fread(data, 1, 1u << 20, file);
    fclose(file);
    return data;
}

void tiny_create(struct tiny *tiny)
{
    snprintf(tiny->path, sizeof tiny->path, "/tmp/rankd-test-XXXXXX");
    cr_assert_not_null(mkdtemp(tiny->path));
    snprintf(tiny->config, sizeof tiny->config, "%s/config.json", tiny->path);
    snprintf(tiny->weights, sizeof tiny->weights, "%s/model.safetensors", tiny->path);
    snprintf(tiny->package, sizeof tiny->package, "%s/package", tiny->path);
    char config[2048];
    int length = snprintf(config, sizeof config, TINY_CONFIG_FORMAT, "", "", "");
    tiny_write(tiny, "config.json", config, (size_t)length);
    size_t bytes;
    unsigned char *weights = tiny_safetensors(tiny_tensors, tiny_num_tensors, &bytes);
    tiny_write(tiny, "model.safetensors", weights, bytes);
    free(weights);
}

static int remove_entry(const char *path, const struct stat *stat, int kind, struct FTW *where)
{
    (void)stat;
    (void)kind;
    (void)where;
    return remove(path);
}

void tiny_destroy(struct tiny *tiny)
{
    nftw(tiny->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

enum rk_status tiny_import(const struct tiny *tiny, void (*change)(struct rk_import_options *options),
                           struct rk_error *error)
{
    struct rk_import_options options = RK_IMPORT_OPTIONS_DEFAULT;
    options.config = tiny->config;
    options.weights = tiny->weights;
    options.output = tiny->package;
    options.num_golden = 2;
    options.shards.max_rows = 2;
    if (change != NULL)
        change(&options);
    return rk_import(&options, error);
}

void tiny_import_fine(const struct tiny *tiny)
{
    struct rk_error error = {0};
    cr_assert_eq(tiny_import(tiny, NULL, &error), RK_OK, "%s", error.text);
}

size_t tiny_count_entries(const struct tiny *tiny)
{
    size_t count = 0;
    DIR *dir = opendir(tiny->path);
    cr_assert_not_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count;
}
