#!/usr/bin/python3
"""gRPC's bad clients against a running rankd: the cases of test/core/bad_client in https://github.com/grpc/grpc, by the names of their files.

There the server must only survive, and end the connection or not; here the answer is exact. A section is a file's name."""

from h2_frames import (ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY,
                       HEADERS, INITIAL_WINDOW_SIZE, LARGEST_FRAME, MAGIC, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE, MESSAGE, NO_SUCH_SERVICE, PING, PREFACE,
                       PRIORITY, PROTOCOL_ERROR, REQUEST, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, WITH_PRIORITY, Case, CasesTest, answered, but,
                       call, closed, connection_error, continuation, data, discarded, ended, fail, frame, headers, honest_call, hung_up, instead, message_of,
                       settings, stream_error, window_update)
from rankd_fixture import main

OPEN = headers(1, end=False)
INTERNAL, INVALID_ARGUMENT, UNIMPLEMENTED = "13", "3", "12"
BAD_CONNECTION, BAD_SIZE = connection_error(PROTOCOL_ERROR), connection_error(FRAME_SIZE_ERROR)
BAD_COMPRESSION, BAD_STREAM = connection_error(COMPRESSION_ERROR), stream_error(1, PROTOCOL_ERROR)

BADREQ = [
    Case("badreq", "invalid content type", [call(1, but(content_type="text/html"))], answered(http="415", grpc=None)),
    Case("badreq", "invalid te", [call(1, but(te="frobnicate"))], BAD_STREAM),
    Case("badreq", "two paths", [call(1, REQUEST[:3] + [(":path", "/foo/bah")] + REQUEST[3:])], BAD_STREAM),
    Case("badreq", "unknown accept-encoding", [call(1, REQUEST + [("grpc-accept-encoding", "nobody-knows-the-trouble-i-see")])], answered()),
    Case("badreq", "unknown encoding", [call(1, REQUEST + [("grpc-encoding", "you-dont-know-how-to-do-this")])], answered(grpc=UNIMPLEMENTED)),
]

CONNECTION_PREFIX = [Case("connection_prefix", f"{MAGIC[:length]} and then another byte", [], closed, MAGIC[:length] + b"X") for length in range(len(MAGIC))]

DUPLICATE_HEADER = [
    Case("duplicate_header", "the same headers twice", [OPEN * 2, data(1)], BAD_STREAM),
    Case("duplicate_header", "the same headers three times", [OPEN * 3, data(1)], BAD_STREAM),
]

# A part of a message must not keep other calls from being served.
HEAD_OF_LINE = [
    Case("head_of_line_blocking", "a message that is not sent to its end, and a whole one behind it",
         [OPEN, data(1, message_of(10005)[:5], end=False), headers(3, end=False),
          *(data(3, message_of(10005)[at:at + 1000], end=at + 1000 >= 10005) for at in range(0, 10005, 1000))], answered(3, grpc=NO_SUCH_SERVICE)),
]


def fragment(payload, flags=END_HEADERS, length=None):
    return frame(HEADERS, flags, 1, payload, length)


PARTS_OF_HEADERS = [b"\0", b"\0\0", b"\0\0\0", b"\0\0\0\1", *(b"\0\0\0\1" + bytes([flags]) for flags in (0, END_HEADERS, END_HEADERS | END_STREAM)),
                    *(frame(HEADERS, END_HEADERS, 1)[:length] for length in (6, 7, 8))]
LONG_INDEX = [b"\xff" + b"\x80" * count for count in range(7)]
PAST_ALL = "RFC 7541, section 2.3.3: whatever follows, the index is larger than both tables; so there is no need to wait for it"
THREE_UPDATES = "RFC 7541, section 4.2: it is the encoder that must not send three, no decoder has to count them"
BAD_TIMEOUT = REQUEST + [("grpc-timeout", "15 seconds")]

