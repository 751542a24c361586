/* Writing a package: all of it or nothing. Files are written into a hidden directory beside the destination
 * (".NAME.tmp-XXXXXX"), synced, and the directory is renamed when everything in it is proven. */
#ifndef RANKD_MODEL_PACKAGE_H
#define RANKD_MODEL_PACKAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/status.h"

#define RK_PACKAGE_MANIFEST  "manifest.json"
#define RK_PACKAGE_SIDECAR   "manifest.xxh3"
#define RK_PACKAGE_WEIGHTS   "towers.weights"
#define RK_PACKAGE_REQUESTS  "golden.requests.jsonl"
#define RK_PACKAGE_SCORES    "golden.scores.jsonl"
#define RK_WEIGHTS_ALIGNMENT 64u

struct rk_package_writer;

/* Makes the temporary directory, and the directories above `output` that are missing. RK_EXISTS when it is there
 * already. */
enum rk_status rk_package_begin(const char *output, struct rk_package_writer **writer, struct rk_error *error);

/* The temporary directory, for reading back what was written. */
int rk_package_dir(const struct rk_package_writer *writer);

/* One file after the other: open, write, close. Close syncs it and tells its size and checksum. */
enum rk_status rk_package_open_file(struct rk_package_writer *writer, const char *name, struct rk_error *error);
enum rk_status rk_package_write(struct rk_package_writer *writer, const void *data, size_t bytes,
                                struct rk_error *error);
enum rk_status rk_package_close_file(struct rk_package_writer *writer, uint64_t *bytes, uint64_t *xxh3,
                                     struct rk_error *error);

/* Syncs the directory and gives it its name, unless somebody else took that meanwhile (RK_EXISTS). The writer is gone
 * afterwards, whatever the outcome; after a failure nothing is left on the disk. */
enum rk_status rk_package_commit(struct rk_package_writer *writer, struct rk_error *error);

/* Removes what was written. NULL is allowed. */
void rk_package_abort(struct rk_package_writer *writer);

#endif
