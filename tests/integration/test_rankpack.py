#!/usr/bin/python3
"""rankpack as people use it, and scores against the oracle (oracle.py); models of many shapes come from rankpack synth."""

import json
import random
import unittest

import numpy

from oracle import Oracle
from rankd_fixture import DEMO, main, rankpack, repository_of, requests_of, scratch, seed

TOLERANCE = 1e-5  # of max(1, |logit|)


def random_shape(rng):
    """Arguments of synth for a small model; None where a choice cannot be."""
    op = rng.choice(["dot", "dot", "cat", "dcn_v2"])
    dim = rng.choice([1, 3, 8, 20, 33])
    tables = rng.randint(1, 7)
    dense = rng.randint(1, 9)
    bottom = [dense] + [rng.randint(1, 40) for _ in range(rng.randint(0, 2))]
    bottom.append(dim)
    top = [0] + [rng.randint(1, 70) for _ in range(rng.randint(0, 3))] + [rng.randint(1, 4)]
    arguments = ["--bottom", "-".join(map(str, bottom)), "--top", "-".join(map(str, top)), "--interaction", op,
                 "--context-features", rng.randint(0, tables), "--context-dense", rng.randint(0, dense),
                 "--pooling-factor", rng.randint(1, 5), "--seed", rng.randrange(1 << 30)]
    for t in range(tables):
        arguments += ["--table", f"t{t}:{rng.choice([1, 2, 50, 999])}:{dim if op == 'dot' else rng.randint(1, 40)}"]
    if op == "dcn_v2":
        arguments += ["--cross-layers", rng.randint(1, 4), "--cross-rank", rng.randint(1, 20)]
    if rng.random() < 0.5:
        arguments += ["--weighted"]
    if rng.random() < 0.5:
        arguments += ["--shard-rows", rng.choice([1, 7, 100])]
    return arguments


