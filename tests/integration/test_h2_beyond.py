#!/usr/bin/python3
"""Hostile HTTP/2 beyond h2spec's list, by the sections of RFC 9113, and random damage to good conversations: whoever sends it gets the answer
that is due or loses the connection, and whoever is beside it notices nothing."""

import functools
import os
import random
import struct

import hpack

from h2_frames import (ANSWER_BYTES, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_HEADER_BYTES, FRAME_SIZE_ERROR,
                       GOAWAY, HEADERS, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, LARGEST_FRAME, MAGIC, MESSAGE, PADDED, PREFACE, PROTOCOL_ERROR, REQUEST,
                       SETTINGS, STREAM_CLOSED, Case, CasesTest, RawClient, acked, answered, block, but, call, closed, connection_error, continuation, data,
                       ended, fail, frame, goaway, headers, honest_call, ping, priority, reset, settings, stream_error, window_update)
from rankd_fixture import main, rank_request, requests_of, seed
import rankd_pb2

OPEN = headers(1, end=False)
BAD_CONNECTION, BAD_SIZE = connection_error(PROTOCOL_ERROR), connection_error(FRAME_SIZE_ERROR)
BAD_STREAM = stream_error(1, PROTOCOL_ERROR)
NO_PRIORITIES = 9  # SETTINGS_NO_RFC7540_PRIORITIES
ROUNDS = int(os.environ.get("RANKD_ROUNDS", "500"))  # of random damage of each kind


def with_header(name, value):
    return [call(1, REQUEST + [(name, value)])]


OPENINGS = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"pri * http/2.0\r\n\r\nsm\r\n\r\n",
    b"PRI * HTTP/2.0\n\nSM\n\n" + settings(),
    b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n" + settings(),
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + settings(),
    b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings(),
    b"\0" + MAGIC + settings(),
    settings() + ping() + ping(),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),  # TLS
    b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(10),
    bytes(100),
    b"\xff" * 100,
]

STARTING = [
    *(Case("3.4", f"the connection begins with {opening[:60]}", [], closed, opening) for opening in OPENINGS),
    *(Case("3.4", f"the first frame is {name}", [], BAD_CONNECTION, MAGIC + first)
      for name, first in (("PING", ping()), ("HEADERS", headers(1)), ("DATA", data(1)), ("WINDOW_UPDATE", window_update(0, 1)), ("GOAWAY", goaway()),
                          ("an acknowledgement", settings(flags=1)), ("an unknown one", frame(0xfe, 0, 0)))),
    Case("3.4", "calls do not wait for the server's SETTINGS", [call(1)], answered()),
]

