#!/usr/bin/python3
"""What clients and operators of an overloaded rankd see: refusals at once, hints, degraded answers that say so, a memory limit that
refuses instead of dying, and all of it counted."""

import json
import threading
import time
import unittest

import grpc

from rankd_fixture import RankdServer, TIME_SCALE, main, rank_request, rankpack, read_jsonl, scratch, wait_for
import rankd_pb2

CODE = grpc.StatusCode
CANDIDATES, FEW = (60, 7) if TIME_SCALE == 1 else (12, 3)  # in a slow build, fewer take as long


def slow_repository():
    """A model of which a request takes some milliseconds, and such a request."""
    repository = scratch("repository")
    (repository / "slow").mkdir()
    requests = scratch("requests") / "requests.jsonl"
    rankpack("synth", "--shape", "dlrm-26x128", "--max-rows", 100, "--requests", 1, "--candidates", CANDIDATES,
             "--output", repository / "slow/1", "--requests-output", requests)
    return repository, rank_request("slow", read_jsonl(requests)[0], candidate_ids=list(range(1000, 1000 + CANDIDATES)))


def status(server):
    return server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=10 * TIME_SCALE)


def refusals(server):
    return {refusal.reason: refusal.count for refusal in status(server).refusals}


class Flood:
    """Sends requests whether or not they are answered, some times as many as one worker can do. An overload is noticed long before
    MOST of them are open, and a connection has no more streams: clients that wait for their answers are none."""

    MOST = 1000

    def __init__(self, server, request):
        def once():
            begun = time.monotonic()
            server.stub.Rank(request, timeout=60 * TIME_SCALE)
            return time.monotonic() - begun
        self.pause = min(once() for _ in range(5)) / 5
        self.server, self.request = server, request
        self.stopped, self.open, self.answers, self.refused = False, 0, [], []
        self.lock = threading.Lock()

    def ended(self, call):
        with self.lock:
            self.open -= 1
            if call.code() == CODE.OK:
                self.answers.append(call.result())
            else:
                self.refused.append(call)

    def run(self):
        while not self.stopped:
            with self.lock:
                room = self.open < self.MOST
                self.open += room
            if not room:
                time.sleep(0.001)
                continue
            self.server.stub.Rank.future(self.request, timeout=60 * TIME_SCALE).add_done_callback(self.ended)
            time.sleep(self.pause)

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped = True
        self.thread.join()
        wait_for(lambda: self.open == 0, "the last call has ended", 60)


class TestOverload(unittest.TestCase):
    OPTIONS = ("--workers", 1, "--in-place-us", 0, "--queue-interval-ms", 1, "--max-queued-ms", 0, "--max-streams", 1024)

    @classmethod
    def setUpClass(cls):
        cls.repository, cls.request = slow_repository()

    def test_an_overload_is_refused_with_hints_and_counted_and_ends(self):
        with RankdServer(self.repository, *self.OPTIONS) as server:
            with Flood(server, self.request) as flood:
                wait_for(lambda: list(status(server).overloaded) == ["interactive"], "the overload is noticed", 60)
                wait_for(lambda: len(flood.refused) > 50, "requests are refused", 60)
            self.assertTrue(flood.answers)
            self.assertEqual({call.code() for call in flood.refused}, {CODE.RESOURCE_EXHAUSTED})
            for call in flood.refused:
                self.assertIn("more requests come than can be done", call.details())
                hints = [int(value) for name, value in call.trailing_metadata() if name == "grpc-retry-pushback-ms"]
                self.assertEqual(len(hints), 1)
                self.assertTrue(1 <= hints[0] <= 2000, hints)
            counts = refusals(server)
            self.assertEqual(counts["overload"] + counts["share"], len(flood.refused), counts)
            self.assertEqual(sum(counts.values()), len(flood.refused), counts)
            after = server.stub.Rank(self.request, timeout=60 * TIME_SCALE)
            self.assertEqual(len(after.probabilities), CANDIDATES)
            self.assertFalse(after.degraded)

    def test_a_deadline_behind_the_queue_is_refused_at_once(self):
        with RankdServer(self.repository, *self.OPTIONS, "--queue-target-us", 0) as server:
            calls = [server.stub.Rank.future(self.request, timeout=60 * TIME_SCALE) for _ in range(100)]
            wait_for(lambda: status(server).queued > 50, "they wait")
            # As urgent as the others and no less: the same deadline, but what waits before it takes longer.
            answers = [call.code() for call in calls]
            self.assertEqual(set(answers), {CODE.OK})
            calls = [server.stub.Rank.future(self.request, timeout=0.1 * TIME_SCALE) for _ in range(400)]
            codes = [call.code() for call in calls]
            self.assertLessEqual(set(codes), {CODE.OK, CODE.RESOURCE_EXHAUSTED, CODE.DEADLINE_EXCEEDED})
            self.assertGreater(refusals(server)["behind"], 0, codes)

    def test_only_the_first_candidates_are_ranked_in_an_overload_and_the_answer_says_so(self):
        with RankdServer(self.repository, *self.OPTIONS, "--degraded-candidates", FEW) as server:
            whole = server.stub.Rank(self.request, timeout=60 * TIME_SCALE)
            self.assertEqual((whole.degraded, whole.ranked_candidates, len(whole.probabilities)), (False, 0, CANDIDATES))
            with Flood(server, self.request) as flood:
                wait_for(lambda: any(answer.degraded for answer in list(flood.answers)), "answers are degraded", 60)
            degraded = [answer for answer in flood.answers if answer.degraded]
            for answer in degraded:
                self.assertEqual(answer.ranked_candidates, FEW)
                self.assertEqual(list(answer.probabilities), list(whole.probabilities[:FEW]))
            for answer in flood.answers:
                if not answer.degraded:
                    self.assertEqual(list(answer.probabilities), list(whole.probabilities))
            self.assertGreaterEqual(status(server).degraded, len(degraded))

    def test_past_the_memory_limit_requests_are_refused_and_health_is_not(self):
        with RankdServer(self.repository, *self.OPTIONS, "--memory-limit-mib", 1) as server:
            call = server.stub.Rank.future(self.request, timeout=60 * TIME_SCALE)
            self.assertEqual(call.code(), CODE.RESOURCE_EXHAUSTED)
            self.assertIn("memory_limit_mib", call.details())
            self.assertEqual(refusals(server)["memory"], 1)
            self.assertEqual(json.loads(server.rankctl("status", "--json").stdout)["refusals"], refusals(server))
            self.assertIn("refused      1 memory\n", server.rankctl("status").stdout)


if __name__ == "__main__":
    main()
