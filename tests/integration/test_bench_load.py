"""rankctl bench against a made-up server whose answers are known: what it counts, times and writes down."""

import concurrent.futures
import csv
import json
import threading
import time

import grpc

import rankd_fixture as fixture

CHECK = "/grpc.health.v1.Health/Check"


class Made(grpc.GenericRpcHandler):
    """A health service that refuses every `refuse`-th call and those that come within `gap_s` of an accepted one, and answers all others after
    `delay_s`; the first only after `stall_s`."""

    def __init__(self, refuse=0, delay_s=0, stall_s=0, gap_s=0):
        self.refuse, self.delay_s, self.stall_s, self.gap_s = refuse, delay_s, stall_s, gap_s
        self.calls, self.lock = 0, threading.Lock()
        self.accepted_s = float("-inf")

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer) if details.method == CHECK else None

    def answer(self, request, context):
        with self.lock:
            self.calls += 1
            number = self.calls
            now_s = time.monotonic()
            refused = now_s < self.accepted_s + self.gap_s or (self.refuse and number % self.refuse == 0)
            if not refused:
                self.accepted_s = now_s
        if refused:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room for this one")
        time.sleep(self.stall_s if number == 1 and self.stall_s else self.delay_s)
        return b""

    def __enter__(self):
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(1 if self.stall_s else 32), [self], options=[("grpc.so_reuseport", 0)])
        self.target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(None).wait()

    def bench(self, *words, check=True):
        return json.loads(fixture.rankctl(self.target, "bench", "--empty", "--json", *words, check=check).stdout)


class TestBenchLoad(fixture.unittest.TestCase):
    def test_refusals_are_counted_and_timed_apart(self):
        with Made(refuse=5) as made:
            found = made.bench("--seconds", 2, "--rate", 200, "--arrivals", "poisson")
        ok, refused = found["by_status"]["OK"], found["by_status"]["RESOURCE_EXHAUSTED"]
        self.assertAlmostEqual(refused / (ok + refused), 0.2, delta=0.01)
        self.assertEqual((found["refused_us"]["count"], found["latency_us"]["count"]), (refused, ok))
        self.assertEqual(found["first_error"], "no room for this one")
        self.assertEqual((found["unanswered"], found["unsent"]), (0, 0))

    def test_random_arrivals_have_the_rate_and_a_seed_repeats_them(self):
        with Made() as made:
            once, again, other = (made.bench("--seconds", 1, "--rate", 500, "--arrivals", "poisson", "--seed", seed) for seed in (7, 7, 8))
        counts = [sum(each["by_status"].values()) + each["unsent"] for each in (once, again, other)]
        self.assertEqual(counts[0], counts[1])
        for count in counts:
            self.assertAlmostEqual(count, 500, delta=5 * 500 ** 0.5)

    def test_latency_is_timed_from_when_a_call_was_due(self):
        """A server that stands still for a while and is fast before and after: as many calls as were due meanwhile had to wait."""
        stall_s = 0.5
        with Made(stall_s=stall_s) as made:
            found = made.bench("--seconds", 2, "--rate", 100, "--warmup-ms", 1, "--connections", 4)
        self.assertGreaterEqual(found["latency_us"]["max"], 0.9 * stall_s * 1e6)
        waited = stall_s / 2  # half of a quarter of all calls waited at least half of the time
        self.assertGreaterEqual(found["latency_us"]["p90"], 0.9 * waited * 1e6)

    def test_goodput_are_answers_within_the_deadline(self):
        delay_ms = 100
        with Made(delay_s=delay_ms / 1000) as made:
            late = made.bench("--seconds", 1, "--rate", 50, "--deadline-ms", delay_ms // 2, check=False)
            fine = made.bench("--seconds", 1, "--rate", 50, "--deadline-ms", int(100 * delay_ms * fixture.TIME_SCALE))
        self.assertEqual((late["goodput_per_s"], list(late["by_status"])), (0, ["DEADLINE_EXCEEDED"]))
        self.assertEqual(list(fine["by_status"]), ["OK"])
        self.assertAlmostEqual(fine["goodput_per_s"], 50, delta=3)
        self.assertGreaterEqual(fine["latency_us"]["p50"], 1000 * delay_ms)

    def test_the_log_adds_up_to_the_counts(self):
        log = fixture.scratch("load") / "load.csv"
        with Made(refuse=4) as made:
            found = made.bench("--seconds", 1, "--rate", 200, "--log", log, "--log-ms", 70)
        with open(log, encoding="ascii") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        self.assertEqual(len(rows), 15)  # 1000 / 70, rounded up
        self.assertEqual([row["begin_us"] - found["begin_us"] for row in rows], [number * 70000 for number in range(15)])
        self.assertEqual(sum(row["ok"] for row in rows), found["by_status"]["OK"])
        self.assertEqual(sum(row["refused"] for row in rows), found["by_status"]["RESOURCE_EXHAUSTED"])
        self.assertEqual(sum(row["ended"] for row in rows), sum(found["by_status"].values()))
        self.assertEqual(max(row["worst_ok_us"] for row in rows), found["latency_us"]["max"])
        for row in rows[:-1]:
            self.assertAlmostEqual(row["ended"], 14, delta=1)

    def test_the_highest_rate_that_holds_a_bound_is_found(self):
        """The server refuses what comes less than 0.3 s after what it answered: 2 calls a second are fine, 4 are not."""
        with Made(gap_s=0.3) as made:
            run = fixture.rankctl(made.target, "bench", "--empty", "--find-rate", "--p99-ms", 10000, "--rate", 2, "--seconds", 1, "--json")
        found = json.loads(run.stdout)
        self.assertIn(found["found_rate"], (1, 2, 3))
        steps = [line for line in run.stderr.splitlines() if "answered, p99" in line]
        self.assertEqual(len(steps), found["measurements"])
        self.assertRegex(steps[0], r"1\. +2/s: ")
        self.assertTrue(any("misses" in step for step in steps))

    def test_no_rate_is_found_where_all_is_refused(self):
        with Made(refuse=1) as made:
            run = fixture.rankctl(made.target, "bench", "--empty", "--find-rate", "--rate", 1, "--seconds", 1, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("no rate holds the bound", run.stderr)

    def test_wrong_words_are_named(self):
        run = fixture.rankctl("127.0.0.1:1", "bench", "--empty", "--arrivals", "sometimes", check=False)
        self.assertEqual(run.returncode, 2)
        self.assertIn("constant or poisson", run.stderr)
        with Made() as made:
            run = fixture.rankctl(made.target, "bench", "--empty", "--seconds", 1, "--log", "/nonexistent/folder/log.csv", check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("/nonexistent/folder/log.csv", run.stderr)


if __name__ == "__main__":
    fixture.main()
