/* Reading safetensors (https://huggingface.co/docs/safetensors): the files that PyTorch weights travel in.
 *
 *   8 bytes   length N of the header, little-endian
 *   N bytes   JSON: {"name": {"dtype": "F32", "shape": [r, c], "data_offsets": [begin, end]}, ..., "__metadata__":
 * {...}} the rest  the tensors' bytes, one behind the other without holes
 *
 * The files are untrusted: every number is checked before a tensor is handed out. */
#ifndef RANKD_MODEL_SAFETENSORS_H
#define RANKD_MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/arena.h"
#include "quant/base/status.h"

#define RK_SAFETENSORS_MAX_HEADER 100000000u /* the format's own limit */
#define RK_TENSOR_MAX_RANK        16u

enum rk_dtype {
    RK_DTYPE_F32,
    RK_DTYPE_F64,
    RK_DTYPE_F16,
    RK_DTYPE_BF16,
    RK_DTYPE_U8,    /* bytes: packed rows */
    RK_DTYPE_OTHER, /* well formed, but nothing that can be imported */
};

static inline bool rk_dtype_is_float(enum rk_dtype dtype)
{
    return dtype <= RK_DTYPE_BF16;
}

struct rk_tensor {
    const char *name;
    enum rk_dtype dtype;
    const char *dtype_name;
    uint32_t rank;
    const uint64_t *shape;
    uint64_t elements;
    const void *data; /* not aligned */
    uint64_t bytes;
};

/* Parses one file that lies in memory. Tensors come in the order of their bytes; they and their names are in the arena,
 * their data points into `data`. `file` names it in errors. RK_CORRUPT, RK_UNSUPPORTED, RK_NO_MEMORY. */
enum rk_status rk_safetensors_parse(const char *file, const void *data, uint64_t bytes, struct rk_arena *arena,
                                    struct rk_tensor **tensors, size_t *num_tensors, struct rk_error *error);

/* A file, or a set of files behind an index ("model.safetensors.index.json"), open and mapped. */
struct rk_safetensors;

enum rk_status rk_safetensors_open(const char *path, struct rk_safetensors **set, struct rk_error *error);
void rk_safetensors_close(struct rk_safetensors *set);

const struct rk_tensor *rk_safetensors_tensors(const struct rk_safetensors *set, size_t *count);
/* True when a file was cut short while it was read. */
bool rk_safetensors_damaged(const struct rk_safetensors *set);

/* values[count] = elements [first, first + count) of a tensor of floats as float32. F64 is rounded, F16 and BF16 are
 * exact. Returns the number of elements converted before the first that is not finite as a float32 (count: all are). */
uint64_t rk_tensor_read(const struct rk_tensor *tensor, uint64_t first, uint64_t count, float *values);

#endif
