#!/usr/bin/python3
"""Attacks on HTTP/2 and gRPC, one connection at a time, beside a stock client that gets right answers all along: floods are cut off, what is
only held is bounded and taken back, hostile messages are refused and the connection goes on."""

import gzip
import itertools
import select
import struct
import threading
import time
import unittest

import grpc

from attackers import FLOODS, HOLDERS, RANK, cut_off_with, drain, flood
from h2_frames import ENHANCE_YOUR_CALM, GOAWAY, PING, SETTINGS, RawClient, data, ended, fail, headers, honest_call, ping, settings, until
from rankd_fixture import RankdServer, TIME_SCALE, main, rank_request, repository_of, requests_of, wait_for

CUT_OFF_S = 5 * TIME_SCALE  # bench_attacks.py asks for 1 s, on a machine that does nothing else
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL, UNIMPLEMENTED = "3", "8", "13", "12"


class HonestClient:
    """Ranks again and again on a connection of its own, and compares the scores."""

    def __init__(self, server):
        self.request = rank_request("steam", requests_of("steam")[0])
        self.channel = grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)])
        self.rank = self.channel.unary_unary("/rankd.v1.Ranking/Rank", type(self.request).SerializeToString, None)
        self.expected, self.count, self.wrong = self.scores(), 0, []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def scores(self):
        return self.rank(self.request, timeout=10 * TIME_SCALE)

    def run(self):
        while not self.stopping.is_set():
            try:
                if self.scores() != self.expected:
                    self.wrong.append("other scores")
            except grpc.RpcError as error:
                self.wrong.append(f"{error.code()}: {error.details()}")
            self.count += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        self.channel.close()

    def goes_on(self, test):
        """Two more answers come, and all were right."""
        seen = self.count
        wait_for(lambda: self.count >= seen + 2, "the honest client is answered")
        test.assertEqual(self.wrong, [])


def rank_message(*parts):
    """A RankRequest of these fields, framed."""
    body = b"".join(parts)
    return struct.pack(">BI", 0, len(body)) + body


def nested(depth):
    """A field inside a field inside a field ..., of unknown number 15."""
    body = b""
    for _ in range(depth):
        length, size = len(body), bytearray()
        while length >= 128:
            size.append(length % 128 | 128)
            length //= 128
        body = b"\x7a" + bytes(size + bytes([length])) + body
    return body


# What one message gets on its own stream, by grpc-status; the connection goes on.
MESSAGES = [
    ("a length of 4 GiB", b"\0\xff\xff\xff\xff", RESOURCE_EXHAUSTED),
    ("compressed, but no encoding named", b"\1\0\0\0\0", INTERNAL),
    ("a flag that is neither 0 nor 1", b"\2\0\0\0\0", INTERNAL),
    ("a varint of 11 bytes", rank_message(b"\x08" + b"\xff" * 10 + b"\1"), INVALID_ARGUMENT),
    ("field 0", rank_message(b"\0\1"), INVALID_ARGUMENT),
    ("a group", rank_message(b"\x0b" * 1000), INVALID_ARGUMENT),
    ("a length past the end", rank_message(b"\x0a\xff\xff\xff\xff\x07x"), INVALID_ARGUMENT),
    ("a name that is not UTF-8", rank_message(b"\x0a\2\xc3\x28"), INVALID_ARGUMENT),
    ("a name with NUL", rank_message(b"\x0a\5ste\0m"), INVALID_ARGUMENT),
]
REFUSED = (INVALID_ARGUMENT, RESOURCE_EXHAUSTED, "5")  # 5: what is left of it asks for no model that there is


def unary(client, stream, message, extra=()):
    """What a call with this message gets; rankd's windows stand open for all of it once its SETTINGS are acknowledged."""
    client.wait(until(SETTINGS))
    client.send(settings(flags=1) + headers(stream, RANK + list(extra), end=False))
    for at in range(0, len(message), 16384):
        client.send(data(stream, message[at:at + 16384], end=at + 16384 >= len(message)))
        drain(client)
    client.wait(ended(stream))
    return client.answer(stream).get("grpc-status")