FRAMES = [
    *(Case("4.2", f"{name} of {length} bytes, of which none comes", [OPEN, frame(kind, flags, stream, length=length)], BAD_SIZE)
      for length in (LARGEST_FRAME + 2, 1 << 23, 0xffffff)
      for name, kind, flags, stream in (("HEADERS", HEADERS, END_HEADERS, 3), ("DATA", DATA, 0, 1), ("SETTINGS", SETTINGS, 0, 0), ("GOAWAY", GOAWAY, 0, 0),
                                        ("an unknown frame", 0xfe, 0, 0))),
    Case("4.2", "CONTINUATION that is too long", [headers(1, whole=False), frame(CONTINUATION, END_HEADERS, 1, length=LARGEST_FRAME + 1)], BAD_SIZE),
    Case("4.1", "all flags that mean nothing", [frame(HEADERS, END_HEADERS | 0xd2, 1, block(REQUEST)), frame(DATA, END_STREAM | 0xf6, 1, MESSAGE)], answered()),
    Case("4.1", "the reserved bit of the stream", [headers(0x80000001, end=False), data(0x80000001)], answered()),
    Case("4.3", "headers cut after every byte", [headers(1, b"", end=False, whole=False),
                                                *(continuation(1, part, whole=False) for part in (block(REQUEST)[:1], block(REQUEST)[1:40])),
                                                continuation(1, block(REQUEST)[40:]), data(1)], answered()),
    Case("5.5", "unknown frames between all others", [frame(0xb, 0xff, 0, b"x" * 100), OPEN, frame(0xc, 0, 1, b"y"), data(1, MESSAGE[:3], end=False),
                                                     frame(0xff, 1, 1), data(1, MESSAGE[3:]), frame(0x20, 0, 77)], answered()),
    *(Case("6.1", f"{name}, of which all is padding", [OPEN, frame(kind, PADDED | END_HEADERS, stream, bytes([length]) + bytes(length - 1))], BAD_CONNECTION)
      for name, kind, stream in (("DATA", DATA, 1), ("HEADERS", HEADERS, 3)) for length in (1, 100, 255)),
    *(Case("6.1", f"{name} with padding of no length", [OPEN, frame(kind, PADDED | END_HEADERS, stream)], connection_error(PROTOCOL_ERROR, FRAME_SIZE_ERROR))
      for name, kind, stream in (("DATA", DATA, 1), ("HEADERS", HEADERS, 3))),
    Case("6.2", "HEADERS with priority and padding", [headers(1, end=False, priority=(7, True, 3), padding=200), data(1, padding=255)], answered()),
    Case("6.2", "trailers, and then DATA", [OPEN, data(1, end=False), headers(1, [("x-test", "ok")]), data(1)], connection_error(STREAM_CLOSED)),
    Case("6.5.2", "SETTINGS_NO_RFC7540_PRIORITIES other than 0 or 1", [], BAD_CONNECTION, MAGIC + settings((NO_PRIORITIES, 2))),
    Case("6.5.2", "a header table of 4 GiB", [settings((HEADER_TABLE_SIZE, 0xffffffff)), acked(2), call(1)], answered()),
    Case("6.5.2", "a header table of 0", [settings((HEADER_TABLE_SIZE, 0)), acked(2), call(1)], answered()),
    Case("6.8", "GOAWAY of 7 bytes", [frame(GOAWAY, 0, 0, bytes(7))], BAD_SIZE),
    Case("6.9.2", "open windows past 2^31-1 by SETTINGS", [settings((INITIAL_WINDOW_SIZE, 0)), acked(2), OPEN, window_update(1, 0x7fffffff),
                                                          settings((INITIAL_WINDOW_SIZE, 1))],
         stream_error(1, FLOW_CONTROL_ERROR)),  # the RFC gives up the connection for it; nghttp2 alone the stream, which hurts nobody else
    Case("8.4", "PUSH_PROMISE on a stream that is open", [OPEN, frame(5, END_HEADERS, 1, bytes([0, 0, 0, 2]) + block(REQUEST))], BAD_CONNECTION),
]

STREAMS = [
    *(Case("5.1.1", f"{name} of an even stream", [OPEN, sent], BAD_CONNECTION)
      for name, sent in (("HEADERS", headers(2)), ("DATA", data(2)), ("RST_STREAM", reset(4)), ("WINDOW_UPDATE", window_update(6, 1)),
                         ("CONTINUATION", continuation(2, b"")))),
    *(Case("5.1.1", f"{name} of a stream that was passed over", [call(7), sent], BAD_CONNECTION)
      for name, sent in (("HEADERS", headers(5)), ("DATA", data(3)))),
    Case("5.1.1", "the same, by far", [call(1), call(0x7ffffff1), headers(0x7ffffff1 - 2 * 1023)], BAD_CONNECTION),
    Case("5.1", "RST_STREAM and WINDOW_UPDATE of closed streams", [call(1), ended(1), reset(1), window_update(1, 5), call(7), reset(3), window_update(5, 1)],
         answered(7)),
    Case("5.1", "RST_STREAM of an idle stream, which is opened then", [call(1), reset(5), call(3), call(5)], answered(5)),
    Case("5.1", "DATA that crosses a reset", [OPEN, data(1, b"\x34" + bytes(4), end=False), ended(1), data(1, end=False), data(1)], answered(grpc="13")),
    Case("5.1", "DATA after a header block that was refused", [headers(1, REQUEST + [("X", "")], end=False), ended(1), data(1)], BAD_STREAM),
    Case("5.1", "an old call goes on when a thousand younger ones have ended",
         [OPEN, *(headers(stream) for stream in range(3, 2103, 2)), ended(2101), data(1)], answered()),
]

