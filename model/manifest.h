/* manifest.json: what a package is made of. The format is described in model/FORMAT.md. */
#ifndef RANKD_MODEL_MANIFEST_H
#define RANKD_MODEL_MANIFEST_H

#include <stddef.h>

#include "model/spec.h"

#define RK_MANIFEST_FORMAT    "rankd-model"
#define RK_MANIFEST_VERSION   3u
#define RK_MANIFEST_MAX_BYTES (256u << 20)
#define RK_GOLDEN_MAX_BYTES   (256u << 20)
#define RK_SIDECAR_BYTES      32 /* "<16 hexadecimal digits>  manifest.json\n", without a NUL */

struct rk_file_ref {
    const char *file; /* one path component */
    uint64_t bytes, xxh3;
};

struct rk_manifest {
    struct rk_model_spec spec;
    struct rk_file_ref golden_requests, golden_scores;
};

/* Parses the text into the arena and checks the whole spec. RK_CORRUPT with file, field, value and what would be right;
 * RK_UNSUPPORTED for a version that is newer than this program. */
enum rk_status rk_manifest_parse(const char *text, size_t length, struct rk_arena *arena, struct rk_manifest *manifest,
                                 struct rk_error *error);

/* The text of a manifest in the lowest version that can say it, to be freed; NULL when memory runs out. */
char *rk_manifest_print(const struct rk_manifest *manifest);

/* The text of manifest.xxh3, which must match to the byte. */
void rk_manifest_sidecar(const char *text, size_t length, char sidecar[RK_SIDECAR_BYTES + 1]);

#endif
