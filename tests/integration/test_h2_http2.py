#!/usr/bin/python3
"""What HTTP/2 forbids, and what must come of it: the 95 cases of h2spec's list "http2" (https://github.com/summerwind/h2spec), sent to a running rankd.

The sections are those of RFC 7540, as in the list; where RFC 9113, which took its place, allows another answer, the case says `instead` and
where it is written."""

from h2_frames import (ACK, COMPRESSION_ERROR, DATA, ENABLE_PUSH, END_HEADERS, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, HEADERS, INITIAL_WINDOW_SIZE,
                       LARGEST_FRAME, MAX_FRAME_SIZE, MESSAGE, NO_SUCH_SERVICE, PADDED, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM,
                       REQUEST, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, Case, CasesTest, ListedCases, acked, answered, block, but, call,
                       closed, connection_error, continuation, data, discarded, ended, frame, goaway, headers, instead, message_of, ping, pong,
                       pong_or_closed, priority, priority_of, reset, sent_data, settings, settings_first, stream_error, until, window_update)
from rankd_fixture import main

MAX_STREAMS = 100
LARGEST_WINDOW = 0x7fffffff
OPEN = headers(1, end=False)  # a call that waits for its message
SHUT = [settings((INITIAL_WINDOW_SIZE, 0)), acked(2)]  # answers wait, so that a call stays half-closed
LARGE_MESSAGE = message_of(LARGEST_FRAME)
MORE = [("x-test", "ok")]
BAD_CONNECTION, BAD_SIZE = connection_error(PROTOCOL_ERROR), connection_error(FRAME_SIZE_ERROR)
CLOSED_CONNECTION = connection_error(STREAM_CLOSED)
BAD_STREAM = stream_error(1, PROTOCOL_ERROR)

ANY_CONNECTION = "RFC 9113, section 5.4.1: an endpoint may treat a stream error as a connection error"
NO_PRIORITIES = "RFC 9113, section 5.3.2: the priorities of RFC 7540 are gone, and with them the error of a stream that depends on itself"


def padded_too_far(kind, stream, payload):
    return frame(kind, PADDED | END_HEADERS, stream, bytes([len(payload) + 1]) + payload)