HEADERS_CASES = [
    *(Case("headers", f"a part of a frame's header: {part.hex()}", [part], hung_up) for part in PARTS_OF_HEADERS),
    Case("headers", "no headers at all", [frame(HEADERS, END_HEADERS, 1)], BAD_STREAM),
    Case("headers", "headers of stream 0", [frame(HEADERS, END_HEADERS, 0)], BAD_CONNECTION),
    *(Case("headers", f"priority in {length} bytes", [fragment(bytes(length), END_HEADERS | WITH_PRIORITY)], BAD_SIZE) for length in range(1, 5)),
    *(Case("headers", f"{sent} bytes of a priority", [fragment(bytes(sent), END_HEADERS | WITH_PRIORITY, length=5)], hung_up) for sent in range(6)),
    *(Case("headers", f"an index that is not there: {payload.hex()}", [fragment(payload)], BAD_COMPRESSION)
      for payload in (b"\xfe", b"\x7f\x7f\x01a", b"\x0f\x7f\x01a", b"\x1f\x7f\x01a")),
    *(Case("headers", f"one field, not indexed: {payload.hex()}", [fragment(payload)], BAD_STREAM) for payload in (b"\x01\x01a", b"\x11\x01a")),
    Case("headers", "index 0", [fragment(b"\x80")], BAD_COMPRESSION),
    *(Case("headers", f"a long index: {index.hex()}00", [fragment(index + b"\0")], BAD_COMPRESSION) for index in LONG_INDEX[:6]),
    *(Case("headers", f"a part of a long index: {index.hex()}", [fragment(index, length=8)], instead(PAST_ALL, BAD_COMPRESSION)) for index in LONG_INDEX),
    Case("headers", "the longest index", [fragment(LONG_INDEX[6] + b"\0")], BAD_COMPRESSION),
    *(Case("headers", f"an index that overflows: {payload.hex()}", [fragment(payload)], BAD_COMPRESSION)
      for payload in (b"\xff\x80\x80\x80\x80\x7f", b"\xff\xff\xff\xff\xff\x0f", LONG_INDEX[6] + b"\2")),
    Case("headers", "the end inside a field", [fragment(b"\x01")], BAD_COMPRESSION),
    Case("headers", "table size update to the default", [fragment(b"\x3f\xe1\x1f")], BAD_STREAM),
    Case("headers", "table size update, too large", [fragment(b"\x3f\xf1\x1f")], BAD_COMPRESSION),
    Case("headers", "table size update, twice", [fragment(b"\x20\x3f\xe1\x1f")], BAD_STREAM),
    Case("headers", "table size update, three times", [fragment(b"\x20\x20\x20")], instead(THREE_UPDATES, BAD_STREAM)),
    Case("headers", "an empty CONTINUATION", [fragment(b"", flags=0), frame(CONTINUATION, END_HEADERS, 1)], BAD_STREAM),
    Case("headers", "no CONTINUATION", [fragment(b"", flags=0), frame(DATA, 4, 1)], BAD_CONNECTION),
    Case("headers", "a CONTINUATION of another stream", [fragment(b""), frame(HEADERS, 0, 3), frame(CONTINUATION, END_HEADERS, 1)], BAD_CONNECTION),
    Case("headers", "a CONTINUATION first", [continuation(1, b"")], BAD_CONNECTION),
    Case("headers", "three empty HEADERS", [fragment(b"") * 3], BAD_STREAM),
    Case("headers", "what a fuzzer found", [frame(HEADERS, 0x39, 0x67ed1d64)], connection_error(FRAME_SIZE_ERROR, PROTOCOL_ERROR)),
    Case("headers", "a malformed timeout", [call(1, BAD_TIMEOUT)], answered(grpc=INTERNAL)),
    Case("headers", "a malformed timeout, twice", [call(1, BAD_TIMEOUT), ended(1), call(3, BAD_TIMEOUT)], answered(3, grpc=INTERNAL)),
]


def first(rest):
    """After the magic, this instead of SETTINGS."""
    return MAGIC + rest


ANY_FLAGS = "RFC 9113, section 4.1: flags that have no meaning are ignored"
PARTS_OF_SETTINGS = [b"\0", b"\0\0", b"\0\0\0", b"\6", b"\0\6", b"\0\0\6", b"\0\0\0\4", b"\0\0\0\4\0", b"\0\0\0\4\1", b"\0\0\0\4\xff", b"\0\0\0\4\0\0",
                     b"\0\0\0\4\0\0\0", b"\0\0\0\4\0\0\0\0"]

