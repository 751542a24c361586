/* Copies of mapped files in anonymous huge pages: a random read then needs no walk of the page tables in memory, and
 * nobody can truncate or change what is read. */
#ifndef RANKD_EMBEDDINGS_HUGE_COPY_H
#define RANKD_EMBEDDINGS_HUGE_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "embeddings/mapped_file.h"
#include "quant/base/status.h"

struct rk_huge_copy {
    void *data; /* 2 MiB aligned, read-only; NULL: none */
    uint64_t mapped_bytes;
};

/* progress, when not NULL, is called with the bytes copied since its last call and may return false to stop early.
 * Errors: RK_NO_MEMORY, RK_CANCELLED, RK_CORRUPT (the file is damaged, before or meanwhile). */
typedef bool rk_copy_progress_fn(void *context, uint64_t bytes);
enum rk_status rk_huge_copy_init(struct rk_huge_copy *copy, const struct rk_mapped_file *file,
                                 rk_copy_progress_fn *progress, void *context, struct rk_error *error);
void rk_huge_copy_deinit(struct rk_huge_copy *copy); /* a zeroed one, too */

#endif