MESSAGES = [
    *(Case("8.2", f"{what}", with_header(name, value), BAD_STREAM)
      for what, name, value in (("a name in upper case", "X-Test", "1"), ("an empty name", "", "1"), ("a space in a name", "x test", "1"),
                                ("a colon in a name", "x:test", "1"), ("NUL in a name", "x\0test", "1"), ("a byte above ASCII in a name", "x\xfctest", "1"),
                                ("NUL in a value", "x-test", "a\0b"), ("CR in a value", "x-test", "a\rb"), ("LF in a value", "x-test", "a\nb: c"),
                                ("a space before a value", "x-test", " a"), ("a tab after a value", "x-test", "a\t"))),
    Case("8.2", "bytes above ASCII in a value", with_header("x-test", "\xfc\xff"), answered()),
    *(Case("8.2.2", f"{name}: {value}", with_header(name, value), BAD_STREAM)
      for name, value in (("connection", "close"), ("keep-alive", "timeout=5"), ("proxy-connection", "keep-alive"), ("transfer-encoding", "chunked"),
                          ("upgrade", "h2c"), ("te", "gzip"), ("te", "trailers;q=0.5"))),
    *(Case("8.3", f"two of {name}", [call(1, [(name, value)] + REQUEST)], BAD_STREAM) for name, value in REQUEST[:4]),
    *(Case("8.3", f"{name} after the others", [call(1, [field for field in REQUEST if field[0] != name] + [(name, value)])], BAD_STREAM)
      for name, value in REQUEST[:4]),
    *(Case("8.3", f"{name} as trailer", [OPEN, data(1, end=False), headers(1, [(name, value)])], BAD_STREAM) for name, value in REQUEST[:4]),
    Case("8.3", "a pseudo-header of websockets", [call(1, [(":protocol", "websocket")] + REQUEST)], BAD_STREAM),
    Case("8.3", "an empty pseudo-header", [call(1, [(":", "x")] + REQUEST)], BAD_STREAM),
    Case("8.3", "neither :authority nor host", [call(1, but(authority=None))], BAD_STREAM),
    Case("8.5", "CONNECT", [headers(1, [(":method", "CONNECT"), (":authority", "test:80")])], answered(http="405", grpc=None)),
    Case("8.5", "CONNECT with a path", [call(1, but(method="CONNECT"))], BAD_STREAM),
    *(Case("8.1.1", f"content-length of {value}", with_header("content-length", value), BAD_STREAM)
      for value in ("4", "6", "-5", "5x", "", "99999999999999999999", "5, 5")),
    Case("8.1.1", "content-length of 5", with_header("content-length", "5"), answered()),
    Case("8.1.1", "two that differ", [call(1, REQUEST + [("content-length", "5"), ("content-length", "6")])], BAD_STREAM),
    Case("8.1.1", "content-length without a body", [headers(1, REQUEST + [("content-length", "5")])], BAD_STREAM),
    Case("8.1", "trailers that mean nothing", [OPEN, data(1, end=False), headers(1, [("grpc-timeout", "1n"), ("x-test", "ok")])], answered()),
    Case("10.5.1", "one header too many", [call(1, REQUEST + [("x", "")] * (65 - len(REQUEST)))], stream_error(1, ENHANCE_YOUR_CALM)),
    Case("10.5.1", "as many as there may be", [call(1, REQUEST + [("x", "")] * (64 - len(REQUEST)))], answered()),
    Case("10.5.1", "headers of more than 8 KiB", [call(1, REQUEST + [("x", "y" * 8000)])], stream_error(1, ENHANCE_YOUR_CALM)),
]


