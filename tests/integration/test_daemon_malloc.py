#!/usr/bin/python3
"""A warm rankd answers without malloc, and its memory does not grow.

The proof: an LD_PRELOAD library counts every allocation of the process in a shared file; after some thousand requests of mixed sizes the count
must not move at all while some thousand more are answered."""

import mmap
import os
import queue
import struct
import threading
import unittest

from rankd_fixture import BUILD, RankdServer, Stub, main, rank_request, repository_of, requests_of, scratch

COUNTER = BUILD / "tests/integration/libmalloc_count.so"
SANITIZED = os.environ.get("RANKD_SANITIZED", "none") != "none"
CHANNELS = 4


class Clients:
    """A few persistent connections, each used by its own thread."""

    def __init__(self, target):
        import grpc
        # Channels with the same arguments share one connection, so each gets an argument of its own.
        self.channels = [grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0), ("rankd.test.channel", i)])
                         for i in range(CHANNELS)]
        for channel in self.channels:
            grpc.channel_ready_future(channel).result(timeout=30)
        self.stubs = [Stub(channel) for channel in self.channels]

    def burst(self, requests, rounds):
        """More at once than run() ever has under way: the server's free lists then hold all that it can need."""
        for i in range(rounds):
            calls = [stub.Rank.future(requests[(i + j) % len(requests)], timeout=30) for j in range(6) for stub in self.stubs]
            for call in calls:
                call.result()

    def run(self, requests, rounds):
        errors = []

        def work(stub, first):
            try:
                for i in range(rounds):
                    stub.Rank(requests[(first + i) % len(requests)], timeout=30)
            except Exception as error:  # shown by the main thread
                errors.append(error)
        threads = [threading.Thread(target=work, args=(stub, i * 7)) for i, stub in enumerate(self.stubs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def close(self):
        for channel in self.channels:
            channel.close()


def mixed_requests():
    """Requests from one candidate to all of a player's, with and without top_k, logits, a formula and costs."""
    import rankd_pb2
    formula = rankd_pb2.ValueModel(kind=rankd_pb2.ValueModel.PRODUCT_OF_POWERS,
                                   terms=[rankd_pb2.ValueModel.Term(head="play", weight=1), rankd_pb2.ValueModel.Term(head="binge", weight=0.5)])
    mixed = []
    for i, request in enumerate(requests_of("steam")[:60]):
        part = dict(request, candidates=request["candidates"][:1 + i * 3])
        mixed.append(rank_request("steam", part, top_k=i % 5, include_logits=i % 2 == 0, candidate_ids=list(range(len(part["candidates"]))),
                                  value=formula if i % 3 == 0 else None, include_costs=i % 4 == 0))
    return mixed


class CountedServer(RankdServer):
    """A rankd whose allocations are counted."""

    def __init__(self, *options):
        self.path = scratch("malloc") / "count"
        self.path.write_bytes(bytes(16))
        super().__init__(repository_of("steam"), "--scrub-interval-s", 0, *options,
                         env={"LD_PRELOAD": str(COUNTER), "RANKD_MALLOC_COUNT": str(self.path)})

    def __enter__(self):
        with open(self.path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), 16)
        return super().__enter__()

    def allocations(self):
        return struct.unpack("=Q", self.page[:8])[0]

    def name_callers(self, on):
        """Whether the log says who allocates."""
        self.page[8:16] = struct.pack("=Q", on)


@unittest.skipIf(SANITIZED, "a sanitizer has its own malloc")
class TestMalloc(unittest.TestCase):
    def expect_no_allocation(self, *options):
        with CountedServer(*options) as server:
            self.assertGreater(server.allocations(), 100, "the counter does not count")
            requests, clients = mixed_requests(), Clients(server.target)
            clients.burst(requests, 40)
            clients.run(requests, 1000)
            warm = server.allocations()
            server.name_callers(True)
            clients.run(requests, 500)
            server.name_callers(False)
            after = server.allocations()
            clients.close()
            self.assertEqual(after - warm, 0, f"{after - warm} allocations during {500 * CHANNELS} requests, {warm} before them:\n{server.log()[-8000:]}")

    def test_a_warm_server_answers_without_malloc(self):
        self.expect_no_allocation()

    def test_neither_do_its_workers_need_any(self):
        self.expect_no_allocation("--in-place-us", 0)

    def test_neither_do_the_other_ways_to_ask_nor_the_access_log(self):
        from row_requests import infer_request, prediction_request, tensors
        import rankd_pb2
        some = [dict(request, candidates=request["candidates"][:1 + i * 3]) for i, request in enumerate(requests_of("steam")[:40])]
        asked = [("/inference.GRPCInferenceService/ModelInfer",
                  [infer_request("steam", tensors("steam", each, i % 2 == 0), i % 3 > 0) for i, each in enumerate(some)]),
                 ("/predictor.Predictor/Predict", [prediction_request("steam", each) for each in some])]
        asked = [(path, [request.SerializeToString() for request in requests]) for path, requests in asked]
        streamed = [rankd_pb2.RankStreamRequest(id=i, request=rank_request("steam", each)).SerializeToString() for i, each in enumerate(some)]
        with CountedServer("--access-log", scratch("malloc") / "access.log") as server:
            methods = [(server.channel.unary_unary(path), requests) for path, requests in asked]
            questions = queue.Queue()
            stream = server.channel.stream_stream("/rankd.v1.Ranking/RankStream")(iter(questions.get, None), timeout=300)

            def ask(rounds):
                for i in range(rounds):
                    for method, requests in methods:
                        method(requests[i % len(requests)], timeout=30, metadata=[("traceparent", f"00-{i + 1:032x}-00f067aa0ba902b7-01")])
                    for j in range(4):
                        questions.put(streamed[(i + j) % len(streamed)])
                    for _ in range(4):
                        next(stream)
            ask(1000)
            warm = server.allocations()
            server.name_callers(True)
            ask(500)
            server.name_callers(False)
            self.assertEqual(server.allocations() - warm, 0, f"{warm} allocations before them:\n{server.log()[-8000:]}")
            questions.put(None)

    def test_a_new_connection_to_a_warm_server_costs_little(self):
        with CountedServer() as server:
            requests = mixed_requests()[:5]
            for _ in range(3):
                clients = Clients(server.target)
                clients.run(requests, 20)
                clients.close()
            before = server.allocations()
            clients = Clients(server.target)
            clients.run(requests, 20)
            clients.close()
            after = server.allocations()
            self.assertLessEqual((after - before) / CHANNELS, 32, f"{(after - before) / CHANNELS} allocations per connection")


@unittest.skipIf(SANITIZED, "a sanitizer keeps freed memory")
class TestMemory(unittest.TestCase):
    def test_memory_stays_flat_over_many_requests(self):
        rounds = 250000 if os.environ.get("RANKD_LONG") else 2500  # RANKD_LONG: a million requests
        with RankdServer(repository_of("steam")) as server:
            requests, clients = mixed_requests(), Clients(server.target)
            clients.run(requests, 1000)
            warm = server.status_kb()
            clients.run(requests, rounds)
            after = server.status_kb()
            clients.close()
            self.assertLessEqual(after - warm, 2048, f"{warm} kB after {1000 * CHANNELS} requests, {after} kB after {rounds * CHANNELS} more")


if __name__ == "__main__":
    main()
