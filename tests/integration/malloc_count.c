/* Counts a process's allocations: loaded with LD_PRELOAD, it passes every call on and counts it in a file that the test
 * maps too.
 *
 * RANKD_MALLOC_COUNT names the file: two 64-bit words, the counter and a flag; while the flag is set, the callers of
 * each allocation are printed, so that a failing test shows who they are. What is called while the next library's
 * functions are being looked up is served from a small static buffer. Any thread. */
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic uint64_t before_mapping[2];
static _Atomic uint64_t *counter = before_mapping;

static _Alignas(16) unsigned char early[16384];
static _Atomic size_t early_used;

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void *(*next_aligned_alloc)(size_t, size_t);
static int (*next_posix_memalign)(void **, size_t, size_t);
static void (*next_free)(void *);
static _Thread_local int looking_up;

static void *take_early(size_t bytes)
{
    size_t rounded = (bytes + 15) & ~(size_t)15;
    size_t at = atomic_fetch_add(&early_used, rounded);
    return at + rounded <= sizeof early ? early + at : NULL;
}

static int is_early(const void *block)
{
    return (const unsigned char *)block >= early && (const unsigned char *)block < early + sizeof early;
}

static void look_up(void)
{
    if (next_free != NULL || looking_up)
        return;
    looking_up = 1;
    *(void **)&next_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&next_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&next_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&next_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
    *(void **)&next_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    *(void **)&next_free = dlsym(RTLD_NEXT, "free");
    looking_up = 0;
}

__attribute__((constructor)) static void map_counter(void)
{
    look_up();
    const char *path = getenv("RANKD_MALLOC_COUNT");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof before_mapping, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED)
        return;
    void *frames[1];
    backtrace(frames, 1); /* the first call allocates */
    atomic_fetch_add((_Atomic uint64_t *)page, atomic_load(before_mapping));
    counter = page;
}

static void count(void)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    look_up();
    if (atomic_load_explicit(counter + 1, memory_order_relaxed) == 0)
        return;
    void *frames[24];
    backtrace_symbols_fd(frames, backtrace(frames, 24), STDERR_FILENO);
    (void)!write(STDERR_FILENO, "\n", 1);
}

__attribute__((visibility("default"))) void *malloc(size_t bytes)
{
    count();
    return next_malloc != NULL ? next_malloc(bytes) : take_early(bytes);
}

__attribute__((visibility("default"))) void *calloc(size_t number, size_t bytes)
{
    count();
    if (next_calloc != NULL)
        return next_calloc(number, bytes);
    return take_early(number * bytes); /* static memory is zero */
}

__attribute__((visibility("default"))) void *realloc(void *block, size_t bytes)
{
    count();
    if (block != NULL && is_early(block)) {
        void *moved = malloc(bytes);
        size_t behind = (size_t)(early + sizeof early - (unsigned char *)block);
        if (moved != NULL)
            memcpy(moved, block, bytes < behind ? bytes : behind);
        return moved;
    }
    return next_realloc != NULL ? next_realloc(block, bytes) : take_early(bytes);
}

__attribute__((visibility("default"))) void *aligned_alloc(size_t alignment, size_t bytes)
{
    count();
    return next_aligned_alloc != NULL ? next_aligned_alloc(alignment, bytes) : NULL;
}

__attribute__((visibility("default"))) int posix_memalign(void **block, size_t alignment, size_t bytes)
{
    count();
    return next_posix_memalign != NULL ? next_posix_memalign(block, alignment, bytes) : 12;
}

__attribute__((visibility("default"))) void free(void *block)
{
    look_up();
    if (block != NULL && !is_early(block) && next_free != NULL)
        next_free(block);
}
