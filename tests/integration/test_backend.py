#!/usr/bin/python3
"""Backends: what the conformance test finds, and how rankd lives with plug-ins, good and bad."""

import math
import os
import re
import subprocess
import unittest

import grpc

from rankd_fixture import (BUILD, DEMO, RANKD, RankdServer, TIME_SCALE, expected_of, import_model, main, rank_request, rankpack, repository_of,
                           requests_of, run, scratch, wait_for)
import health_pb2
import rankd_pb2

CONFORMANCE = BUILD / "tests/conformance/backend_conformance"
PLAIN = BUILD / "tests/conformance/rankd-plain.so"
FAULTY = BUILD / "tests/conformance/rankd-faulty.so"
CODE = grpc.StatusCode


class TestConformance(unittest.TestCase):
    """That the test notices. (That it passes what is right: meson's conformance_cpu and conformance_plain.)"""

    def failures(self, fault):
        """Names of the tests that fail with this fault. (A sanitizer may notice the fault as well: it is not run() that runs this.)"""
        result = subprocess.run([CONFORMANCE], capture_output=True, text=True, timeout=60 * TIME_SCALE, check=False,
                                env={**os.environ, "RANKD_BACKEND": str(FAULTY), "RANKD_BACKEND_OPTIONS": fault})
        self.assertEqual(1, result.returncode, result.stderr[-2000:])
        self.assertRegex(result.stderr, r"conformance\.c:\d+: expected ")
        self.assertIn("Crashing: 0", result.stderr)
        return set(re.findall(r"\[FAIL\] backend::(\w+): exit status \d+", result.stderr))

    def test_wrong_scores(self):
        found = self.failures("scores")
        self.assertLessEqual({"every_architecture_scores_as_on_the_processor", "every_number_format_scores_as_on_the_processor"}, found)

    def test_a_candidate_without_scores(self):
        found = self.failures("missing")
        self.assertLessEqual({"every_architecture_scores_as_on_the_processor", "nothing_but_the_logits_of_the_slices_is_written"}, found)

    def test_a_score_that_depends_on_its_batch_in_the_last_bit(self):
        self.assertIn("a_score_has_the_same_bits_whatever_shares_its_batch", self.failures("neighbours"))

    def test_a_number_too_many(self):
        self.assertIn("nothing_but_the_logits_of_the_slices_is_written", self.failures("spill"))

    def test_batches_without_limit(self):
        self.assertEqual({"batches_past_the_limit_are_refused_whole"}, self.failures("limit"))

    def test_silence_about_damage(self):
        self.assertEqual({"damage_to_a_model_is_noticed_and_leaves_others_alone"}, self.failures("damage"))

    def test_costs_that_do_not_add_up(self):
        self.assertEqual({"a_run_says_where_its_time_went_and_scores_the_same"}, self.failures("cost"))

    def test_one_runner_only(self):
        self.assertIn("runners_on_several_threads_give_the_bits_that_one_gives", self.failures("runners"))

    def test_an_absent_device_is_skipped(self):
        result = run(CONFORMANCE, check=False, env={"RANKD_BACKEND": str(FAULTY), "RANKD_BACKEND_OPTIONS": "absent"})
        self.assertEqual(77, result.returncode, result.stderr)
        self.assertIn("skipped: there is no such device on this machine", result.stderr)


def served_by(backend, *arguments, models=("steam",)):
    return RankdServer(repository_of(*models), "--backend", backend, *arguments)


def rank(server, model="steam", which=0, **fields):
    return server.stub.Rank(rank_request(model, requests_of(model)[which], **fields), timeout=10 * TIME_SCALE)


def refusal(*arguments, repository=None):
    """Exit status and log of a rankd that does not start."""
    result = run(RANKD, "--model-repository", repository or repository_of("steam"), "--listen", "127.0.0.1:0", *arguments, check=False)
    return result.returncode, result.stderr


