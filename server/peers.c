/* A hash table with chains: every address that has a connection has an entry with its count. There are never more
 * entries than connections, so all of them are taken at once (untouched ones cost no memory). Chains are keyed with a
 * secret: nobody can choose addresses that meet in one.
 *
 * One lock, taken twice in a connection's life. */
#include "server/peers.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

struct entry {
    uint64_t key;
    uint32_t count;
    uint32_t next; /* in its chain, or among the free ones */
};

struct rk_peers {
    pthread_mutex_t lock;
    uint32_t max_per_peer, num_entries;
    uint64_t secret;
    uint32_t free;    /* the first free entry that was used before */
    uint32_t unused;  /* entries from here on never were */
    uint32_t *chains; /* [num_entries]: the first entry */
    struct entry *entries;
};

enum rk_status rk_peers_create(uint32_t max_connections, uint32_t max_per_peer, struct rk_peers **result,
                               struct rk_error *error)
{
    struct rk_peers *peers = calloc(1, sizeof *peers);
    *result = NULL;
    if (peers == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to count clients: out of memory");
    pthread_mutex_init(&peers->lock, NULL);
    peers->max_per_peer = max_per_peer;
    peers->num_entries = max_per_peer > 0 ? max_connections : 0;
    peers->free = RK_PEER_NONE;
    if (getrandom(&peers->secret, sizeof peers->secret, 0) != (ssize_t)sizeof peers->secret)
        peers->secret = (uintptr_t)peers;
    peers->chains = malloc((peers->num_entries + (size_t)1) * sizeof *peers->chains);
    peers->entries = malloc((peers->num_entries + (size_t)1) * sizeof *peers->entries);
    if (peers->chains == NULL || peers->entries == NULL) {
        rk_peers_destroy(peers);
        return rk_error_set(error, RK_NO_MEMORY, "failed to count clients: out of memory");
    }
    for (uint32_t i = 0; i < peers->num_entries; i++)
        peers->chains[i] = RK_PEER_NONE;
    *result = peers;
    return RK_OK;
}

void rk_peers_destroy(struct rk_peers *peers)
{
    if (peers == NULL)
        return;
    pthread_mutex_destroy(&peers->lock);
    free(peers->chains);
    free(peers->entries);
    free(peers);
}

/* False: such addresses are not counted. */
static bool key_of(const struct sockaddr *address, uint64_t *key)
{
    uint32_t v4;
    if (address->sa_family == AF_INET) {
        v4 = ((const struct sockaddr_in *)address)->sin_addr.s_addr;
        *key = v4;
        return true;
    }
    if (address->sa_family != AF_INET6)
        return false;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(v6)) {
        memcpy(&v4, v6->s6_addr + 12, sizeof v4);
        *key = v4;
    } else {
        memcpy(key, v6->s6_addr, sizeof *key);
    }
    return true;
}

static uint32_t *chain_of(const struct rk_peers *peers, uint64_t key)
{
    return &peers->chains[XXH3_64bits_withSeed(&key, sizeof key, peers->secret) % peers->num_entries];
}

/* An entry for this key, new or not; RK_PEER_NONE: all are taken. */
static uint32_t find_or_add(struct rk_peers *peers, uint64_t key)
{
    uint32_t *chain = chain_of(peers, key), at = *chain;
    while (at != RK_PEER_NONE && peers->entries[at].key != key)
        at = peers->entries[at].next;
    if (at != RK_PEER_NONE)
        return at;
    if (peers->free != RK_PEER_NONE) {
        at = peers->free;
        peers->free = peers->entries[at].next;
    } else if (peers->unused < peers->num_entries) {
        at = peers->unused++;
    } else {
        return RK_PEER_NONE;
    }
    peers->entries[at] = (struct entry){.key = key, .next = *chain};
    *chain = at;
    return at;
}

bool rk_peers_enter(struct rk_peers *peers, const struct sockaddr *address, uint32_t *slot)
{
    uint64_t key;
    *slot = RK_PEER_NONE;
    if (peers->num_entries == 0 || !key_of(address, &key))
        return true;
    pthread_mutex_lock(&peers->lock);
    uint32_t at = find_or_add(peers, key);
    bool allowed = at != RK_PEER_NONE && peers->entries[at].count < peers->max_per_peer;
    if (allowed) {
        peers->entries[at].count++;
        *slot = at;
    }
    pthread_mutex_unlock(&peers->lock);
    return allowed;
}

void rk_peers_leave(struct rk_peers *peers, uint32_t slot)
{
    if (slot == RK_PEER_NONE)
        return;
    pthread_mutex_lock(&peers->lock);
    struct entry *entry = &peers->entries[slot];
    if (--entry->count == 0) {
        uint32_t *link = chain_of(peers, entry->key);
        while (*link != slot)
            link = &peers->entries[*link].next;
        *link = entry->next;
        entry->next = peers->free;
        peers->free = slot;
    }
    pthread_mutex_unlock(&peers->lock);
}
