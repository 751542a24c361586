/* A sorted array, searched by bisection; the texts lie in an arena. */
#include "server/tools/titles.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_id(const void *a, const void *b)
{
    int64_t left = ((const struct rk_title *)a)->id, right = ((const struct rk_title *)b)->id;
    return (left > right) - (left < right);
}

static enum rk_status add_line(struct rk_titles *titles, size_t *capacity, char *line)
{
    line[strcspn(line, "\r\n")] = '\0';
    char *end, *last_tab = strrchr(line, '\t');
    errno = 0;
    long long id = strtoll(line, &end, 10);
    if (last_tab == NULL || end == line || *end != '\t' || errno != 0)
        return RK_OK;
    if (titles->count == *capacity) {
        size_t wanted = *capacity == 0 ? 1024 : 2 * *capacity;
        struct rk_title *list = reallocarray(titles->list, wanted, sizeof *list);
        if (list == NULL)
            return RK_NO_MEMORY;
        titles->list = list;
        *capacity = wanted;
    }
    char *text = rk_arena_string(&titles->arena, last_tab + 1, strlen(last_tab + 1));
    if (text == NULL)
        return RK_NO_MEMORY;
    titles->list[titles->count++] = (struct rk_title){id, text};
    return RK_OK;
}

enum rk_status rk_titles_read(const char *path, struct rk_titles *titles, struct rk_error *error)
{
    *titles = (struct rk_titles){0};
    rk_arena_init(&titles->arena, 65536);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return rk_error_set(error, RK_IO, "cannot open the titles %s: %s", path, strerror(errno));
    char *line = NULL;
    size_t line_bytes = 0, capacity = 0;
    enum rk_status status = RK_OK;
    while (status == RK_OK && getline(&line, &line_bytes, file) >= 0)
        status = add_line(titles, &capacity, line);
    if (status != RK_OK)
        rk_error_set(error, status, "out of memory while reading the titles %s", path);
    else if (ferror(file))
        status = rk_error_set(error, RK_IO, "cannot read the titles %s: %s", path, strerror(errno));
    else if (titles->count == 0)
        status = rk_error_set(error, RK_INVALID, "no line of %s has an id and, after a tab, a title", path);
    free(line);
    fclose(file);
    if (status == RK_OK)
        qsort(titles->list, titles->count, sizeof *titles->list, by_id);
    else
        rk_titles_deinit(titles);
    return status;
}

void rk_titles_deinit(struct rk_titles *titles)
{
    rk_arena_deinit(&titles->arena);
    free(titles->list);
    *titles = (struct rk_titles){0};
}

const char *rk_titles_find(const struct rk_titles *titles, int64_t id)
{
    const struct rk_title wanted = {id, NULL};
    const struct rk_title *found =
        titles->count == 0 ? NULL : bsearch(&wanted, titles->list, titles->count, sizeof wanted, by_id);
    return found != NULL ? found->text : NULL;
}
