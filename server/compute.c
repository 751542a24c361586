/* Opening the backend. Main's thread; afterwards only `lost` changes, which any thread may set. */
#include "server/compute.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

/* The folder of the running program; "" when it cannot be known. */
static const char *program_folder(char folder[PATH_MAX])
{
    const ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    folder[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
    return folder;
}

enum rk_status rk_compute_open(const char *name, const char *folder, const char *device_options,
                               struct rk_compute *compute, struct rk_error *error)
{
    char program[PATH_MAX];
    const char *folders[3];
    size_t num_folders = 0;
    if (folder[0] != '\0')
        folders[num_folders++] = folder;
    folders[num_folders++] = RANKD_PLUG_IN_FOLDER;
    folders[num_folders++] = program_folder(program);
    *compute = (struct rk_compute){0};
    enum rk_status status = rk_backend_find(name, folders, num_folders, &compute->backend, error);
    if (status != RK_OK)
        return status;
    status = compute->backend->open(&rk_backend_host, device_options, &compute->device, error);
    if (status != RK_OK) {
        rk_error_prefix(error, "failed to open backend %s", compute->backend->name);
        return status;
    }
    compute->capabilities = compute->backend->capabilities(compute->device);
    compute->description = compute->backend->describe(compute->device);
    return RK_OK;
}

void rk_compute_close(struct rk_compute *compute)
{
    if (compute->device != NULL)
        compute->backend->close(compute->device);
    compute->device = NULL;
}
