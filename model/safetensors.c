/* A safetensors file is parsed in two steps: jansson reads the header as a tree, then each entry is checked and copied
 * into an array that is sorted by data offset, where overlaps and holes show as neighbours that do not meet.
 * A set keeps its files mapped; tensors point into the mappings. Read-only once open; any thread may read. */
#include "model/safetensors.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "embeddings/mapped_file.h"
#include "model/json_read.h"
#include "quant/base/checked.h"
#include "quant/minifloat.h"

#define INDEX_SUFFIX    ".json"
#define MAX_INDEX_BYTES (256u << 20)
#define MAX_FILES       65536u
#define MAX_TENSORS     (1u << 20)
#define MAX_TENSOR_NAME 1024u

static const struct {
    const char *name;
    enum rk_dtype dtype;
    unsigned bits;
} dtypes[] = {
    {"F32", RK_DTYPE_F32, 32},      {"F64", RK_DTYPE_F64, 64},      {"F16", RK_DTYPE_F16, 16},
    {"BF16", RK_DTYPE_BF16, 16},    {"BOOL", RK_DTYPE_OTHER, 8},    {"U8", RK_DTYPE_U8, 8},
    {"I8", RK_DTYPE_OTHER, 8},      {"U16", RK_DTYPE_OTHER, 16},    {"I16", RK_DTYPE_OTHER, 16},
    {"U32", RK_DTYPE_OTHER, 32},    {"I32", RK_DTYPE_OTHER, 32},    {"U64", RK_DTYPE_OTHER, 64},
    {"I64", RK_DTYPE_OTHER, 64},    {"C64", RK_DTYPE_OTHER, 64},    {"F8_E4M3", RK_DTYPE_OTHER, 8},
    {"F8_E5M2", RK_DTYPE_OTHER, 8}, {"F8_E8M0", RK_DTYPE_OTHER, 8}, {"F6_E2M3", RK_DTYPE_OTHER, 6},
    {"F4", RK_DTYPE_OTHER, 4},      {"F6_E3M2", RK_DTYPE_OTHER, 6},
};
#define NUM_DTYPES (sizeof dtypes / sizeof dtypes[0])

static bool printable(const char *name)
{
    for (const unsigned char *c = (const unsigned char *)name; *c != '\0'; c++)
        if (*c < 0x20 || *c == 0x7f)
            return false;
    return true;
}

/* Reads shape and dtype and the bytes that follow from them. */
static bool read_shape(const struct rk_json_at *entry, struct rk_tensor *tensor)
{
    struct rk_json_at dtype, shape;
    size_t rank;
    if (!rk_json_get(entry, "dtype", &dtype) || !rk_json_string(&dtype, &tensor->dtype_name) ||
        !rk_json_get(entry, "shape", &shape) || !rk_json_array(&shape, 0, RK_TENSOR_MAX_RANK, &rank))
        return false;
    size_t which = 0;
    while (which < NUM_DTYPES && strcmp(dtypes[which].name, tensor->dtype_name) != 0)
        which++;
    if (which == NUM_DTYPES)
        return rk_json_fail(&dtype, RK_UNSUPPORTED, "is '%.32s', not a data type of the format", tensor->dtype_name);
    uint64_t *sizes = rk_json_alloc(entry->doc, rank, sizeof *sizes), elements = 1, bits;
    if (sizes == NULL)
        return false;
    for (size_t i = 0; i < rank; i++) {
        struct rk_json_at item = rk_json_item(&shape, i);
        if (!rk_json_uint(&item, 0, INT64_MAX, &sizes[i]))
            return false;
        if (!rk_checked_mul(elements, sizes[i], &elements))
            return rk_json_fail(&shape, RK_CORRUPT, "describes more elements than 64 bits can count");
    }
    if (!rk_checked_mul(elements, dtypes[which].bits, &bits) || bits % 8 != 0)
        return rk_json_fail(&shape, RK_CORRUPT, "describes %llu elements of %u bits, not a possible number of bytes",
                            (unsigned long long)elements, dtypes[which].bits);
    tensor->dtype = dtypes[which].dtype;
    tensor->rank = (uint32_t)rank;
    tensor->shape = sizes;
    tensor->elements = elements;
    tensor->bytes = bits / 8;
    return true;
}

