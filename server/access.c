/* The rules in force hang on a lock; a view keeps a reference to those that it has seen and looks for newer ones by
 * their number, so that a call costs one atomic read. Nothing is allocated for a call: a view has what SHA-256 needs.
 */
#include "server/access.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/connection.h"
#include "server/grpc/session.h"
#include "server/text_file.h"

#define ADMIN_PREFIX "/rankd.v1.Admin/"

struct rk_access {
    char *path;
    bool certificates;
    pthread_mutex_t lock;
    struct rk_access_rules *rules; /* under the lock, and so are the references of all rules */
    _Atomic uint64_t generation;   /* of the rules in force */
};

struct rk_access_view {
    struct rk_access *access; /* NULL: no rules */
    struct rk_access_rules *rules;
    uint64_t generation;
    EVP_MD *sha256;
    EVP_MD_CTX *hashing;
};

static enum rk_status read_rules(const struct rk_access *access, struct rk_access_rules **rules, struct rk_error *error)
{
    struct rk_text_file file;
    enum rk_status status = rk_text_file_read(access->path, "access_file", &file, error);
    if (status == RK_OK)
        status = rk_access_rules_parse(access->path, file.text, file.length, rules, error);
    rk_text_file_free(&file);
    if (status != RK_OK)
        return status;
    const char *service = access->certificates ? NULL : rk_access_rules_need_certificate(*rules);
    if (service != NULL) {
        status = rk_error_set(error, RK_INVALID,
                              "%s: %s takes certificate names only, but tls_client_ca is not set, so nobody could call "
                              "it; set tls_client_ca, or add tokens",
                              access->path, service);
        rk_access_rules_destroy(*rules);
        *rules = NULL;
        return status;
    }
    (*rules)->references = 1;
    return RK_OK;
}

/* Under the lock. */
static void release(struct rk_access_rules *rules)
{
    if (rules != NULL && --rules->references == 0)
        rk_access_rules_destroy(rules);
}

enum rk_status rk_access_create(const char *path, bool certificates, struct rk_access **result, struct rk_error *error)
{
    *result = NULL;
    struct rk_access *access = calloc(1, sizeof *access);
    if (access == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to read the access rules: out of memory");
    pthread_mutex_init(&access->lock, NULL);
    access->certificates = certificates;
    access->path = strdup(path);
    enum rk_status status = access->path != NULL
                                ? read_rules(access, &access->rules, error)
                                : rk_error_set(error, RK_NO_MEMORY, "failed to read the access rules: out of memory");
    if (status != RK_OK) {
        rk_access_destroy(access);
        return status;
    }
    *result = access;
    return RK_OK;
}

void rk_access_destroy(struct rk_access *access)
{
    if (access == NULL)
        return;
    release(access->rules);
    pthread_mutex_destroy(&access->lock);
    free(access->path);
    free(access);
}

enum rk_status rk_access_reload(struct rk_access *access, struct rk_error *error)
{
    struct rk_access_rules *rules;
    enum rk_status status = read_rules(access, &rules, error);
    if (status != RK_OK)
        return status;
    pthread_mutex_lock(&access->lock);
    release(access->rules);
    access->rules = rules;
    atomic_fetch_add(&access->generation, 1);
    pthread_mutex_unlock(&access->lock);
    return RK_OK;
}

int rk_access_describe(struct rk_access *access, char *text, size_t capacity)
{
    pthread_mutex_lock(&access->lock);
    int length = snprintf(text, capacity, "rules for %u services, %u tokens", access->rules->num_services,
                          access->rules->num_tokens);
    pthread_mutex_unlock(&access->lock);
    return length;
}

/* ---- views ---- */

static void take_rules(struct rk_access_view *view)
{
    struct rk_access *access = view->access;
    pthread_mutex_lock(&access->lock);
    release(view->rules);
    view->rules = access->rules;
    view->rules->references++;
    view->generation = atomic_load(&access->generation);
    pthread_mutex_unlock(&access->lock);
}

enum rk_status rk_access_view_create(struct rk_access *access, struct rk_access_view **result, struct rk_error *error)
{
    *result = NULL;
    struct rk_access_view *view = calloc(1, sizeof *view);
    if (view == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to set up access control: out of memory");
    view->access = access;
    if (access != NULL) {
        take_rules(view);
        view->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
        view->hashing = EVP_MD_CTX_new();
        if (view->sha256 == NULL || view->hashing == NULL) {
            rk_access_view_destroy(view);
            return rk_error_set(error, RK_NO_MEMORY, "failed to set up access control: OpenSSL gives no SHA-256");
        }
    }
    *result = view;
    return RK_OK;
}

void rk_access_view_destroy(struct rk_access_view *view)
{
    if (view == NULL)
        return;
    if (view->access != NULL) {
        pthread_mutex_lock(&view->access->lock);
        release(view->rules);
        pthread_mutex_unlock(&view->access->lock);
    }
    EVP_MD_CTX_free(view->hashing);
    EVP_MD_free(view->sha256);
    free(view);
}

static bool hash_token(void *context, const char *token, size_t length, uint8_t hash[RK_TOKEN_HASH_BYTES])
{
    struct rk_access_view *view = context;
    return EVP_DigestInit_ex2(view->hashing, view->sha256, NULL) == 1 &&
           EVP_DigestUpdate(view->hashing, token, length) == 1 && EVP_DigestFinal_ex(view->hashing, hash, NULL) == 1;
}

enum rk_grpc_status rk_access_authorize(void *argument, struct rk_call *call, char *message, size_t capacity)
{
    struct rk_access_view *view = argument;
    const struct rk_peer *peer = rk_connection_peer(rk_grpc_session_owner(rk_call_session(call)));
    const char *path = rk_call_path(call);
    if (!peer->endpoint->admin && strncmp(path, ADMIN_PREFIX, strlen(ADMIN_PREFIX)) == 0) {
        snprintf(message, capacity, "admin calls have an address of their own here (listen_admin)");
        return RK_GRPC_PERMISSION_DENIED;
    }
    if (view->access == NULL)
        return RK_GRPC_OK;
    if (atomic_load(&view->access->generation) != view->generation)
        take_rules(view);
    const struct rk_access_caller caller = {.names = peer->names,
                                            .num_names = peer->num_names,
                                            .authorization = rk_call_metadata(call, "authorization")};
    const char *token;
    const enum rk_grpc_status status =
        rk_access_rules_judge(view->rules, path, &caller, hash_token, view, &token, message, capacity);
    if (token != NULL)
        rk_call_set_client(call, token);
    return status;
}