class TestScores(unittest.TestCase):
    def compare(self, package, requests, path, batch):
        oracle, rounded = Oracle(package), Oracle(package, numpy.float32)
        lines = rankpack("score", package, "--requests", path, "--batch", batch).stdout.splitlines()
        self.assertEqual(len(lines), len(requests))
        for request, line in zip(requests, lines):
            got, expected = json.loads(line), oracle.logits(request)
            self.assertEqual(got["id"], request["id"])

            def error(logits):
                return (numpy.abs(numpy.array(logits) - expected) / numpy.maximum(1, numpy.abs(expected))).max()

            # A deep cross network of random weights cancels more digits than the promise leaves: then plain float32 is the measure.
            tolerance = max(TOLERANCE, 4 * error(rounded.logits(request)))
            self.assertLessEqual(error(got["logits"]), tolerance, f"request {request['id']}")
            probability = 1 / (1 + numpy.exp(-expected))
            self.assertLessEqual(numpy.abs(numpy.array(got["probabilities"]) - probability).max(),
                                 tolerance * numpy.maximum(1, numpy.abs(expected)).max() / 4 + TOLERANCE)

    def test_models_of_any_shape_score_as_the_format_says(self):
        rng = random.Random(seed())
        for number in range(25):
            arguments, candidates, batch = random_shape(rng), rng.choice([1, 2, 5, 70]), rng.choice([1, 3, 64, 512])
            with self.subTest(number=number, arguments=" ".join(map(str, arguments)), candidates=candidates, batch=batch):
                folder = scratch("synth")
                rankpack("synth", *arguments, "--output", folder / "m/1", "--requests", 3, "--candidates", candidates,
                         "--requests-output", folder / "requests.jsonl")
                requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
                self.compare(folder / "m/1", requests, folder / "requests.jsonl", batch)

    def test_the_demo_model_scores_as_the_format_says(self):
        folder = scratch("demo")
        requests = requests_of("steam")[:10]
        (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests), encoding="utf-8")
        self.compare(repository_of("steam") / "steam/1", requests, folder / "requests.jsonl", 16)

    def test_known_shapes_can_be_made_small(self):
        for shape, tables in (("dlrm-26x128", 26), ("mlperf-dlrm-dcnv2", 26)):
            folder = scratch("shape")
            rankpack("synth", "--shape", shape, "--max-rows", 50, "--output", folder / "m/1", "--requests", 1, "--candidates", 3,
                     "--requests-output", folder / "requests.jsonl")
            described = json.loads(rankpack("inspect", folder / "m/1", "--json").stdout)
            self.assertEqual(len(described["tables"]), tables)
            self.assertTrue(all(table["dim"] == 128 and table["rows"] <= 50 for table in described["tables"]))
            requests = [json.loads((folder / "requests.jsonl").read_text(encoding="utf-8"))]
            self.compare(folder / "m/1", requests, folder / "requests.jsonl", 512)

    def test_the_same_seed_makes_the_same_model(self):
        folder = scratch("seed")
        for name, number in (("a", 5), ("b", 5), ("c", 6)):
            rankpack("synth", "--tables", 2, "--rows", 40, "--dim", 4, "--bottom", "3-4", "--top", "0-8-1", "--seed", number,
                     "--output", folder / name / "1")
        bytes_of = {name: (folder / name / "1/table-000.shard-0000.rows").read_bytes() for name in "abc"}
        self.assertEqual(bytes_of["a"], bytes_of["b"])
        self.assertNotEqual(bytes_of["a"], bytes_of["c"])

    def test_rows_in_another_format_are_those_of_a_quantised_package(self):
        folder = scratch("row-format")
        shape = ["--tables", 2, "--rows", 40, "--dim", 12, "--bottom", "3-12", "--top", "0-8-1"]
        rankpack("synth", *shape, "--output", folder / "m/1")
        for number, row_format in enumerate(("fp16", "bf16", "int8", "int4", "int2")):
            made, quantised = folder / f"made-{number}/1", folder / f"quantised-{number}/1"
            rankpack("synth", *shape, "--row-format", row_format, "--output", made)
            rankpack("quantize", folder / "m/1", "--rows", row_format, "--output", quantised)
            for file in "table-000.shard-0000.rows", "table-001.shard-0000.rows", "towers.weights", "golden.scores.jsonl":
                self.assertEqual((made / file).read_bytes(), (quantised / file).read_bytes(), f"{row_format}: {file}")
        refused = rankpack("synth", *shape, "--row-format", "mxint8", "--output", folder / "x/1", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("rankpack quantize makes the others", refused.stderr)

    def test_requests_can_be_made_alone(self):
        folder = scratch("requests-alone")
        asked = ["synth", "--tables", 2, "--rows", 40, "--dim", 4, "--bottom", "3-4", "--top", "0-8-1", "--requests", 3, "--candidates", 5]
        rankpack(*asked, "--requests-output", folder / "with.jsonl", "--output", folder / "m/1")
        alone = rankpack(*asked, "--requests-output", "-").stdout
        self.assertEqual(alone, (folder / "with.jsonl").read_text(encoding="utf-8"))
        nothing = rankpack("synth", "--tables", 2, check=False)
        self.assertEqual(nothing.returncode, 2)
        self.assertIn("there is nothing to make", nothing.stderr)


class TestQuantisedScores(unittest.TestCase):
    ROWS = ["fp32", "fp16", "bf16", "int8", "int4", "int2", "fp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8"]
    MASKS = ["scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16"]  # the highest instruction set that may be used

    def test_every_format_scores_as_the_format_says_with_the_same_bytes_everywhere(self):
        """Where a number lies on the edge between two of the few levels that are left, the last bit of a float32 sum decides to which it goes;
        in float64 it may go to the other. So most logits must be as near as in float32, and the others within a step or two."""
        rng = random.Random(seed())
        errors = []
        for number in range(12):
            arguments, candidates = random_shape(rng), rng.choice([1, 5, 70])
            parts = {part: rng.choice(["fp32", "bf16", "int8"]) for part in ("bottom", "interaction", "top")}
            op = arguments[arguments.index("--interaction") + 1]
            if op == "cat":
                del parts["interaction"]
            layers = {part: number_format for part, number_format in parts.items() if part != "interaction" or op == "dcn_v2"}
            towers = ",".join("=".join(item) for item in parts.items())
            row_format, calibrate = rng.choice(self.ROWS), rng.random() < 0.5 and "int8" in layers.values()
            with self.subTest(number=number, arguments=" ".join(map(str, arguments)), rows=row_format, towers=towers, calibrate=calibrate):
                folder = scratch("quantised")
                path, made = folder / "requests.jsonl", folder / "m/2"
                rankpack("synth", *arguments, "--output", folder / "m/1", "--requests", 3, "--candidates", candidates, "--requests-output", path)
                rankpack("quantize", folder / "m/1", "--rows", row_format, "--towers", towers, "--output", made,
                         *(["--calibrate", path] if calibrate else []))
                outputs = {rankpack("score", made, "--requests", path, "--batch", batch).stdout for batch in (1, 3, 64, 512)}
                outputs |= {rankpack("score", made, "--requests", path, env={"RANKD_CPU": mask}).stdout for mask in self.MASKS}
                self.assertEqual(len(outputs), 1, "the last bits depend on the batch or on the instruction set")
                oracle = Oracle(made)
                for request, line in zip(path.read_text(encoding="utf-8").splitlines(), outputs.pop().splitlines(), strict=True):
                    got, expected = numpy.array(json.loads(line)["logits"]), oracle.logits(json.loads(request))
                    error = numpy.abs(got - expected) / numpy.maximum(1, numpy.abs(expected))
                    self.assertLessEqual(error.max(), 0.5)  # a step of one of the first layers, as later ones pass it on
                    errors += list(error.reshape(-1))
        self.assertLess(numpy.mean(numpy.array(errors) > 2 * TOLERANCE), 0.02)


class TestCommands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.package = repository_of("steam") / "steam/1"

    def test_inspect_counts_what_the_model_costs(self):
        described = json.loads(rankpack("inspect", self.package, "--json").stdout)
        dense = 7 * 64 + 64 * 32 + 32 * 16
        pairs, top = 7 * 6 // 2, 64 * (16 + 7 * 6 // 2) + 64 * 32 + 32 * 2
        shared = 4 * 64 + 3 * (16 + 64)  # four dense inputs, and the products of three context features
        self.assertEqual(described["cost"]["multiply_adds_per_request"], shared)
        self.assertEqual(described["cost"]["multiply_adds_per_candidate"], dense + 16 * pairs + top - shared)
        self.assertEqual(described["cost"]["row_bytes_per_candidate"], 3 * 16 * 4)
        self.assertEqual(described["rows_bytes"], sum(table["rows"] * 64 for table in described["tables"]))
        text = rankpack("inspect", self.package).stdout
        for table in described["tables"]:
            self.assertRegex(text, rf"(?m)^{table['name']} +{table['rows']} +16 +fp32")

    def test_score_against_expectations_prints_the_auc(self):
        text = rankpack("score", self.package, "--requests", DEMO / "requests.jsonl", "--expected", DEMO / "expected.jsonl").stdout
        self.assertRegex(text, r"play +0\.78820")

    def test_score_against_wrong_expectations_fails(self):
        lines = (DEMO / "expected.jsonl").read_text(encoding="utf-8").splitlines()[:5]
        first = json.loads(lines[0])
        first["logits"][3][1] += 0.001
        folder = scratch("expected")
        (folder / "expected.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n", encoding="utf-8")
        (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests_of("steam")[:5]), encoding="utf-8")
        result = rankpack("score", self.package, "--requests", folder / "requests.jsonl", "--expected", folder / "expected.jsonl", check=False)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("candidate 3", result.stdout + result.stderr)

    def test_score_can_print_the_best(self):
        folder = scratch("top")
        (folder / "one.jsonl").write_text(json.dumps(requests_of("steam")[0]) + "\n", encoding="utf-8")
        scores = json.loads(rankpack("score", self.package, "--requests", folder / "one.jsonl").stdout)
        best = max(range(len(scores["logits"])), key=lambda i: scores["logits"][i][0])
        table = rankpack("score", self.package, "--requests", folder / "one.jsonl", "--top", 3).stdout.splitlines()
        self.assertRegex(table[-3], rf"^ *1 +{best}\b")

    def test_verify_says_what_is_damaged(self):
        fine = json.loads(rankpack("verify", self.package, "--json").stdout)
        self.assertTrue(fine["ok"])
        folder = scratch("damaged")
        copy = folder / "1"
        copy.mkdir()
        for file in self.package.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        rows = bytearray((copy / "table-003.shard-0000.rows").read_bytes())
        rows[100] ^= 4
        (copy / "table-003.shard-0000.rows").write_bytes(rows)
        result = rankpack("verify", copy, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("table-003.shard-0000.rows: xxh3 is", result.stderr)

    def test_wrong_words_are_usage_errors_with_a_hint(self):
        for words, hint in ((("inspct", "x"), "inspect"), (("score", self.package), "--requests"), (("import", "--confg", "x"), "--config"),
                            (("synth", "--top", "8-x", "--output", "y"), "--top")):
            result = rankpack(*words, check=False)
            self.assertEqual(result.returncode, 2, (words, result.stderr))
            self.assertIn(hint, result.stderr)

    def test_every_command_has_help_that_begins_with_examples(self):
        for command in ("import", "inspect", "verify", "score", "eval", "plan", "synth"):
            text = rankpack(command, "--help").stdout
            self.assertLess(text.index("Examples:"), text.index("Options:"))
            self.assertIn(f"rankpack {command}", text)


if __name__ == "__main__":
    main()