/* Reads one header entry; data_bytes follow the header and start at `data`. */
static bool read_entry(const struct rk_json_at *entry, const unsigned char *data, uint64_t data_bytes,
                       struct rk_tensor *tensor)
{
    static const char *const keys[] = {"dtype", "shape", "data_offsets", NULL};
    size_t length = strlen(entry->key), count;
    if (length == 0 || length > MAX_TENSOR_NAME || !printable(entry->key))
        return rk_json_fail(entry, RK_CORRUPT, "is not a name: it must have 1 to %u printable bytes", MAX_TENSOR_NAME);
    tensor->name = rk_arena_string(entry->doc->arena, entry->key, length);
    if (tensor->name == NULL)
        return rk_json_fail(entry, RK_NO_MEMORY, "does not fit into memory");
    struct rk_json_at offsets;
    if (!rk_json_object(entry, keys) || !read_shape(entry, tensor) || !rk_json_get(entry, "data_offsets", &offsets) ||
        !rk_json_array(&offsets, 2, 2, &count))
        return false;
    struct rk_json_at begin_at = rk_json_item(&offsets, 0), end_at = rk_json_item(&offsets, 1);
    uint64_t begin, end;
    if (!rk_json_uint(&begin_at, 0, INT64_MAX, &begin) || !rk_json_uint(&end_at, 0, INT64_MAX, &end))
        return false;
    if (end > data_bytes)
        return rk_json_fail(&offsets, RK_CORRUPT, "ends at %llu, past the %llu bytes of data; is the file truncated?",
                            (unsigned long long)end, (unsigned long long)data_bytes);
    if (begin > end || end - begin != tensor->bytes)
        return rk_json_fail(&offsets, RK_CORRUPT, "spans [%llu, %llu), but the shape needs %llu bytes",
                            (unsigned long long)begin, (unsigned long long)end, (unsigned long long)tensor->bytes);
    tensor->data = data + begin;
    return true;
}

static int by_data(const void *a, const void *b)
{
    const struct rk_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Sorted tensors must cover the data exactly: no overlap, no hole, nothing behind the last. */
static enum rk_status check_coverage(const char *file, const struct rk_tensor *tensors, size_t count,
                                     const unsigned char *data, uint64_t data_bytes, struct rk_error *error)
{
    uint64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t begin = (uint64_t)((const unsigned char *)tensors[i].data - data);
        if (begin != end)
            return rk_error_set(error, RK_CORRUPT, "%s: tensor '%.128s' starts at byte %llu of the data, %s %llu", file,
                                tensors[i].name, (unsigned long long)begin,
                                begin < end ? "overlapping one that ends at" : "leaving a hole from",
                                (unsigned long long)end);
        end = begin + tensors[i].bytes;
    }
    if (end != data_bytes)
        return rk_error_set(error, RK_CORRUPT, "%s: %llu bytes follow the last tensor", file,
                            (unsigned long long)(data_bytes - end));
    return RK_OK;
}

