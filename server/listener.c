/* Accepting. When the process is out of file descriptors, the socket that waits would make the loop spin: so one
 * descriptor is held in reserve, given up to accept and close that one client (who thereby learns it), and accepting
 * rests for a moment. */
#include "server/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event_struct.h>

#include "server/log.h"
#include "server/options.h"

#define BACKLOG          1024
#define ACCEPTS_PER_TURN 64
#define PAUSE_US         100000
#define WARN_INTERVAL_US 5000000u

struct rk_listener {
    int fd, reserve_fd;
    bool attached;
    struct event readable, resume;
    rk_listener_accepted_fn *accepted;
    rk_listener_room_fn *room;
    void *context;
    struct rk_log_limit warned;
    char address[300];
};

static int open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void describe(struct rk_listener *listener)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    char host[256] = "?", port[16] = "?";
    if (getsockname(listener->fd, (struct sockaddr *)&bound, &length) == 0)
        getnameinfo((struct sockaddr *)&bound, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    bool v6 = bound.ss_family == AF_INET6;
    snprintf(listener->address, sizeof listener->address, "%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

enum rk_status rk_listener_open(const char *address, struct rk_listener **result, struct rk_error *error)
{
    *result = NULL;
    char host[256], port[8];
    enum rk_status status = rk_address_split(address, host, sizeof host, port, sizeof port, error);
    if (status != RK_OK)
        return status;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int code = getaddrinfo(host, port, &hints, &found);
    if (code != 0)
        return rk_error_set(error, RK_INVALID, "failed to resolve the listen address %s: %s", address,
                            gai_strerror(code));
    struct rk_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL) {
        freeaddrinfo(found);
        return rk_error_set(error, RK_NO_MEMORY, "failed to listen on %s: out of memory", address);
    }
    const int on = 1;
    listener->reserve_fd = -1;
    listener->fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0 || setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(listener->fd, found->ai_addr, found->ai_addrlen) != 0 || listen(listener->fd, BACKLOG) != 0) {
        status = rk_error_set(error, RK_IO, "failed to listen on %s: %s", address, strerror(errno));
        freeaddrinfo(found);
        rk_listener_close(listener);
        return status;
    }
    freeaddrinfo(found);
    listener->reserve_fd = open_reserve();
    describe(listener);
    *result = listener;
    return RK_OK;
}

static void rest(struct rk_listener *listener)
{
    const struct timeval pause = {.tv_usec = PAUSE_US};
    event_del(&listener->readable);
    event_add(&listener->resume, &pause);
}

static void on_resume(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct rk_listener *listener = argument;
    event_add(&listener->readable, NULL);
}

/* Sends one waiting client away with the descriptor that was kept for this. */
static void refuse_one(struct rk_listener *listener)
{
    if (listener->reserve_fd >= 0)
        close(listener->reserve_fd);
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        close(fd);
    listener->reserve_fd = open_reserve();
}

static void on_readable(evutil_socket_t socket, short what, void *argument)
{
    (void)socket, (void)what;
    struct rk_listener *listener = argument;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                return;
            if (rk_log_allowed(&listener->warned, WARN_INTERVAL_US))
                rk_log(RK_LOG_WARN, "failed to accept a connection: %s; raise the limit on open files",
                       strerror(errno));
            refuse_one(listener);
            rest(listener);
            return;
        }
        if (!listener->room(listener->context)) {
            if (rk_log_allowed(&listener->warned, WARN_INTERVAL_US))
                rk_log(RK_LOG_WARN, "closed a new connection: max_connections are open");
            close(fd);
            continue;
        }
        const int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        listener->accepted(listener->context, fd);
    }
}

enum rk_status rk_listener_attach(struct rk_listener *listener, struct event_base *base,
                                  rk_listener_accepted_fn *accepted, rk_listener_room_fn *room, void *context,
                                  struct rk_error *error)
{
    listener->accepted = accepted;
    listener->room = room;
    listener->context = context;
    event_assign(&listener->readable, base, listener->fd, EV_READ | EV_PERSIST, on_readable, listener);
    event_assign(&listener->resume, base, -1, 0, on_resume, listener);
    if (event_add(&listener->readable, NULL) != 0)
        return rk_error_set(error, RK_IO, "failed to watch the listening socket");
    listener->attached = true;
    return RK_OK;
}

void rk_listener_close(struct rk_listener *listener)
{
    if (listener == NULL)
        return;
    if (listener->attached) {
        event_del(&listener->readable);
        event_del(&listener->resume);
    }
    if (listener->fd >= 0)
        close(listener->fd);
    if (listener->reserve_fd >= 0)
        close(listener->reserve_fd);
    free(listener);
}

const char *rk_listener_address(const struct rk_listener *listener)
{
    return listener->address;
}
