"""The benchmarks of the engine still run, and what they print adds up; on tiny models, so the numbers themselves mean nothing."""

import json
import os
import subprocess
import sys
import unittest
import xml.etree.ElementTree

import rankd_fixture as fixture

SANITIZED = os.environ.get("RANKD_SANITIZED", "none") != "none"
BENCH = fixture.SOURCE / "tests/bench"
SECONDS = ["--seconds", 0.02]
SHAPES = ["dlrm-26x128"] if SANITIZED else ["dlrm-26x128", "mlperf-dlrm-dcnv2"]  # the second takes minutes under a sanitizer


class TestBenchmarks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.made = fixture.scratch("benchmarks")

    def script(self, name, *arguments, code=0):
        command = [sys.executable, BENCH / name, "--build", fixture.BUILD, "--made", self.made, *arguments]
        run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=fixture.TIME_SCALE * 60)
        self.assertEqual(run.returncode, code, f"{name}: {run.stderr}")
        return run

    def results(self, name, *arguments):
        return json.loads(self.script(name, *arguments, "--json").stdout)

    def program(self, name, *arguments):
        return subprocess.run([str(fixture.BUILD / "tests/bench" / name), *arguments], capture_output=True, text=True, timeout=fixture.TIME_SCALE * 10)

    def test_context(self):
        found = self.results("bench_context.py", "--rows", 100, "--requests", 1, *SECONDS)
        self.assertEqual(sorted(found), sorted(f"{model} {towers}" for model in ("feed cat", "feed dot", "dlrm") for towers in ("fp32", "int8")))
        for name, result in found.items():
            self.assertEqual(result["candidates"], 270)
            self.assertAlmostEqual(result["ratio"], result["flat_us"] / result["once_us"], delta=0.01, msg=name)
            if name.endswith("fp32"):
                self.assertLess(result["largest_difference"], 1e-4, f"{name}: the two forms are not the same model")

    def test_overlap(self):
        found = self.results("bench_overlap.py", "--table-gib", 0.005, "--requests", 1, "--candidates", 32, *SECONDS)
        for name in "one_id", "balanced":
            result = found[name]
            longer = max(result["lookup_us"], result["rest_us"])
            self.assertAlmostEqual(result["ratio"], result["whole_us"] / longer, delta=0.01, msg=name)
        self.assertGreaterEqual(found["balanced"]["pooling_factor"], 1)

    def test_overlap_needs_memory(self):
        run = self.script("bench_overlap.py", "--table-gib", 1e6, code=1)
        self.assertRegex(run.stderr, r"GiB are needed in memory, .* are free: give a smaller --table-gib")

    def test_scaling(self):
        for towers, result in self.results("bench_scaling.py", "--rows", 100, *SECONDS).items():
            rate = result["together_per_s"] / result["alone_per_s"] / result["cores"]
            self.assertAlmostEqual(result["ratio"], rate, delta=0.01, msg=towers)

    def test_models_and_their_roofline(self):
        plot = self.made / "roofline.svg"
        found = self.results("bench_models.py", "--rows", 100, "--batch", "1,32", "--roofline", plot, *SECONDS,
                             *(["--models", *SHAPES] if SANITIZED else []))
        self.assertEqual(len(found), 4 if SANITIZED else 9)
        for name, result in found.items():
            self.assertEqual([row["batch"] for row in result["results"]], [1, 32], name)
            for row in result["results"]:
                stages = row["stages"]
                self.assertEqual(list(stages), ["lookup", "interaction", "towers", "rest"], name)
                floor = max(row["gather_us"], row["compute_us"])
                self.assertAlmostEqual(row["of_limit"], floor / row["us_per_batch"], delta=0.001, msg=name)
        points = {title.text.rsplit(":", 1)[0] for title in xml.etree.ElementTree.parse(plot).iter("{http://www.w3.org/2000/svg}title")}
        for name in found:
            self.assertLessEqual({f"{name}, {stage}" for stage in ("lookup", "towers", "whole")}, points)
        for name in SHAPES:
            self.assertIn(f"{name} fp32, interaction", points)

    def test_a_model_has_the_work_that_inspect_says(self):
        for shape in SHAPES:
            folder = self.made / f"work-{shape}"
            fixture.rankpack("synth", "--shape", shape, "--max-rows", 50, "--output", folder / "m/1", "--requests", 1, "--candidates", 3,
                             "--requests-output", folder / "requests.jsonl")
            cost = json.loads(fixture.rankpack("inspect", folder / "m/1", "--json").stdout)["cost"]
            run = self.program("bench_engine", "--model", str(folder / "m/1"), "--requests", str(folder / "requests.jsonl"), "--batch", "3",
                               "--seconds", "0.02", "--json")
            stages = json.loads(run.stdout)["results"][0]["stages"]
            wanted = cost["multiply_adds_per_request"] + 3 * cost["multiply_adds_per_candidate"]
            self.assertAlmostEqual((stages["interaction"]["macs"] + stages["towers"]["macs"]) / wanted, 1, delta=0.002, msg=shape)

    def test_wrong_options_are_refused(self):
        for name in "bench_engine", "bench_context", "bench_overlap", "bench_scaling":
            help_text = self.program(name, "--help")
            self.assertEqual(help_text.returncode, 0)
            self.assertIn("--requests", help_text.stdout)
            for arguments, why in (([], "--model is missing"), (["--seconds", "-1"], "--seconds is '-1', must be seconds, more than 0"),
                                   (["--json=1"], "takes no value"), (["--speed", "1"], "--speed is no option")):
                run = self.program(name, *arguments)
                self.assertEqual(run.returncode, 2, f"{name} {arguments}")
                self.assertIn(why, run.stderr)

    def test_a_missing_model_is_named(self):
        run = self.program("bench_engine", "--model", "/nonexistent/model/1", "--requests", "/dev/null")
        self.assertEqual(run.returncode, 1)
        self.assertIn("/nonexistent/model/1", run.stderr)


if __name__ == "__main__":
    fixture.main()
