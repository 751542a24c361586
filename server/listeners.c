/* Three options hold lists of addresses, one row each below: what is common to those who come in there. */
#include "server/listeners.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "server/address.h"

static const struct {
    const char *option, *kind;
    size_t list, endpoint; /* where in struct rk_options, in struct rk_listeners */
} table[] = {
    {"listen", "", offsetof(struct rk_options, listen), offsetof(struct rk_listeners, plain)},
    {"listen_tls", "tls ", offsetof(struct rk_options, listen_tls), offsetof(struct rk_listeners, tls)},
    {"listen_admin", "admin ", offsetof(struct rk_options, listen_admin), offsetof(struct rk_listeners, admin)},
};
#define TABLE_SIZE (sizeof table / sizeof table[0])

static const char *list_of(const struct rk_options *options, size_t row)
{
    return (const char *)options + table[row].list;
}

enum rk_status rk_listeners_check(const struct rk_options *options, struct rk_error *error)
{
    uint32_t count = 0;
    for (size_t row = 0; row < TABLE_SIZE; row++) {
        const char *list = list_of(options, row);
        for (char address[RK_ADDRESS_BYTES]; rk_address_next(&list, address); count++) {
            enum rk_status status = rk_address_check(table[row].option, address, error);
            if (status != RK_OK)
                return status;
        }
    }
    if (count > RK_MAX_LISTENERS)
        return rk_error_set(error, RK_INVALID, "listen, listen_tls and listen_admin have %u addresses; at most %d",
                            count, RK_MAX_LISTENERS);
    if (options->listen[0] == '\0' && options->listen_tls[0] == '\0')
        return rk_error_set(error, RK_INVALID, "listen and listen_tls are both empty; one of them takes HOST:PORT");
    return RK_OK;
}

enum rk_status rk_listeners_open(const struct rk_options *options, struct rk_tls *tls, struct rk_listeners *listeners,
                                 struct rk_error *error)
{
    *listeners = (struct rk_listeners){.tls.tls = tls, .admin.admin = true};
    if (options->listen_admin[0] == '\0') /* no door of their own: operators come in with everybody */
        listeners->plain.admin = listeners->tls.admin = true;
    enum rk_status status = rk_listeners_check(options, error);
    for (size_t row = 0; status == RK_OK && row < TABLE_SIZE; row++) {
        const struct rk_endpoint *endpoint =
            (const struct rk_endpoint *)((const char *)listeners + table[row].endpoint);
        const char *list = list_of(options, row);
        for (char address[RK_ADDRESS_BYTES]; status == RK_OK && rk_address_next(&list, address);) {
            status = rk_listener_open(address, endpoint, &listeners->listeners[listeners->count], error);
            listeners->kinds[listeners->count] = table[row].kind;
            listeners->count += status == RK_OK;
        }
    }
    return status;
}

enum rk_status rk_listeners_attach(struct rk_listeners *listeners, struct event_base *base,
                                   rk_listener_accepted_fn *accepted, rk_listener_room_fn *room, void *context,
                                   struct rk_error *error)
{
    enum rk_status status = RK_OK;
    for (uint32_t i = 0; status == RK_OK && i < listeners->count; i++)
        status = rk_listener_attach(listeners->listeners[i], base, accepted, room, context, error);
    return status;
}

void rk_listeners_close(struct rk_listeners *listeners)
{
    for (uint32_t i = 0; i < listeners->count; i++)
        rk_listener_close(listeners->listeners[i]);
    listeners->count = 0;
}

void rk_listeners_print(const struct rk_listeners *listeners, const char *between, char *text, size_t capacity)
{
    size_t end = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < listeners->count && end < capacity; i++)
        end += (size_t)snprintf(text + end, capacity - end, "%s%s%s", i > 0 ? between : "", listeners->kinds[i],
                                rk_listener_address(listeners->listeners[i]));
}
