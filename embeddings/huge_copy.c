/* Copies of mapped files in huge pages. The kernel gives huge pages for ranges of 2 MiB on such boundaries, at the
 * first write, when it is asked to and has them; where it has none, ordinary pages do the same job slower. */
#include "embeddings/huge_copy.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((uint64_t)2 << 20)
#define BLOCK     ((uint64_t)32 << 20) /* between two reports */

enum rk_status rk_huge_copy_init(struct rk_huge_copy *copy, const struct rk_mapped_file *file,
                                 rk_copy_progress_fn *progress, void *context, struct rk_error *error)
{
    *copy = (struct rk_huge_copy){0};
    const uint64_t bytes = rk_mapped_file_bytes(file);
    if (bytes == 0)
        return RK_OK;
    const uint64_t kept = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    unsigned char *mapping =
        mmap(NULL, kept + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return rk_error_set(error, RK_NO_MEMORY, "no memory for a copy of %llu bytes: %s", (unsigned long long)bytes,
                            strerror(errno));
    const uint64_t before = -(uintptr_t)mapping % HUGE_PAGE;
    if (before > 0)
        munmap(mapping, before);
    if (before < HUGE_PAGE)
        munmap(mapping + before + kept, HUGE_PAGE - before);
    *copy = (struct rk_huge_copy){.data = mapping + before, .mapped_bytes = kept};
    madvise(copy->data, kept, MADV_HUGEPAGE); /* refused where the kernel has none; ordinary pages do, too */
    const unsigned char *from = rk_mapped_file_data(file);
    enum rk_status status = RK_OK;
    for (uint64_t done = 0; status == RK_OK && done < bytes;) {
        const uint64_t length = bytes - done < BLOCK ? bytes - done : BLOCK;
        /* Rows are read at random, so the kernel was told not to read ahead by itself. */
        madvise((void *)((uintptr_t)(from + done) & ~(uintptr_t)4095), length, MADV_WILLNEED);
        memcpy((unsigned char *)copy->data + done, from + done, length);
        done += length;
        if (rk_mapped_file_damaged(file))
            status = rk_error_set(error, RK_CORRUPT, "the file was truncated while it was read; restore it");
        else if (progress != NULL && !progress(context, length))
            status = rk_error_set(error, RK_CANCELLED, "copying was cancelled");
    }
    mprotect(copy->data, kept, PROT_READ);
    if (status != RK_OK)
        rk_huge_copy_deinit(copy);
    return status;
}

void rk_huge_copy_deinit(struct rk_huge_copy *copy)
{
    if (copy->data != NULL)
        munmap(copy->data, copy->mapped_bytes);
    *copy = (struct rk_huge_copy){0};
}
