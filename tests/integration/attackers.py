"""Attacks on HTTP/2 and gRPC, each as what one connection sends, for the tests and for tests/bench/bench_attacks.py.

    Attack("PING", floods(lambda stream: ping()), cut_off)

An attack's waves are pieces of up to some ten kilobytes without end; whoever sends them reads what comes back meanwhile, or does not
(reads=False). What it must get for it: the connection cut off with one of the codes, or, for those that only hold on to what they have,
nothing but what bounds their memory."""

import itertools
import select
import struct
import time
import typing

from h2_frames import (CONTINUATION, DATA, ENHANCE_YOUR_CALM, GOAWAY, INITIAL_WINDOW_SIZE, PREFACE, REQUEST, RawClient, call, frame, headers, ping,
                       priority, reset, settings, text, window_update)

RANK = [(name, "/rankd.v1.Ranking/Rank" if name == ":path" else value) for name, value in REQUEST]
FRAMES_PER_WAVE = 100
SHUT = PREFACE + settings((INITIAL_WINDOW_SIZE, 0))
LONGEST_MESSAGE = 4 << 20  # rankd's default


class Attack(typing.NamedTuple):
    name: str
    waves: typing.Callable  # without arguments; an iterator of bytes
    codes: tuple = (ENHANCE_YOUR_CALM,)  # of GOAWAY when it is cut off; empty: it is not
    opening: bytes = PREFACE
    reads: bool = True


def streams():
    return itertools.count(1, 2)


def calls(make, per_wave=FRAMES_PER_WAVE):
    """make(stream), for one new stream after the other."""
    def waves():
        ids = streams()
        while True:
            yield b"".join(make(stream) for stream in itertools.islice(ids, per_wave))
    return waves


def frames(*parts, first=b"", per_wave=FRAMES_PER_WAVE):
    """The same frames again and again, behind a first one."""
    def waves():
        yield first
        while True:
            yield b"".join(parts) * per_wave
    return waves


def header_bomb():
    """One long field in the table; then requests that name it a thousand times, a byte each."""
    yield headers(1, b"\x40" + text("x-bomb") + text("a" * 3900))
    for stream in itertools.count(3, 2):
        yield headers(stream, b"\xbe" * 4000)


def unfinished(bytes_each=16000):
    """Requests of which the beginning comes, and never the end."""
    prefix = struct.pack(">BI", 0, LONGEST_MESSAGE)
    return lambda: (headers(stream, RANK, end=False) + frame(DATA, 0, stream, prefix + bytes(bytes_each - len(prefix))) for stream in streams())


OPEN = headers(1, end=False)

FLOODS = [
    Attack("rapid reset", calls(lambda stream: headers(stream, end=False) + reset(stream))),
    Attack("rapid reset of whole calls", calls(lambda stream: call(stream) + reset(stream))),
    Attack("resets provoked by windows past 2^31-1", calls(lambda stream: headers(stream, end=False) + window_update(stream, 0x7fffffff))),
    Attack("resets provoked by malformed headers", calls(lambda stream: headers(stream, REQUEST + [("Upper", "x")]))),
    Attack("CONTINUATION", frames(frame(CONTINUATION, 0, 1), first=headers(1, REQUEST[:1], whole=False))),
    Attack("CONTINUATION with fields", frames(frame(CONTINUATION, 0, 1, b"\0" + text("x") + text("y" * 100)), first=headers(1, whole=False))),
    Attack("PING", frames(ping())),
    Attack("answers to no PING", frames(ping(flags=1))),
    Attack("SETTINGS", frames(settings())),
    Attack("SETTINGS that change all windows", frames(settings((INITIAL_WINDOW_SIZE, 1)), settings((INITIAL_WINDOW_SIZE, 70000)))),
    Attack("empty DATA", frames(frame(DATA, 0, 1), first=OPEN)),
    Attack("DATA of padding alone", frames(frame(DATA, 8, 1, b"\xff" + bytes(255)), first=OPEN)),
    Attack("DATA of a call that is over", frames(frame(DATA, 0, 1, b"x"), first=headers(1, end=False) + window_update(1, 0x7fffffff))),
    Attack("PRIORITY", frames(priority(1, 3))),
    Attack("WINDOW_UPDATE of the connection", frames(window_update(0, 1))),
    Attack("WINDOW_UPDATE of a stream", frames(window_update(1, 1), first=OPEN)),
    Attack("unknown frames", frames(frame(0xfe, 0xff, 0, b"x" * 8))),
    Attack("header bomb", header_bomb),
    Attack("cookie crumbs", calls(lambda stream: headers(stream, REQUEST + [("cookie", "a")] * 500), per_wave=2)),
    Attack("calls past the limit", calls(lambda stream: headers(stream, RANK, end=False))),
    Attack("PING, unread", frames(ping()), reads=False),
    Attack("SETTINGS, unread", frames(settings()), reads=False),
]

# They are not told to go at once: what they can have is bounded, and timers take it back.
HOLDERS = [
    Attack("answers behind shut windows", lambda: iter([b"".join(call(stream) for stream in itertools.islice(streams(), 1000))]), (), SHUT),
    Attack("requests without end", lambda: itertools.islice(unfinished()(), 40), ()),
    Attack("declared messages", lambda: iter([b"".join(headers(stream, RANK, end=False) + frame(DATA, 0, stream, struct.pack(">BI", 0, LONGEST_MESSAGE))
                                                       for stream in itertools.islice(streams(), 1000))]), ()),
    Attack("one byte", lambda: iter([]), (), b"P"),
]


def drain(client):
    """Takes what has come; False at the end of the connection."""
    while select.select([client.socket], [], [], 0)[0]:
        if not client.receive():
            return False
    return True


def flood(server, attack, limit_s, pause=None):
    """Sends its waves until the connection ends; the client, and for how long it lasted. Fails when it lasts longer than it may."""
    client = RawClient(server, attack.opening)
    begun = time.monotonic()
    for wave in attack.waves():
        client.send(wave)
        if attack.reads and not drain(client):
            break
        if not attack.reads and select.select([client.socket], [], [], 0)[0] and not drain(client):
            break
        if time.monotonic() - begun > limit_s:
            client.socket.close()
            raise AssertionError(f"{attack.name}: not cut off within {limit_s:g} s")
        if pause:
            time.sleep(pause)
    client.socket.close()
    return client, time.monotonic() - begun


def cut_off_with(client):
    """The code of its last GOAWAY; None: the end came without a word."""
    said = client.of(GOAWAY)
    return said[-1].code if said else None
