/* Finding backends and what is the same for all of them.
 *
 * A plug-in is opened with all its symbols resolved and none of them offered to others; it is trusted code from then
 * on, so what it is compiled for is checked before any of its functions is called. Runs while a program starts. */
#include "model/backends.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/spec_json.h"

/* ---- plug-ins ---- */

#define REBUILD "build it anew with the headers of this rankd"

static enum rk_status check_owner(const char *path, const char *what, bool sticky_is_fine, struct rk_error *error)
{
    struct stat about;
    if (stat(path, &about) != 0)
        return rk_error_set(error, RK_IO, "failed to look at %s: %s", path, strerror(errno));
    if (about.st_uid != 0 && about.st_uid != geteuid())
        return rk_error_set(error, RK_INVALID,
                            "%s: the %s belongs to user %u; code that rankd runs must belong to root or to the user "
                            "that it runs as (chown)",
                            path, what, (unsigned)about.st_uid);
    if ((about.st_mode & S_IWOTH) != 0 && !(sticky_is_fine && (about.st_mode & S_ISVTX) != 0))
        return rk_error_set(error, RK_INVALID,
                            "%s: everybody may write the %s; code that rankd runs must be safe from others "
                            "(chmod o-w)",
                            path, what);
    return RK_OK;
}

/* Could somebody else have put the code there? `path` is absolute and without links. */
static enum rk_status check_trust(const char *path, struct rk_error *error)
{
    char folder[PATH_MAX];
    struct stat about;
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode))
        return rk_error_set(error, RK_INVALID, "%s is not a file", path);
    enum rk_status status = check_owner(path, "file", false, error);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    return status == RK_OK ? check_owner(folder[0] != '\0' ? folder : "/", "folder", true, error) : status;
}

