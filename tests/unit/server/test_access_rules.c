/* Rules: what files are taken, and who is let in by them. */
#include <criterion/criterion.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "server/access_rules.h"

/* 64 hexadecimal digits */
#define DIGITS "9ae2b1b0ba5a3c2ccfbd6abcc19ea7fd5ba5be6d52b33f12b0bb1fc5fb0ab2f0"

static bool hash(void *context, const char *token, size_t length, uint8_t result[RK_TOKEN_HASH_BYTES])
{
    (void)context;
    return SHA256((const unsigned char *)token, length, result) != NULL;
}

static const char *hex_of(const char *token)
{
    static char texts[4][2 * RK_TOKEN_HASH_BYTES + 1];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    uint8_t digest[RK_TOKEN_HASH_BYTES];
    hash(NULL, token, strlen(token), digest);
    for (size_t i = 0; i < sizeof digest; i++)
        sprintf(text + 2 * i, "%02x", digest[i]);
    return text;
}

static struct rk_access_rules *parse(const char *text)
{
    struct rk_access_rules *rules;
    struct rk_error error = {0};
    cr_assert_eq(rk_access_rules_parse("access.yaml", text, strlen(text), &rules, &error), RK_OK, "%s", error.text);
    return rules;
}

static struct rk_access_rules *example(void)
{
    char text[2048];
    snprintf(text, sizeof text,
             "services:\n"
             "  rankd.v1.Ranking:\n"
             "    names: [Feed.example.com, '*.ads.example.com', 'spiffe://example.com/feed']\n"
             "    tokens: [feed, ops]\n"
             "  rankd.v1.Admin:\n"
             "    tokens: ops\n"
             "  only.Names: {names: [feed.example.com]}\n"
             "  open.Service: anyone\n"
             "  shut.Service: nobody\n"
             "tokens:\n"
             "  feed: %s\n"
             "  ops: [%s, %s]\n",
             hex_of("feed-token"), hex_of("ops-token"), hex_of("new-ops-token"));
    return parse(text);
}

static const char *token; /* that let the last caller in */

static enum rk_grpc_status judge(const struct rk_access_rules *rules, const char *path, const char *name,
                                 const char *authorization, char message[256])
{
    const char *const names[] = {"else.example.org", name};
    const struct rk_access_caller caller = {.names = name != NULL ? names : NULL,
                                            .num_names = name != NULL ? 2 : 0,
                                            .authorization = authorization};
    message[0] = '\0';
    return rk_access_rules_judge(rules, path, &caller, hash, NULL, &token, message, 256);
}