enum rk_status rk_safetensors_parse(const char *file, const void *bytes_in, uint64_t bytes, struct rk_arena *arena,
                                    struct rk_tensor **tensors, size_t *num_tensors, struct rk_error *error)
{
    struct rk_error local = {0};
    const struct rk_json_doc doc = {.file = file, .arena = arena, .error = &local};
    json_t *root = NULL;
    uint64_t header_bytes;
    if (bytes < sizeof header_bytes)
        return rk_error_set(error, RK_CORRUPT, "%s: has %llu bytes, too short for a safetensors header", file,
                            (unsigned long long)bytes);
    memcpy(&header_bytes, bytes_in, sizeof header_bytes);
    header_bytes = le64toh(header_bytes);
    if (header_bytes > RK_SAFETENSORS_MAX_HEADER)
        return rk_error_set(
            error, RK_CORRUPT,
            "%s: the header's length is %llu, above the format's limit of %u; is it a safetensors file?", file,
            (unsigned long long)header_bytes, RK_SAFETENSORS_MAX_HEADER);
    if (header_bytes > bytes - sizeof header_bytes)
        return rk_error_set(error, RK_CORRUPT, "%s: the header's length is %llu, but only %llu bytes follow it", file,
                            (unsigned long long)header_bytes, (unsigned long long)(bytes - sizeof header_bytes));
    const char *header = (const char *)bytes_in + sizeof header_bytes;
    if (header_bytes == 0 || header[0] != '{') /* the format wants no white space in front */
        return rk_error_set(error, RK_CORRUPT, "%s: the header does not begin with '{'", file);
    const unsigned char *data = (const unsigned char *)header + header_bytes;
    uint64_t data_bytes = bytes - sizeof header_bytes - header_bytes;

    root = rk_json_load(&doc, header, header_bytes);
    if (root == NULL)
        goto done;
    struct rk_json_at top = rk_json_root(&doc, root);
    size_t count = 0, entries = json_object_size(root);
    if (entries > MAX_TENSORS) {
        rk_error_set(&local, RK_CORRUPT, "%s: has %zu tensors, more than %u", file, entries, MAX_TENSORS);
        goto done;
    }
    struct rk_tensor *list = rk_json_alloc(&doc, entries, sizeof *list);
    if (list == NULL)
        goto done;
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        struct rk_json_at entry = {.doc = &doc, .parent = &top, .key = key, .value = value};
        if (strcmp(key, "__metadata__") == 0) {
            if (!json_is_object(value) && !rk_json_fail(&entry, RK_CORRUPT, "must be an object"))
                goto done;
        } else if (!read_entry(&entry, data, data_bytes, &list[count++])) {
            goto done;
        }
    }
    qsort(list, count, sizeof *list, by_data);
    if (check_coverage(file, list, count, data, data_bytes, &local) == RK_OK) {
        *tensors = list;
        *num_tensors = count;
    }
done:
    json_decref(root);
    /* Whatever is wrong in the header, it is the file that is damaged or hostile. */
    if (local.status == RK_INVALID)
        local.status = RK_CORRUPT;
    return local.status == RK_OK ? RK_OK : rk_error_set(error, local.status, "%s", local.text);
}

struct rk_safetensors {
    struct rk_arena arena;
    struct rk_mapped_file **files;
    size_t num_files;
    struct rk_tensor *tensors;
    size_t num_tensors;
};