static enum rk_status check_table(const struct rk_backend *backend, const char *path, struct rk_error *error)
{
    if (backend->abi != RK_BACKEND_ABI)
        return rk_error_set(error, RK_UNSUPPORTED,
                            "%s was built for version %u of the backend interface, this rankd has version %u; " REBUILD,
                            path, backend->abi, RK_BACKEND_ABI);
    if (backend->bytes != sizeof *backend || backend->layout != RK_BACKEND_LAYOUT)
        return rk_error_set(error, RK_UNSUPPORTED,
                            "%s was built with other headers: its table of functions has %u bytes and layout %" PRIu64
                            ", here it is %zu and %" PRIu64 "; " REBUILD,
                            path, backend->bytes, backend->layout, sizeof *backend, (uint64_t)RK_BACKEND_LAYOUT);
    const struct {
        const char *name;
        bool there;
    } parts[] = {
        {"name", backend->name != NULL},       {"open", backend->open != NULL},
        {"close", backend->close != NULL},     {"describe", backend->describe != NULL},
        {"load", backend->load != NULL},       {"capabilities", backend->capabilities != NULL},
        {"unload", backend->unload != NULL},   {"create", backend->create != NULL},
        {"destroy", backend->destroy != NULL}, {"run", backend->run != NULL},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (!parts[i].there)
            return rk_error_set(error, RK_UNSUPPORTED, "%s is not complete: its '%s' is NULL", path, parts[i].name);
    return RK_OK;
}

static enum rk_status open_plug_in(const char *path, const struct rk_backend **backend, struct rk_error *error)
{
    char real[PATH_MAX];
    if (realpath(path, real) == NULL)
        return rk_error_set(error, errno == ENOENT ? RK_NOT_FOUND : RK_IO, "failed to open the backend %s: %s", path,
                            strerror(errno));
    enum rk_status status = check_trust(real, error);
    if (status != RK_OK)
        return status;
    void *library = dlopen(real, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == NULL) /* names the file itself */
        return rk_error_set(error, RK_UNSUPPORTED, "failed to open a backend: %s", dlerror());
    const struct rk_backend *found = dlsym(library, RK_BACKEND_SYMBOL);
    if (found == NULL)
        return rk_error_set(error, RK_UNSUPPORTED,
                            "%s is not a backend: it has no symbol '" RK_BACKEND_SYMBOL "' (model/backend.h)", real);
    status = check_table(found, real, error);
    if (status == RK_OK)
        *backend = found;
    return status;
}

static bool is_name(const char *name)
{
    return name[0] != '\0' && strlen(name) <= 64 &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")] == '\0';
}

enum rk_status rk_backend_find(const char *name, const char *const *folders, size_t num_folders,
                               const struct rk_backend **backend, struct rk_error *error)
{
    if (strcmp(name, rk_backend_cpu.name) == 0) {
        *backend = &rk_backend_cpu;
        return RK_OK;
    }
    if (strchr(name, '/') != NULL)
        return open_plug_in(name, backend, error);
    if (!is_name(name))
        return rk_error_set(error, RK_INVALID,
                            "'%.100s' names no backend; it is cpu, the NAME of a plug-in rankd-NAME.so, or a path with "
                            "a slash in it",
                            name);
    char tried[320] = "";
    for (size_t i = 0, end = 0; i < num_folders; i++) {
        char path[PATH_MAX];
        if ((size_t)snprintf(path, sizeof path, "%s/rankd-%s.so", folders[i], name) < sizeof path &&
            access(path, F_OK) == 0)
            return open_plug_in(path, backend, error);
        if (end < sizeof tried)
            end += (size_t)snprintf(tried + end, sizeof tried - end, "%s%s", i > 0 ? ", " : "", folders[i]);
    }
    return rk_error_set(error, RK_NOT_FOUND, "there is no backend '%s': looked for rankd-%s.so in %s", name, name,
                        tried[0] != '\0' ? tried : "no folder");
}

/* ---- what is the same for all ---- */

enum rk_status rk_backend_check_model(const struct rk_backend *backend, const struct rk_capabilities *capabilities,
                                      const struct rk_model_spec *spec, struct rk_error *error)
{
    for (uint32_t t = 0; t < spec->num_tables; t++)
        if ((capabilities->row_formats >> spec->tables[t].format & 1) == 0)
            return rk_error_set(error, RK_UNSUPPORTED, "backend %s cannot read table '%s': its rows are in %s",
                                backend->name, spec->tables[t].name, rk_row_format_name(spec->tables[t].format));
    if ((capabilities->interactions >> spec->interaction.op & 1) == 0)
        return rk_error_set(error, RK_UNSUPPORTED, "backend %s has no interaction %s", backend->name,
                            rk_interaction_names[spec->interaction.op]);
    if ((capabilities->dense_formats >> spec->interaction.format & 1) == 0)
        return rk_error_set(error, RK_UNSUPPORTED, "backend %s cannot multiply vectors in %s", backend->name,
                            rk_dense_format_name(spec->interaction.format));
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    const size_t num_layers = rk_model_spec_layers(spec, layers);
    for (size_t l = 0; l < num_layers; l++) {
        if ((capabilities->dense_formats >> layers[l].layer->format & 1) != 0)
            continue;
        const struct rk_tensor_use weight = {.layer = layers[l], .part = RK_TENSOR_WEIGHT};
        char name[RK_TENSOR_NAME_BYTES];
        return rk_error_set(error, RK_UNSUPPORTED, "backend %s cannot multiply %s: it is in %s", backend->name,
                            rk_tensor_use_name(&weight, name), rk_dense_format_name(layers[l].layer->format));
    }
    return RK_OK;
}

static void widen_bound(struct rk_error_bound *bound, const struct rk_error_bound *other)
{
    if (other->usual > bound->usual)
        bound->usual = other->usual;
    if (other->most > bound->most)
        bound->most = other->most;
}

struct rk_error_bound rk_backend_error_bound(const struct rk_capabilities *capabilities,
                                             const struct rk_model_spec *spec)
{
    if (capabilities->exact)
        return (struct rk_error_bound){0};
    struct rk_error_bound bound = capabilities->error[spec->interaction.format];
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    const size_t num_layers = rk_model_spec_layers(spec, layers);
    for (size_t l = 0; l < num_layers; l++)
        widen_bound(&bound, &capabilities->error[layers[l].layer->format]);
    return bound;
}

enum rk_status rk_backend_score(const struct rk_backend *backend, struct rk_runner *runner, uint32_t max_batch,
                                uint32_t num_heads, const struct rk_request *request, float *logits,
                                struct rk_error *error)
{
    enum rk_status status = RK_OK;
    for (uint32_t first = 0, count; status == RK_OK && first < request->num_candidates; first += count) {
        const uint32_t left = request->num_candidates - first;
        count = left < max_batch ? left : max_batch;
        const struct rk_slice slice = {.request = request,
                                       .first = first,
                                       .count = count,
                                       .logits = logits + (size_t)first * num_heads};
        status = backend->run(runner, &slice, 1, NULL, error);
    }
    return status;
}
