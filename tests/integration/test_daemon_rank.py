#!/usr/bin/python3
"""What a client of the Ranking service gets: scores, orders, and an exact status for every request that is wrong or late."""

import json
import os
import random
import threading
import unittest

import grpc

from rankd_fixture import (DEMO, RANKD, RankdServer, TIME_SCALE, expected_of, import_model, main, rank_request, rankpack, read_jsonl, repository_of,
                           requests_of, run, scratch, seed, wait_for)
import health_pb2
import rankd_pb2

CODE = grpc.StatusCode


def big_request(candidates, **fields):
    """A steam request with so many candidates, made of a real one's over and over."""
    request = requests_of("steam")[0]
    some = request["candidates"]
    return rank_request("steam", dict(request, candidates=(some * (candidates // len(some) + 1))[:candidates]), **fields)


LARGE = 1000 if TIME_SCALE == 1 else 150  # candidates


def slow_repository():
    """A repository with steam and "slow", which takes tens of microseconds for a candidate; requests of LARGE candidates to that."""
    repository = scratch("repository")
    import_model("steam", repository)
    (repository / "slow").mkdir()
    rankpack("synth", "--shape", "dlrm-26x128", "--max-rows", 100, "--requests", 1, "--candidates", LARGE,
             "--output", repository / "slow/1", "--requests-output", repository.with_suffix(".jsonl"))
    return repository, read_jsonl(repository.with_suffix(".jsonl"))


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
    """One worker, kept busy by large requests to a slow model, so that what comes behind them waits; the event loop scores nothing
    itself."""
    NUM_BIG = 12
    # In a slow build a few requests are seconds of work.
    ONE_WORKER = ("--workers", 1, "--in-place-us", 0, "--max-queued-ms", 0, "--queue-target-us", 0, "--max-streams", 1024)

    @classmethod
    def setUpClass(cls):
        cls.repository, requests = slow_repository()
        cls.big = rank_request("slow", requests[0])

    def start(self, server, count=NUM_BIG, timeout=100, priority=""):
        """Large requests, of which the worker has begun the first."""
        big = rankd_pb2.RankRequest()
        big.CopyFrom(self.big)
        big.priority = priority
        calls = [server.stub.Rank.future(big, timeout=timeout * TIME_SCALE) for _ in range(count)]
        wait_for(lambda: status(server).batches > 0, "the worker has begun")
        return calls

    def test_requests_that_expire_while_they_wait_are_never_computed(self):
        with RankdServer(self.repository, *self.ONE_WORKER) as server:
            calls = self.start(server)
            request = big_request(7)
            waiting = [server.stub.Rank.future(request, timeout=0.01) for _ in range(40)]
            codes = [call.code() for call in waiting]
            for call in calls:
                call.result()
            wait_for(lambda: status(server).queued == 0, "the queue is empty")
            self.assertLess(codes.count(CODE.OK), 40, codes)
            self.assertEqual(set(codes) - {CODE.OK, CODE.DEADLINE_EXCEEDED, CODE.RESOURCE_EXHAUSTED}, set())
            after = status(server)
            computed = after.batched_candidates - LARGE * self.NUM_BIG
            self.assertLessEqual(computed, 7 * (40 - after.late), f"{after.late} were late")
            self.assertLess(computed, 7 * 40)

    def test_requests_that_are_cancelled_while_they_wait_are_never_computed(self):
        with RankdServer(self.repository, *self.ONE_WORKER) as server:
            calls = self.start(server)
            waiting = [server.stub.Rank.future(big_request(7), timeout=110 * TIME_SCALE) for _ in range(40)]
            wait_for(lambda: status(server).queued >= 40, "they wait in the queue")
            for call in waiting:
                call.cancel()
            wait_for(lambda: status(server).queued < self.NUM_BIG, "they have left the queue, though it is not their turn")
            for call in calls:
                call.result()
            wait_for(lambda: status(server).requests == self.NUM_BIG + 40, "every call has ended")
            after = status(server)
            self.assertEqual(after.batched_candidates, LARGE * self.NUM_BIG)
            self.assertEqual((after.queued, after.late), (0, 0))

    def test_a_full_queue_refuses_with_a_retry_hint_and_serves_what_it_took(self):
        with RankdServer(self.repository, *self.ONE_WORKER, "--max-queued-requests", 3, "--max-pushback-ms", 123) as server:
            calls = self.start(server, 60)
            codes = [call.code() for call in calls]
            self.assertGreaterEqual(codes.count(CODE.OK), 3)
            self.assertGreater(codes.count(CODE.RESOURCE_EXHAUSTED), 0)
            self.assertEqual(set(codes), {CODE.OK, CODE.RESOURCE_EXHAUSTED})
            refused = next(call for call in calls if call.code() == CODE.RESOURCE_EXHAUSTED)
            hints = [int(value) for name, value in refused.trailing_metadata() if name == "grpc-retry-pushback-ms"]
            self.assertEqual(len(hints), 1)
            self.assertTrue(1 <= hints[0] <= 123, hints)
            self.assertIn("the queue is full", refused.details())
            self.assertIn("model 'slow', priority interactive", refused.details())

    def test_batches_form_by_themselves_while_workers_are_busy(self):
        with RankdServer(self.repository, *self.ONE_WORKER) as server:
            calls = self.start(server)
            before = status(server)
            small = [server.stub.Rank.future(big_request(1), timeout=110 * TIME_SCALE) for _ in range(200)]
            for call in calls + small:
                call.result()
            after = status(server)
            self.assertLess(after.batches - before.batches, after.batched_requests - before.batched_requests)

    # ---- who comes first: the order in which calls end ----

    def ends(self, calls):
        """The names of the calls {name: future} in the order in which they end."""
        order, all_ended = [], threading.Event()

        def ended(name):
            order.append(name)
            if len(order) == len(calls):
                all_ended.set()
        for name, call in calls.items():
            call.add_done_callback(lambda call, name=name: ended(name))
        self.assertTrue(all_ended.wait(110 * TIME_SCALE))
        for name, call in calls.items():
            self.assertEqual(call.code(), CODE.OK, f"{name}: {call.details()}")
        return order

    def test_a_flood_of_low_priority_does_not_hold_up_interactive_requests(self):
        with RankdServer(self.repository, *self.ONE_WORKER) as server:
            flood = self.start(server, 20, priority="batch")
            for name in ("", "interactive"):
                server.stub.Rank(big_request(3, priority=name), timeout=110 * TIME_SCALE)
            ended = sum(call.done() for call in flood)
            self.assertLess(ended, 10, "the flood was half over before the interactive requests were answered")
            for call in flood:
                call.result()

    def test_a_flood_of_high_priority_does_not_starve_the_others(self):
        with RankdServer(self.repository, *self.ONE_WORKER) as server:
            calls = dict(enumerate(self.start(server, 20, timeout=50, priority="interactive")))
            calls["low"] = server.stub.Rank.future(big_request(3, priority="batch"), timeout=110 * TIME_SCALE)
            self.assertLess(self.ends(calls).index("low"), 19)

    def test_weights_and_names_of_priorities_are_the_operators(self):
        with RankdServer(self.repository, *self.ONE_WORKER, "--priority-weights", "bulk=1,live=1000") as server:
            flood = self.start(server, 20)  # bulk: the first is the default
            server.stub.Rank(big_request(3, priority="live"), timeout=110 * TIME_SCALE)
            self.assertLess(sum(call.done() for call in flood), 10)
            for call in flood:
                call.cancel()
            with self.assertRaises(grpc.RpcError) as caught:
                server.stub.Rank(big_request(3, priority="interactive"), timeout=10 * TIME_SCALE)
            self.assertEqual(caught.exception.code(), CODE.INVALID_ARGUMENT)
            self.assertEqual(caught.exception.details(), "priority is 'interactive'; this server has: bulk, live")
            ranking = ("rank", "--model", "steam", "--requests", DEMO / "requests.jsonl", "--priority")
            self.assertEqual(len(server.rankctl(*ranking, "live").stdout.splitlines()), len(requests_of("steam")))
            refused = server.rankctl(*ranking, "nobody", check=False)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("priority is 'nobody'; this server has: bulk, live", refused.stderr)
        wrong = run(RANKD, "--model-repository", self.repository, "--priority-weights", "bulk=1,live", "--check", check=False)
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("priority_weights is 'bulk=1,live': 'live' is no class", wrong.stderr)

    def test_the_earliest_deadline_comes_first(self):
        with RankdServer(self.repository, *self.ONE_WORKER) as server:
            blocking = self.start(server, 4, timeout=30)
            calls = {seconds: server.stub.Rank.future(self.big, timeout=seconds * TIME_SCALE) for seconds in (110, 80, 90, 70, 100)}
            self.assertEqual(self.ends(calls), [70, 80, 90, 100, 110])
            for call in blocking:
                call.result()

    def test_a_request_that_cannot_be_done_in_time_is_refused_at_once(self):
        with RankdServer(self.repository, *self.ONE_WORKER) as server:
            huge = rankd_pb2.RankRequest(model="slow", num_candidates=8 * LARGE, context=self.big.context)
            for _ in range(8):
                huge.candidates.dense.extend(self.big.candidates.dense)
            for bags in self.big.candidates.ids:
                huge.candidates.ids.add(feature=bags.feature, ids=list(bags.ids) * 8, lengths=list(bags.lengths) * 8)
            with self.assertRaises(grpc.RpcError) as caught:
                server.stub.Rank(huge, timeout=0.15)
            self.assertEqual(caught.exception.code(), CODE.DEADLINE_EXCEEDED)
            self.assertIn("left too little time for it", caught.exception.details())
            after = status(server)
            self.assertEqual((after.batches, after.late), (0, 1))
            self.assertEqual(len(server.stub.Rank(huge, timeout=100 * TIME_SCALE).probabilities), 8 * LARGE)


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
        with RankdServer(repository_of("steam"), "--workers", 1, "--in-place-us", 1000, "--max-batch", 1, "--max-queued-ms", 0) as server:
            request = big_request(20000)
            large = [server.stub.Rank.future(request, timeout=120 * TIME_SCALE) for _ in range(40)]
            wait_for(lambda: status(server).batches > 0, "the worker has begun")
            server.stub.Rank(big_request(1), timeout=60 * TIME_SCALE)
            self.assertFalse(all(call.done() for call in large), "the large requests were done before the small one")
            for call in large:
                call.cancel()

    def test_requests_that_arrive_together_share_a_batch(self):
        with RankdServer(repository_of("steam"), "--workers", 1, "--in-place-us", 1000, "--max-queued-ms", 0) as server:
            before = status(server)
            calls = [server.stub.Rank.future(big_request(1), timeout=60 * TIME_SCALE) for _ in range(500)]
            for call in calls:
                call.result()
            after = status(server)
            self.assertEqual(after.batched_requests - before.batched_requests, 500)
            self.assertLess(after.batches - before.batches, 500)


class TestWorkers(unittest.TestCase):
    def test_scores_have_the_same_bits_however_a_request_is_spread(self):
        repository, requests = slow_repository()
        both = [rank_request("slow", requests[0], include_logits=True), big_request(3000, include_logits=True)]
        scores = []
        for options in (("--workers", 1), ("--workers", 1, "--max-batch", 7), ("--workers", 2), ("--workers", 5, "--pin-workers", "yes")):
            with RankdServer(repository, *options) as server:
                scores.append([list(server.stub.Rank(request, timeout=60 * TIME_SCALE).logits) for request in both])
        for other in scores[1:]:
            self.assertEqual(other, scores[0])

    def test_a_large_request_is_spread_over_idle_workers(self):
        repository, requests = slow_repository()
        with RankdServer(repository, "--workers", 2) as server:
            server.stub.Rank(rank_request("slow", {**requests[0], "candidates": requests[0]["candidates"][:140]}), timeout=60 * TIME_SCALE)
            after = status(server)
            self.assertEqual(after.batched_candidates, 140)
            self.assertGreaterEqual(after.batches, 2)  # more when one worker is done before the other has woken

    def allowed(self, server, prefix):
        """Thread name: the processors that it may run on, as the kernel lists them."""
        found = {}
        for task in os.listdir(f"/proc/{server.pid}/task"):
            with open(f"/proc/{server.pid}/task/{task}/comm", encoding="ascii") as comm, \
                    open(f"/proc/{server.pid}/task/{task}/status", encoding="ascii") as file:
                name = comm.read().strip()
                if name.startswith(prefix):
                    found[name] = next(line.split()[1] for line in file if line.startswith("Cpus_allowed_list:"))
        return found

    def test_pinned_workers_have_a_processor_each_of_those_that_rankd_may_use(self):
        own = sorted(os.sched_getaffinity(0))
        for mask in (own, own[-1:]):
            os.sched_setaffinity(0, mask)
            try:
                with RankdServer(repository_of("dot"), "--pin-workers", "yes") as server:
                    pinned, loops = self.allowed(server, "worker-"), self.allowed(server, "loop-")
                    self.assertEqual(status(server).workers, len(mask))
                with RankdServer(repository_of("dot")) as server:
                    free = self.allowed(server, "worker-")
            finally:
                os.sched_setaffinity(0, own)
            self.assertEqual(pinned, {f"worker-{i}": str(processor) for i, processor in enumerate(mask)})
            self.assertEqual(set(free.values()), set(loops.values()))

    def test_what_a_model_costs_is_printed_at_start_by_check_and_in_the_status(self):
        cost = r"us by candidates: 1 [0-9.]+, 2 [0-9.]+, .*~?512 [0-9.]+; full at [0-9]+ \([0-9]+ candidates/s\), a further request [0-9.]+"
        check = run(RANKD, "--model-repository", repository_of("steam", "dot"), "--check").stdout
        self.assertRegex(check, "(?m)^cost of dot in " + cost + "$")
        self.assertRegex(check, "(?m)^cost of steam in " + cost + "$")
        with RankdServer(repository_of("steam")) as server:
            self.assertRegex(server.log(), "cost model=steam in " + cost)
            self.assertRegex(server.rankctl("status").stdout, cost)
            self.assertRegex(json.loads(server.rankctl("status", "--json").stdout)["models"][0]["cost"], cost)


if __name__ == "__main__":
    main()
