#!/usr/bin/python3
"""rankpack quantize as people use it: the bytes of its rows beside PyTorch's, its scores beside an oracle that knows only FORMAT.md, what it
refuses, how much memory it takes, and that nothing is left of what was interrupted."""

import json
import os
import random
import resource
import signal
import subprocess
import unittest

import numpy

import rankd_fixture as fixture
from oracle import Oracle, row_bytes, stored_rows, table_rows
from test_packed_import import needs_torch, pack_like_torch

ROW_FORMATS = ["fp32", "fp16", "bf16", "int8", "int4", "int2", "fp8_e4m3", "fp8_e5m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2",
               "mxfp4_e2m1", "mxint8"]


def manifest_of(package):
    return json.loads((package / "manifest.json").read_text(encoding="utf-8"))


def synth(folder, *arguments):
    fixture.rankpack("synth", *arguments, "--output", folder / "m/1", "--requests", 4, "--candidates", 30, "--requests-output",
                     folder / "requests.jsonl")
    return folder / "m/1", fixture.read_jsonl(folder / "requests.jsonl")


def logits(package, requests):
    lines = fixture.rankpack("score", package, "--requests", requests).stdout.splitlines()
    return [numpy.array(json.loads(line)["logits"]) for line in lines]


class TestRows(unittest.TestCase):
    @needs_torch
    def test_integer_rows_are_the_bytes_of_torchs_packers(self):
        source = fixture.repository_of("steam") / "steam/1"
        for row_format in ("int8", "int4", "int2"):
            made = fixture.scratch(row_format) / "steam/1"
            fixture.rankpack("quantize", source, "--rows", row_format, "--output", made)
            for before, after in zip(manifest_of(source)["tables"], manifest_of(made)["tables"]):
                self.assertEqual(after["format"], row_format)
                packed = pack_like_torch(row_format, table_rows(source, before).astype(numpy.float32))
                self.assertTrue((stored_rows(made, after) == packed).all(), f"table {before['name']} as {row_format}")

    def test_rows_that_keep_their_format_keep_their_bytes(self):
        source = fixture.repository_of("steam") / "steam/1"
        first, second = (fixture.scratch(name) / "steam/1" for name in "ab")
        fixture.rankpack("quantize", source, "--rows", "mxfp6_e2m3", "--output", first)
        fixture.rankpack("quantize", first, "--towers", "bf16", "--output", second)
        for table in manifest_of(second)["tables"]:
            self.assertTrue((stored_rows(first, table) == stored_rows(second, table)).all())

    def test_random_plans_score_as_the_oracle_says(self):
        rng = random.Random(fixture.seed())
        for number in range(12):
            folder = fixture.scratch("plan")
            dim, tables = rng.choice([4, 20, 33]), rng.randint(1, 4)
            interaction = rng.choice(["dot", "dot", "cat", "dcn_v2"])
            arguments = ["--bottom", f"3-17-{dim}", "--top", f"0-{rng.randint(1, 50)}-2", "--interaction", interaction, "--seed",
                         rng.randrange(1 << 30)]
            for t in range(tables):
                arguments += ["--table", f"t{t}:{rng.choice([3, 449, 900])}:{dim}"]
            if interaction == "dcn_v2":
                arguments += ["--cross-layers", 2, "--cross-rank", 5]
            source, requests = synth(folder, *arguments)
            plan = {"format": {"name": "rankd-plan", "version": 1}, "model": "synth",
                    "towers": {part: rng.choice(["fp32", "bf16", "int8"]) for part in ("bottom", "interaction", "top")}, "tables": []}
            for table in manifest_of(source)["tables"]:
                entry = {"name": table["name"], "format": rng.choice(ROW_FORMATS)}
                if rng.random() < 0.5:
                    entry["kept"] = self.ranges(rng, table["rows"])
                plan["tables"].append(entry)
            with self.subTest(number=number, plan=plan):
                (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
                made = folder / "m/2"
                summary = json.loads(fixture.rankpack("quantize", source, "--plan", folder / "plan.json", "--output", made, "--json").stdout)
                self.assertEqual(summary["bytes_after"], sum(f.stat().st_size for f in made.iterdir()
                                                             if f.suffix in (".rows", ".kept", ".weights")))
                fixture.rankpack("verify", made)
                self.expect_rows(source, made, plan, summary)
                self.expect_scores(made, requests, folder / "requests.jsonl", plan)

    def ranges(self, rng, rows):
        cuts = sorted(rng.sample(range(rows + 1), min(rows + 1, 2 * rng.randint(0, 3))))
        return [[first, end - first] for first, end in zip(cuts[::2], cuts[1::2])]

    def expect_rows(self, source, made, plan, summary):
        for before, after, entry, told in zip(manifest_of(source)["tables"], manifest_of(made)["tables"], plan["tables"], summary["tables"]):
            wanted, got = table_rows(source, before), table_rows(made, after)
            kept = numpy.ones(len(wanted), dtype=bool)
            if "kept" in entry:
                kept[:] = False
                for first, count in entry["kept"]:
                    kept[first:first + count] = True
            self.assertEqual(told["kept"], kept.sum())
            self.assertEqual(len(got), len(wanted))
            if kept.any():
                error = numpy.abs(got[kept] - wanted[kept])
                self.assertAlmostEqual(told["largest_error"], error.max(), delta=1e-6 * (1 + error.max()))
                self.assertAlmostEqual(told["mean_error"], error.mean(), delta=1e-6)
            if not kept.all():  # what dropped ids read is the mean of the dropped rows, in the table's format
                mean, allowed = wanted[~kept].mean(axis=0), 0.6 * numpy.abs(wanted).max()
                self.assertTrue((got[~kept] == got[~kept][0]).all())
                self.assertLessEqual(numpy.abs(got[~kept][0] - mean).max(), allowed if entry["format"] in ("int2", "mxfp4_e2m1") else allowed / 4)

    def expect_scores(self, made, requests, path, plan):
        """Roundings to few digits may fall to the other side of a tie in float64: such a step moves a logit by far less than this."""
        tolerance = 1e-5 if set(plan["towers"].values()) == {"fp32"} else 0.02
        oracle = Oracle(made)
        for request, got in zip(requests, logits(made, path)):
            wanted = oracle.logits(request)
            error = (numpy.abs(got - wanted) / numpy.maximum(1, numpy.abs(wanted))).max()
            self.assertLessEqual(error, tolerance, f"request {request['id']}")


class TestTowers(unittest.TestCase):
    def test_int8_and_bf16_towers_cost_little_on_the_demo_model(self):
        source = fixture.repository_of("steam") / "steam/1"
        true = [numpy.array(scores["logits"]) for scores in fixture.expected_of("steam")[:50]]
        folder = fixture.scratch("towers")
        (folder / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in fixture.requests_of("steam")[:50]), encoding="utf-8")
        for towers, bound in (("bf16", 0.05), ("int8", 0.3)):
            fixture.rankpack("quantize", source, "--towers", towers, "--output", folder / towers / "1")
            error = max(numpy.abs(a - b).max() for a, b in zip(logits(folder / towers / "1", folder / "r.jsonl"), true))
            self.assertLess(error, bound, towers)
            self.assertGreater(error, 1e-6, "nothing was quantised")

    def test_calibration_fixes_the_ranges_that_round_the_sample_best(self):
        folder, rng = fixture.scratch("calibrated"), numpy.random.default_rng(fixture.seed())
        source, requests = synth(folder, "--tables", 2, "--rows", 50, "--dim", 8, "--bottom", "3-8", "--top", "0-16-1")
        for name, tail in (("even", 1), ("outliers", 5)):
            with self.subTest(name):
                path, made = folder / f"{name}.jsonl", folder / name / "1"
                context, candidate = requests[0]["context"], requests[0]["candidates"][0]

                def dense(part):
                    return {**part, "dense": [float(x) for x in rng.uniform(-1, 1, len(part.get("dense", []))) ** tail]}

                sample = [{"id": str(i), "context": dense(context), "candidates": [dense(candidate) for _ in range(20)]} for i in range(150)]
                path.write_text("".join(json.dumps(request) + "\n" for request in sample), encoding="utf-8")
                summary = json.loads(fixture.rankpack("quantize", source, "--towers", "int8", "--calibrate", path, "--output", made, "--json").stdout)
                self.assertEqual(summary["calibrated_candidates"], 3000)
                oracle = Oracle(made)
                seen = numpy.array([r["context"].get("dense", []) + c.get("dense", []) for r in sample for c in r["candidates"]])
                seen = seen * oracle.tensor(oracle.manifest["bottom_mlp"][0]["gain"])

                def rounding(low, high):
                    step = (high - low) / 255
                    return ((numpy.clip(numpy.round(seen / step), numpy.round(low / step), numpy.round(high / step)) * step - seen) ** 2).mean()

                low, high = oracle.manifest["bottom_mlp"][0]["input"]
                ends = min(seen.min(), 0), max(seen.max(), 0)
                self.assertTrue(ends[0] - 1e-6 <= low <= 0 <= high <= ends[1] + 1e-6, f"{low} {high} within {ends}")
                least = min(rounding(ends[0] * l / 20, ends[1] * h / 20) for l in range(1, 21) for h in range(1, 21))
                self.assertLessEqual(rounding(low, high), 1.1 * least)
        for request, got in zip(requests, logits(folder / "even/1", folder / "requests.jsonl")):
            self.assertLess(numpy.abs(got - Oracle(folder / "even/1").logits(request)).max(), 0.1)

    def test_quantised_towers_are_kept_or_refused(self):
        folder = fixture.scratch("again")
        source, _ = synth(folder, "--tables", 1, "--rows", 9, "--dim", 4, "--bottom", "2-4", "--top", "0-8-1")
        fixture.rankpack("quantize", source, "--towers", "int8", "--output", folder / "m/2")
        fixture.rankpack("quantize", folder / "m/2", "--rows", "int8", "--output", folder / "m/3")
        weights = [(folder / version / "towers.weights").read_bytes() for version in ("m/2", "m/3")]
        self.assertEqual(*weights)
        refused = fixture.rankpack("quantize", folder / "m/2", "--towers", "bf16", "--output", folder / "m/4", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("int8 already", refused.stderr)
        self.assertFalse((folder / "m/4").exists())


class TestServing(unittest.TestCase):
    def test_a_quantised_model_is_served_with_the_bytes_of_rankpack_score(self):
        folder = fixture.scratch("served")
        fixture.rankpack("quantize", fixture.repository_of("steam") / "steam/1", "--rows", "int4", "--towers", "int8", "--output",
                         folder / "steam/2")
        (folder / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in fixture.requests_of("steam")[:40]), encoding="utf-8")
        scored = fixture.rankpack("score", folder / "steam/2", "--requests", folder / "r.jsonl").stdout
        with fixture.RankdServer(folder) as server:
            self.assertEqual(server.rankctl("rank", "--model", "steam", "--requests", folder / "r.jsonl").stdout, scored)


