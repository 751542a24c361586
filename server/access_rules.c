/* Judging. Services are few: they are looked for one by one. Tokens are compared by their hashes, all of them and to
 * the end, so that the time an answer takes says nothing about them. Any thread. */
#include "server/access_rules.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define HEALTH "grpc.health.v1.Health"

void rk_access_rules_destroy(struct rk_access_rules *rules)
{
    if (rules == NULL)
        return;
    struct rk_arena arena = rules->arena; /* the rules lie in it */
    rk_arena_deinit(&arena);
}

const char *rk_access_rules_need_certificate(const struct rk_access_rules *rules)
{
    for (uint32_t i = 0; i < rules->num_services; i++)
        if (rules->services[i].num_names > 0 && rules->services[i].num_tokens == 0)
            return rules->services[i].name;
    return NULL;
}

static const struct rk_access_service *find(const struct rk_access_rules *rules, const char *name, size_t length)
{
    const struct rk_access_service *rest = NULL;
    for (uint32_t i = 0; i < rules->num_services; i++) {
        const struct rk_access_service *service = &rules->services[i];
        if (strlen(service->name) == length && memcmp(service->name, name, length) == 0)
            return service;
        if (strcmp(service->name, "*") == 0)
            rest = service;
    }
    return rest;
}

/* "*.example.com" allows one label in the star's place. Letters of host names have no case; those of URIs do. */
static bool name_matches(const char *rule, const char *name)
{
    if (strstr(rule, "://") != NULL)
        return strcmp(rule, name) == 0;
    if (strncmp(rule, "*.", 2) != 0)
        return strcasecmp(rule, name) == 0;
    const char *dot = strchr(name, '.');
    return dot != NULL && dot != name && strcasecmp(rule + 1, dot) == 0;
}

static bool certificate_allows(const struct rk_access_service *service, const struct rk_access_caller *caller)
{
    for (uint32_t i = 0; i < service->num_names; i++)
        for (uint32_t j = 0; j < caller->num_names; j++)
            if (name_matches(service->names[i], caller->names[j]))
                return true;
    return false;
}

/* Its name; NULL: it does not. */
static const char *allowing_token(const struct rk_access_rules *rules, const struct rk_access_service *service,
                                  const uint8_t hash[RK_TOKEN_HASH_BYTES])
{
    const char *found = NULL;
    for (uint32_t i = 0; i < service->num_tokens; i++) {
        const struct rk_access_token *token = &rules->tokens[service->tokens[i]];
        if (CRYPTO_memcmp(token->hash, hash, RK_TOKEN_HASH_BYTES) == 0)
            found = token->name;
    }
    return found;
}

/* The token in "Bearer TOKEN"; NULL when the header is something else. */
static const char *token_of(const char *authorization, size_t *length)
{
    if (strncasecmp(authorization, "Bearer ", 7) != 0)
        return NULL;
    const char *token = authorization + 7;
    token += strspn(token, " ");
    *length = strcspn(token, " ");
    return *length > 0 && token[*length] == '\0' ? token : NULL;
}

enum rk_grpc_status rk_access_rules_judge(const struct rk_access_rules *rules, const char *path,
                                          const struct rk_access_caller *caller, rk_access_hash_fn *hash,
                                          void *hash_context, const char **token_name, char *message, size_t capacity)
{
    const char *name = path + (path[0] == '/');
    const size_t length = strcspn(name, "/");
    const struct rk_access_service *service = find(rules, name, length);
    *token_name = NULL;
    const bool is_health = length == strlen(HEALTH) && memcmp(name, HEALTH, length) == 0;
    if (is_health && (service == NULL || strcmp(service->name, "*") == 0))
        return RK_GRPC_OK;
    if (service != NULL && service->anyone)
        return RK_GRPC_OK;
    const int shown = (int)(length < 128 ? length : 128);
    if (service == NULL || (service->num_names == 0 && service->num_tokens == 0)) {
        snprintf(message, capacity, "nobody may call %.*s here", shown, name);
        return RK_GRPC_PERMISSION_DENIED;
    }
    if (certificate_allows(service, caller))
        return RK_GRPC_OK;
    size_t token_bytes = 0;
    const char *token = caller->authorization != NULL ? token_of(caller->authorization, &token_bytes) : NULL;
    if (token != NULL && service->num_tokens > 0) {
        uint8_t digest[RK_TOKEN_HASH_BYTES];
        if (!hash(hash_context, token, token_bytes, digest)) {
            snprintf(message, capacity, "the token could not be looked at: out of memory");
            return RK_GRPC_RESOURCE_EXHAUSTED;
        }
        if ((*token_name = allowing_token(rules, service, digest)) != NULL)
            return RK_GRPC_OK;
    }
    if (caller->authorization != NULL && token == NULL && caller->names == NULL) {
        snprintf(message, capacity, "the authorization header has to read: Bearer TOKEN");
        return RK_GRPC_UNAUTHENTICATED;
    }
    if (token == NULL && caller->names == NULL) {
        snprintf(message, capacity, "%.*s takes %s", shown, name,
                 service->num_names == 0    ? "a token: authorization: Bearer TOKEN"
                 : service->num_tokens == 0 ? "a client certificate"
                                            : "a client certificate, or a token: authorization: Bearer TOKEN");
        return RK_GRPC_UNAUTHENTICATED;
    }
    snprintf(message, capacity, "this %s may not call %.*s",
             token == NULL           ? "client certificate"
             : caller->names == NULL ? "token"
                                     : "client certificate or token",
             shown, name);
    return RK_GRPC_PERMISSION_DENIED;
}