class TestServing(unittest.TestCase):
    def compare(self, model, server):
        for which, expected in enumerate(expected_of(model)[:3]):
            answer = rank(server, model, which, include_logits=True)
            wanted = [logit for row in expected["logits"] for logit in row]
            self.assertEqual(len(wanted), len(answer.logits))
            for i, (got, want) in enumerate(zip(answer.logits, wanted)):
                self.assertTrue(math.isclose(got, want, rel_tol=1e-5, abs_tol=1e-5), f"{model}: logit {i} is {got}, expected {want}")

    def test_a_plug_in_serves_every_architecture(self):
        models = ("steam", "dot", "cat", "dcn_v2")
        with served_by(PLAIN, models=models) as server:
            for model in models:
                self.compare(model, server)
            status = server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=10 * TIME_SCALE)
            self.assertEqual("plain (double precision, one candidate at a time)", status.backend)
            self.assertIn("backend: plain (double precision", server.log())

    def test_a_plug_in_reads_pruned_tables(self):
        folder = scratch("pruned")
        package = import_model("steam", folder / "models")
        for name in "requests.jsonl", "expected.jsonl":  # the first of them: enough rows to keep
            lines = (DEMO / name).read_text(encoding="utf-8").splitlines(keepends=True)
            (folder / name).write_text("".join(lines[:60]), encoding="utf-8")
        rankpack("plan", package, "--requests", folder / "requests.jsonl", "--expected", folder / "expected.jsonl", "--prune",
                 "--max-auc-loss", "0.001", "--output", folder / "plan.json", timeout=120)
        rankpack("quantize", package, "--plan", folder / "plan.json", "--output", folder / "models/steam/2")
        self.assertIn('"kept"', (folder / "models/steam/2/manifest.json").read_text(encoding="utf-8"))
        with RankdServer(folder / "models", "--backend", PLAIN) as plug_in, RankdServer(folder / "models") as processor:
            for which in range(3):
                ours, theirs = (rank(server, which=which, include_logits=True) for server in (plug_in, processor))
                self.assertEqual(2, ours.version, plug_in.log())
                self.assertEqual(len(theirs.logits), len(ours.logits))
                for i, (got, want) in enumerate(zip(ours.logits, theirs.logits)):
                    self.assertAlmostEqual(want, got, delta=1e-4, msg=f"logit {i}")

    def test_a_device_that_waits_gets_its_workers_and_no_event_loop(self):
        with served_by(FAULTY, "--backend-options", "three_runners", "--in-place-us", "1000") as server:
            status = server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=10 * TIME_SCALE)
            self.assertEqual(3, status.workers)
            for which in range(5):
                self.assertEqual(1, rank(server, which=which, top_k=1).version)

    def test_plug_ins_are_found_by_name_in_backend_path(self):
        with served_by("plain", "--backend-path", PLAIN.parent) as server:
            self.assertEqual(1, rank(server).version)

    def test_a_backend_that_is_not_there(self):
        code, log = refusal("--backend", "cuda", "--backend-path", "/nowhere/plug-ins")
        self.assertEqual(1, code)
        self.assertRegex(log, r"there is no backend 'cuda': looked for rankd-cuda\.so in /nowhere/plug-ins, /\S+/rankd, " + str(RANKD.parent))

    def test_options_that_the_device_does_not_know(self):
        for backend, options in (("cpu", "fast"), (PLAIN, "fast"), (FAULTY, "unheard_of")):
            code, log = refusal("--backend", backend, "--backend-options", options)
            self.assertEqual(2, code, log)
            self.assertIn(options, log)

    def test_an_absent_device(self):
        code, log = refusal("--backend", FAULTY, "--backend-options", "absent")
        self.assertEqual(1, code)
        self.assertIn("failed to open backend faulty: there is no such device on this machine", log)

    def test_a_model_that_does_not_fit(self):
        code, log = refusal("--backend", FAULTY, "--backend-options", "refuse")
        self.assertEqual(1, code)
        self.assertIn("model steam version 1 is not served: failed to load it into backend faulty: the model needs 9 GiB", log)

    def test_a_device_that_computes_something_else_gets_no_traffic(self):
        code, log = refusal("--backend", FAULTY, "--backend-options", "scores", "--check")
        self.assertEqual(1, code)
        self.assertRegex(log, r"model steam version 1 is not served: .*golden request 1: candidate \d+, head '\w+': backend faulty gives the logit")

    def test_a_lost_device_is_unavailable_and_not_serving(self):
        gone = scratch("lost") / "gone"
        with served_by(FAULTY, "--backend-options", f"lost_when={gone}") as server:
            self.assertEqual(1, rank(server).version)
            gone.touch()
            for _ in range(2):
                with self.assertRaises(grpc.RpcError) as refused:
                    rank(server)
                self.assertEqual(CODE.UNAVAILABLE, refused.exception.code())
                self.assertIn("the device that computes is lost", refused.exception.details())
            wait_for(lambda: "ALARM backend faulty is lost" in server.log(), "an alarm")
            self.assertIn("the device has fallen off the bus", server.log())
            for service in ("", "steam"):
                answer = server.stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10 * TIME_SCALE)
                self.assertEqual(health_pb2.HealthCheckResponse.NOT_SERVING, answer.status)
            status = server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=10 * TIME_SCALE)
            self.assertEqual(("unavailable", "the backend's device is lost; restart rankd"), (status.models[0].state, status.models[0].detail))


if __name__ == "__main__":
    main()
