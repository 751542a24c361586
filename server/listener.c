/* Accepting, on addresses of the network and on Unix sockets. When the process is out of file descriptors, the socket
 * that waits would make the loop spin: so one descriptor is held in reserve, given up to accept and close that one
 * client (who thereby learns it), and accepting rests for a moment. */
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
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event_struct.h>

#include "server/address.h"
#include "server/log.h"

#define BACKLOG          1024
#define ACCEPTS_PER_TURN 64
#define PAUSE_US         100000
#define WARN_INTERVAL_US 5000000u

struct rk_listener {
    int fd, reserve_fd;
    bool attached;
    const struct rk_endpoint *endpoint;
    struct event readable, resume;
    rk_listener_accepted_fn *accepted;
    rk_listener_room_fn *room;
    void *context;
    struct rk_log_limit warned;
    char address[300];
    char path[sizeof((struct sockaddr_un *)NULL)->sun_path]; /* of a Unix socket that is ours; "": none */
};

static int open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* "10.1.2.3:40123", "[2001:db8::1]:40123". */
static void print_address(const struct sockaddr *address, socklen_t length, char *text, size_t capacity)
{
    char host[256] = "?", port[16] = "?";
    getnameinfo(address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    bool v6 = address->sa_family == AF_INET6;
    snprintf(text, capacity, "%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

static enum rk_status listen_on(struct rk_listener *listener, const char *text, const struct sockaddr *address,
                                socklen_t length, struct rk_error *error)
{
    const int on = 1;
    listener->fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0 || setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(listener->fd, address, length) != 0)
        return rk_error_set(error, RK_IO, "failed to listen on %s: %s", text, strerror(errno));
    if (address->sa_family == AF_UNIX) /* bound, so the file is ours to remove */
        snprintf(listener->path, sizeof listener->path, "%s", ((const struct sockaddr_un *)address)->sun_path);
    if (listen(listener->fd, BACKLOG) != 0)
        return rk_error_set(error, RK_IO, "failed to listen on %s: %s", text, strerror(errno));
    return RK_OK;
}

static enum rk_status listen_on_network(struct rk_listener *listener, const char *text, struct rk_error *error)
{
    char host[256], port[8];
    enum rk_status status = rk_address_split("listen", text, host, sizeof host, port, sizeof port, error);
    if (status != RK_OK)
        return status;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int code = getaddrinfo(host, port, &hints, &found);
    if (code != 0)
        return rk_error_set(error, RK_INVALID, "failed to resolve the listen address %s: %s", text, gai_strerror(code));
    status = listen_on(listener, text, found->ai_addr, found->ai_addrlen, error);
    freeaddrinfo(found);
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    if (status == RK_OK && getsockname(listener->fd, (struct sockaddr *)&bound, &length) == 0)
        print_address((struct sockaddr *)&bound, length, listener->address, sizeof listener->address);
    return status;
}

/* A socket that nobody listens on is what a killed server has left behind. */
static void remove_stale(const struct sockaddr_un *address)
{
    struct stat about;
    if (lstat(address->sun_path, &about) != 0 || !S_ISSOCK(about.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED)
        unlink(address->sun_path);
    close(fd);
}

static enum rk_status listen_on_path(struct rk_listener *listener, const char *text, struct rk_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    enum rk_status status = rk_address_check("listen", text, error);
    if (status != RK_OK)
        return status;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", text + strlen(RK_UNIX_PREFIX));
    remove_stale(&address);
    snprintf(listener->address, sizeof listener->address, "%s", text);
    return listen_on(listener, text, (const struct sockaddr *)&address, sizeof address, error);
}

enum rk_status rk_listener_open(const char *address, const struct rk_endpoint *endpoint, struct rk_listener **result,
                                struct rk_error *error)
{
    *result = NULL;
    struct rk_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to listen on %s: out of memory", address);
    listener->fd = listener->reserve_fd = -1;
    listener->endpoint = endpoint;
    enum rk_status status = strncmp(address, RK_UNIX_PREFIX, strlen(RK_UNIX_PREFIX)) == 0
                                ? listen_on_path(listener, address, error)
                                : listen_on_network(listener, address, error);
    if (status != RK_OK) {
        rk_listener_close(listener);
        return status;
    }
    listener->reserve_fd = open_reserve();
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

static void describe_peer(const struct sockaddr_storage *address, socklen_t length, struct rk_accepted *accepted)
{
    struct ucred owner;
    socklen_t owner_bytes = sizeof owner;
    if (address->ss_family != AF_UNIX)
        print_address((const struct sockaddr *)address, length, accepted->address, sizeof accepted->address);
    else if (getsockopt(accepted->fd, SOL_SOCKET, SO_PEERCRED, &owner, &owner_bytes) == 0)
        snprintf(accepted->address, sizeof accepted->address, "unix:uid=%u", owner.uid);
}

static void take(struct rk_listener *listener, int fd, const struct sockaddr_storage *address, socklen_t length)
{
    struct rk_accepted accepted = {.fd = fd, .endpoint = listener->endpoint};
    const char *why = listener->room(listener->context, (const struct sockaddr *)address, &accepted);
    if (why != NULL) {
        if (rk_log_allowed(&listener->warned, WARN_INTERVAL_US))
            rk_log(RK_LOG_WARN, "closed a new connection: %s", why);
        close(fd);
        return;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a Unix socket has no such delay */
    describe_peer(address, length, &accepted);
    listener->accepted(listener->context, &accepted);
}

static void on_readable(evutil_socket_t socket, short what, void *argument)
{
    (void)socket, (void)what;
    struct rk_listener *listener = argument;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
        socklen_t length = sizeof address;
        int fd = accept4(listener->fd, (struct sockaddr *)&address, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            take(listener, fd, &address, length);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        if (rk_log_allowed(&listener->warned, WARN_INTERVAL_US))
            rk_log(RK_LOG_WARN, "failed to accept a connection: %s; raise the limit on open files", strerror(errno));
        refuse_one(listener);
        rest(listener);
        return;
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
    if (listener->path[0] != '\0')
        unlink(listener->path);
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
