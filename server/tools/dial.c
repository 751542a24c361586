/* Splits the target, resolves the host, tries its addresses in order; or opens a Unix socket. Blocks. */
#include "server/tools/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define UNIX_PREFIX "unix:"

uint64_t rk_dial_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool copy_part(char *to, size_t capacity, const char *from, size_t length)
{
    if (length == 0 || length >= capacity)
        return false;
    memcpy(to, from, length);
    to[length] = '\0';
    return true;
}

bool rk_dial_split(const char *target, char host[256], char port[16])
{
    const char *colon = strrchr(target, ':');
    if (colon == NULL || !copy_part(port, 16, colon + 1, strlen(colon + 1)))
        return false;
    size_t length = (size_t)(colon - target);
    if (target[0] == '[')
        return length > 2 && target[length - 1] == ']' && copy_part(host, 256, target + 1, length - 2);
    return memchr(target, ':', length) == NULL && copy_part(host, 256, target, length);
}

/* 0, or the error that ended the attempt. */
static int connect_one(const struct addrinfo *address, uint64_t deadline_us, int *result)
{
    int error = 0, fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    if (connect(fd, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS) {
        error = errno;
        goto fail;
    }
    for (;;) {
        uint64_t now = rk_dial_now_us();
        if (now >= deadline_us) {
            error = ETIMEDOUT;
            goto fail;
        }
        uint64_t left_ms = (deadline_us - now) / 1000 + 1;
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        int ready = poll(&wait, 1, left_ms > 3600000 ? 3600000 : (int)left_ms);
        if (ready > 0)
            break;
        if (ready < 0 && errno != EINTR) {
            error = errno;
            goto fail;
        }
    }
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        error = errno;
    if (error != 0)
        goto fail;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *result = fd;
    return 0;
fail:
    close(fd);
    return error;
}

static enum rk_status dial_unix(const char *target, uint64_t deadline_us, int *fd, struct rk_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = target + strlen(UNIX_PREFIX);
    if (!copy_part(address.sun_path, sizeof address.sun_path, path, strlen(path)))
        return rk_error_set(error, RK_INVALID, "the target '%s' is not unix:/PATH with a path of at most %zu bytes",
                            target, sizeof address.sun_path - 1);
    const struct addrinfo one = {.ai_family = AF_UNIX,
                                 .ai_addr = (struct sockaddr *)&address,
                                 .ai_addrlen = sizeof address};
    int failed = connect_one(&one, deadline_us, fd);
    return failed == 0 ? RK_OK : rk_error_set(error, RK_IO, "cannot connect to %s: %s", target, strerror(failed));
}

enum rk_status rk_dial(const char *target, uint64_t timeout_us, int *fd, struct rk_error *error)
{
    char host[256], port[16];
    uint64_t deadline_us;
    if (__builtin_add_overflow(rk_dial_now_us(), timeout_us, &deadline_us))
        deadline_us = UINT64_MAX;
    if (strncmp(target, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        return dial_unix(target, deadline_us, fd, error);
    if (!rk_dial_split(target, host, port))
        return rk_error_set(
            error, RK_INVALID,
            "the target '%s' is not HOST:PORT; write for example 127.0.0.1:8470, [::1]:8470 or unix:/PATH", target);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *addresses;
    int resolved = getaddrinfo(host, port, &hints, &addresses);
    if (resolved != 0)
        return rk_error_set(error, RK_IO, "cannot resolve '%s': %s", target, gai_strerror(resolved));
    int failed = EHOSTUNREACH;
    for (const struct addrinfo *address = addresses; address != NULL && failed != 0; address = address->ai_next)
        failed = connect_one(address, deadline_us, fd);
    freeaddrinfo(addresses);
    if (failed == 0)
        return RK_OK;
    const char *fix =
        failed == ECONNREFUSED ? "; is rankd running there? Start it with: rankd --model-repository DIR --listen " : "";
    return rk_error_set(error, RK_IO, "cannot connect to %s: %s%s%s", target, strerror(failed), fix,
                        failed == ECONNREFUSED ? target : "");
}
