#!/usr/bin/python3
"""HTTP/2 as every server must take it: the 44 cases of h2spec's list "generic" (https://github.com/summerwind/h2spec), sent to a running rankd."""

from h2_frames import (ACK, CANCEL, ENABLE_PUSH, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAGIC, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE,
                       MAX_HEADER_LIST_SIZE, MESSAGE, REQUEST, SETTINGS, Case, CasesTest, ListedCases, acked, answered, block, but, call, continuation,
                       data, ended, fail, goaway, headers, honest_call, huffman, integer, ping, pong, pong_or_closed, priority, reset, sent_data, settings,
                       settings_first, text, window_update)
from rankd_fixture import main

CALL = block(REQUEST)
USER_AGENT = 58  # its place in the static table

NO_MESSAGE = "13"  # what gRPC answers to a call that ends with its headers: INTERNAL, there is no message


def field(representation):
    """A call with one more header, in this representation."""
    return [headers(1, CALL + representation, end=False), data(1)]


def settings_acked(client):
    client.wait(acked(2))
    honest_call(client)
    if len(client.of(SETTINGS, flags=ACK)) != 3:  # the preface's, the case's, the honest call's
        fail(client, "SETTINGS are not acknowledged once each")


CASES = [
    Case("1", "client connection preface", [], settings_first, MAGIC + settings((INITIAL_WINDOW_SIZE, 65535))),

    Case("2", "PRIORITY frame on idle stream", [priority(1), ping()], pong()),
    Case("2", "WINDOW_UPDATE frame on half-closed (remote) stream",
         [settings((INITIAL_WINDOW_SIZE, 0)), acked(2), call(1), window_update(1, 1)], sent_data(1, 1)),
    Case("2", "PRIORITY frame on half-closed (remote) stream",
         [settings((INITIAL_WINDOW_SIZE, 0)), acked(2), call(1), priority(1), window_update(1, 1)], sent_data(1, 1)),
    Case("2", "RST_STREAM frame on half-closed (remote) stream",
         [settings((INITIAL_WINDOW_SIZE, 0)), acked(2), call(1), reset(1), ping()], pong()),
    Case("2", "PRIORITY frame on closed stream", [call(1), ended(1), priority(1), ping()], pong()),

    Case("3.1", "DATA frame", [headers(1, end=False), data(1)], answered()),
    Case("3.1", "multiple DATA frames", [headers(1, end=False), data(1, MESSAGE[:2], end=False), data(1, MESSAGE[2:])], answered()),
    Case("3.1", "DATA frame with padding", [headers(1, end=False), data(1, padding=5)], answered()),

    Case("3.2", "HEADERS frame", [headers(1)], answered(grpc=NO_MESSAGE)),
    Case("3.2", "HEADERS frame with padding", [headers(1, end=False, padding=8), data(1)], answered()),
    Case("3.2", "HEADERS frame with priority", [headers(1, end=False, priority=(0, False, 255)), data(1)], answered()),

    Case("3.3", "PRIORITY frame with priority 1", [priority(1, weight=0), call(1)], answered()),
    Case("3.3", "PRIORITY frame with priority 256", [priority(1, weight=255), call(1)], answered()),
    Case("3.3", "PRIORITY frame with stream dependency", [priority(3, depends_on=1), call(1)], answered()),
    Case("3.3", "PRIORITY frame with exclusive", [priority(1, exclusive=True), call(1)], answered()),
    Case("3.3", "PRIORITY frame for an idle stream, then HEADERS of a lower one", [priority(3), call(1)], answered()),

    Case("3.4", "RST_STREAM frame", [headers(1, end=False), reset(1, CANCEL), ping()], pong()),

    Case("3.5", "SETTINGS frame",
         [settings((HEADER_TABLE_SIZE, 4096), (ENABLE_PUSH, 1), (MAX_CONCURRENT_STREAMS, 100), (INITIAL_WINDOW_SIZE, 65535), (MAX_FRAME_SIZE, 16384),
                   (MAX_HEADER_LIST_SIZE, 100))], settings_acked),

    Case("3.7", "PING frame", [ping()], pong()),

    Case("3.8", "GOAWAY frame", [goaway(debug=b"farewell"), ping()], pong_or_closed()),

    Case("3.9", "WINDOW_UPDATE frame with stream ID 0", [window_update(0, 1), ping()], pong()),
    Case("3.9", "WINDOW_UPDATE frame with stream ID 1", [headers(1, end=False), window_update(1, 1), data(1)], answered()),

    Case("3.10", "CONTINUATION frame", [headers(1, CALL[:5], end=False, whole=False), continuation(1, CALL[5:]), data(1)], answered()),
    Case("3.10", "multiple CONTINUATION frames",
         [headers(1, CALL[:5], end=False, whole=False), continuation(1, CALL[5:10], whole=False), continuation(1, CALL[10:]), data(1)], answered()),

    Case("4", "GET request", [headers(1, but(method="GET"))], answered(http="405", grpc=None)),
    Case("4", "HEAD request", [headers(1, but(method="HEAD"))], answered(http="405", grpc=None)),
    Case("4", "POST request", [call(1)], answered()),
    Case("4", "POST request with trailers", [headers(1, end=False), data(1, end=False), headers(1, [("x-test", "ok")])], answered()),

    Case("5", "indexed header field representation", field(integer(USER_AGENT, 7, 0x80)), answered()),
    Case("5", "literal header field with incremental indexing - indexed name", field(integer(USER_AGENT, 6, 0x40) + text("conform")), answered()),
    Case("5", "literal header field with incremental indexing - indexed name (with Huffman coding)",
         field(integer(USER_AGENT, 6, 0x40) + huffman("conform")), answered()),
    Case("5", "literal header field with incremental indexing - new name", field(b"\x40" + text("x-test") + text("conform")), answered()),
    Case("5", "literal header field with incremental indexing - new name (with Huffman coding)",
         field(b"\x40" + huffman("x-test") + huffman("conform")), answered()),
    Case("5", "literal header field without indexing - indexed name", field(integer(USER_AGENT, 4) + text("conform")), answered()),
    Case("5", "literal header field without indexing - indexed name (with Huffman coding)", field(integer(USER_AGENT, 4) + huffman("conform")), answered()),
    Case("5", "literal header field without indexing - new name", field(b"\x00" + text("x-test") + text("conform")), answered()),
    Case("5", "literal header field without indexing - new name (with Huffman coding)", field(b"\x00" + huffman("x-test") + huffman("conform")), answered()),
    Case("5", "literal header field never indexed - indexed name", field(integer(USER_AGENT, 4, 0x10) + text("conform")), answered()),
    Case("5", "literal header field never indexed - indexed name (with Huffman coding)",
         field(integer(USER_AGENT, 4, 0x10) + huffman("conform")), answered()),
    Case("5", "literal header field never indexed - new name", field(b"\x10" + text("x-test") + text("conform")), answered()),
    Case("5", "literal header field never indexed - new name (with Huffman coding)", field(b"\x10" + huffman("x-test") + huffman("conform")), answered()),
    Case("5", "dynamic table size update", [headers(1, integer(128, 5, 0x20) + CALL, end=False), data(1)], answered()),
    Case("5", "multiple dynamic table size updates",
         [headers(1, integer(128, 5, 0x20) + integer(4096, 5, 0x20) + CALL, end=False), data(1)], answered()),
]

COUNTS = {"1": 1, "2": 5, "3.1": 3, "3.2": 3, "3.3": 5, "3.4": 1, "3.5": 1, "3.7": 1, "3.8": 1, "3.9": 2, "3.10": 2, "4": 4, "5": 15}


class TestGeneric(ListedCases, CasesTest):
    cases, counts, total = CASES, COUNTS, 44


if __name__ == "__main__":
    main()
