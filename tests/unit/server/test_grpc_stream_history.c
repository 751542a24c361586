/* What is known of a client's streams, against a list of all of them. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include "grpc_peer.h"
#include "server/grpc/stream_history.h"

#define SLOTS (8 * RK_HISTORY_STREAMS) /* odd ids of the random test */

Test(grpc_stream_history, knows_what_was_opened_ended_and_passed_over)
{
    struct rk_stream_history history = {0};
    cr_expect(eq(int, rk_stream_history_look(&history, 0), RK_STREAM_UNKNOWN));
    cr_expect(eq(int, rk_stream_history_look(&history, 1), RK_STREAM_IDLE));
    rk_stream_history_end(&history, 1); /* not open: nothing */
    rk_stream_history_open(&history, 5);
    cr_expect(eq(int, rk_stream_history_look(&history, 1), RK_STREAM_PASSED_OVER));
    cr_expect(eq(int, rk_stream_history_look(&history, 3), RK_STREAM_PASSED_OVER));
    cr_expect(eq(int, rk_stream_history_look(&history, 4), RK_STREAM_UNKNOWN));
    cr_expect(eq(int, rk_stream_history_look(&history, 5), RK_STREAM_OPEN));
    cr_expect(eq(int, rk_stream_history_look(&history, 7), RK_STREAM_IDLE));
    rk_stream_history_end(&history, 5);
    rk_stream_history_end(&history, 3);
    cr_expect(eq(int, rk_stream_history_look(&history, 5), RK_STREAM_ENDED));
    cr_expect(eq(int, rk_stream_history_look(&history, 3), RK_STREAM_PASSED_OVER));
    rk_stream_history_open(&history, 0x7fffffff);
    cr_expect(eq(int, rk_stream_history_look(&history, 5), RK_STREAM_UNKNOWN)); /* too long ago */
    cr_expect(eq(int, rk_stream_history_look(&history, 0x7ffffffd), RK_STREAM_PASSED_OVER));
    cr_expect(eq(int, rk_stream_history_look(&history, 0x7fffffff), RK_STREAM_OPEN));
}

Test(grpc_stream_history, agrees_with_a_list_of_all_streams)
{
    uint64_t state = test_seed();
    static enum rk_stream_past list[SLOTS];
    for (int round = 0; round < 20; round++) {
        struct rk_stream_history history = {0};
        for (uint32_t at = 0; at < SLOTS; at++)
            list[at] = RK_STREAM_IDLE;
        uint32_t next = 0; /* slot of the lowest idle stream */
        for (;;) {
            next += test_random(&state) % 64 == 0 ? test_random(&state) % (2 * RK_HISTORY_STREAMS)
                                                  : test_random(&state) % 3;
            if (next >= SLOTS)
                break;
            rk_stream_history_open(&history, 2 * next + 1);
            for (uint32_t at = 0; at < next; at++)
                list[at] = list[at] == RK_STREAM_IDLE ? RK_STREAM_PASSED_OVER : list[at];
            list[next] = RK_STREAM_OPEN;
            uint32_t ended = next - test_random(&state) % (next + 1) % (RK_HISTORY_STREAMS + 100);
            rk_stream_history_end(&history, 2 * ended + 1);
            if (list[ended] == RK_STREAM_OPEN && next - ended < RK_HISTORY_STREAMS)
                list[ended] = RK_STREAM_ENDED;
            for (int i = 0; i < 20; i++) {
                uint32_t at = test_random(&state) % SLOTS;
                bool is_known = at > next || next - at < RK_HISTORY_STREAMS;
                cr_assert(eq(int, rk_stream_history_look(&history, 2 * at + 1),
                             is_known ? list[at] : RK_STREAM_UNKNOWN),
                          "stream %u after %u", 2 * at + 1, 2 * next + 1);
            }
            next++;
        }
    }
}
