#!/usr/bin/python3
"""The access log: who has lines, what is in them, and that nobody waits for it."""

import hashlib
import json
import os
import signal
import unittest

import grpc

from rankd_fixture import RANKD, RankdServer, TIME_SCALE, main, rank_request, repository_of, requests_of, run, scratch, wait_for
import health_pb2
import rankd_pb2 as pb

CODE = grpc.StatusCode
SECONDS = 20 * TIME_SCALE
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def rank(server, request, **options):
    try:
        server.stub.Rank(request, timeout=SECONDS, **options)
        return CODE.OK
    except grpc.RpcError as error:
        return error.code()


class TestAccessLog(unittest.TestCase):
    def lines(self, path, count):
        """Lines appear when the loop has nothing else to do."""
        wait_for(lambda: path.exists() and path.read_text().count("\n") >= count, f"{count} lines in the access log")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def test_a_line_says_what_was_asked_and_what_became_of_it(self):
        path = scratch("log") / "access.log"
        request = rank_request("steam", requests_of("steam")[0])
        with RankdServer(repository_of("steam"), "--access-log", path) as server:
            rank(server, request, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
            rank(server, pb.RankRequest(model='no "such" model\\', num_candidates=1), metadata=[("traceparent", "00-0-0-01")])
            wrong = pb.RankRequest()
            wrong.CopyFrom(request)
            wrong.order_by = "nothing"
            rank(server, wrong)
            server.stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            good, unknown, refused, health = self.lines(path, 4)
        self.assertEqual({key: good[key] for key in ("method", "status", "model", "candidates", "request_bytes", "trace_id", "parent_id")},
                         {"method": "/rankd.v1.Ranking/Rank", "status": "OK", "model": "steam", "candidates": request.num_candidates,
                          "request_bytes": request.ByteSize(), "trace_id": TRACE, "parent_id": PARENT})
        self.assertRegex(good["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        self.assertRegex(good["peer"], r"^127\.0\.0\.1:\d+$")
        self.assertGreater(good["us"], 0)
        self.assertGreater(good["response_bytes"], 4 * request.num_candidates)
        self.assertEqual((unknown["status"], unknown["response_bytes"]), ("NOT_FOUND", 0))
        self.assertFalse({"model", "trace_id", "parent_id"} & set(unknown), "neither a model of ours nor a trace")
        self.assertEqual((refused["status"], refused["model"]), ("INVALID_ARGUMENT", "steam"))
        self.assertEqual((health["method"], health["status"]), ("/grpc.health.v1.Health/Check", "OK"))

    def test_a_client_is_called_by_the_name_of_its_token(self):
        folder = scratch("log")
        digests = [hashlib.sha256(token.encode()).hexdigest() for token in ("one", "two")]
        rules, path = folder / "access.yaml", folder / "access.log"
        rules.write_text("tokens: {feed: %s, ads: %s}\nservices: {'*': anyone, rankd.v1.Ranking: {tokens: [feed, ads]}}\n" % tuple(digests))
        with RankdServer(repository_of("dot"), "--access-log", path, "--access-file", rules) as server:
            request = rank_request("dot", requests_of("dot")[0])
            codes = [rank(server, request, metadata=[("authorization", f"Bearer {token}")]) for token in ("one", "two", "three")]
            self.assertEqual(codes, [CODE.OK, CODE.OK, CODE.PERMISSION_DENIED])
            server.stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            self.assertEqual([line.get("client") for line in self.lines(path, 4)], ["feed", "ads", None, None])

    def test_one_call_in_so_many_has_a_line_and_each_that_is_slow(self):
        folder = scratch("log")
        for slow_ms, count in ((60000, 5), (0, 50)):
            path = folder / f"{slow_ms}.log"
            with RankdServer(repository_of("dot"), "--access-log", path, "--access-log-sample", 10, "--access-log-slow-ms", slow_ms) as server:
                request = rank_request("dot", requests_of("dot")[0])
                for _ in range(50):
                    self.assertEqual(rank(server, request), CODE.OK)
                server.stop()
                self.assertEqual(len(self.lines(path, count)), count)

    def test_calls_that_end_otherwise_have_their_lines(self):
        path = scratch("log") / "access.log"
        with RankdServer(repository_of("dot"), "--access-log", path) as server:
            watch = server.channel.unary_stream("/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest.SerializeToString)
            call = watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            next(call)
            call.cancel()
            call = watch(health_pb2.HealthCheckRequest(), timeout=0.3 * TIME_SCALE)
            self.assertEqual(len([next(call)]), 1)
            requests = [pb.RankStreamRequest(id=i, request=rank_request("dot", requests_of("dot")[0])) for i in range(7)]
            stream = server.channel.stream_stream("/rankd.v1.Ranking/RankStream", pb.RankStreamRequest.SerializeToString)
            self.assertEqual(len(list(stream(iter(requests), timeout=SECONDS))), 7)
            lines = self.lines(path, 3)
        given_up = [line["status"] for line in lines if line["method"].endswith("Watch")]
        self.assertEqual((len(given_up), given_up[0]), (2, "CANCELLED"))
        self.assertIn(given_up[1], ("CANCELLED", "DEADLINE_EXCEEDED"), "the client's clock and ours may go off first")
        streamed = next(line for line in lines if line["method"].endswith("RankStream"))
        self.assertEqual(streamed["candidates"], 7 * requests[0].request.num_candidates)
        self.assertEqual(streamed["request_bytes"], sum(request.ByteSize() for request in requests))

    def test_a_file_that_was_renamed_is_opened_anew_on_sighup(self):
        path = scratch("log") / "access.log"
        with RankdServer(repository_of("dot"), "--access-log", path) as server:
            request = rank_request("dot", requests_of("dot")[0])
            rank(server, request)
            self.lines(path, 1)
            path.rename(path.with_suffix(".1"))
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "the access log goes on in" in server.log(), "the file is opened anew")
            rank(server, request)
            rank(server, request)
            self.assertEqual(len(self.lines(path, 2)), 2)
            self.assertEqual(len(self.lines(path.with_suffix(".1"), 1)), 1)

    def test_a_pipe_that_nobody_reads_holds_up_no_call_and_what_is_lost_is_counted(self):
        path = scratch("log") / "pipe"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with RankdServer(repository_of("dot"), "--access-log", path) as server:
            request, calls = rank_request("dot", requests_of("dot")[0]), 0

            def lost():
                nonlocal calls
                for _ in range(100):
                    self.assertEqual(rank(server, request), CODE.OK)
                    calls += 1
                return server.stub.GetStatus(pb.StatusRequest(), timeout=SECONDS).access_log_lost
            wait_for(lost, "lines are lost")
            kept = b""
            while True:
                try:
                    data = os.read(reader, 1 << 16)
                except BlockingIOError:
                    break
                if not data:
                    break
                kept += data
            lines = [json.loads(line) for line in kept.decode().splitlines()]
            self.assertTrue(kept.endswith(b"\n"))
            lost_lines = server.stub.GetStatus(pb.StatusRequest(), timeout=SECONDS).access_log_lost
            self.assertGreaterEqual(len(lines) + lost_lines, calls)
        os.close(reader)

    def test_it_may_go_where_the_log_goes_and_what_cannot_be_opened_is_told(self):
        with RankdServer(repository_of("dot"), "--access-log", "stderr") as server:
            self.assertEqual(rank(server, rank_request("dot", requests_of("dot")[0])), CODE.OK)
            wait_for(lambda: '"method":"/rankd.v1.Ranking/Rank"' in server.log(), "a line on standard error")
        result = run(RANKD, "--model-repository", repository_of("dot"), "--listen", "127.0.0.1:0", "--access-log", "/nowhere/at/all", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("failed to open /nowhere/at/all: No such file or directory", result.stderr)


if __name__ == "__main__":
    main()