Test(access_rules, callers_are_let_in_by_name_or_by_token_and_told_what_is_missing)
{
    static const struct {
        const char *path, *name, *authorization;
        enum rk_grpc_status status;
        const char *message;
    } cases[] = {
        {"/rankd.v1.Ranking/Rank", NULL, NULL, RK_GRPC_UNAUTHENTICATED,
         "rankd.v1.Ranking takes a client certificate, or a token: authorization: Bearer TOKEN"},
        {"/rankd.v1.Ranking/Rank", "feed.example.com", NULL, RK_GRPC_OK, ""},
        {"/rankd.v1.Ranking/Rank", "FEED.EXAMPLE.COM", NULL, RK_GRPC_OK, ""},
        {"/rankd.v1.Ranking/Rank", "x.ads.example.com", NULL, RK_GRPC_OK, ""},
        {"/rankd.v1.Ranking/Rank", "x.y.ads.example.com", NULL, RK_GRPC_PERMISSION_DENIED,
         "client certificate may not"},
        {"/rankd.v1.Ranking/Rank", ".ads.example.com", NULL, RK_GRPC_PERMISSION_DENIED, "client certificate may not"},
        {"/rankd.v1.Ranking/Rank", "ads.example.com", NULL, RK_GRPC_PERMISSION_DENIED, "client certificate may not"},
        {"/rankd.v1.Ranking/Rank", "feed.example.com.evil.org", NULL, RK_GRPC_PERMISSION_DENIED, "may not"},
        {"/rankd.v1.Ranking/Rank", "spiffe://example.com/feed", NULL, RK_GRPC_OK, ""},
        {"/rankd.v1.Ranking/Rank", "spiffe://example.com/Feed", NULL, RK_GRPC_PERMISSION_DENIED, "may not"},
        {"/rankd.v1.Ranking/Rank", NULL, "Bearer feed-token", RK_GRPC_OK, ""},
        {"/rankd.v1.Ranking/Rank", NULL, "bearer  feed-token", RK_GRPC_OK, ""},
        {"/rankd.v1.Ranking/Rank", "else.example.com", "Bearer ops-token", RK_GRPC_OK, ""},
        {"/rankd.v1.Ranking/Rank", NULL, "Bearer feed-toke", RK_GRPC_PERMISSION_DENIED,
         "this token may not call rankd.v1.Ranking"},
        {"/rankd.v1.Ranking/Rank", NULL, "Bearer feed-token x", RK_GRPC_UNAUTHENTICATED, "has to read: Bearer TOKEN"},
        {"/rankd.v1.Ranking/Rank", NULL, "Bearer ", RK_GRPC_UNAUTHENTICATED, "has to read: Bearer TOKEN"},
        {"/rankd.v1.Ranking/Rank", NULL, "Basic feed-token", RK_GRPC_UNAUTHENTICATED, "has to read: Bearer TOKEN"},
        {"/rankd.v1.Ranking/Rank", NULL, "", RK_GRPC_UNAUTHENTICATED, "has to read: Bearer TOKEN"},
        {"/rankd.v1.Admin/GetStatus", NULL, "Bearer feed-token", RK_GRPC_PERMISSION_DENIED, "this token may not"},
        {"/rankd.v1.Admin/GetStatus", NULL, "Bearer ops-token", RK_GRPC_OK, ""},
        {"/rankd.v1.Admin/GetStatus", NULL, "Bearer new-ops-token", RK_GRPC_OK, ""},
        {"/rankd.v1.Admin/GetStatus", "feed.example.com", NULL, RK_GRPC_PERMISSION_DENIED, "certificate may not"},
        {"/rankd.v1.Admin/GetStatus", NULL, NULL, RK_GRPC_UNAUTHENTICATED, "takes a token"},
        {"/only.Names/M", NULL, NULL, RK_GRPC_UNAUTHENTICATED, "takes a client certificate"},
        {"/only.Names/M", NULL, "Bearer feed-token", RK_GRPC_PERMISSION_DENIED, "this token may not"},
        {"/open.Service/M", NULL, NULL, RK_GRPC_OK, ""},
        {"/shut.Service/M", "feed.example.com", "Bearer ops-token", RK_GRPC_PERMISSION_DENIED,
         "nobody may call shut.Service"},
        {"/not.Named/M", "feed.example.com", "Bearer ops-token", RK_GRPC_PERMISSION_DENIED,
         "nobody may call not.Named"},
        {"/open.Service2/M", NULL, NULL, RK_GRPC_PERMISSION_DENIED, "nobody"},
        {"/open.Servic/M", NULL, NULL, RK_GRPC_PERMISSION_DENIED, "nobody"},
        {"/grpc.health.v1.Health/Check", NULL, NULL, RK_GRPC_OK, ""},
        {"/grpc.health.v1.Health/Watch", NULL, "Basic x", RK_GRPC_OK, ""},
    };
    struct rk_access_rules *rules = example();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char message[256];
        enum rk_grpc_status status = judge(rules, cases[i].path, cases[i].name, cases[i].authorization, message);
        cr_expect_eq(status, cases[i].status, "%s, %s, %s: %s (%s)", cases[i].path, cases[i].name,
                     cases[i].authorization, rk_grpc_status_name(status), message);
        cr_expect(strstr(message, cases[i].message) != NULL, "%s, %s, %s: '%s' lacks '%s'", cases[i].path,
                  cases[i].name, cases[i].authorization, message, cases[i].message);
        cr_expect_eq(status == RK_GRPC_OK, message[0] == '\0');
        cr_expect(strstr(message, "feed.example") == NULL && strstr(message, "ops") == NULL,
                  "it tells who would be let in");
    }
    rk_access_rules_destroy(rules);
}

Test(access_rules, a_caller_who_comes_in_by_a_token_has_its_name)
{
    static const struct {
        const char *path, *name, *authorization, *token;
    } cases[] = {
        {"/rankd.v1.Ranking/Rank", NULL, "Bearer feed-token", "feed"},
        {"/rankd.v1.Ranking/Rank", NULL, "Bearer ops-token", "ops"},
        {"/rankd.v1.Admin/GetStatus", "else.example.com", "Bearer new-ops-token", "ops"},
        {"/rankd.v1.Ranking/Rank", "feed.example.com", "Bearer ops-token", NULL}, /* the certificate is enough */
        {"/rankd.v1.Admin/GetStatus", NULL, "Bearer feed-token", NULL},
        {"/open.Service/M", NULL, "Bearer feed-token", NULL},
        {"/grpc.health.v1.Health/Check", NULL, "Bearer feed-token", NULL},
    };
    struct rk_access_rules *rules = example();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char message[256];
        judge(rules, cases[i].path, cases[i].name, cases[i].authorization, message);
        cr_expect((token == NULL) == (cases[i].token == NULL) && (token == NULL || strcmp(token, cases[i].token) == 0),
                  "%s, %s, %s: the token is %s", cases[i].path, cases[i].name, cases[i].authorization, token);
    }
    rk_access_rules_destroy(rules);
}

