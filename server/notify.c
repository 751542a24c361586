/* Small files and datagrams; main's thread. */
#include "server/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum rk_status rk_notify_write_ready_file(const char *path, const char *address, struct rk_error *error)
{
    char temporary[1100];
    snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
    FILE *file = fopen(temporary, "wxe");
    if (file == NULL)
        return rk_error_set(error, RK_IO, "failed to write the ready file %s: %s", path, strerror(errno));
    int written = fprintf(file, "%s\n", address);
    if (fclose(file) != 0 || written < 0 || rename(temporary, path) != 0) {
        enum rk_status status =
            rk_error_set(error, RK_IO, "failed to write the ready file %s: %s", path, strerror(errno));
        unlink(temporary);
        return status;
    }
    return RK_OK;
}

void rk_notify_manager(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@') /* a name in the abstract space */
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&address,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
    close(fd);
}