class TestBeyond(CasesTest):
    def test_starting(self):
        self.run_cases(STARTING)

    def test_frames(self):
        self.run_cases(FRAMES)

    def test_streams(self):
        self.run_cases(STREAMS)

    def test_messages(self):
        self.run_cases(MESSAGES)


# ---- random damage ----

KINDS = [kind for kind in range(12) if kind != GOAWAY]  # whoever says that is left without a word


@functools.lru_cache(maxsize=None)
def calls():
    """(path, messages, gRPC status) of calls that are answered at once, that workers compute, that carry several requests, that have no end, and
    that nobody knows."""
    some = requests_of("dot")[0]
    request = rank_request("dot", {**some, "candidates": some["candidates"][:3]})
    several = [rankd_pb2.RankStreamRequest(id=number, request=request).SerializeToString() for number in range(3)]
    kinds = [("/grpc.health.v1.Health/Check", [b""], "0"), ("/grpc.health.v1.Health/Watch", [b""], None),
             ("/rankd.v1.Ranking/Rank", [request.SerializeToString()], "0"), ("/rankd.v1.Ranking/RankStream", several, "0"),
             ("/rankd.v1.Ranking/Nothing", [b"x"], "12")]
    return [(path, b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages), status) for path, messages, status in kinds]


def conversation(rng):
    """Frames that a good client may send: calls of all kinds and of shapes as odd as HTTP/2 allows, header tables in use. And what its calls must
    get, by stream."""
    coder, frames, statuses, stream = hpack.Encoder(), [settings(flags=1)], {}, 1
    for _ in range(rng.randrange(1, 8)):
        path, message, status = rng.choice(calls())
        fields = but(path=path) + [(f"x-{rng.randrange(5)}", "v" * rng.randrange(60)) for _ in range(rng.randrange(4))]
        coded, padding = coder.encode(fields, huffman=rng.random() < 0.5), rng.choice((None, rng.randrange(256)))
        if rng.random() < 0.3:
            cut = rng.randrange(len(coded))
            frames += [headers(stream, coded[:cut], end=False, whole=False, padding=padding), continuation(stream, coded[cut:])]
        else:
            frames.append(headers(stream, coded, end=False, padding=padding, priority=rng.choice((None, (0, False, 7)))))
        cut, kind = rng.randrange(len(message)), rng.randrange(6)
        if kind == 0:
            frames.append(reset(stream))
        elif kind == 1:
            frames += [data(stream, message[:cut], end=False, padding=padding), data(stream, message[cut:])]
        elif kind == 2:
            frames += [data(stream, message), reset(stream)]
        elif kind == 3:
            frames += [data(stream, message, end=False), headers(stream, coder.encode([("x-trailer", "1")]))]
        else:
            frames.append(data(stream, message, padding=padding))
        frames += rng.sample([ping(rng.randbytes(8)), settings((INITIAL_WINDOW_SIZE, rng.randrange(70000))), window_update(0, 100), priority(stream),
                              frame(0xf0, 0, 0, b"?"), settings((HEADER_TABLE_SIZE, rng.randrange(5000)))], rng.randrange(3))
        if kind not in (0, 2) and status is not None:
            statuses[stream] = status
        stream += 2 * rng.randrange(1, 4)
    return frames, statuses