class TestCommand(unittest.TestCase):
    def test_wrong_words_say_what_would_be_right(self):
        source, folder = fixture.repository_of("steam") / "steam/1", fixture.scratch("wrong")
        (folder / "plan.json").write_text('{"format": {"name": "rankd-plan", "version": 1}, "tables": [{"name": "user", "kept": [[4000, 100]]}]}',
                                          encoding="utf-8")
        for arguments, code, says in (([], 2, "--plan"), (["--rows", "int9"], 1, "int8"), (["--rows", "usr=int8"], 1, "did you mean 'user'"),
                                      (["--towers", "roof=int8"], 1, "bottom, interaction or top"),
                                      (["--rows", "int8", "--plan", folder / "plan.json"], 2, "--plan"),
                                      (["--plan", folder / "plan.json"], 1, "has 4099"), (["--plan", folder / "none.json"], 1, "none.json"),
                                      (["--rows", "int8", "--calibrate", folder / "plan.json"], 1, "makes no int8 layers"),
                                      (["--towers", "int8", "--calibrate", "-"], 1, "put them into a file"),
                                      (["--towers", "int8", "--calibrate", folder / "none.jsonl"], 1, "none.jsonl")):
            result = fixture.rankpack("quantize", source, *arguments, "--output", folder / "m/1", check=False)
            self.assertEqual(result.returncode, code, f"{arguments}: {result.stderr}")
            self.assertIn(says, result.stderr)
            self.assertFalse((folder / "m").exists() and any((folder / "m").iterdir()), f"{arguments} left something")

    def test_concatenated_vectors_have_no_format_of_their_own(self):
        folder = fixture.scratch("cat")
        source, _ = synth(folder, "--tables", 1, "--rows", 9, "--dim", 4, "--bottom", "2-4", "--top", "0-8-1", "--interaction", "cat")
        refused = fixture.rankpack("quantize", source, "--towers", "interaction=int8,top=int8", "--output", folder / "m/2", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("is cat", refused.stderr)
        fixture.rankpack("quantize", source, "--towers", "int8", "--output", folder / "m/2")

    def test_inspect_and_verify_tell_what_became_of_a_model(self):
        folder = fixture.scratch("told")
        source, _ = synth(folder, "--table", "a:900:4", "--table", "b:9:4", "--bottom", "2-7-4", "--top", "0-8-1")
        (folder / "plan.json").write_text(json.dumps({
            "format": {"name": "rankd-plan", "version": 1}, "towers": {"bottom": "bf16", "interaction": "int8", "top": "int8"},
            "tables": [{"name": "a", "format": "mxfp4_e2m1", "kept": [[5, 10], [700, 1]]}]}), encoding="utf-8")
        made = folder / "m/2"
        fixture.rankpack("quantize", source, "--plan", folder / "plan.json", "--calibrate", folder / "requests.jsonl", "--output", made)
        told = json.loads(fixture.rankpack("inspect", made, "--json").stdout)
        self.assertEqual([(t["name"], t["rows"], t["kept"], t["format"], t["bytes"]) for t in told["tables"]],
                         [("a", 900, 11, "mxfp4_e2m1", 12 * row_bytes("mxfp4_e2m1", 4) + 3 * 64), ("b", 9, 9, "fp32", 9 * 16)])
        self.assertEqual((told["bottom_mlp_formats"], told["interaction"]["format"], told["top_mlp_formats"], told["calibrated"]),
                         (["bf16", "bf16"], "int8", ["int8", "int8"], True))
        self.assertEqual(told["bytes"], sum(f.stat().st_size for f in made.iterdir() if f.suffix in (".rows", ".kept", ".weights")))
        text = fixture.rankpack("inspect", made).stdout
        for expected in (r"(?m)^a +900 +4 mxfp4_e2m1 +11 +1 ", "bottom MLP 7 -> 4 in bf16", "top MLP 8 -> 1 in int8, calibrated", "vectors in int8"):
            self.assertRegex(text, expected)
        self.assertIn("rows       fine", fixture.rankpack("verify", made).stdout)

    def test_a_model_larger_than_the_memory_allowed_passes_through(self):
        folder, rows, dim = fixture.scratch("large"), 700000, 128
        fixture.rankpack("synth", "--table", f"big:{rows}:{dim}", "--bottom", f"2-{dim}", "--top", "0-4-1", "--output", folder / "m/1",
                         "--requests", 1, "--requests-output", folder / "r.jsonl")
        (folder / "half.json").write_text(json.dumps({"format": {"name": "rankd-plan", "version": 1},
                                                      "tables": [{"name": "big", "kept": [[rows // 4, rows // 2]]}]}), encoding="utf-8")
        sanitized = "address" in (os.environ.get("RANKD_SANITIZED") or "")  # whose shadow is data, too
        # A process counts the most memory that it ever held from what it was forked from: so from a small one.
        watch = ("import resource, subprocess, sys\n"
                 "little = None if sys.argv[1] == 'True' else lambda: resource.setrlimit(resource.RLIMIT_DATA, (48 << 20, 48 << 20))\n"
                 "subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL, preexec_fn=little)\n"
                 "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
        for name, stored, arguments in (("all", rows, ["--rows", "int4"]), ("half", rows // 2 + 1, ["--plan", folder / "half.json"])):
            made = folder / name / "1"
            result = subprocess.run(["/usr/bin/python3", "-c", watch, str(sanitized), fixture.RANKPACK, "quantize", folder / "m/1", *arguments,
                                     "--output", made], text=True, capture_output=True, timeout=120 * fixture.TIME_SCALE)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual((made / "table-000.shard-0000.rows").stat().st_size, stored * row_bytes("int4" if name == "all" else "fp32", dim))
            if not sanitized:
                self.assertLess(int(result.stdout) * 1024, rows * dim * 4 * 0.55, "most memory held, against more than half of the model")

    def test_an_interrupt_leaves_nothing(self):
        folder = fixture.scratch("interrupted")
        fixture.rankpack("synth", "--table", "big:300000:128", "--bottom", "2-128", "--top", "0-4-1", "--output", folder / "m/1")
        process = subprocess.Popen([fixture.RANKPACK, "quantize", folder / "m/1", "--rows", "int4", "--output", folder / "m/2"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        fixture.wait_for(lambda: any(p.name.startswith(".2.tmp") for p in (folder / "m").iterdir()) or process.poll() is not None,
                         "the temporary package")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60 * fixture.TIME_SCALE)
        self.assertNotEqual(process.returncode, 0)
        self.assertIn(b"cancelled", errors)
        self.assertEqual([p.name for p in (folder / "m").iterdir()], ["1"])


if __name__ == "__main__":
    fixture.main()
