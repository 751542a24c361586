/* Text alone: nothing is resolved or opened here. Any thread. */
#include "server/address.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static bool parse_port(const char *text, uint32_t *port)
{
    *port = 0;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at < '0' || *at > '9' || at - text >= 5)
            return false;
        *port = *port * 10 + (uint32_t)(*at - '0');
    }
    return text[0] != '\0' && *port <= 65535;
}

enum rk_status rk_address_split(const char *option, const char *text, char *host, size_t host_capacity, char *port,
                                size_t port_capacity, struct rk_error *error)
{
    const char *colon = strrchr(text, ':');
    const char *host_end = colon;
    const char *host_start = text;
    if (colon != NULL && text[0] == '[' && colon > text + 1 && colon[-1] == ']') {
        host_start++;
        host_end--;
    } else if (colon != NULL && memchr(text, ':', (size_t)(colon - text)) != NULL) {
        return rk_error_set(error, RK_INVALID, "%s is '%.100s'; write an IPv6 address in brackets: [::1]:8470", option,
                            text);
    }
    if (colon == NULL || host_end == host_start)
        return rk_error_set(error, RK_INVALID, "%s is '%.100s'; it takes HOST:PORT, e.g. 127.0.0.1:8470, or unix:/PATH",
                            option, text);
    uint32_t number;
    if (!parse_port(colon + 1, &number))
        return rk_error_set(error, RK_INVALID, "%s is '%.100s'; its port takes a whole number from 0 to 65535", option,
                            text);
    if ((size_t)(host_end - host_start) >= host_capacity)
        return rk_error_set(error, RK_INVALID, "%s is '%.100s'; its host is too long", option, text);
    snprintf(host, host_capacity, "%.*s", (int)(host_end - host_start), host_start);
    snprintf(port, port_capacity, "%u", number);
    return RK_OK;
}

enum rk_status rk_address_check(const char *option, const char *text, struct rk_error *error)
{
    char host[256], port[8];
    if (strncmp(text, RK_UNIX_PREFIX, strlen(RK_UNIX_PREFIX)) != 0)
        return rk_address_split(option, text, host, sizeof host, port, sizeof port, error);
    const char *path = text + strlen(RK_UNIX_PREFIX);
    const size_t most = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;
    if (path[0] != '/')
        return rk_error_set(error, RK_INVALID, "%s is '%.120s'; a Unix socket takes a whole path: unix:/run/rankd.sock",
                            option, text);
    if (strlen(path) > most)
        return rk_error_set(error, RK_INVALID, "%s is '%.120s...'; the path of a Unix socket has at most %zu bytes",
                            option, text, most);
    return RK_OK;
}

bool rk_address_next(const char **list, char address[RK_ADDRESS_BYTES])
{
    const char *start = *list + strspn(*list, ", ");
    size_t length = strcspn(start, ",");
    *list = start + length;
    while (length > 0 && start[length - 1] == ' ')
        length--;
    snprintf(address, RK_ADDRESS_BYTES, "%.*s", (int)length, start);
    return length > 0;
}