static enum rk_status append_file(struct rk_safetensors *set, int dir_fd, const char *name, struct rk_error *error)
{
    struct rk_mapped_file **files = realloc(set->files, (set->num_files + 1) * sizeof *files);
    if (files == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", name);
    set->files = files;
    enum rk_status status = rk_mapped_file_open(dir_fd, name, UINT64_MAX, &files[set->num_files], error);
    if (status != RK_OK)
        return status;
    const struct rk_mapped_file *file = files[set->num_files++];
    struct rk_tensor *tensors;
    size_t count;
    status = rk_safetensors_parse(name, rk_mapped_file_data(file), rk_mapped_file_bytes(file), &set->arena, &tensors,
                                  &count, error);
    if (status != RK_OK)
        return status;
    struct rk_tensor *all = rk_arena_array(&set->arena, set->num_tensors + count, sizeof *all);
    if (all == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", name);
    if (set->num_tensors > 0)
        memcpy(all, set->tensors, set->num_tensors * sizeof *all);
    if (count > 0)
        memcpy(all + set->num_tensors, tensors, count * sizeof *all);
    set->tensors = all;
    set->num_tensors += count;
    return RK_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct rk_tensor *)a)->name, ((const struct rk_tensor *)b)->name);
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The index maps every tensor to the file that holds it; the files must hold exactly these tensors. */
static bool read_index(struct rk_safetensors *set, int dir_fd, const struct rk_json_doc *doc, const json_t *root)
{
    static const char *const keys[] = {"metadata", "weight_map", NULL};
    struct rk_json_at top = rk_json_root(doc, root), map;
    if (!rk_json_object(&top, keys) || !rk_json_get(&top, "weight_map", &map))
        return false;
    if (!json_is_object(map.value) || json_object_size(map.value) == 0 || json_object_size(map.value) > MAX_TENSORS)
        return rk_json_fail(&map, RK_INVALID, "must be an object that gives each tensor's file");
    size_t entries = json_object_size(map.value), used = 0;
    const char **names = rk_json_alloc(doc, entries, sizeof *names);
    if (names == NULL)
        return false;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map.value, key, value)
    {
        struct rk_json_at entry = {.doc = doc, .parent = &map, .key = key, .value = value};
        if (!rk_json_string(&entry, &names[used++]))
            return false;
        const char *name = names[used - 1];
        if (strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || !printable(name))
            return rk_json_fail(&entry, RK_INVALID, "is '%.100s', must be a file name beside the index", name);
    }
    qsort(names, entries, sizeof *names, by_string);
    for (size_t i = 0; i < entries; i++) {
        if (i > 0 && strcmp(names[i], names[i - 1]) == 0)
            continue;
        if (set->num_files == MAX_FILES)
            return rk_json_fail(&map, RK_INVALID, "names more than %u files", MAX_FILES);
        size_t before = set->num_tensors;
        if (append_file(set, dir_fd, names[i], doc->error) != RK_OK)
            return false;
        for (size_t t = before; t < set->num_tensors; t++) {
            const char *owner = json_string_value(json_object_get(map.value, set->tensors[t].name));
            if (owner == NULL || strcmp(owner, names[i]) != 0) {
                rk_error_set(doc->error, RK_INVALID,
                             "%s: weight_map places tensor '%.128s' in %.128s, but %.128s holds it", doc->file,
                             set->tensors[t].name, owner != NULL ? owner : "no file", names[i]);
                return false;
            }
        }
    }
    if (set->num_tensors != entries) {
        qsort(set->tensors, set->num_tensors, sizeof *set->tensors, by_name);
        json_object_foreach((json_t *)map.value, key, value)
        {
            struct rk_tensor wanted = {.name = key};
            if (bsearch(&wanted, set->tensors, set->num_tensors, sizeof wanted, by_name) == NULL) {
                rk_error_set(doc->error, RK_INVALID,
                             "%s: weight_map places tensor '%.128s' in %.128s, which does not hold it", doc->file, key,
                             json_string_value(value));
                return false;
            }
        }
    }
    return true;
}

static enum rk_status open_index(struct rk_safetensors *set, int dir_fd, const char *name, struct rk_error *error)
{
    struct rk_mapped_file *file = NULL;
    enum rk_status status = rk_mapped_file_open(dir_fd, name, UINT64_MAX, &file, error);
    if (status != RK_OK)
        return status;
    struct rk_error local = {0};
    const struct rk_json_doc doc = {.file = name, .arena = &set->arena, .error = &local};
    if (rk_mapped_file_bytes(file) > MAX_INDEX_BYTES) {
        rk_error_set(&local, RK_INVALID, "%s: has %llu bytes, more than an index can have (%u)", name,
                     (unsigned long long)rk_mapped_file_bytes(file), MAX_INDEX_BYTES);
    } else {
        json_t *root = rk_json_load(&doc, rk_mapped_file_data(file), rk_mapped_file_bytes(file));
        if (root != NULL)
            read_index(set, dir_fd, &doc, root);
        json_decref(root);
    }
    rk_mapped_file_close(file);
    return local.status == RK_OK ? RK_OK : rk_error_set(error, local.status, "%s", local.text);
}

