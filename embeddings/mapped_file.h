/* Read-only mapped files that survive what happens to the file beneath.
 *
 * A file that is truncated while it is mapped makes the reader's next access raise SIGBUS. With containment installed
 * the mapping is marked damaged and replaced by zeros, and the reader goes on; whoever uses the data asks
 * rk_mapped_file_damaged() afterwards and throws the result away. */
#ifndef RANKD_EMBEDDINGS_MAPPED_FILE_H
#define RANKD_EMBEDDINGS_MAPPED_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/base/status.h"

struct rk_mapped_file; /* opaque; immutable but for its damage mark, so any thread may read it */

/* Opens `name` (one path component: no '/', no "..") below the directory dir_fd and maps all of it. Refuses symlinks,
 * FIFOs, directories and devices without blocking, and a size other than expect_bytes (UINT64_MAX: any). An empty file
 * maps to an empty range. Errors: RK_INVALID (name), RK_NOT_FOUND, RK_CORRUPT (kind or size), RK_IO, RK_NO_MEMORY,
 * RK_EXHAUSTED (65,536 files are mapped already). */
enum rk_status rk_mapped_file_open(int dir_fd, const char *name, uint64_t expect_bytes, struct rk_mapped_file **file,
                                   struct rk_error *error);
void rk_mapped_file_close(struct rk_mapped_file *file);

const void *rk_mapped_file_data(const struct rk_mapped_file *file);
uint64_t rk_mapped_file_bytes(const struct rk_mapped_file *file);

/* True once a read hit a page that the file no longer has, or once it was marked. */
bool rk_mapped_file_damaged(const struct rk_mapped_file *file);
void rk_mapped_file_mark_damaged(struct rk_mapped_file *file);

/* Tells the kernel that reads will jump about: a read that misses the page cache then loads its own page, not its
 * neighbours. */
void rk_mapped_file_advise_random(const struct rk_mapped_file *file);

/* For those who read a file from one end to the other: these bytes will be read soon, so that the kernel may fetch
 * them; and these have been read: their pages are given back (also those that lie in part before the offset) until
 * somebody reads them again. */
void rk_mapped_file_want(const struct rk_mapped_file *file, uint64_t offset, uint64_t bytes);
void rk_mapped_file_forget(const struct rk_mapped_file *file, uint64_t offset, uint64_t bytes);

/* XXH3-64 of the whole file. progress, when not NULL, is called about every 64 MiB with the bytes hashed since its last
 * call and may return false to stop early (RK_CANCELLED). Reads through the mapping: RK_CORRUPT when the file is
 * damaged, before or meanwhile. */
typedef bool rk_hash_progress_fn(void *context, uint64_t bytes);
enum rk_status rk_mapped_file_hash(const struct rk_mapped_file *file, rk_hash_progress_fn *progress, void *context,
                                   uint64_t *hash);

/* Installs the SIGBUS handler, once per process, from main() before threads start. A SIGBUS outside every mapping is
 * passed on to the handler that was there before (or kills, as it would have). */
enum rk_status rk_mapped_file_contain_sigbus(struct rk_error *error);

/* Opens the same files for reading, with the same checks, without mapping them: *fd is the caller's to close. */
enum rk_status rk_regular_file_open(int dir_fd, const char *name, uint64_t expect_bytes, int *fd,
                                    struct rk_error *error);

#endif
