/* Scanning and loading the model repository. Runs in main before threads start; afterwards everything here is
 * read-only.
 *
 * A model package appears in the repository by a rename, so a directory that has a version's name is complete or
 * damaged, never half written. */
#include "server/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/golden.h"
#include "model/model_shards.h"
#include "server/clock.h"
#include "server/log.h"

#define PROGRESS_INTERVAL_US 2000000u

struct names {
    char **items;
    size_t count;
};

struct loading {
    const char *name;
    int64_t version;
    uint64_t next_report_us;
};

__attribute__((format(printf, 2, 3))) static void add_problem(struct rk_registry *registry, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    rk_log(RK_LOG_ERROR, "%s", text);
    char **grown = realloc(registry->problems, (registry->num_problems + 1) * sizeof *grown);
    if (grown == NULL) {
        free(text);
        return;
    }
    registry->problems = grown;
    registry->problems[registry->num_problems++] = text;
}

static void names_free(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
    *names = (struct names){0};
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The entries of a directory without those that start with '.', sorted. Closes fd. */
static enum rk_status list_directory(int fd, const char *path, struct names *names, struct rk_error *error)
{
    *names = (struct names){0};
    DIR *directory = fdopendir(fd);
    if (directory == NULL) {
        close(fd);
        return rk_error_set(error, RK_IO, "failed to read %s: %s", path, strerror(errno));
    }
    enum rk_status status = RK_OK;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(directory);
        if (entry == NULL) {
            if (errno != 0)
                status = rk_error_set(error, RK_IO, "failed to read %s: %s", path, strerror(errno));
            break;
        }
        if (entry->d_name[0] == '.')
            continue;
        char **grown = realloc(names->items, (names->count + 1) * sizeof *grown);
        if (grown != NULL)
            names->items = grown;
        char *copy = grown != NULL ? strdup(entry->d_name) : NULL;
        if (copy == NULL) {
            status = rk_error_set(error, RK_NO_MEMORY, "failed to read %s: out of memory", path);
            break;
        }
        names->items[names->count++] = copy;
    }
    closedir(directory);
    if (status != RK_OK)
        names_free(names);
    else if (names->count > 0)
        qsort(names->items, names->count, sizeof *names->items, compare_names);
    return status;
}

/* UTF-8 without control characters, so that it can travel in a message and stand in a log line. */
static bool good_name(const char *name)
{
    const unsigned char *at = (const unsigned char *)name;
    if (strlen(name) > RK_MAX_NAME_BYTES)
        return false;
    while (*at != '\0') {
        unsigned more = *at < 0x80 ? 0 : *at >= 0xc2 && *at < 0xe0 ? 1 : *at >= 0xe0 && *at < 0xf0 ? 2 : 3;
        uint32_t code = more == 0 ? *at : *at & (0x3fu >> more);
        if (*at < 0x20 || *at == 0x7f || (*at >= 0x80 && *at < 0xc2) || *at > 0xf4)
            return false;
        at++;
        for (unsigned i = 0; i < more; i++, at++) {
            if ((*at & 0xc0) != 0x80)
                return false;
            code = code << 6 | (*at & 0x3fu);
        }
        if ((more == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) ||
            (more == 3 && (code < 0x10000 || code > 0x10ffff)))
            return false;
    }
    return true;
}

/* A positive decimal without leading zeros. */
static bool parse_version(const char *text, int64_t *version)
{
    if (text[0] < '1' || text[0] > '9')
        return false;
    *version = 0;
    for (; *text != '\0'; text++)
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(*version, (int64_t)10, version) ||
            __builtin_add_overflow(*version, (int64_t)(*text - '0'), version))
            return false;
    return true;
}

