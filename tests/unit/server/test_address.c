/* Addresses: what is taken, what is refused and why, and lists of them. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "server/address.h"

Test(address, addresses_are_split_or_refused_with_a_reason)
{
    static const struct {
        const char *text, *host, *port, *wrong;
    } cases[] = {
        {"127.0.0.1:8470", "127.0.0.1", "8470", NULL},
        {"[::1]:0", "::1", "0", NULL},
        {"localhost:65535", "localhost", "65535", NULL},
        {"127.0.0.1", NULL, NULL, "HOST:PORT"},
        {":80", NULL, NULL, "HOST:PORT"},
        {"[]:80", NULL, NULL, "HOST:PORT"},
        {"::1:80", NULL, NULL, "brackets"},
        {"a:65536", NULL, NULL, "0 to 65535"},
        {"a:", NULL, NULL, "0 to 65535"},
        {"a:http", NULL, NULL, "0 to 65535"},
        {"a:-1", NULL, NULL, "0 to 65535"},
        {"", NULL, NULL, "HOST:PORT"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char host[64] = "", port[8] = "";
        struct rk_error error = {0};
        enum rk_status status = rk_address_split("listen", cases[i].text, host, sizeof host, port, sizeof port, &error);
        if (cases[i].wrong == NULL) {
            cr_expect_eq(status, RK_OK, "'%s' is refused: %s", cases[i].text, error.text);
            cr_expect_str_eq(host, cases[i].host);
            cr_expect_str_eq(port, cases[i].port);
        } else {
            cr_expect_eq(status, RK_INVALID, "'%s' is taken", cases[i].text);
            cr_expect(strstr(error.text, cases[i].wrong) != NULL, "'%s': %s", cases[i].text, error.text);
        }
    }
}

Test(address, unix_sockets_take_a_whole_path_that_fits)
{
    char longest[200] = "unix:/", too_long[200] = "unix:/";
    memset(longest + 6, 'x', 106);
    memset(too_long + 6, 'x', 107);
    struct rk_error error = {0};
    cr_expect_eq(rk_address_check("listen", "unix:/run/rankd.sock", &error), RK_OK, "%s", error.text);
    cr_expect_eq(rk_address_check("listen", longest, &error), RK_OK, "%s", error.text);
    cr_expect_eq(rk_address_check("listen_tls", too_long, &error), RK_INVALID);
    cr_expect(strstr(error.text, "listen_tls is 'unix:/xx") != NULL && strstr(error.text, "107 bytes") != NULL, "%s",
              error.text);
    static const char *const wrong[] = {"unix:", "unix:rankd.sock", "unix:@rankd"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        error = (struct rk_error){0};
        cr_expect_eq(rk_address_check("listen", wrong[i], &error), RK_INVALID, "'%s' is taken", wrong[i]);
        cr_expect(strstr(error.text, "whole path") != NULL, "'%s': %s", wrong[i], error.text);
    }
}

Test(address, lists_give_their_addresses_in_order_without_blanks)
{
    static const struct {
        const char *list, *items[4];
    } cases[] = {
        {"", {NULL}},
        {" , ,", {NULL}},
        {"a:1", {"a:1"}},
        {"a:1,b:2", {"a:1", "b:2"}},
        {" a:1 , [::1]:2,unix:/c d ,", {"a:1", "[::1]:2", "unix:/c d"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *list = cases[i].list;
        char address[RK_ADDRESS_BYTES];
        size_t count = 0;
        while (rk_address_next(&list, address)) {
            cr_assert(cases[i].items[count] != NULL, "'%s' gives one more: '%s'", cases[i].list, address);
            cr_expect_str_eq(address, cases[i].items[count]);
            count++;
        }
        cr_expect_null(cases[i].items[count], "'%s' lacks '%s'", cases[i].list, cases[i].items[count]);
    }
}