CASES = [
    Case("3.5", "client connection preface", [], settings_first),
    Case("3.5", "invalid connection preface", [], closed, b"INVALID CONNECTION PREFACE\r\n\r\n"),

    Case("4.1", "frame with unknown type", [frame(0x16, 0, 0, bytes(8)), ping()], pong()),
    Case("4.1", "frame with undefined flag", [ping(flags=0x16)], pong()),
    Case("4.1", "frame with reserved field bit", [ping(flags=0x16, stream=0x80000000)], pong()),

    Case("4.2", "DATA frame with 2^14 octets", [OPEN, data(1, LARGE_MESSAGE)], answered(grpc=NO_SUCH_SERVICE)),
    Case("4.2", "DATA frame that exceeds SETTINGS_MAX_FRAME_SIZE", [OPEN, data(1, bytes(LARGEST_FRAME + 1))], instead(ANY_CONNECTION, BAD_SIZE)),
    Case("4.2", "HEADERS frame that exceeds SETTINGS_MAX_FRAME_SIZE",
         [headers(1, REQUEST + [(f"x-dummy{number}", "x" * 4096) for number in range(5)])], BAD_SIZE),

    Case("4.3", "invalid header block fragment", [frame(HEADERS, 0x5, 1, b"\x40")], connection_error(COMPRESSION_ERROR)),
    Case("4.3", "PRIORITY frame while sending the header blocks",
         [headers(1, end=False, whole=False), priority(1), continuation(1, MORE)], BAD_CONNECTION),
    Case("4.3", "HEADERS frame to another stream while sending the header blocks",
         [headers(1, end=False, whole=False), headers(3), continuation(1, MORE)], BAD_CONNECTION),

    Case("5.1", "idle: DATA frame", [data(1)], BAD_CONNECTION),
    Case("5.1", "idle: RST_STREAM frame", [reset(1)], BAD_CONNECTION),
    Case("5.1", "idle: WINDOW_UPDATE frame", [window_update(1, 100)], BAD_CONNECTION),
    Case("5.1", "idle: CONTINUATION frame", [continuation(1, REQUEST)], BAD_CONNECTION),
    Case("5.1", "half closed (remote): DATA frame", [*SHUT, call(1), data(1)], instead(ANY_CONNECTION, CLOSED_CONNECTION)),
    Case("5.1", "half closed (remote): HEADERS frame", [*SHUT, call(1), headers(1)], instead(ANY_CONNECTION, CLOSED_CONNECTION)),
    Case("5.1", "half closed (remote): CONTINUATION frame", [*SHUT, call(1), continuation(1, REQUEST)], BAD_CONNECTION),
    Case("5.1", "closed: DATA frame after RST_STREAM", [OPEN, reset(1), data(1)], instead(ANY_CONNECTION, CLOSED_CONNECTION)),
    Case("5.1", "closed: HEADERS frame after RST_STREAM", [OPEN, reset(1), headers(1)], instead(ANY_CONNECTION, CLOSED_CONNECTION)),
    Case("5.1", "closed: CONTINUATION frame after RST_STREAM", [OPEN, reset(1), continuation(1, MORE)], BAD_CONNECTION),
    Case("5.1", "closed: DATA frame", [call(1), ended(1), data(1)], instead(ANY_CONNECTION, CLOSED_CONNECTION)),
    Case("5.1", "closed: HEADERS frame", [call(1), ended(1), headers(1)], CLOSED_CONNECTION),
    Case("5.1", "closed: CONTINUATION frame", [call(1), ended(1), continuation(1, MORE)], BAD_CONNECTION),

    Case("5.1.1", "even-numbered stream identifier", [headers(2)], BAD_CONNECTION),
    Case("5.1.1", "stream identifier that is smaller than the one before", [call(5), headers(3)], BAD_CONNECTION),

    Case("5.1.2", "more streams than SETTINGS_MAX_CONCURRENT_STREAMS",
         [until(SETTINGS), b"".join(headers(2 * number + 1, end=False) for number in range(MAX_STREAMS + 1)), ended(2 * MAX_STREAMS + 1),
          *(reset(2 * number + 1) for number in range(MAX_STREAMS))], stream_error(2 * MAX_STREAMS + 1, REFUSED_STREAM)),

    Case("5.3.1", "HEADERS frame that depends on itself", [headers(1, priority=(1, False, 255))], instead(ANY_CONNECTION, BAD_CONNECTION)),
    Case("5.3.1", "PRIORITY frame that depends on itself", [priority(1, depends_on=1)], instead(NO_PRIORITIES, discarded)),

    Case("5.4.1", "invalid PING frame ends the connection", [ping(stream=3)], closed),
    Case("5.4.1", "invalid PING frame is answered with GOAWAY", [ping(stream=3)], BAD_CONNECTION),

    Case("5.5", "unknown extension frame", [frame(0x16, 0, 0, bytes(8)), ping()], pong()),
    Case("5.5", "unknown extension frame in the middle of a header block", [headers(1, whole=False), frame(0x16, 0, 0, bytes(8))], BAD_CONNECTION),

    Case("6.1", "DATA frame with 0x0 stream identifier", [data(0)], BAD_CONNECTION),
    Case("6.1", "DATA frame on a stream that is not open", [*SHUT, call(1), data(1, end=False)], instead(ANY_CONNECTION, CLOSED_CONNECTION)),
    Case("6.1", "DATA frame with invalid pad length", [headers(1, REQUEST + [("content-length", "4")], end=False), padded_too_far(DATA, 1, b"Test")],
         BAD_CONNECTION),

    Case("6.2", "HEADERS frame without END_HEADERS, and a PRIORITY frame", [headers(1, end=False, whole=False), priority(3), continuation(1, MORE)],
         BAD_CONNECTION),
    Case("6.2", "HEADERS frame to another stream while sending a HEADERS frame", [headers(1, whole=False), headers(3), continuation(1, MORE)],
         BAD_CONNECTION),
    Case("6.2", "HEADERS frame with 0x0 stream identifier", [headers(0)], BAD_CONNECTION),
    Case("6.2", "HEADERS frame with invalid pad length", [padded_too_far(HEADERS, 1, block(REQUEST))], instead(ANY_CONNECTION, BAD_CONNECTION)),

    Case("6.3", "PRIORITY frame with 0x0 stream identifier", [priority(0)], BAD_CONNECTION),
    Case("6.3", "PRIORITY frame with a length other than 5 octets", [OPEN, frame(PRIORITY, 0, 1, priority_of(0, True, 1)[:4])],
         instead(ANY_CONNECTION, BAD_SIZE)),

    Case("6.4", "RST_STREAM frame with 0x0 stream identifier", [reset(0)], BAD_CONNECTION),
    Case("6.4", "RST_STREAM frame on an idle stream", [reset(1)], BAD_CONNECTION),
    Case("6.4", "RST_STREAM frame with a length other than 4 octets", [OPEN, frame(RST_STREAM, 0, 1, bytes(3))], BAD_SIZE),

    Case("6.5", "SETTINGS frame with ACK flag and payload", [frame(SETTINGS, ACK, 0, b"\0")], BAD_SIZE),
    Case("6.5", "SETTINGS frame with a stream identifier other than 0x0", [settings((3, 100), stream=1)], BAD_CONNECTION),
    Case("6.5", "SETTINGS frame with a length other than a multiple of 6 octets", [frame(SETTINGS, 0, 0, b"\0\3\0")], BAD_SIZE),

    Case("6.5.2", "SETTINGS_ENABLE_PUSH other than 0 or 1", [settings((ENABLE_PUSH, 2))], BAD_CONNECTION),
    Case("6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE above the largest window", [settings((INITIAL_WINDOW_SIZE, LARGEST_WINDOW + 1))],
         connection_error(FLOW_CONTROL_ERROR)),
    Case("6.5.2", "SETTINGS_MAX_FRAME_SIZE below the initial value", [settings((MAX_FRAME_SIZE, 16383))], BAD_CONNECTION),
    Case("6.5.2", "SETTINGS_MAX_FRAME_SIZE above the largest frame", [settings((MAX_FRAME_SIZE, 1 << 24))], BAD_CONNECTION),
    Case("6.5.2", "SETTINGS with an unknown identifier", [settings((0xff, 1)), ping()], pong()),

    Case("6.5.3", "several values of SETTINGS_INITIAL_WINDOW_SIZE", [settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)), acked(2), call(1)],
         sent_data(1, 1)),
    Case("6.5.3", "SETTINGS frame without ACK flag", [settings((ENABLE_PUSH, 0)), acked(2)], discarded),

    Case("6.7", "PING frame", [ping(b"conform\0")], pong(b"conform\0")),
    Case("6.7", "PING frame with ACK", [ping(b"invalid\0", ACK), ping(b"conform\0")], pong(b"conform\0")),
    Case("6.7", "PING frame with a stream identifier other than 0x0", [ping(stream=1)], BAD_CONNECTION),
    Case("6.7", "PING frame with a length other than 8", [frame(PING, 0, 0, bytes(6))], BAD_SIZE),

    Case("6.8", "GOAWAY frame with a stream identifier other than 0x0", [goaway(stream=1)], BAD_CONNECTION),

    Case("6.9", "WINDOW_UPDATE frame with an increment of 0", [window_update(0, 0)], BAD_CONNECTION),
    Case("6.9", "WINDOW_UPDATE frame with an increment of 0 on a stream", [OPEN, window_update(1, 0)], instead(ANY_CONNECTION, BAD_CONNECTION)),
    Case("6.9", "WINDOW_UPDATE frame with a length other than 4 octets", [frame(WINDOW_UPDATE, 0, 0, b"\0\0\1")], BAD_SIZE),

    Case("6.9.1", "SETTINGS_INITIAL_WINDOW_SIZE of 1, then a call", [settings((INITIAL_WINDOW_SIZE, 1)), acked(2), call(1)], sent_data(1, 1)),
    Case("6.9.1", "WINDOW_UPDATE frames past 2^31-1", [window_update(0, LARGEST_WINDOW) * 2], connection_error(FLOW_CONTROL_ERROR)),
    Case("6.9.1", "WINDOW_UPDATE frames past 2^31-1 on a stream", [OPEN, window_update(1, LARGEST_WINDOW) * 2], stream_error(1, FLOW_CONTROL_ERROR)),

    Case("6.9.2", "SETTINGS_INITIAL_WINDOW_SIZE changes after HEADERS", [*SHUT, call(1), settings((INITIAL_WINDOW_SIZE, 1))], sent_data(1, 1)),
    Case("6.9.2", "a window that becomes negative",
         [settings((INITIAL_WINDOW_SIZE, 3)), acked(2), call(1), until(DATA), settings((INITIAL_WINDOW_SIZE, 2)), acked(3), window_update(1, 2)],
         sent_data(1, 3, 1)),
    Case("6.9.2", "SETTINGS_INITIAL_WINDOW_SIZE above the largest window", [settings((INITIAL_WINDOW_SIZE, LARGEST_WINDOW + 1))],
         connection_error(FLOW_CONTROL_ERROR)),

    Case("6.10", "several CONTINUATION frames after a HEADERS frame",
         [headers(1, end=False, whole=False), continuation(1, MORE, whole=False), continuation(1, MORE), data(1)], answered()),
    Case("6.10", "CONTINUATION frame followed by another kind of frame",
         [headers(1, end=False, whole=False), continuation(1, MORE, whole=False), data(1)], BAD_CONNECTION),
    Case("6.10", "CONTINUATION frame with 0x0 stream identifier", [headers(1, whole=False), continuation(0, MORE)], BAD_CONNECTION),
    Case("6.10", "CONTINUATION frame after HEADERS with END_HEADERS", [headers(1), continuation(1, MORE)], BAD_CONNECTION),
    Case("6.10", "CONTINUATION frame after CONTINUATION with END_HEADERS",
         [headers(1, whole=False), continuation(1, MORE), continuation(1, MORE)], BAD_CONNECTION),
    Case("6.10", "CONTINUATION frame after DATA",
         [headers(1, end=False, whole=False), data(1), continuation(1, MORE, whole=False), continuation(0, MORE)], BAD_CONNECTION),

    Case("7", "GOAWAY frame with unknown error code", [goaway(0xff), ping(b"conform\0")], pong_or_closed(b"conform\0")),
    Case("7", "RST_STREAM frame with unknown error code", [OPEN, reset(1, 0xff), ping()], pong()),

    Case("8.1", "a second HEADERS frame without END_STREAM", [OPEN, data(1, end=False), headers(1, MORE, end=False)], BAD_STREAM),
    Case("8.1.2", "a header field name in upper case", [headers(1, REQUEST + [("X-TEST", "ok")])], BAD_STREAM),
    Case("8.1.2.1", "an unknown pseudo-header field", [headers(1, REQUEST + [(":test", "ok")])], BAD_STREAM),
    Case("8.1.2.1", "the pseudo-header field of responses", [headers(1, REQUEST + [(":status", "200")])], BAD_STREAM),
    Case("8.1.2.1", "a pseudo-header field as trailer", [OPEN, data(1, end=False), headers(1, [(":method", "POST")])], BAD_STREAM),
    Case("8.1.2.1", "a pseudo-header field after a regular one", [headers(1, MORE + REQUEST)], BAD_STREAM),
    Case("8.1.2.2", "a connection-specific header field", [headers(1, REQUEST + [("connection", "keep-alive")])], BAD_STREAM),
    Case("8.1.2.2", "a TE header field other than \"trailers\"", [headers(1, but(te="trailers, deflate") + [("trailers", "test")])], BAD_STREAM),
    Case("8.1.2.3", "an empty :path", [headers(1, but(path=""))], BAD_STREAM),
    Case("8.1.2.3", "no :method", [headers(1, but(method=None))], BAD_STREAM),
    Case("8.1.2.3", "no :scheme", [headers(1, but(scheme=None))], BAD_STREAM),
    Case("8.1.2.3", "no :path", [headers(1, but(path=None))], BAD_STREAM),
    Case("8.1.2.3", "two of :method", [headers(1, REQUEST[:1] + REQUEST)], BAD_STREAM),
    Case("8.1.2.3", "two of :scheme", [headers(1, REQUEST[1:2] + REQUEST)], BAD_STREAM),
    Case("8.1.2.3", "two of :path", [headers(1, REQUEST[2:3] + REQUEST)], BAD_STREAM),
    Case("8.1.2.6", "a content-length that is not the DATA frame's", [headers(1, REQUEST + [("content-length", "1")], end=False), data(1)], BAD_STREAM),
    Case("8.1.2.6", "a content-length that is not the sum of the DATA frames'",
         [headers(1, REQUEST + [("content-length", "1")], end=False), data(1, MESSAGE[:2], end=False), data(1, MESSAGE[2:])], BAD_STREAM),
    Case("8.2", "PUSH_PROMISE frame", [frame(PUSH_PROMISE, END_HEADERS, 1, (3).to_bytes(4, "big") + block(REQUEST))], BAD_CONNECTION),
]

COUNTS = {"3.5": 2, "4.1": 3, "4.2": 3, "4.3": 3, "5.1": 13, "5.1.1": 2, "5.1.2": 1, "5.3.1": 2, "5.4.1": 2, "5.5": 2, "6.1": 3, "6.2": 4, "6.3": 2,
          "6.4": 3, "6.5": 3, "6.5.2": 5, "6.5.3": 2, "6.7": 4, "6.8": 1, "6.9": 3, "6.9.1": 3, "6.9.2": 3, "6.10": 6, "7": 2, "8.1": 1, "8.1.2": 1,
          "8.1.2.1": 4, "8.1.2.2": 2, "8.1.2.3": 7, "8.1.2.6": 2, "8.2": 1}


class TestHttp2(ListedCases, CasesTest):
    arguments = ("--max-streams", MAX_STREAMS)
    cases, counts, total = CASES, COUNTS, 95


if __name__ == "__main__":
    main()
