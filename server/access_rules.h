/* Who may call which service. Rules are read once and never changed. */
#ifndef RANKD_SERVER_ACCESS_RULES_H
#define RANKD_SERVER_ACCESS_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/arena.h"
#include "server/grpc/status.h"

#define RK_TOKEN_HASH_BYTES 32 /* SHA-256 */

struct rk_access_token {
    const char *name;
    uint8_t hash[RK_TOKEN_HASH_BYTES];
};

struct rk_access_service {
    const char *name; /* "rankd.v1.Ranking"; "*": those that have no rule of their own */
    bool anyone;
    const char **names; /* of certificates */
    uint32_t *tokens;   /* positions in the rules' tokens */
    uint32_t num_names, num_tokens;
};

struct rk_access_rules {
    struct rk_arena arena; /* holds everything, the rules too */
    uint32_t references;   /* server/access.c counts */
    struct rk_access_token *tokens;
    struct rk_access_service *services;
    uint32_t num_tokens, num_services;
};

/* Reads the rules from YAML:
 *
 *   tokens:            # name: SHA-256 of the token in hex, or a list of them while one replaces another
 *     feed: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
 *   services:
 *     rankd.v1.Ranking:
 *       names: [feed.example.com, "*.ads.example.com", "spiffe://example.com/feed"]
 *       tokens: [feed]
 *     rankd.v1.Admin: nobody
 *     "*": anyone      # every service without a rule of its own; without this line: nobody
 *
 * A caller with one of the names or one of the tokens may call the service. grpc.health.v1.Health is open to anyone
 * unless it has a rule. `name` stands in errors, which read "name:line:column: what is wrong; what is allowed".
 */
enum rk_status rk_access_rules_parse(const char *name, const char *text, size_t length, struct rk_access_rules **rules,
                                     struct rk_error *error);
void rk_access_rules_destroy(struct rk_access_rules *rules); /* NULL is allowed */

/* Is there a rule that only a certificate can fulfil? The answer is its service, or NULL. */
const char *rk_access_rules_need_certificate(const struct rk_access_rules *rules);

/* What a caller shows. */
struct rk_access_caller {
    const char *const *names; /* of its certificate; NULL: it has none */
    uint32_t num_names;
    const char *authorization; /* the header; NULL: none */
};

/* Turns a token into its hash. */
typedef bool rk_access_hash_fn(void *context, const char *token, size_t length, uint8_t hash[RK_TOKEN_HASH_BYTES]);

/* May this caller call `path` ("/package.Service/Method")? RK_GRPC_OK; UNAUTHENTICATED: it shows nothing that could
 * allow it; PERMISSION_DENIED: what it shows does not. The message says which, but not who would be let in. *token: the
 * name of the token that lets it in, NULL if something else does; it lives as long as the rules. */
enum rk_grpc_status rk_access_rules_judge(const struct rk_access_rules *rules, const char *path,
                                          const struct rk_access_caller *caller, rk_access_hash_fn *hash,
                                          void *hash_context, const char **token, char *message, size_t capacity);

#endif