Test(access_rules, a_star_is_for_services_without_a_rule_and_health_may_have_one)
{
    char message[256];
    struct rk_access_rules *rules = parse("services: {'*': anyone, a.B: nobody}");
    cr_expect_eq(judge(rules, "/c.D/M", NULL, NULL, message), RK_GRPC_OK);
    cr_expect_eq(judge(rules, "/a.B/M", NULL, NULL, message), RK_GRPC_PERMISSION_DENIED);
    rk_access_rules_destroy(rules);
    rules = parse("services: {'*': nobody}");
    cr_expect_eq(judge(rules, "/grpc.health.v1.Health/Check", NULL, NULL, message), RK_GRPC_OK);
    rk_access_rules_destroy(rules);
    rules = parse("services: {grpc.health.v1.Health: nobody, '*': anyone}");
    cr_expect_eq(judge(rules, "/grpc.health.v1.Health/Check", NULL, NULL, message), RK_GRPC_PERMISSION_DENIED);
    rk_access_rules_destroy(rules);
}

Test(access_rules, rules_that_need_certificates_are_told)
{
    struct rk_access_rules *rules = parse("services: {a.B: anyone, c.D: {names: [x]}}");
    cr_expect_str_eq(rk_access_rules_need_certificate(rules), "c.D");
    rk_access_rules_destroy(rules);
    rules = example();
    cr_expect_str_eq(rk_access_rules_need_certificate(rules), "only.Names");
    rk_access_rules_destroy(rules);
    rules = parse("services: {a.B: anyone}");
    cr_expect_null(rk_access_rules_need_certificate(rules));
    rk_access_rules_destroy(rules);
}

Test(access_rules, broken_files_are_refused_with_place_and_reason)
{
    static const struct {
        const char *text, *place, *reason;
    } cases[] = {
        {"", "access.yaml:", "without rules nobody could call anything"},
        {"# nothing\n", "access.yaml:", "nobody could call anything"},
        {"tokens: {}\n", "access.yaml:", "nobody could call anything"},
        {"services: {}\n", "access.yaml:", "nobody could call anything"},
        {"- a\n", "access.yaml:", "takes 'services:' and 'tokens:'"},
        {"services: anyone\n", ":1:11:", "take lines of"},
        {"service:\n  a: anyone\n", ":1:1:", "there is no section 'service'"},
        {"services:\n  a.B: anybody\n",
         ":2:8:", "the rule of a.B is 'anybody'; it takes anyone, nobody, or names and tokens"},
        {"services:\n  a.B: [x]\n", ":2:8:", "piece of text"},
        {"services:\n  /a.B/M: anyone\n", ":2:3:", "is a path"},
        {"services:\n  a.B: anyone\n  a.B: nobody\n", ":3:3:", "a.B has two rules"},
        {"services:\n  a.B:\n    name: [x]\n", ":3:5:", "'name' is no way in"},
        {"services:\n  a.B:\n    names: [x]\n    names: [y]\n", ":4:5:", "names are given twice"},
        {"services:\n  a.B:\n    names: [x, [y]]\n", ":3:16:", "a name has to be a piece of text"},
        {"services:\n  a.B:\n    names: [x, '']\n", ":3:16:", "a name has to be a piece of text"},
        {"services:\n  a.B:\n    names: ['*']\n", ":3:13:", "a whole first label only"},
        {"services:\n  a.B:\n    names: ['a.*.b']\n", ":3:13:", "a whole first label only"},
        {"services:\n  a.B:\n    names: ['*a.b']\n", ":3:13:", "a whole first label only"},
        {"services:\n  a.B:\n    tokens: [x]\n", ":3:14:", "there is no token 'x'"},
        {"tokens:\n  x: secret\n", ":2:6:", "token 'x' takes its SHA-256 in 64 hexadecimal digits"},
        {"tokens:\n  x: [" DIGITS ", " DIGITS "0]\n", ":2:73:", "64 hexadecimal digits"},
        {"tokens:\n  x: g" DIGITS "\n", ":2:6:", "64 hexadecimal digits"},
        {"services: {a.B: anyone}\n---\nservices: {a.B: nobody}\n", ":3:1:", "a second document"},
        {"services: {a.B: anyone\n", ":2:1:", "did not find expected"},
        {"services:\n\ta.B: anyone\n", ":2:1:", "cannot start any token"},
        {"services: {a.B: anyone}\nservices: {c.D: anyone}\n", ":2:1:", "services stand here twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_access_rules *rules;
        struct rk_error error = {0};
        cr_expect_eq(rk_access_rules_parse("access.yaml", cases[i].text, strlen(cases[i].text), &rules, &error),
                     RK_INVALID, "'%s' is taken", cases[i].text);
        cr_expect_null(rules);
        cr_expect(strstr(error.text, cases[i].place) != NULL && strstr(error.text, cases[i].reason) != NULL,
                  "'%s': %s; expected %s ... %s", cases[i].text, error.text, cases[i].place, cases[i].reason);
    }
}