INITIAL_SETTINGS = [
    *(Case("initial_settings_frame", f"a part of SETTINGS: {part.hex()}", [], hung_up, first(part)) for part in PARTS_OF_SETTINGS),
    *(Case("initial_settings_frame", f"of stream {stream}", [], BAD_CONNECTION, first(settings(stream=stream))) for stream in (1, 0x400000)),
    *(Case("initial_settings_frame", f"of {length} bytes", [], BAD_SIZE, first(frame(SETTINGS, 0, 0, length=length))) for length in range(1, 6)),
    Case("initial_settings_frame", "frames of 0 bytes", [], BAD_CONNECTION, first(settings((MAX_FRAME_SIZE, 0)))),
    Case("initial_settings_frame", "header lists of any size", [], discarded, first(settings((MAX_HEADER_LIST_SIZE, 0xffffffff)))),
    Case("initial_settings_frame", "another window", [], discarded, first(settings((INITIAL_WINDOW_SIZE, 65536)))),
    Case("initial_settings_frame", "ACK with a payload", [], BAD_SIZE, PREFACE + frame(SETTINGS, ACK, 0, length=1)),
    Case("initial_settings_frame", "a flag that it has not", [], instead(ANY_FLAGS, discarded), first(settings(flags=0x10))),
    Case("initial_settings_frame", "an unknown setting", [], discarded, first(settings((0x99, 0)))),
]

LARGE_METADATA = [
    Case("large_metadata", "more than is taken",
         [call(1, REQUEST + [("user-agent", "a" * 34)] + [(f"user-header{number:02}", "~" + 125 * "a") for number in range(46)])],
         stream_error(1, ENHANCE_YOUR_CALM)),
]


def in_message(length, sent):
    return [OPEN, frame(DATA, 0, 1, bytes([0, 0, 0, 0, length][:5] if sent >= 0 else [0] * (5 + sent)) + bytes(max(sent, 0)))]


def whole_message(message):
    return [OPEN, data(1, bytes([0, 0, 0, 0, len(message)]) + message)]


REGISTERED_METHOD = [
    *(Case("server_registered_method", f"{5 + missing} bytes of a message's head", in_message(0, missing), hung_up) for missing in range(-5, 0)),
    Case("server_registered_method", "an empty message", whole_message(b""), answered()),
    Case("server_registered_method", "a message of 1 byte, none sent", in_message(1, 0), hung_up),
    Case("server_registered_method", "a message of 1 byte", whole_message(b"\0"), answered(grpc=INVALID_ARGUMENT)),
    Case("server_registered_method", "a message of 2 bytes, none sent", in_message(2, 0), hung_up),
    Case("server_registered_method", "a message of 2 bytes, one sent", in_message(2, 1), hung_up),
    Case("server_registered_method", "a message of 2 bytes", whole_message(b"\x0a\0"), answered()),
]

UNUSUAL = [*REQUEST[:3], ("host", "localhost"), ("te", "trailers"), ("grpc-timeout", "10S"), ("grpc-timeout", "5S")]
ANY_CONNECTION = "RFC 9113, section 5.4.1: an endpoint may treat a stream error as a connection error"
OTHER_CODEC = "gRPC over HTTP/2, Content-Type: what follows the plus is the codec, and rankd has proto alone"

