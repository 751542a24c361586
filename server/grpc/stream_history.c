/* Two rings of bits over the odd stream ids. A slot is cleared when its id comes into the window, that is, when this or
 * a higher one is opened. The session's thread. */
#include "server/grpc/stream_history.h"

static uint64_t bit_of(uint32_t number)
{
    return (uint64_t)1 << number % 64;
}

static uint32_t word_of(uint32_t number)
{
    return number % RK_HISTORY_STREAMS / 64;
}

enum rk_stream_past rk_stream_history_look(const struct rk_stream_history *history, uint32_t stream_id)
{
    if (stream_id % 2 == 0)
        return RK_STREAM_UNKNOWN;
    if (stream_id > history->last_stream_id)
        return RK_STREAM_IDLE;
    uint32_t number = stream_id / 2;
    if (history->last_stream_id / 2 - number >= RK_HISTORY_STREAMS)
        return RK_STREAM_UNKNOWN;
    if ((history->opened[word_of(number)] & bit_of(number)) == 0)
        return RK_STREAM_PASSED_OVER;
    return (history->ended[word_of(number)] & bit_of(number)) != 0 ? RK_STREAM_ENDED : RK_STREAM_OPEN;
}

void rk_stream_history_open(struct rk_stream_history *history, uint32_t stream_id)
{
    uint32_t number = stream_id / 2, first = (history->last_stream_id + 1) / 2;
    if (number - first >= RK_HISTORY_STREAMS)
        first = number - RK_HISTORY_STREAMS + 1;
    for (uint32_t at = first; at <= number; at++) {
        history->opened[word_of(at)] &= ~bit_of(at);
        history->ended[word_of(at)] &= ~bit_of(at);
    }
    history->opened[word_of(number)] |= bit_of(number);
    history->last_stream_id = stream_id;
}

void rk_stream_history_end(struct rk_stream_history *history, uint32_t stream_id)
{
    uint32_t number = stream_id / 2;
    if (rk_stream_history_look(history, stream_id) == RK_STREAM_OPEN)
        history->ended[word_of(number)] |= bit_of(number);
}