enum rk_status rk_safetensors_open(const char *path, struct rk_safetensors **out, struct rk_error *error)
{
    enum rk_status status = RK_OK;
    int dir_fd = -1;
    struct rk_safetensors *set = calloc(1, sizeof *set);
    char *whole = NULL;
    if (set == NULL) {
        status = rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", path);
        goto done;
    }
    rk_arena_init(&set->arena, 1u << 20);
    /* The path that a person gives may be a link; what an index names may not. */
    whole = realpath(path, NULL);
    char *slash = whole != NULL ? strrchr(whole, '/') : NULL;
    if (slash == NULL) {
        status =
            rk_error_set(error, errno == ENOENT ? RK_NOT_FOUND : RK_IO, "failed to open %s: %s", path, strerror(errno));
        goto done;
    }
    *slash = '\0';
    dir_fd = open(slash == whole ? "/" : whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        status = rk_error_set(error, RK_IO, "failed to open %s: %s", whole, strerror(errno));
        goto done;
    }
    const char *name = slash + 1;
    size_t length = strlen(name), suffix = strlen(INDEX_SUFFIX);
    if (length > suffix && strcmp(name + length - suffix, INDEX_SUFFIX) == 0)
        status = open_index(set, dir_fd, name, error);
    else
        status = append_file(set, dir_fd, name, error);
done:
    if (dir_fd >= 0)
        close(dir_fd);
    free(whole);
    if (status != RK_OK) {
        rk_safetensors_close(set);
        return status;
    }
    *out = set;
    return RK_OK;
}

void rk_safetensors_close(struct rk_safetensors *set)
{
    if (set == NULL)
        return;
    for (size_t i = 0; i < set->num_files; i++)
        rk_mapped_file_close(set->files[i]);
    free(set->files);
    rk_arena_deinit(&set->arena);
    free(set);
}

const struct rk_tensor *rk_safetensors_tensors(const struct rk_safetensors *set, size_t *count)
{
    *count = set->num_tensors;
    return set->tensors;
}

bool rk_safetensors_damaged(const struct rk_safetensors *set)
{
    for (size_t i = 0; i < set->num_files; i++)
        if (rk_mapped_file_damaged(set->files[i]))
            return true;
    return false;
}

uint64_t rk_tensor_read(const struct rk_tensor *tensor, uint64_t first, uint64_t count, float *values)
{
    const unsigned char *data = tensor->data;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = first + i;
        switch (tensor->dtype) {
        case RK_DTYPE_F32: {
            uint32_t bits;
            memcpy(&bits, data + 4 * at, sizeof bits);
            values[i] = rk_f32_from_bits(le32toh(bits));
            break;
        }
        case RK_DTYPE_F64: {
            uint64_t bits;
            double value;
            memcpy(&bits, data + 8 * at, sizeof bits);
            bits = le64toh(bits);
            memcpy(&value, &bits, sizeof value);
            values[i] = fabs(value) > (double)__FLT_MAX__ ? (float)INFINITY : (float)value;
            if (value != value)
                values[i] = (float)NAN;
            break;
        }
        case RK_DTYPE_F16:
        case RK_DTYPE_BF16: {
            uint16_t bits;
            memcpy(&bits, data + 2 * at, sizeof bits);
            bits = le16toh(bits);
            values[i] = tensor->dtype == RK_DTYPE_F16 ? rk_f16_to_f32(bits) : rk_f32_from_bits((uint32_t)bits << 16);
            break;
        }
        case RK_DTYPE_U8:
        case RK_DTYPE_OTHER:
            return i;
        }
        if (!isfinite(values[i]))
            return i;
    }
    return count;
}