SIMPLE_REQUEST = [
    Case("simple_request", "a good one", [call(1)], answered()),
    Case("simple_request", "host, another codec, two timeouts", [call(1, UNUSUAL + [("content-type", "application/grpc+this-is-valid")])],
         instead(OTHER_CODEC, answered(http="415", grpc=None))),
    Case("simple_request", "host, parameters, two timeouts", [call(1, UNUSUAL + [("content-type", "application/grpc;this-is-valid")])], answered()),
    Case("simple_request", "a message with an unknown flag", [OPEN, data(1, b"\x34\0\0\0\0", end=False)], answered(grpc=INTERNAL)),
    Case("simple_request", "DATA with a flag that it has not", [OPEN, frame(DATA, 0x2, 1)], discarded),
    Case("simple_request", "WINDOW_UPDATE of 1 byte", [OPEN, frame(WINDOW_UPDATE, 0, 1, length=1)], BAD_SIZE),
    Case("simple_request", "WINDOW_UPDATE of 0 bytes", [OPEN, frame(WINDOW_UPDATE, 0x10, 1)], BAD_SIZE),
    Case("simple_request", "WINDOW_UPDATE by 0", [OPEN, window_update(1, 0)], instead(ANY_CONNECTION, BAD_CONNECTION)),
    Case("simple_request", "a short GOAWAY", [OPEN, frame(GOAWAY, 0, 0, length=4)], BAD_SIZE),
    Case("simple_request", "a GOAWAY whose text does not come", [OPEN, frame(GOAWAY, 0, 0, length=0x112)], hung_up),
    Case("simple_request", "RST_STREAM of 1 byte", [OPEN, frame(RST_STREAM, 0, 1, length=1)], BAD_SIZE),
    Case("simple_request", "RST_STREAM of 0 bytes", [OPEN, frame(RST_STREAM, 0x10, 1)], BAD_SIZE),
]

STREAM_IDS = [
    Case("bad_streaming_id", "of a client", [headers(1)], answered(grpc=INTERNAL)),
    Case("bad_streaming_id", "of a server", [headers(2)], BAD_CONNECTION),
    Case("bad_streaming_id", "of a stream that was closed", [headers(1), headers(3), headers(1)], connection_error(STREAM_CLOSED)),
]

OUT_OF_BOUNDS = [
    Case("out_of_bounds", f"{name} of {length} bytes", [frame(kind, 0, stream, bytes(length))], BAD_SIZE)
    for name, kind, stream, length in (("DATA", DATA, 1, 1 << 16), ("PRIORITY", PRIORITY, 1, 3), ("RST_STREAM", RST_STREAM, 1, 2), ("SETTINGS", SETTINGS, 0, 5),
                                       ("PING", PING, 0, 5), ("WINDOW_UPDATE", WINDOW_UPDATE, 0, 1))
]

UNKNOWN_FRAME = [Case("unknown_frame", "each of them", [b"".join(frame(kind, 0, 1) for kind in range(10, 256))], discarded)]

MANY_MESSAGES = LARGEST_FRAME // len(MESSAGE)


def refused_or_reset(client):
    """For its second message, or for passing over the window: whichever is seen first. When the answer is out, the window does not matter any more."""
    client.wait(ended(1))
    honest_call(client)
    if client.answer(1).get("grpc-status") != INTERNAL and [frame.code for frame in client.of(RST_STREAM, 1)] != [FLOW_CONTROL_ERROR]:
        fail(client, "stream 1 is neither refused nor reset")


WINDOW_OVERFLOW = [
    Case("window_overflow", "empty messages past the window of 4 MiB, in a call that has one message",
         [OPEN, data(1, MESSAGE * MANY_MESSAGES, end=False) * 257], refused_or_reset),
    Case("window_update_overflow", "a window of 2^31 - 1 more than the first", [window_update(0, 0x7fffffff)], connection_error(FLOW_CONTROL_ERROR)),
]

CASES = [*BADREQ, *CONNECTION_PREFIX, *DUPLICATE_HEADER, *HEAD_OF_LINE, *HEADERS_CASES, *INITIAL_SETTINGS, *LARGE_METADATA, *REGISTERED_METHOD,
         *SIMPLE_REQUEST, *STREAM_IDS, *OUT_OF_BOUNDS, *UNKNOWN_FRAME, *WINDOW_OVERFLOW]

COUNTS = {"badreq": 5, "connection_prefix": 24, "duplicate_header": 2, "head_of_line_blocking": 1, "headers": 59, "initial_settings_frame": 26,
          "large_metadata": 1, "server_registered_method": 11, "simple_request": 12, "bad_streaming_id": 3, "out_of_bounds": 6, "unknown_frame": 1,
          "window_overflow": 1, "window_update_overflow": 1}


class TestBadClient(CasesTest):
    def test_cases(self):
        self.run_cases(CASES)

    def test_no_case_is_missing(self):
        self.check_list(CASES, COUNTS)


if __name__ == "__main__":
    main()