def damage_frames(rng, frames):
    """Whole frames, but wrong ones or in wrong places."""
    frames = list(frames)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(frames))
        chosen, how = bytearray(frames[at]), rng.randrange(8)
        if how == 0:
            del frames[at]
            frames.append(ping())
        elif how == 1:
            frames.insert(rng.randrange(len(frames)), bytes(chosen))
        elif how == 2:
            other = rng.randrange(len(frames))
            frames[at], frames[other] = frames[other], frames[at]
        elif how == 3:
            frames.insert(at, frame(rng.choice(KINDS), rng.randrange(256), rng.randrange(20), rng.randbytes(rng.randrange(40))))
        else:
            if how == 4:
                chosen[3] = rng.choice(KINDS)
            elif how == 5:
                chosen[4] ^= 1 << rng.randrange(8)
            elif how == 6:
                chosen[8] = rng.randrange(256)
            elif len(chosen) > FRAME_HEADER_BYTES:
                chosen[rng.randrange(FRAME_HEADER_BYTES, len(chosen))] = rng.randrange(256)
            frames[at] = bytes(chosen)
    return frames


def damage_bytes(rng, talk):
    talk = bytearray(talk)
    for _ in range(rng.randrange(1, 5)):
        at, how = rng.randrange(len(talk)), rng.randrange(4)
        if how == 0:
            talk[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            talk[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif how == 2 and len(talk) > 40:
            del talk[at:at + rng.randrange(1, 20)]
        else:
            talk[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff))
    return bytes(talk)


def send_cut(rng, client, talk):
    while talk:
        part = rng.choice((len(talk), rng.randrange(1, 40), rng.randrange(1, 400)))
        client.send(talk[:part])
        talk = talk[part:]


class Neighbour:
    """An honest client whose one connection lasts for the whole test."""

    def __init__(self, server):
        self.client, self.stream = RawClient(server, PREFACE + settings(flags=1)), 1

    def call(self):
        self.client.send(window_update(0, ANSWER_BYTES) + call(self.stream))
        if not self.client.wait(ended(self.stream)) or self.client.answer(self.stream).get("grpc-status") != "0":
            fail(self.client, f"the honest connection's call on stream {self.stream} is not answered")
        self.client.frames.clear()
        self.stream += 2


class TestDamage(CasesTest):
    arguments = ("--in-place-us", 0)  # calls cross to the workers, and their ends cross the answers

    def check_round(self, number, damaged, goes_on):
        """The connection answers what is sent after the damage, or has ended; and the neighbour is served."""
        rng = random.Random(f"{seed()} {number}")
        with RawClient(self.peer, b"") as client:
            send_cut(rng, client, damaged)
            self.neighbour.call()
            if goes_on:
                client.send(settings((INITIAL_WINDOW_SIZE, 65535)) + call(0x7fffffff))
                client.wait(ended(0x7fffffff))
                if client.closed and not client.of(GOAWAY):
                    fail(client, f"round {number}: the connection ended without a word")
            else:
                client.finish_sending()
                client.wait(lambda client: False)

    def test_frames_that_are_wrong_or_in_wrong_places(self):
        self.neighbour = Neighbour(self.peer)
        rng = random.Random(seed())
        for number in range(ROUNDS):
            self.check_round(number, PREFACE + b"".join(damage_frames(rng, conversation(rng)[0])), True)
        self.neighbour.client.socket.close()

    def test_bytes_that_are_wrong(self):
        self.neighbour = Neighbour(self.peer)
        rng = random.Random(seed() + 1)
        for number in range(ROUNDS):
            talk = PREFACE + b"".join(conversation(rng)[0])
            talk = damage_bytes(rng, talk) if rng.random() < 0.8 else talk[:rng.randrange(len(talk))]
            self.check_round(number, talk, False)
        self.neighbour.client.socket.close()

    def test_these_conversations_are_answered_as_they_are_without_damage(self):
        rng = random.Random(seed() + 2)
        for _ in range(ROUNDS // 5):
            frames, statuses = conversation(rng)
            with RawClient(self.peer) as client:
                send_cut(rng, client, b"".join(frames))
                honest_call(client)
                client.wait(lambda client: all(client.ended(stream) for stream in statuses))
                self.assertEqual({stream: client.answer(stream).get("grpc-status") for stream in statuses}, statuses, client)


if __name__ == "__main__":
    main()
