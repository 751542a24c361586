/* Timeouts, percent-encoding, status names and token buckets. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"
#include "server/grpc/bucket.h"
#include "server/grpc/text.h"

Test(grpc_text, parses_every_unit_of_timeouts)
{
    const struct {
        const char *text;
        uint64_t us;
    } cases[] = {{"0n", 0},
                 {"1n", 1},
                 {"1000n", 1},
                 {"1001n", 2},
                 {"7u", 7},
                 {"5m", 5000},
                 {"00000003S", 3000000},
                 {"2M", 120000000},
                 {"1H", UINT64_C(3600000000)},
                 {"99999999H", UINT64_C(359999996400000000)}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t us = 0;
        cr_expect(rk_timeout_parse(cases[i].text, strlen(cases[i].text), &us), "%s", cases[i].text);
        cr_expect(eq(u64, us, cases[i].us), "%s", cases[i].text);
    }
}

Test(grpc_text, printed_timeouts_parse_to_no_less_and_little_more)
{
    uint64_t seed = test_seed();
    for (int i = 0; i < 100000; i++) {
        uint64_t us = ((uint64_t)test_random(&seed) << 20 | test_random(&seed)) >> (test_random(&seed) % 50), back = 0;
        char text[RK_TIMEOUT_TEXT_BYTES];
        rk_timeout_print(us, text);
        cr_assert(rk_timeout_parse(text, strlen(text), &back), "%s", text);
        cr_assert(all(ge(u64, back, us), le(u64, back, us + us / 100000 + 1)), "%s", text);
    }
}

Test(grpc_text, percent_encoding_goes_there_and_back)
{
    char all[256], encoded[768], decoded[768];
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    size_t bytes = rk_percent_encode(all, 256, encoded);
    for (size_t i = 0; i < bytes; i++)
        cr_assert(encoded[i] >= 0x20 && encoded[i] <= 0x7e);
    cr_expect(eq(sz, rk_percent_decode(encoded, bytes, decoded), 256));
    cr_expect(memcmp(all, decoded, 256) == 0);
    const char odd[] = "100%, 5%x, %4";
    bytes = rk_percent_decode(odd, strlen(odd), decoded);
    cr_expect(eq(sz, bytes, strlen(odd)));
    cr_expect(memcmp(odd, decoded, bytes) == 0);
}

Test(grpc_text, every_status_has_a_name_and_every_failure_a_status)
{
    for (int status = 0; status <= RK_GRPC_UNAUTHENTICATED; status++)
        cr_expect(gt(sz, strlen(rk_grpc_status_name((enum rk_grpc_status)status)), 1));
    cr_expect(eq(str, (char *)rk_grpc_status_name((enum rk_grpc_status)99), "UNKNOWN"));
    for (int status = 1; status < RK_STATUS_COUNT; status++)
        cr_expect(ne(int, rk_grpc_status_of((enum rk_status)status), RK_GRPC_OK), "%s",
                  rk_status_name((enum rk_status)status));
}

Test(grpc_text, a_bucket_gives_its_capacity_and_then_its_rate)
{
    struct rk_bucket bucket;
    rk_bucket_init(&bucket, 100, 5000000);
    int taken = 0;
    while (rk_bucket_take(&bucket, 5000000))
        taken++;
    cr_expect(eq(int, taken, 100));
    for (uint64_t us = 5000001; us <= 15000000; us += 777) /* 10 s in small steps: the remainders add up */
        taken += rk_bucket_take(&bucket, us);
    cr_expect(all(ge(int, taken, 1098), le(int, taken, 1101)), "%d", taken);
    rk_bucket_give(&bucket, 1000);
    taken = 0;
    while (rk_bucket_take(&bucket, 15000000))
        taken++;
    cr_expect(all(ge(int, taken, 100), le(int, taken, 101)), "%d", taken); /* one that time had nearly made */
    rk_bucket_init(&bucket, 0, 0);
    cr_expect(not(rk_bucket_take(&bucket, UINT64_MAX)));
}
