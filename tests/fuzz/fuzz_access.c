/* Any bytes as a file of access rules: refused with a reason, or read into rules that judge. */
#include <stdlib.h>
#include <string.h>

#include "server/access_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool hash_badly(void *context, const char *token, size_t length, uint8_t hash[RK_TOKEN_HASH_BYTES])
{
    (void)context;
    memset(hash, 0, RK_TOKEN_HASH_BYTES);
    memcpy(hash, token, length < RK_TOKEN_HASH_BYTES ? length : RK_TOKEN_HASH_BYTES);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rk_access_rules *rules;
    struct rk_error error = {0};
    enum rk_status status = rk_access_rules_parse("f", (const char *)data, size, &rules, &error);
    if ((status == RK_OK) != (error.text[0] == '\0') || (status == RK_OK) != (rules != NULL))
        abort();
    if (status != RK_OK)
        return 0;
    static const char *const names[] = {"feed.example.com", "a.ads.example.com", "spiffe://example.com/feed"};
    static const char *const paths[] = {"/rankd.v1.Ranking/Rank", "/rankd.v1.Admin/GetStatus", "//", "/a", "/"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char message[256] = "";
        const char *token;
        const struct rk_access_caller nobody = {0};
        const struct rk_access_caller somebody = {names, 3, "Bearer a"};
        enum rk_grpc_status without =
            rk_access_rules_judge(rules, paths[i], &nobody, hash_badly, NULL, &token, message, sizeof message);
        if ((without == RK_GRPC_OK) != (message[0] == '\0') || token != NULL)
            abort();
        enum rk_grpc_status with =
            rk_access_rules_judge(rules, paths[i], &somebody, hash_badly, NULL, &token, message, sizeof message);
        if (without == RK_GRPC_OK && with != RK_GRPC_OK) /* showing something never closes a door */
            abort();
    }
    rk_access_rules_destroy(rules);
    return 0;
}
