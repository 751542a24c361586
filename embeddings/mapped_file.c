/* Mapped files and the containment of SIGBUS.
 *
 * Every mapping is entered in a fixed array of slots, because the signal handler must find the mapping of a faulting
 * address without locks, without allocation and while other threads map and unmap:
 *
 *   slot: [version | begin | end | file]        version is odd while a writer (under the mutex) changes the slot
 *
 * The handler skips a slot that is changing: it cannot hold the mapping that the faulting thread is reading, because
 * that one stays open as long as somebody reads it. The first fault replaces the whole mapping by zero pages at once:
 * its data is worthless from then on, and replacing page by page would cost a signal and a kernel mapping per page. The
 * damage mark is set before the zeros appear, so that whoever has read zeros also sees the mark. */
#include "embeddings/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>

/* Linux allows 65,530 mappings to a process unless told otherwise. The array costs memory only as far as it is used. */
enum { MAX_MAPPINGS = 65536 };

struct rk_mapped_file {
    void *data; /* NULL for an empty file */
    uint64_t bytes;
    int slot;
    atomic_bool damaged;
};

struct slot {
    atomic_uint version;
    _Atomic uintptr_t begin, end;
    struct rk_mapped_file *_Atomic file;
};

static struct {
    pthread_mutex_t mutex; /* writers only */
    atomic_int high_water; /* slots at and above it were never used */
    struct slot slots[MAX_MAPPINGS];
} registry = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static struct sigaction previous_action;

static void write_slot(int index, struct rk_mapped_file *file)
{
    struct slot *slot = &registry.slots[index];
    atomic_fetch_add(&slot->version, 1);
    uintptr_t begin = file != NULL ? (uintptr_t)file->data : 0;
    atomic_store(&slot->begin, begin);
    atomic_store(&slot->end, file != NULL ? begin + file->bytes : 0);
    atomic_store(&slot->file, file);
    atomic_fetch_add(&slot->version, 1);
}

/* Returns the slot, or -1 when all are taken. */
static int register_file(struct rk_mapped_file *file)
{
    pthread_mutex_lock(&registry.mutex);
    int high_water = atomic_load(&registry.high_water), index = 0;
    while (index < high_water && atomic_load(&registry.slots[index].file) != NULL)
        index++;
    if (index == MAX_MAPPINGS) {
        index = -1;
    } else {
        write_slot(index, file);
        if (index == high_water)
            atomic_store(&registry.high_water, high_water + 1);
    }
    pthread_mutex_unlock(&registry.mutex);
    return index;
}

static void unregister_file(int index)
{
    pthread_mutex_lock(&registry.mutex);
    write_slot(index, NULL);
    pthread_mutex_unlock(&registry.mutex);
}

/* Async-signal-safe. */
static struct rk_mapped_file *find_mapping(uintptr_t address)
{
    int high_water = atomic_load(&registry.high_water);
    for (int i = 0; i < high_water; i++) {
        struct slot *slot = &registry.slots[i];
        unsigned version = atomic_load(&slot->version);
        uintptr_t begin = atomic_load(&slot->begin), end = atomic_load(&slot->end);
        struct rk_mapped_file *file = atomic_load(&slot->file);
        if (version % 2 == 0 && version == atomic_load(&slot->version) && begin <= address && address < end)
            return file;
    }
    return NULL;
}

static void pass_on(int number, siginfo_t *info, void *context)
{
    if (previous_action.sa_flags & SA_SIGINFO) {
        previous_action.sa_sigaction(number, info, context);
    } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
        previous_action.sa_handler(number);
    } else {
        /* A fault cannot be ignored. The signal is blocked until this handler returns, then it kills. */
        signal(number, SIG_DFL);
        raise(number);
    }
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    /* si_code is positive for faults; kill() and sigqueue() give zero and less, and no address. */
    struct rk_mapped_file *file = info->si_code > 0 ? find_mapping((uintptr_t)info->si_addr) : NULL;
    bool contained = false;
    if (file != NULL) {
        atomic_store(&file->damaged, true);
        /* Not through mmap(), which the thread sanitizer takes for a write of every byte: other threads go on reading
         * here, and the kernel gives them either page. */
        contained = syscall(SYS_mmap, file->data, file->bytes, PROT_READ,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != -1;
    }
    if (!contained)
        pass_on(number, info, context);
    errno = saved_errno;
}

