/* Names for ids, from a file of tab-separated columns: the first is the id, the last the title. */
#ifndef RANKD_SERVER_TOOLS_TITLES_H
#define RANKD_SERVER_TOOLS_TITLES_H

#include <stddef.h>
#include <stdint.h>

#include "quant/base/arena.h"
#include "quant/base/status.h"

struct rk_title {
    int64_t id;
    const char *text;
};

struct rk_titles {
    struct rk_arena arena;
    struct rk_title *list; /* by id */
    size_t count;
};

/* Lines whose first column is no number (a heading) are passed over. RK_IO, RK_INVALID when no line has an id and a
 * title. */
enum rk_status rk_titles_read(const char *path, struct rk_titles *titles, struct rk_error *error);
void rk_titles_deinit(struct rk_titles *titles);

const char *rk_titles_find(const struct rk_titles *titles, int64_t id); /* NULL: none */

#endif
