/* For tests of kernels: memory that ends (and begins) at an inaccessible page, and the variants that run here. */
#ifndef RANKD_TESTS_UNIT_QUANT_VARIANTS_H
#define RANKD_TESTS_UNIT_QUANT_VARIANTS_H

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "quant/kernels.h"

/* A buffer whose last byte is the last byte before a page that may not be touched; likewise its first. */
struct guarded {
    unsigned char *mapping;
    size_t page, bytes;
};

static inline struct guarded guarded_create(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    unsigned char *mapping = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(mapping, MAP_FAILED);
    cr_assert_eq(mprotect(mapping + page, inner, PROT_READ | PROT_WRITE), 0);
    return (struct guarded){mapping, page, inner};
}

static inline void *guarded_first(const struct guarded *guarded)
{
    return guarded->mapping + guarded->page;
}

/* The last `bytes` bytes. */
static inline void *guarded_last(const struct guarded *guarded, size_t bytes)
{
    return guarded->mapping + guarded->page + guarded->bytes - bytes;
}

static inline void guarded_destroy(struct guarded *guarded)
{
    munmap(guarded->mapping, guarded->bytes + 2 * guarded->page);
}

/* The next variant of a kernel that this machine runs; begin with *index 0. NULL after the last. */
static inline const struct rk_kernel_variant *next_variant(const char *kernel, size_t *index)
{
    size_t count;
    const struct rk_kernel_variant *variants = rk_kernel_variants(&count);
    while (*index < count) {
        const struct rk_kernel_variant *variant = &variants[(*index)++];
        if (strcmp(variant->kernel, kernel) == 0 && rk_isa_usable(variant->isa))
            return variant;
    }
    return NULL;
}

#endif