static int compare_versions_downwards(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static void report_progress(void *context, const char *what, uint64_t done, uint64_t total)
{
    struct loading *loading = context;
    uint64_t now_us = rk_clock_us();
    if (now_us < loading->next_report_us)
        return;
    loading->next_report_us = now_us + PROGRESS_INTERVAL_US;
    rk_log(RK_LOG_INFO, "loading model=%s version=%" PRId64 " %s: %" PRIu64 " of %" PRIu64 " MiB", loading->name,
           loading->version, what, done >> 20, total >> 20);
}

/* Is `name` in directory `fd` a real directory? Says so in the problems when it is a link; other files are passed over
 * in silence only where people keep notes beside their models, so they are named too. */
static bool is_directory(struct rk_registry *registry, int fd, const char *parent, const char *name, const char *wanted)
{
    struct stat about;
    if (fstatat(fd, name, &about, AT_SYMLINK_NOFOLLOW) != 0) {
        add_problem(registry, "%s/%s: %s", parent, name, strerror(errno));
        return false;
    }
    if (S_ISDIR(about.st_mode))
        return true;
    if (S_ISLNK(about.st_mode))
        add_problem(registry, "%s/%s is a symbolic link; put the real %s there, links are not followed", parent, name,
                    wanted);
    else
        add_problem(registry, "%s/%s is not a directory; only %s directories belong there", parent, name, wanted);
    return false;
}

static enum rk_status load_into_backend(const struct rk_registry *registry, const struct rk_model *model,
                                        struct loading *loading, struct rk_loaded **loaded, struct rk_error *error)
{
    const struct rk_compute *compute = registry->compute;
    const struct rk_load_options options = {.progress = report_progress, .progress_context = loading};
    enum rk_status status =
        rk_backend_check_model(compute->backend, compute->capabilities, rk_model_spec_of(model), error);
    if (status != RK_OK)
        return status;
    status = compute->backend->load(compute->device, model, &options, loaded, error);
    if (status != RK_OK) {
        rk_error_prefix(error, "failed to load it into backend %s", compute->backend->name);
        return status;
    }
    if (compute->backend != &rk_backend_cpu) { /* on which they were replayed when the model was opened */
        const struct rk_golden_place place = {
            compute->backend, *loaded, rk_backend_error_bound(compute->capabilities, rk_model_spec_of(model)).most};
        status = rk_model_replay(model, &place, error);
        if (status != RK_OK)
            compute->backend->unload(*loaded);
    }
    return status;
}

static bool try_version(struct rk_registry *registry, const char *path, const char *name, int64_t version)
{
    char package[4096];
    if (snprintf(package, sizeof package, "%s/%s/%" PRId64, path, name, version) >= (int)sizeof package) {
        add_problem(registry, "%.100s.../%s/%" PRId64 ": the path is longer than %zu bytes", path, name, version,
                    sizeof package - 1);
        return false;
    }
    struct loading loading = {.name = name, .version = version, .next_report_us = rk_clock_us() + PROGRESS_INTERVAL_US};
    struct rk_model_open_options open_options = {.rows = &registry->rows,
                                                 .progress = report_progress,
                                                 .progress_context = &loading};
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    if (rk_model_open(package, &open_options, &model, &error) != RK_OK) {
        add_problem(registry, "model %s version %" PRId64 " is not served: %s", name, version, error.text);
        return false;
    }
    struct rk_loaded *loaded = NULL;
    if (load_into_backend(registry, model, &loading, &loaded, &error) != RK_OK) {
        rk_model_close(model);
        add_problem(registry, "model %s version %" PRId64 " is not served: %s", name, version, error.text);
        return false;
    }
    struct rk_served_model *grown = realloc(registry->models, (registry->num_models + 1) * sizeof *registry->models);
    if (grown == NULL) {
        registry->compute->backend->unload(loaded);
        rk_model_close(model);
        add_problem(registry, "model %s version %" PRId64 " is not served: out of memory", name, version);
        return false;
    }
    registry->models = grown;
    struct rk_served_model *served = &grown[registry->num_models];
    *served =
        (struct rk_served_model){.version = version, .index = registry->num_models, .model = model, .loaded = loaded};
    snprintf(served->name, sizeof served->name, "%s", name);
    served->spec = rk_model_spec_of(model);
    registry->num_models++;
    const struct rk_model_shards *shards = rk_model_shards_of(model);
    for (uint32_t s = 0; shards != NULL && s < shards->placement.num_shards; s++) {
        registry->shards[s].bytes += shards->placement.shards[s].bytes;
        registry->shards[s].load += shards->placement.shards[s].load;
    }
    return true;
}

static void load_highest(struct rk_registry *registry, const char *path, const char *name, int fd,
                         const struct names *entries)
{
    char parent[4096];
    snprintf(parent, sizeof parent, "%.3000s/%s", path, name);
    int64_t *versions = calloc(entries->count + 1, sizeof *versions);
    size_t count = 0;
    if (versions == NULL) {
        add_problem(registry, "%s: out of memory", parent);
        return;
    }
    for (size_t i = 0; i < entries->count; i++) {
        if (!parse_version(entries->items[i], &versions[count]))
            add_problem(registry, "%s/%s is not a version; versions are numbers from 1 without leading zeros", parent,
                        entries->items[i]);
        else if (is_directory(registry, fd, parent, entries->items[i], "version"))
            count++;
    }
    qsort(versions, count, sizeof *versions, compare_versions_downwards);
    bool served = false;
    for (size_t i = 0; i < count && !served; i++)
        served = try_version(registry, path, name, versions[i]);
    if (count == 0)
        add_problem(registry, "%s holds no version; a model's files are in %s/1", parent, parent);
    free(versions);
}

static void load_model(struct rk_registry *registry, int repository, const char *path, const char *name)
{
    if (!is_directory(registry, repository, path, name, "model"))
        return;
    if (!good_name(name)) {
        add_problem(registry, "%s/%.40s...: a model's name is UTF-8 without control characters, at most %u bytes", path,
                    name, RK_MAX_NAME_BYTES);
        return;
    }
    struct rk_error error = {0};
    struct names entries = {0};
    char parent[4096];
    snprintf(parent, sizeof parent, "%.3000s/%s", path, name);
    int fd = openat(repository, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int keep = fd >= 0 ? dup(fd) : -1;
    if (fd < 0 || keep < 0) {
        add_problem(registry, "failed to open %s: %s", parent, strerror(errno));
        if (fd >= 0)
            close(fd);
        return;
    }
    if (list_directory(fd, parent, &entries, &error) != RK_OK)
        add_problem(registry, "%s", error.text);
    else
        load_highest(registry, path, name, keep, &entries);
    names_free(&entries);
    close(keep);
}

enum rk_status rk_registry_open(const char *path, struct rk_compute *compute, const struct rk_row_options *rows,
                                struct rk_registry *registry, struct rk_error *error)
{
    *registry = (struct rk_registry){.compute = compute, .rows = *rows};
    registry->shards = calloc(rows->limits.num_shards + 1, sizeof *registry->shards);
    if (registry->shards == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for %u shards", rows->limits.num_shards);
    registry->rows.limits.used = registry->shards;
    struct names names = {0};
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int keep = fd >= 0 ? dup(fd) : -1;
    if (fd < 0 || keep < 0) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return rk_error_set(error, code == ENOENT ? RK_NOT_FOUND : RK_IO, "failed to open the model repository %s: %s",
                            path, strerror(code));
    }
    enum rk_status status = list_directory(fd, path, &names, error);
    for (size_t i = 0; i < names.count; i++)
        load_model(registry, keep, path, names.items[i]);
    names_free(&names);
    close(keep);
    if (status == RK_OK && registry->num_models == 0)
        return rk_error_set(
            error, RK_NOT_FOUND,
            "no model in %s can be served; packages are in %s/<model>/<version>/, `rankpack import` makes them", path,
            path);
    return status;
}

void rk_registry_close(struct rk_registry *registry)
{
    for (uint32_t i = 0; i < registry->num_models; i++) {
        registry->compute->backend->unload(registry->models[i].loaded);
        rk_model_close(registry->models[i].model);
    }
    for (size_t i = 0; i < registry->num_problems; i++)
        free(registry->problems[i]);
    free(registry->models);
    free(registry->problems);
    free(registry->shards);
    *registry = (struct rk_registry){0};
}

const struct rk_served_model *rk_registry_find(const struct rk_registry *registry, const char *name)
{
    uint32_t low = 0, high = registry->num_models;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(name, registry->models[middle].name);
        if (order == 0)
            return &registry->models[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

void rk_registry_list(const struct rk_registry *registry, char *text, size_t capacity)
{
    size_t end = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < registry->num_models && end < capacity; i++)
        end += (size_t)snprintf(text + end, capacity - end, "%s%s version %" PRId64, i > 0 ? ", " : "",
                                registry->models[i].name, registry->models[i].version);
}

void rk_registry_print(const struct rk_registry *registry, FILE *stream)
{
    fprintf(stream, "%-32s %8s %8s %8s %6s %12s\n", "MODEL", "VERSION", "TABLES", "FEATURES", "HEADS", "BYTES");
    for (uint32_t i = 0; i < registry->num_models; i++) {
        const struct rk_served_model *model = &registry->models[i];
        fprintf(stream, "%-32s %8" PRId64 " %8u %8u %6u %12" PRIu64 "\n", model->name, model->version,
                model->spec->num_tables, model->spec->num_features, model->spec->num_heads,
                rk_model_bytes(model->model));
    }
    for (uint32_t i = 0; i < registry->num_models; i++) {
        char cost[RK_COST_TEXT_BYTES];
        rk_cost_curve_format(&registry->models[i].cost, cost, sizeof cost);
        fprintf(stream, "cost of %s in %s\n", registry->models[i].name, cost);
    }
}