static struct {
    pthread_once_t once;
    int failure;
} containment = {.once = PTHREAD_ONCE_INIT};

static void install_handler(void)
{
    /* previous_action is complete before the first signal can arrive through our handler. */
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, NULL, &previous_action) != 0 || sigaction(SIGBUS, &action, NULL) != 0)
        containment.failure = errno;
}

enum rk_status rk_mapped_file_contain_sigbus(struct rk_error *error)
{
    pthread_once(&containment.once, install_handler);
    if (containment.failure != 0)
        return rk_error_set(error, RK_IO, "failed to install the SIGBUS handler: %s", strerror(containment.failure));
    return RK_OK;
}

static enum rk_status open_regular(int dir_fd, const char *name, int *fd, uint64_t *bytes, struct rk_error *error)
{
    if (name[0] == '\0' || strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return rk_error_set(error, RK_INVALID,
                            "file name '%.128s' must be one path component, without '/', '.' or '..'", name);
    /* O_NONBLOCK: a FIFO without a writer must not hold us up before we have seen that it is one. */
    *fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (*fd < 0 && errno == ENOENT)
        return rk_error_set(error, RK_NOT_FOUND, "file '%.128s' is missing", name);
    if (*fd < 0 && (errno == ELOOP || errno == ENXIO))
        return rk_error_set(error, RK_CORRUPT, "'%.128s' is a %s, not a regular file", name,
                            errno == ELOOP ? "symbolic link" : "socket or device");
    if (*fd < 0)
        return rk_error_set(error, RK_IO, "failed to open '%.128s': %s", name, strerror(errno));
    struct stat status;
    if (fstat(*fd, &status) != 0)
        return rk_error_set(error, RK_IO, "failed to stat '%.128s': %s", name, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return rk_error_set(error, RK_CORRUPT, "'%.128s' is a %s, not a regular file", name,
                            S_ISDIR(status.st_mode)    ? "directory"
                            : S_ISFIFO(status.st_mode) ? "FIFO"
                                                       : "device");
    *bytes = (uint64_t)status.st_size;
    return RK_OK;
}

/* *fd is open, or -1 after an error; *bytes is the file's size. */
static enum rk_status open_checked(int dir_fd, const char *name, uint64_t expect_bytes, int *fd, uint64_t *bytes,
                                   struct rk_error *error)
{
    *fd = -1;
    *bytes = 0;
    enum rk_status status = open_regular(dir_fd, name, fd, bytes, error);
    if (status == RK_OK && expect_bytes != UINT64_MAX && *bytes != expect_bytes)
        status = rk_error_set(error, RK_CORRUPT, "file '%.128s' has %llu bytes where %llu are expected", name,
                              (unsigned long long)*bytes, (unsigned long long)expect_bytes);
    if (status != RK_OK && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return status;
}

enum rk_status rk_regular_file_open(int dir_fd, const char *name, uint64_t expect_bytes, int *fd,
                                    struct rk_error *error)
{
    uint64_t bytes;
    return open_checked(dir_fd, name, expect_bytes, fd, &bytes, error);
}

enum rk_status rk_mapped_file_open(int dir_fd, const char *name, uint64_t expect_bytes, struct rk_mapped_file **file,
                                   struct rk_error *error)
{
    int fd;
    uint64_t bytes;
    struct rk_mapped_file *mapped = NULL;
    enum rk_status status = open_checked(dir_fd, name, expect_bytes, &fd, &bytes, error);
    if (status != RK_OK)
        return status;
    mapped = calloc(1, sizeof *mapped);
    if (mapped == NULL) {
        status = rk_error_set(error, RK_NO_MEMORY, "out of memory while mapping '%.128s'", name);
        goto fail;
    }
    mapped->bytes = bytes;
    mapped->slot = -1;
    if (bytes > 0) {
        void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            status = rk_error_set(error, RK_IO, "failed to map '%.128s' (%llu bytes): %s", name,
                                  (unsigned long long)bytes, strerror(errno));
            goto fail;
        }
        mapped->data = data;
        mapped->slot = register_file(mapped);
        if (mapped->slot < 0) {
            status =
                rk_error_set(error, RK_EXHAUSTED, "'%.128s' would be mapped file %d of this process; use fewer shards",
                             name, MAX_MAPPINGS + 1);
            goto fail;
        }
    }
    close(fd);
    *file = mapped;
    return RK_OK;
fail:
    rk_mapped_file_close(mapped);
    close(fd);
    return status;
}

void rk_mapped_file_close(struct rk_mapped_file *file)
{
    if (file == NULL)
        return;
    if (file->slot >= 0)
        unregister_file(file->slot);
    if (file->data != NULL)
        munmap(file->data, file->bytes);
    free(file);
}

const void *rk_mapped_file_data(const struct rk_mapped_file *file)
{
    return file->data;
}

uint64_t rk_mapped_file_bytes(const struct rk_mapped_file *file)
{
    return file->bytes;
}

bool rk_mapped_file_damaged(const struct rk_mapped_file *file)
{
    return atomic_load(&file->damaged);
}

void rk_mapped_file_mark_damaged(struct rk_mapped_file *file)
{
    atomic_store(&file->damaged, true);
}

void rk_mapped_file_advise_random(const struct rk_mapped_file *file)
{
    if (file->data != NULL)
        madvise(file->data, file->bytes, MADV_RANDOM);
}

/* Advice about the pages from the one that holds `offset` on, without the one that `offset + bytes` falls into. */
static void advise(const struct rk_mapped_file *file, uint64_t offset, uint64_t bytes, int advice)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t first = offset / page * page,
                   end = offset + bytes == file->bytes ? file->bytes : (offset + bytes) / page * page;
    if (first < end)
        madvise((char *)file->data + first, end - first, advice);
}

void rk_mapped_file_want(const struct rk_mapped_file *file, uint64_t offset, uint64_t bytes)
{
    advise(file, offset, bytes, MADV_WILLNEED);
}

void rk_mapped_file_forget(const struct rk_mapped_file *file, uint64_t offset, uint64_t bytes)
{
    advise(file, offset, bytes, MADV_DONTNEED);
}

enum rk_status rk_mapped_file_hash(const struct rk_mapped_file *file, rk_hash_progress_fn *progress, void *context,
                                   uint64_t *hash)
{
    enum { BLOCK = 4 << 20, REPORT_EVERY = 64 << 20 };
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL)
        return RK_NO_MEMORY;
    XXH3_64bits_reset(state);
    enum rk_status status = RK_OK;
    uint64_t unreported = 0;
    for (uint64_t done = 0; done < file->bytes;) {
        uint64_t left = file->bytes - done, length = left < BLOCK ? left : BLOCK;
        unsigned char *block = (unsigned char *)file->data + done;
        /* Ask for the next block while this one is hashed: with MADV_RANDOM the kernel does not read ahead by itself.
         */
        uint64_t ahead = left - length < BLOCK ? left - length : BLOCK;
        if (done == 0)
            madvise(block, length, MADV_WILLNEED);
        if (ahead > 0)
            madvise(block + length, ahead, MADV_WILLNEED);
        XXH3_64bits_update(state, block, length);
        done += length;
        unreported += length;
        if (atomic_load(&file->damaged))
            break; /* what is left reads as zeros */
        if (progress != NULL && (unreported >= REPORT_EVERY || done == file->bytes)) {
            if (!progress(context, unreported)) {
                status = RK_CANCELLED;
                break;
            }
            unreported = 0;
        }
    }
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return atomic_load(&file->damaged) ? RK_CORRUPT : status;
}