class TestAttacks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(RankdServer(repository_of("steam"), "--max-streams", 1024, "--slow-timeout-s", 1,
                                                    "--stall-timeout-s", 2, "--handshake-timeout-s", 1))
        cls.honest = cls.enterClassContext(HonestClient(cls.server))

    def test_floods_are_cut_off(self):
        for attack in FLOODS:
            with self.subTest(attack.name):
                client, _ = flood(self.server, attack, CUT_OFF_S)
                if cut_off_with(client) not in (None, *attack.codes):
                    fail(client, f"{attack.name}: cut off with another code than {attack.codes}")
                if attack.reads and not client.of(GOAWAY):
                    fail(client, f"{attack.name}: cut off without a word")
                self.honest.goes_on(self)

    def test_reconnecting_does_not_help_a_flood(self):
        for attack in FLOODS[:3]:
            for _ in range(10):
                flood(self.server, attack, CUT_OFF_S)
        self.honest.goes_on(self)

    def test_what_is_held_is_bounded_and_taken_back(self):
        for attack in HOLDERS:
            with self.subTest(attack.name):
                client = RawClient(self.server, attack.opening)
                for wave in attack.waves():
                    client.send(wave)
                client.send(settings(flags=1))
                client.wait(lambda client: False)
                if attack.name != "one byte" and cut_off_with(client) != ENHANCE_YOUR_CALM:
                    fail(client, f"{attack.name}: not cut off for being slow")
                client.socket.close()
                self.honest.goes_on(self)

    def test_hostile_messages_are_refused_and_the_connection_goes_on(self):
        for name, message, status in MESSAGES:
            with self.subTest(name), RawClient(self.server) as client:
                self.assertEqual(unary(client, 1, message), status, client)
                honest_call(client)

    def test_messages_that_would_grow_are_refused_for_what_they_take(self):
        heavy = {"a million empty submessages": b"\x2a\0" * 1000000, "a million unknown fields": b"\xf8\x01\0" * 1000000,
                 "fields nested ten thousand deep": nested(10000)}
        before = self.server.status_kb("VmHWM")
        for name, body in heavy.items():
            with self.subTest(name), RawClient(self.server) as client:
                self.assertIn(unary(client, 1, rank_message(body)), REFUSED)
                honest_call(client)
        if not TIME_SCALE > 1:
            self.assertLess(self.server.status_kb("VmHWM") - before, 64 << 10)

    def test_a_gzip_bomb_is_stopped_at_the_limit(self):
        bomb = gzip.compress(bytes(256 << 20), 9)
        before = self.server.status_kb("VmHWM")
        with RawClient(self.server) as client:
            self.assertEqual(unary(client, 1, struct.pack(">BI", 1, len(bomb)) + bomb, [("grpc-encoding", "gzip")]), RESOURCE_EXHAUSTED)
            honest_call(client)
        if not TIME_SCALE > 1:
            self.assertLess(self.server.status_kb("VmHWM") - before, 32 << 10)
        self.honest.goes_on(self)

    def test_connections_dropped_in_the_middle_of_a_request_leave_nothing(self):
        good = rank_request("steam", requests_of("steam")[0])
        message = rank_message(good.SerializeToString())
        request = headers(1, RANK, end=False) + data(1, message)
        cuts = itertools.cycle(range(1, len(request) + 1, 7))

        def drop(count):
            for cut in itertools.islice(cuts, count):
                client = RawClient(self.server)
                client.send(request[:cut])
                client.socket.close()
                if cut % 50 == 0:
                    self.server.stub.Rank(good, timeout=10 * TIME_SCALE)  # they are not to pile up in the backlog
        rounds = 300 if TIME_SCALE > 1 else 1500
        drop(2 * rounds)  # until its pools are as large as they get
        before = self.server.status_kb()
        drop(2 * rounds)
        self.honest.goes_on(self)
        if not TIME_SCALE > 1:
            self.assertLess(self.server.status_kb(), 1.05 * before)


class TestMemory(unittest.TestCase):
    def test_open_calls_of_a_connection_hold_little(self):
        """Calls that began, that wait for the rest of a message, or whose answers nobody reads: as many as a connection may have."""
        held = {attack.name: attack for attack in HOLDERS}
        for name in ("answers behind shut windows", "declared messages"):
            with self.subTest(name), RankdServer(repository_of("steam"), "--slow-timeout-s", 0) as server, HonestClient(server) as honest:
                honest.goes_on(self)
                before, clients = server.status_kb(), []
                for _ in range(64):
                    clients.append(RawClient(server, held[name].opening))
                    for wave in held[name].waves():
                        clients[-1].send(wave)
                    clients[-1].send(settings(flags=1) + ping())
                    self.assertTrue(clients[-1].wait(until(PING, flags=1)), "all that was sent before has been read")
                if not TIME_SCALE > 1:
                    self.assertLess((server.status_kb() - before) / len(clients), 256)
                honest.goes_on(self)
                for client in clients:
                    client.socket.close()


class TestManyConnections(unittest.TestCase):
    def test_connections_of_one_byte_are_capped_and_closed_in_time(self):
        """Ten thousand, of which one address may have 200 at a time."""
        with RankdServer(repository_of("steam"), "--max-connections-per-peer", 200, "--handshake-timeout-s", 1) as server, HonestClient(server) as honest:
            held = []
            for _ in range(10000 if TIME_SCALE == 1 else 1000):
                sock = server.socket()
                try:
                    sock.sendall(b"P")
                except OSError:
                    pass  # refused already
                held.append(sock)
                if len(held) > 400:
                    held.pop(0).close()
            honest.goes_on(self)
            limit = time.monotonic() + 10 * TIME_SCALE
            while held and time.monotonic() < limit:
                for sock in select.select(held, [], [], 1)[0]:
                    held.remove(sock)
                    sock.close()
            self.assertEqual(len(held), 0, "connections of one byte stay open")
            honest.goes_on(self)


if __name__ == "__main__":
    main()
