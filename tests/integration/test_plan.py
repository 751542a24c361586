#!/usr/bin/python3
"""rankpack plan, held to its word by quantising what it planned and evaluating that: sizes, losses and limits are measured again from outside."""

import json
import pathlib
import random
import unittest

from rankd_fixture import DEMO, main, rankpack, repository_of, requests_of, scratch, seed

REQUESTS = ("--requests", DEMO / "requests.jsonl")
LABELLED = (*REQUESTS, "--expected", DEMO / "expected.jsonl")


def plan(model, folder, *arguments, check=True):
    """The plan's figures; the plan is in FOLDER/plan.json."""
    result = rankpack("plan", model, *arguments, "--output", folder / "plan.json", "--json", check=check)
    return json.loads(result.stdout) if check else result


def carry_out(model, folder):
    rankpack("quantize", model, "--plan", folder / "plan.json", "--output", folder / "planned/1")
    return folder / "planned/1"


def halves():
    """The demo's requests and expected scores, every other line in another half: [half][which file]."""
    folder, result = scratch("halves"), []
    for half in range(2):
        files = []
        for name in ("requests.jsonl", "expected.jsonl"):
            lines = (DEMO / name).read_text(encoding="utf-8").splitlines()[half::2]
            files.append(folder / f"{half}-{name}")
            files[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
        result.append(files)
    return result


class TestSteam(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = repository_of("steam") / "steam/1"

    def evaluate(self, planned, *arguments):
        baseline, other = json.loads(rankpack("eval", self.model, planned, *arguments, "--json").stdout)["models"]
        return baseline, other

    def check(self, figures, planned, measured, requests, expected):
        """What the plan says of itself is what eval finds in the package that quantize makes of it."""
        baseline, other = self.evaluate(planned, "--requests", requests, "--expected", expected)
        self.assertEqual(other["bytes"], figures["bytes_after"])
        self.assertEqual(baseline["bytes"], figures["bytes_before"])
        for head, said in zip(other["heads"], figures[measured]["heads"]):
            self.assertAlmostEqual(head["auc_loss"], said["auc_loss"], delta=1e-6)
            self.assertAlmostEqual(head["normalised_entropy_loss"], said["normalised_entropy_loss"], delta=1e-5)
        return other

    def test_the_limit_on_the_loss_holds_in_the_quantised_package(self):
        for limit, towers in ((0.0003, []), (0.001, ["--towers", "bf16"]), (0.003, ["--towers", "int8", "--prune"])):
            with self.subTest(limit=limit):
                folder = scratch("plan")
                figures = plan(self.model, folder, *LABELLED, "--max-auc-loss", limit, *towers)
                self.assertTrue(figures["met"])
                self.assertGreater(figures["ratio"], 2)
                other = self.check(figures, carry_out(self.model, folder), "measured", *LABELLED[1::2])
                for head in other["heads"]:
                    self.assertLessEqual(head["auc_loss"], limit)

    def test_a_plan_at_a_tenth_of_the_size_loses_little(self):
        folder = scratch("plan")
        tenth = json.loads(rankpack("inspect", self.model, "--json").stdout)["bytes"] // 10
        figures = plan(self.model, folder, *LABELLED, "--max-bytes", tenth, "--prune", "--towers", "int8")
        self.assertLessEqual(figures["bytes_after"], tenth)
        self.assertGreaterEqual(figures["ratio"], 10)
        other = self.check(figures, carry_out(self.model, folder), "measured", *LABELLED[1::2])
        for head in other["heads"]:
            self.assertLessEqual(head["auc_loss"], 0.002)

    def test_rows_that_the_sample_did_not_touch_cost_what_the_holdout_says(self):
        folder, (fit, holdout) = scratch("plan"), halves()
        figures = plan(self.model, folder, "--requests", fit[0], "--expected", fit[1], "--holdout-requests", holdout[0],
                       "--holdout-expected", holdout[1], "--max-bytes", "256K", "--prune")
        planned = carry_out(self.model, folder)
        self.check(figures, planned, "measured", *fit)
        other = self.check(figures, planned, "holdout", *holdout)
        self.assertLess(other["heads"][0]["top_10_overlap"], figures["measured"]["heads"][0]["top_10_overlap"])

    def test_more_bytes_never_mean_more_error(self):
        errors = []
        for size in (320000, 400000, 600000, 1000000, 2000000):
            figures = plan(self.model, scratch("plan"), *REQUESTS, "--max-bytes", size)
            self.assertLessEqual(figures["bytes_after"], size)
            errors.append(figures["predicted_logit_error"])
            # Errors of tables add up, or the search would have no ground to stand on.
            self.assertLess(abs(figures["measured"]["logit_error"] - errors[-1]), 0.3 * errors[-1] + 1e-9)
        self.assertEqual(errors, sorted(errors, reverse=True))

    def test_only_formats_that_were_allowed_are_chosen(self):
        folder = scratch("plan")
        figures = plan(self.model, folder, *REQUESTS, "--max-bytes", "500K", "--formats", "int4,bf16")
        self.assertLessEqual({table["format"] for table in figures["tables"]}, {"int4", "bf16", "fp32"})
        written = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        formats = {table["name"]: table["format"] for table in written["tables"]}
        self.assertEqual(formats, {table["name"]: table["format"] for table in figures["tables"] if table["format"] != "fp32"})

    def test_kept_rows_are_those_that_the_requests_touch(self):
        folder = scratch("plan")
        requests = requests_of("steam")[:30]
        (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests), encoding="utf-8")
        plan(self.model, folder, "--requests", folder / "requests.jsonl", "--max-bytes", "1M", "--prune")
        written = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        for table in written["tables"]:
            touched = {i for request in requests for block in (request["context"], *request["candidates"]) for i in block["ids"].get(table["name"], [])}
            kept = {row for first, count in table["kept"] for row in range(first, first + count)}
            self.assertEqual(kept, touched, table["name"])

    def test_limits_that_cannot_be_met_give_no_plan(self):
        folder = scratch("plan")
        result = plan(self.model, folder, *REQUESTS, "--max-bytes", "100K", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("the smallest", result.stderr)
        self.assertFalse(json.loads(result.stdout)["met"])
        result = plan(self.model, folder, *LABELLED, "--max-auc-loss", "0", "--towers", "int8", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("--max-auc-loss is 0", result.stderr)
        self.assertFalse((folder / "plan.json").exists())


class TestWrongInput(unittest.TestCase):
    def refused(self, text, *arguments, code=1):
        model, output = repository_of("steam") / "steam/1", scratch("refused") / "plan.json"
        result = rankpack("plan", model, *arguments, "--output", output, check=False)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertIn(text, result.stderr)
        self.assertFalse(output.exists())

    def lines(self, name, lines):
        path = scratch("input") / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    def test_files_that_do_not_fit_are_refused(self):
        loss = ("--max-auc-loss", "0.001")
        empty = self.lines("empty.jsonl", [])
        with open(DEMO / "expected.jsonl", encoding="utf-8") as file:
            expected = [json.loads(line) for line in file]
        self.refused("holds no requests", "--requests", empty, "--expected", empty, *loss)
        self.refused("there are 400 requests", *REQUESTS, "--expected", self.lines("few.jsonl", expected[:7]), *loss)
        unlabelled = [{"id": line["id"], "logits": line["logits"]} for line in expected]
        self.refused("labels of both classes", *REQUESTS, "--expected", self.lines("unlabelled.jsonl", unlabelled), *loss)
        one_class = [{**line, "labels": [[0, 0]] * len(line["logits"])} for line in expected]
        self.refused("labels of both classes", *REQUESTS, "--expected", self.lines("one-class.jsonl", one_class), *loss)
        self.refused("empty.jsonl holds no requests", *LABELLED, *loss, "--holdout-requests", empty)
        strange = requests_of("steam")[:1]
        strange[0] = {**strange[0], "context": {**strange[0]["context"], "ids": {}}}
        self.refused("strange.jsonl:1", "--requests", self.lines("strange.jsonl", strange), "--max-bytes", "1M")
        self.refused("/nowhere", *REQUESTS, "--max-bytes", "1M", "--towers", "int8", "--holdout-requests", "/nowhere")

    def test_options_that_do_not_fit_are_wrong_usage(self):
        for text, arguments in (("either --max-auc-loss or --max-bytes", LABELLED),
                                ("either --max-auc-loss or --max-bytes", (*LABELLED, "--max-auc-loss", "0.1", "--max-bytes", "1M")),
                                ("--max-auc-loss needs --expected", (*REQUESTS, "--max-auc-loss", "0.1")),
                                ("--max-auc-loss is 'nan'", (*LABELLED, "--max-auc-loss", "nan")),
                                ("--formats has 'int5'", (*REQUESTS, "--max-bytes", "1M", "--formats", "int8,int5")),
                                ("--formats has 'int8' twice", (*REQUESTS, "--max-bytes", "1M", "--formats", "int8,int8")),
                                ("--holdout-expected needs", (*REQUESTS, "--max-bytes", "1M", "--holdout-expected", "x"))):
            self.refused(text, *arguments, code=2)
        self.refused("--towers", *REQUESTS, "--max-bytes", "1M", "--towers", "int7")


class TestShapes(unittest.TestCase):
    def test_models_of_other_shapes_can_be_planned_and_planned_again(self):
        """A table that no request touches, one of one row, shards, several ids a bag; then the quantised model once more."""
        rng = random.Random(seed())
        folder = scratch("shape")
        rankpack("synth", "--table", "a:3000:12", "--table", "b:1:12", "--table", "c:500:12", "--context-features", 1, "--bottom", "3-12",
                 "--top", "0-9-2", "--shard-rows", 700, "--seed", rng.randrange(1 << 30), "--output", folder / "m/1", "--requests", 20, "--candidates", 9,
                 "--pooling-factor", 3, "--requests-output", folder / "requests.jsonl")
        requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
        for request in requests:
            for candidate in request["candidates"]:
                candidate["ids"]["c"] = []
        (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests), encoding="utf-8")
        size = json.loads(rankpack("inspect", folder / "m/1", "--json").stdout)["bytes"]
        figures = plan(folder / "m/1", folder, "--requests", folder / "requests.jsonl", "--max-bytes", size // 5, "--prune")
        self.assertEqual([(table["touched"], table["pruned"]) for table in figures["tables"] if table["name"] == "c"], [(0, True)])
        planned = carry_out(folder / "m/1", folder)
        second = scratch("again")
        again = plan(planned, second, "--requests", folder / "requests.jsonl", "--max-bytes", figures["bytes_after"], "--prune")
        self.assertEqual(again["bytes_before"], figures["bytes_after"])
        self.assertEqual(again["measured"]["logit_error"], 0)
        result = json.loads(rankpack("eval", folder / "m/1", planned, "--requests", folder / "requests.jsonl", "--json").stdout)
        self.assertEqual(result["models"][1]["bytes"], figures["bytes_after"])
        for head, said in zip(result["models"][1]["heads"], figures["measured"]["heads"]):
            self.assertAlmostEqual(head["largest_error"], said["largest_error"], delta=1e-5)

    def test_nothing_is_left_in_the_temporary_folder(self):
        folder = scratch("left")
        temporary = folder / "tmp"
        temporary.mkdir()
        for size in ("1M", "1K"):
            rankpack("plan", repository_of("steam") / "steam/1", *REQUESTS, "--max-bytes", size, "--output", folder / "plan.json", check=False,
                     env={"TMPDIR": str(temporary)})
            self.assertEqual(list(pathlib.Path(temporary).iterdir()), [])


if __name__ == "__main__":
    main()
