#!/usr/bin/python3
"""What a client of the Ranking service gets: scores, orders, and an exact status for every request that is wrong or late."""

import json
import random
import unittest

import grpc

from rankd_fixture import (RankdServer, TIME_SCALE, expected_of, main, rank_request, repository_of, requests_of, seed, wait_for)
import health_pb2
import rankd_pb2

CODE = grpc.StatusCode


def big_request(candidates, **fields):
    """A steam request with so many candidates, made of a real one's over and over."""
    request = requests_of("steam")[0]
    some = request["candidates"]
    return rank_request("steam", dict(request, candidates=(some * (candidates // len(some) + 1))[:candidates]), **fields)


def status(server):
    return server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=10 * TIME_SCALE)


class TestAnswers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of("steam", "dot", "dot_self", "cat", "dcn_v2"), "--workers", 2, "--max-batch", 64)
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def refused(self, code, request, *words):
        with self.assertRaises(grpc.RpcError) as caught:
            self.server.stub.Rank(request, timeout=10 * TIME_SCALE)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        for word in words:
            self.assertIn(word, caught.exception.details())

    def test_scores_of_every_reference_model_are_those_of_the_reference(self):
        for model in ("dot", "dot_self", "cat", "dcn_v2"):
            for request, expected in zip(requests_of(model), expected_of(model)):
                answer = self.server.stub.Rank(rank_request(model, request, include_logits=True), timeout=10 * TIME_SCALE)
                self.assertEqual(answer.model, model)
                self.assertEqual(answer.version, 1)
                self.assertEqual(answer.request_id, request["id"])
                logits = [logit for row in expected["logits"] for logit in row]
                self.assertEqual(len(answer.logits), len(logits))
                for mine, theirs in zip(answer.logits, logits):
                    self.assertLessEqual(abs(mine - theirs), 1e-5 * max(1, abs(theirs)), f"{model} {request['id']}: {mine}, not {theirs}")

    def test_a_request_split_over_workers_scores_as_its_parts_do(self):
        before = status(self.server)
        whole = self.server.stub.Rank(big_request(1000, include_logits=True), timeout=30 * TIME_SCALE)
        after = status(self.server)
        self.assertEqual(after.batched_candidates - before.batched_candidates, 1000)
        self.assertGreaterEqual(after.batched_requests - before.batched_requests, 16)  # 1000 / 64
        request = requests_of("steam")[0]
        part = self.server.stub.Rank(rank_request("steam", request, include_logits=True), timeout=10 * TIME_SCALE)
        count = len(part.logits)
        for i, logit in enumerate(whole.logits):
            self.assertAlmostEqual(logit, part.logits[i % count], delta=1e-5 * max(1, abs(logit)))

    def test_top_k_returns_the_best_in_order_with_positions_and_ids(self):
        rng = random.Random(seed())
        for request in rng.sample(requests_of("steam"), 20):
            count = len(request["candidates"])
            ids = [rng.randrange(-2 ** 62, 2 ** 62) for _ in range(count)]
            everything = self.server.stub.Rank(rank_request("steam", request, include_logits=True, candidate_ids=ids), timeout=10)
            self.assertEqual(list(everything.candidate_ids), ids)
            self.assertEqual(len(everything.positions), 0)
            heads = list(everything.heads)
            for head in heads + [""]:
                k = rng.randint(1, count + 5)
                best = self.server.stub.Rank(
                    rank_request("steam", request, include_logits=True, candidate_ids=ids, top_k=k, order_by=head), timeout=10)
                column = heads.index(head) if head else 0
                order = sorted(range(count), key=lambda i: (-everything.logits[i * len(heads) + column], i))[:k]
                self.assertEqual(list(best.positions), order)
                self.assertEqual(list(best.candidate_ids), [ids[i] for i in order])
                for row, i in enumerate(order):
                    for h in range(len(heads)):
                        self.assertEqual(best.logits[row * len(heads) + h], everything.logits[i * len(heads) + h])
                        self.assertEqual(best.probabilities[row * len(heads) + h], everything.probabilities[i * len(heads) + h])

    def test_logits_come_only_when_asked_for(self):
        answer = self.server.stub.Rank(rank_request("steam", requests_of("steam")[0]), timeout=10)
        self.assertEqual(len(answer.logits), 0)
        self.assertGreater(len(answer.probabilities), 0)

    def test_unknown_models_and_versions_are_not_found_and_the_served_ones_named(self):
        self.refused(CODE.NOT_FOUND, rank_request("steem", requests_of("steam")[0]), "'steem'", "steam version 1")
        self.refused(CODE.NOT_FOUND, rank_request("", requests_of("steam")[0]), "''")
        self.refused(CODE.NOT_FOUND, rank_request("steam", requests_of("steam")[0], version=7), "version 7", "version 1")
        self.server.stub.Rank(rank_request("steam", requests_of("steam")[0], version=1), timeout=10)

    def test_wrong_requests_are_invalid_and_the_field_named(self):
        good = requests_of("steam")[0]
        self.refused(CODE.INVALID_ARGUMENT, rank_request("steam", good, version=-1), "version", "-1")
        self.refused(CODE.INVALID_ARGUMENT, rank_request("steam", good, candidate_ids=[1]), "candidate_ids", "1")
        self.refused(CODE.INVALID_ARGUMENT, rank_request("steam", good, top_k=1, order_by="plays"), "order_by", "'plays'", "play, binge")
        long_id = rank_request("steam", good)
        long_id.request_id = "x" * 129
        self.refused(CODE.INVALID_ARGUMENT, long_id, "request_id", "129")
        long_id.request_id = "x" * 128
        self.assertEqual(self.server.stub.Rank(long_id, timeout=10).request_id, "x" * 128)
        empty = rank_request("steam", good)
        empty.num_candidates = 0
        self.refused(CODE.INVALID_ARGUMENT, empty)
        nan = rank_request("dot", requests_of("dot")[0])
        nan.context.dense[0] = float("nan")
        self.refused(CODE.INVALID_ARGUMENT, nan, "dense")
        outside = rank_request("dot", requests_of("dot")[0])
        outside.context.ids[0].ids[0] = -2 ** 63
        self.refused(CODE.INVALID_ARGUMENT, outside, outside.context.ids[0].feature)
        missing = rank_request("dot", requests_of("dot")[0])
        feature = missing.candidates.ids[0].feature
        del missing.candidates.ids[0]
        self.refused(CODE.INVALID_ARGUMENT, missing, feature)
        self.refused(CODE.INVALID_ARGUMENT, rankd_pb2.RankRequest(model="steam", num_candidates=1))

    def test_bytes_that_are_no_message_are_invalid_and_hurt_nobody(self):
        rng = random.Random(seed())
        raw = self.server.channel.unary_unary("/rankd.v1.Ranking/Rank")
        good = rank_request("steam", requests_of("steam")[0]).SerializeToString()
        for _ in range(300):
            damaged = bytearray(good if rng.random() < 0.7 else rng.randbytes(rng.randrange(400)))
            for _ in range(rng.randrange(1, 8)):
                if damaged:
                    damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
            if rng.random() < 0.3:
                del damaged[rng.randrange(len(damaged) + 1):]
            try:
                raw(bytes(damaged), timeout=10 * TIME_SCALE)
            except grpc.RpcError as error:
                self.assertIn(error.code(), (CODE.INVALID_ARGUMENT, CODE.NOT_FOUND, CODE.RESOURCE_EXHAUSTED, CODE.INTERNAL), error.details())
                if error.code() == CODE.INTERNAL:
                    self.assertIn("logit", error.details())  # values so large that the scores overflowed
        self.server.stub.Rank(rank_request("steam", requests_of("steam")[0]), timeout=10 * TIME_SCALE)

    def test_health_knows_the_server_the_service_and_the_models(self):
        for name in ("", "rankd.v1.Ranking", "steam", "dot"):
            answer = self.server.stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING, name)
        with self.assertRaises(grpc.RpcError) as caught:
            self.server.stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
        self.assertEqual(caught.exception.code(), CODE.NOT_FOUND)

    def test_status_counts_ids_outside_their_table(self):
        def count():
            return next(model.out_of_range_ids for model in status(self.server).models if model.name == "steam")
        before = count()
        request = json.loads(json.dumps(requests_of("steam")[0]))
        request["candidates"][3]["ids"]["game"] = [-7]
        self.refused(CODE.INVALID_ARGUMENT, rank_request("steam", request))
        self.assertEqual(count() - before, 1)

    def test_status_counts_requests_errors_and_candidates(self):
        before = status(self.server)
        self.server.stub.Rank(big_request(10), timeout=10)
        self.refused(CODE.NOT_FOUND, rank_request("nobody", requests_of("steam")[0]))
        after = status(self.server)
        self.assertEqual(after.requests - before.requests, 2)
        self.assertEqual(after.request_errors - before.request_errors, 1)
        self.assertEqual(after.batched_candidates - before.batched_candidates, 10)
        self.assertEqual(after.workers, 2)
        models = {model.name: model for model in after.models}
        self.assertEqual(sorted(models), ["cat", "dcn_v2", "dot", "dot_self", "steam"])
        self.assertEqual(list(models["steam"].heads), ["play", "binge"])
        self.assertEqual(models["steam"].state, "serving")


class TestUnderLoad(unittest.TestCase):
    """One worker, kept busy by large requests, so that what comes behind them waits; the event loop scores nothing itself."""
    BIG, NUM_BIG = 20000, 12
    ONE_WORKER = ("--workers", 1, "--in-place-us", 0)

    def start(self, server):
        request = big_request(self.BIG)
        calls = [server.stub.Rank.future(request, timeout=120 * TIME_SCALE) for _ in range(self.NUM_BIG)]
        wait_for(lambda: status(server).batches > 0, "the worker has begun")
        return calls

    def test_requests_that_expire_while_they_wait_are_never_computed(self):
        with RankdServer(repository_of("steam"), *self.ONE_WORKER) as server:
            calls = self.start(server)
            request = big_request(7)
            late = [server.stub.Rank.future(request, timeout=0.01) for _ in range(40)]
            codes = [call.code() for call in late]
            for call in calls:
                call.result()
            wait_for(lambda: status(server).queued == 0, "the queue is empty")
            self.assertGreater(codes.count(CODE.DEADLINE_EXCEEDED), 0, codes)
            self.assertEqual(set(codes) - {CODE.OK, CODE.DEADLINE_EXCEEDED}, set())
            computed = status(server).batched_candidates - self.BIG * self.NUM_BIG
            in_time = len(codes) - codes.count(CODE.DEADLINE_EXCEEDED)
            self.assertLessEqual(computed, 7 * in_time, f"{codes.count(CODE.DEADLINE_EXCEEDED)} of {len(codes)} expired")

    def test_requests_that_are_cancelled_while_they_wait_are_never_computed(self):
        with RankdServer(repository_of("steam"), *self.ONE_WORKER) as server:
            calls = self.start(server)
            waiting = [server.stub.Rank.future(big_request(7), timeout=60 * TIME_SCALE) for _ in range(40)]
            wait_for(lambda: status(server).queued >= 40, "they wait in the queue")
            for call in waiting:
                call.cancel()
            for call in calls:
                call.result()
            wait_for(lambda: status(server).requests == self.NUM_BIG + 40, "every call has ended")
            wait_for(lambda: status(server).queued == 0, "the queue is empty")
            self.assertEqual(status(server).batched_candidates, self.BIG * self.NUM_BIG)

    def test_a_full_queue_refuses_with_a_retry_hint_and_serves_what_it_took(self):
        with RankdServer(repository_of("steam"), *self.ONE_WORKER, "--max-queued-requests", 3, "--retry-pushback-ms", 123) as server:
            request = big_request(10000)
            calls = [server.stub.Rank.future(request, timeout=120 * TIME_SCALE) for _ in range(60)]
            codes = [call.code() for call in calls]
            self.assertGreater(codes.count(CODE.OK), 3)
            self.assertGreater(codes.count(CODE.RESOURCE_EXHAUSTED), 0)
            self.assertEqual(set(codes), {CODE.OK, CODE.RESOURCE_EXHAUSTED})
            refused = next(call for call in calls if call.code() == CODE.RESOURCE_EXHAUSTED)
            self.assertIn(("grpc-retry-pushback-ms", "123"), [tuple(pair) for pair in refused.trailing_metadata()])
            self.assertIn("steam", refused.details())

    def test_batches_form_by_themselves_while_workers_are_busy(self):
        with RankdServer(repository_of("steam"), *self.ONE_WORKER) as server:
            calls = self.start(server)
            before = status(server)
            small = [server.stub.Rank.future(big_request(1), timeout=60 * TIME_SCALE) for _ in range(200)]
            for call in calls + small:
                call.result()
            after = status(server)
            self.assertLess(after.batches - before.batches, after.batched_requests - before.batched_requests)


class TestInPlace(unittest.TestCase):
    """Small requests on small models are scored by the event loop itself."""
    def answers(self, *options):
        """What each reference model gives for all its requests, and how many batches that took."""
        names = ["cat", "dcn_v2", "dot", "dot_self", "steam"]
        with RankdServer(repository_of(*names), "--workers", 1, *options) as server:
            scores = [list(server.stub.Rank(rank_request(name, request), timeout=30 * TIME_SCALE).probabilities)
                      for name in names for request in requests_of(name)[:20]]
            return scores, status(server)

    def test_scores_are_those_of_the_workers(self):
        in_place, counted = self.answers("--in-place-us", 1000)
        by_workers, counted_by_workers = self.answers("--in-place-us", 0)
        self.assertEqual(counted.batched_candidates, counted_by_workers.batched_candidates)
        self.assertEqual(counted.requests, counted_by_workers.requests)
        self.assertEqual(in_place, by_workers)  # to the last bit, though the batches were others

    def test_small_requests_do_not_wait_behind_large_ones(self):
        # The worker takes one candidate at a time, so that it is busy for long after the last large request has arrived.
        with RankdServer(repository_of("steam"), "--workers", 1, "--in-place-us", 1000, "--max-batch", 1) as server:
            request = big_request(20000)
            large = [server.stub.Rank.future(request, timeout=120 * TIME_SCALE) for _ in range(40)]
            wait_for(lambda: status(server).batches > 0, "the worker has begun")
            server.stub.Rank(big_request(1), timeout=60 * TIME_SCALE)
            self.assertFalse(all(call.done() for call in large), "the large requests were done before the small one")
            for call in large:
                call.result()

    def test_requests_that_arrive_together_share_a_batch(self):
        with RankdServer(repository_of("steam"), "--workers", 1, "--in-place-us", 1000) as server:
            before = status(server)
            calls = [server.stub.Rank.future(big_request(1), timeout=60 * TIME_SCALE) for _ in range(500)]
            for call in calls:
                call.result()
            after = status(server)
            self.assertEqual(after.batched_requests - before.batched_requests, 500)
            self.assertLess(after.batches - before.batches, 500)


if __name__ == "__main__":
    main()
