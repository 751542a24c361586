#!/usr/bin/python3
"""What a running rankd says to clients that speak their own HTTP/2: raw frames by way of python3-h2, and bytes that are no HTTP/2 at all."""

import gzip
import random
import struct
import time
import unittest

import h2.config
import h2.connection
import h2.events

from rankd_fixture import RankdServer, Stub, TIME_SCALE, expected_of, main, rank_request, repository_of, requests_of, seed

RANK = "/rankd.v1.Ranking/Rank"
CHECK = "/grpc.health.v1.Health/Check"


def framed(message, flag=0, length=None):
    return struct.pack(">BI", flag, len(message) if length is None else length) + message


class Connection:
    """One HTTP/2 connection whose client checks nothing that it sends."""

    def __init__(self, server):
        self.socket = server.socket()
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def start(self, path=CHECK, method="POST", content_type="application/grpc", extra=(), end=False):
        stream = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "test"), ("te", "trailers"),
                   ("content-type", content_type), *extra]
        self.h2.send_headers(stream, headers, end_stream=end)
        return stream

    def call(self, body, pieces=None, padding=None, **options):
        """Runs one call; its headers and trailers in one dictionary, and the body."""
        stream = self.start(**options)
        pieces = pieces or [body]
        for number, piece in enumerate(pieces):
            self.h2.send_data(stream, piece, end_stream=number + 1 == len(pieces), pad_length=padding)
            self.flush()
        return self.answer(stream)

    def answer(self, stream):
        self.flush()
        headers, body = {}, b""
        while True:
            data = self.socket.recv(65536)
            if not data:
                raise AssertionError("the server closed the connection")
            done = False
            for event in self.h2.receive_data(data):
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)) and event.stream_id == stream:
                    headers.update(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    if event.stream_id == stream:
                        body += event.data
                elif isinstance(event, h2.events.StreamEnded) and event.stream_id == stream:
                    done = True
                elif isinstance(event, h2.events.StreamReset) and event.stream_id == stream:
                    headers.setdefault("reset", event.error_code)
                    done = True
            self.flush()
            if done:
                return headers, body


class TestWire(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of("steam"), "--max-message-bytes", "1048576")
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def tearDown(self):
        with Connection(self.server) as other:  # whatever a test did, others are served
            headers, body = other.call(framed(b""))
            self.assertEqual((headers[":status"], headers["grpc-status"], body), ("200", "0", framed(b"\x08\x01")))

    def test_a_request_in_one_byte_frames_or_padded_gets_the_same_scores(self):
        import rankd_pb2
        index = min(range(len(requests_of("steam"))), key=lambda i: len(requests_of("steam")[i]["candidates"]))
        request = requests_of("steam")[index]
        request = {**request, "candidates": request["candidates"][:3]}
        body = framed(rank_request("steam", request, include_logits=True).SerializeToString())
        answers = []
        with Connection(self.server) as connection:
            for options in ({}, {"pieces": [body[i:i + 1] for i in range(len(body))]}, {"padding": 255},
                            {"pieces": [body[:7], body[7:]], "padding": 0}):
                headers, answer = connection.call(body, path=RANK, **options)
                self.assertEqual(headers["grpc-status"], "0", headers)
                response = rankd_pb2.RankResponse.FromString(answer[5:])
                answers.append(list(response.logits))
        self.assertTrue(all(answer == answers[0] for answer in answers), answers)
        for logit, expected in zip(answers[0], sum(expected_of("steam")[index]["logits"][:3], [])):
            self.assertLessEqual(abs(logit - expected), 1e-5 * max(1, abs(expected)))

    def test_rules_of_http_and_grpc_have_exact_answers(self):
        cases = [
            ("GET", dict(method="GET"), framed(b""), {":status": "405"}),
            ("content type", dict(content_type="application/json"), framed(b""), {":status": "415"}),
            ("unknown method", dict(path="/x.Y/Z"), framed(b""), {"grpc-status": "12", "grpc-message": "unknown method /x.Y/Z"}),
            ("a path without slash", dict(path="rankd.v1.Ranking/Rank"), framed(b""), {":status": "200", "grpc-status": "12"}),
            ("a path of *", dict(path="*"), framed(b""), {":status": "200", "grpc-status": "12"}),
            ("unknown encoding", dict(extra=[("grpc-encoding", "snappy")]), framed(b""), {"grpc-status": "12", "grpc-accept-encoding": "identity,gzip"}),
            ("gzip", dict(extra=[("grpc-encoding", "gzip")]), framed(gzip.compress(b""), flag=1), {"grpc-status": "0"}),
            ("not gzip", dict(extra=[("grpc-encoding", "gzip")]), framed(b"x" * 30, flag=1), {"grpc-status": "13"}),
            ("a bomb", dict(extra=[("grpc-encoding", "gzip")]), framed(gzip.compress(bytes(1048577)), flag=1), {"grpc-status": "8"}),
            ("malformed timeout", dict(extra=[("grpc-timeout", "5 minutes")]), framed(b""), {"grpc-status": "13"}),
            ("binary that is not", dict(extra=[("x-bin", "AA=A")]), framed(b""),
             {"grpc-status": "13", "grpc-message": "header 'x-bin' is not base64: send the values of -bin headers base64-encoded, "
                                                   "several separated by commas"}),
            ("binary", dict(extra=[("x-bin", "AAE"), ("y-bin", "AA==,AAEC")]), framed(b""), {"grpc-status": "0"}),
            ("no time at all", dict(extra=[("grpc-timeout", "0n")]), framed(b""), {"grpc-status": "4"}),
            ("every unit", dict(extra=[("grpc-timeout", "99999999H")]), framed(b""), {"grpc-status": "0"}),
            ("no message", {}, b"", {"grpc-status": "13"}),
            ("two messages", {}, framed(b"") * 2, {"grpc-status": "13"}),
            ("half a message", {}, framed(b"ab", length=5), {"grpc-status": "13"}),
            ("compressed flag", {}, framed(b"", flag=1), {"grpc-status": "13"}),
            ("flag 2", {}, framed(b"", flag=2), {"grpc-status": "13"}),
            ("4 GiB", {}, framed(b"", length=0xffffffff), {"grpc-status": "8"}),
            ("one byte too long", {}, framed(b"", length=1048577), {"grpc-status": "8"}),
            ("not protobuf", dict(path=RANK), framed(b"\xff" * 11), {"grpc-status": "3"}),
            ("no UTF-8", dict(path=RANK), framed(b"\x0a\x01\xff"), {"grpc-status": "3"}),
        ]
        with Connection(self.server) as connection:  # all on one: none of them costs the connection
            for what, options, body, expected in cases:
                with self.subTest(what):
                    headers, _ = connection.call(body, **options)
                    self.assertEqual({name: headers.get(name) for name in expected}, expected, headers)

    def test_the_limit_is_named_and_no_memory_is_taken_for_it(self):
        with Connection(self.server) as connection:
            before = self.server.status_kb()
            for _ in range(50):
                headers, _ = connection.call(framed(b"", length=0xffffffff))
                self.assertIn("1048576", headers["grpc-message"])
            self.assertLess(self.server.status_kb() - before, 8192)

    def test_what_is_not_http2_is_closed_within_a_second(self):
        for first in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
                      b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"):
            with self.subTest(first), self.server.socket() as sock:
                sock.sendall(first)
                sock.settimeout(1 * TIME_SCALE)
                try:
                    while sock.recv(65536):
                        pass
                except ConnectionResetError:
                    pass

    def test_random_bytes_cost_their_sender_the_connection_and_nobody_else(self):
        rng = random.Random(seed())
        good = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        good.initiate_connection()
        good.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", CHECK), (":authority", "t"), ("content-type", "application/grpc")])
        good.send_data(1, framed(b""), end_stream=True)
        talk = good.data_to_send()
        for _ in range(200):
            damaged = bytearray(talk)
            for _ in range(rng.randrange(1, 6)):
                damaged[rng.randrange(24, len(damaged))] = rng.randrange(256)
            with self.server.socket() as sock:
                try:
                    sock.sendall(damaged)
                    sock.sendall(rng.randbytes(rng.randrange(200)))
                except OSError:
                    pass

    def test_a_reset_call_is_gone_and_the_connection_goes_on(self):
        with Connection(self.server) as connection:
            for _ in range(100):
                stream = connection.start()
                connection.h2.reset_stream(stream, 8)
            headers, _ = connection.call(framed(b""))
            self.assertEqual(headers["grpc-status"], "0")

    def test_a_reset_that_overtakes_its_headers_costs_no_other_call(self):
        reset = bytes([0, 0, 4, 3, 0]) + struct.pack(">II", 1001, 8)
        with Connection(self.server) as connection:
            waiting = connection.start()
            connection.flush()
            for number in range(len(reset)):  # cut as a network may cut it
                connection.socket.sendall(reset[number:number + 1])
            connection.h2.send_data(waiting, framed(b""), end_stream=True)
            headers, _ = connection.answer(waiting)
            self.assertEqual(headers["grpc-status"], "0")
            self.assertEqual(connection.call(framed(b""))[0]["grpc-status"], "0")
        with Connection(self.server) as connection:  # but no honest client begins with one
            connection.socket.sendall(reset)
            with self.assertRaisesRegex(AssertionError, "closed the connection"):
                connection.call(framed(b""))

    def test_calls_of_a_grpc_client_outlive_those_that_expire_before_they_are_sent(self):
        import grpc
        rng, request = random.Random(seed()), rank_request("steam", requests_of("steam")[0])
        large = rank_request("steam", {**requests_of("steam")[0], "candidates": requests_of("steam")[0]["candidates"] * 40})
        with grpc.insecure_channel(self.server.target, options=[("grpc.enable_http_proxy", 0), ("rankd.test", 2)]) as channel:
            stub = Stub(channel)
            stub.Rank(request, timeout=10 * TIME_SCALE)  # connected, and a stream was open
            late, whole = [], []
            limit = time.monotonic() + 4
            while time.monotonic() < limit:
                patient = [stub.Rank.future(large, timeout=60 * TIME_SCALE) for _ in range(20)]
                hasty = [stub.Rank.future(request, timeout=10 ** rng.uniform(-4.5, -2.3)) for _ in range(30)]
                late += [call.code() for call in hasty]
                whole += [(call.code(), call.details()) for call in patient]
                time.sleep(0.03)  # at most 1000 resets a second: more are a flood
            lost = [answer for answer in whole if answer[0] is not grpc.StatusCode.OK]
            self.assertEqual(lost, [], f"{len(lost)} of {len(whole)} lost beside {len(late)} with too little time")
            self.assertGreater(late.count(grpc.StatusCode.DEADLINE_EXCEEDED), 0)
            # one that arrives with time left, but not enough of it, is refused
            codes = grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED
            self.assertEqual(set(late) - set(codes), set())

    def test_a_flood_of_pings_ends_the_connection(self):
        with self.server.socket() as sock:
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            ping = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"12345678"
            limit, received = time.monotonic() + 5 * TIME_SCALE, b""
            try:
                while time.monotonic() < limit:
                    sock.sendall(ping * 100)
                    data = sock.recv(65536)
                    if not data:
                        break
                    received += data
                else:
                    self.fail("the connection was still open after 5 s")
            except (BrokenPipeError, ConnectionResetError):
                pass


if __name__ == "__main__":
    main()
