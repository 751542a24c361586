#!/usr/bin/python3
"""rankpack eval against numpy: every figure of the table is computed again from what rankpack score prints."""

import json
import random
import re
import unittest
import xml.etree.ElementTree

import numpy

from rankd_fixture import DEMO, main, rankpack, repository_of, scratch, seed


def auc(scores, labels):
    """By ranks, ties sharing their mean rank."""
    order = numpy.argsort(scores, kind="stable")
    _, first, counts = numpy.unique(scores[order], return_index=True, return_counts=True)
    ranks = numpy.empty(len(scores))
    ranks[order] = numpy.repeat(first + (counts + 1) / 2, counts)
    positives = labels.sum()
    return (ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))


def normalised_entropy(scores, labels):
    loss = numpy.where(labels, numpy.logaddexp(0, -scores), numpy.logaddexp(0, scores)).mean()
    rate = labels.mean()
    return loss / -(rate * numpy.log(rate) + (1 - rate) * numpy.log(1 - rate))


def top_overlap(scores, truth, k=10):
    """Lists of arrays, one a request."""
    shared = []
    for a, b in zip(scores, truth):
        best = [set(numpy.argsort(-x, kind="stable")[:k]) for x in (a, b)]
        shared.append(len(best[0] & best[1]) / min(k, len(a)))
    return numpy.mean(shared)


def score(package, requests):
    return [numpy.array(json.loads(line)["logits"]) for line in rankpack("score", package, "--requests", requests).stdout.splitlines()]


class TestEval(unittest.TestCase):
    """Three models of one shape, and labels that the first one half predicts; coarse logits give ties."""

    @classmethod
    def setUpClass(cls):
        rng, numbers = random.Random(seed()), numpy.random.default_rng(seed())
        cls.folder = scratch("eval")
        cls.requests, cls.expected = cls.folder / "requests.jsonl", cls.folder / "expected.jsonl"
        shape = ["--table", "user:300:8", "--table", "item:700:8", "--context-features", 1, "--bottom", "4-8", "--top", "0-16-2"]
        cls.models = [cls.folder / name / "1" for name in ("first", "other", "small")]
        number = rng.randrange(1 << 30)
        for i, (model, more) in enumerate(zip(cls.models, ([], [], ["--max-rows", 300]))):
            rankpack("synth", *shape, *more, "--seed", number + i % 2, "--output", model)
        # Ids below 300 are rows of every one of the models.
        rankpack("synth", *shape, "--max-rows", 300, "--seed", number, "--output", cls.folder / "unused/1", "--requests", 40, "--candidates", 23,
                 "--requests-output", cls.requests)
        cls.logits = [score(model, cls.requests) for model in cls.models]
        cls.truth = [numpy.round(logits, 1) for logits in cls.logits[0]]
        cls.labels = [numbers.random(logits.shape) < 1 / (1 + numpy.exp(-logits)) for logits in cls.truth]
        with open(cls.requests, encoding="utf-8") as file:
            cls.ids = [json.loads(line)["id"] for line in file]
        cls.write(cls.expected, cls.truth, cls.labels)

    @classmethod
    def write(cls, path, truth, labels=None):
        lines = [{"id": name, "logits": logits.tolist()} for name, logits in zip(cls.ids, truth)]
        for line, values in zip(lines, labels if labels is not None else []):
            line["labels"] = values.astype(int).tolist()
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def evaluate(self, *arguments, models=None):
        return json.loads(rankpack("eval", *(models or self.models), "--requests", self.requests, "--json", *arguments).stdout)

    def check_errors(self, head, logits, truth, h):
        errors = numpy.abs(numpy.concatenate(logits)[:, h] - numpy.concatenate(truth)[:, h])
        self.assertAlmostEqual(head["largest_error"], errors.max(), delta=1e-6)
        self.assertAlmostEqual(head["p999_error"], numpy.quantile(errors, 0.999, method="inverted_cdf"), delta=1e-6)
        self.assertAlmostEqual(head["mean_squared_error"], (errors ** 2).mean(), delta=1e-6)
        self.assertAlmostEqual(head["top_10_overlap"], top_overlap([x[:, h] for x in logits], [x[:, h] for x in truth]), delta=1e-12)

    def test_every_figure_is_what_numpy_says(self):
        result = self.evaluate("--expected", self.expected)
        self.assertTrue(result["labelled"])
        self.assertEqual((result["requests"], result["candidates"]), (40, 40 * 23))
        labels, aucs = numpy.concatenate(self.labels), {}
        for m, model in enumerate(result["models"]):
            logits = numpy.concatenate(self.logits[m]).astype(numpy.float32)
            for h, head in enumerate(model["heads"]):
                with self.subTest(model=m, head=h):
                    aucs[m, h] = auc(logits[:, h], labels[:, h]), normalised_entropy(logits[:, h].astype(float), labels[:, h])
                    self.assertAlmostEqual(head["auc"], aucs[m, h][0], delta=1e-9)
                    self.assertAlmostEqual(head["auc_loss"], aucs[0, h][0] - aucs[m, h][0], delta=1e-9)
                    self.assertAlmostEqual(head["normalised_entropy"], aucs[m, h][1], delta=1e-6)
                    self.assertAlmostEqual(head["normalised_entropy_loss"], aucs[m, h][1] - aucs[0, h][1], delta=1e-6)
                    self.check_errors(head, self.logits[m], self.truth, h)

    def test_sizes_are_those_of_the_files(self):
        result = self.evaluate()
        sizes = [sum(file.stat().st_size for file in model.iterdir() if file.suffix in (".rows", ".weights")) for model in self.models]
        self.assertEqual([model["bytes"] for model in result["models"]], sizes)
        self.assertEqual([model["rows_bytes"] + model["weights_bytes"] for model in result["models"]], sizes)
        for model, size in zip(result["models"], sizes):
            self.assertAlmostEqual(model["ratio"], sizes[0] / size)

    def test_without_expectations_the_baseline_is_the_truth(self):
        result = self.evaluate("--baseline", self.models[1])
        self.assertEqual(result["baseline"], str(self.models[1]))
        self.assertFalse(result["labelled"])
        for m, model in enumerate(result["models"]):
            for h, head in enumerate(model["heads"]):
                self.assertIsNone(head["auc"])
                self.check_errors(head, self.logits[m], self.logits[1], h)

    def test_a_model_against_itself_differs_by_nothing(self):
        result = self.evaluate("--expected", self.expected, models=[self.models[0]] * 2)
        for head in result["models"][1]["heads"]:
            self.assertEqual((head["auc_loss"], head["normalised_entropy_loss"]), (0, 0))
        for model in self.evaluate(models=[self.models[0]] * 2)["models"]:
            for head in model["heads"]:
                self.assertEqual((head["largest_error"], head["p999_error"], head["mean_squared_error"], head["top_10_overlap"]), (0, 0, 0, 1))

    def test_labels_of_one_class_give_no_auc(self):
        path = self.folder / "one-class.jsonl"
        self.write(path, self.truth, [numpy.zeros(labels.shape) for labels in self.labels])
        for model in self.evaluate("--expected", path)["models"]:
            for head in model["heads"]:
                self.assertIsNone(head["auc"])
                self.assertIsNone(head["normalised_entropy"])
        text = rankpack("eval", *self.models, "--requests", self.requests, "--expected", path).stdout
        self.assertNotIn("nan", text.lower())

    def test_the_table_has_a_row_for_each_model_and_head(self):
        text = rankpack("eval", *self.models, "--requests", self.requests, "--expected", self.expected).stdout
        for model in self.models:
            self.assertEqual(len(re.findall(rf"(?m)^{re.escape(str(model))} .*x ", text)), 2, text)

    def test_the_plot_is_well_formed_and_names_every_model(self):
        odd = self.folder / "a <b> & \"c\" \x01 é" / "1"
        odd.parent.mkdir(exist_ok=True)
        if not odd.exists():
            odd.symlink_to(self.models[1])
        for expected in ([], ["--expected", self.expected]):
            path = self.folder / "plot.svg"
            self.evaluate(*expected, "--plot", path, models=[*self.models, odd])
            root = xml.etree.ElementTree.parse(path).getroot()
            name = "{http://www.w3.org/2000/svg}"
            texts = [node.text for node in root.iter(name + "text")]
            for label in ("first (1x)", "other (1x)", "small (", "a <b> & \"c\" ? é (1x)"):
                self.assertEqual(sum(text is not None and text.startswith(label) for text in texts), 2, label)
            self.assertEqual(len(list(root.iter(name + "circle"))), 2 * 4)
            self.assertEqual(len(list(root.iter(name + "script"))), 0)
            width, height = float(root.get("width")), float(root.get("height"))
            for dot in root.iter(name + "circle"):
                self.assertTrue(0 < float(dot.get("cx")) < width and 0 < float(dot.get("cy")) < height)

    def test_what_does_not_belong_together_is_refused(self):
        def refused(text, *arguments, models=None, code=1):
            result = rankpack("eval", *(models or self.models), *arguments, check=False)
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertIn(text, result.stderr)

        def expecting(truth):
            path = self.folder / "wrong.jsonl"
            self.write(path, truth)
            return "--requests", self.requests, "--expected", path

        empty = self.folder / "empty.jsonl"
        empty.write_text("\n", encoding="utf-8")
        refused("there are 40 requests in", *expecting(self.truth[:-1]))
        refused("has 23 candidates in", *expecting([self.truth[0][:5], *self.truth[1:]]))
        refused("wrong.jsonl:1", *expecting([logits[:, :1] for logits in self.truth]))
        refused("holds no requests", "--requests", empty)
        refused("there are 40 requests in", "--requests", self.requests, "--expected", empty)
        refused("missing.jsonl", "--requests", self.folder / "missing.jsonl")
        refused("missing.jsonl", "--requests", self.requests, "--expected", self.folder / "missing.jsonl")
        refused("nowhere", "--requests", self.requests, models=[self.models[0], self.folder / "nowhere"])
        refused("head 0 is 'head_0'", "--requests", DEMO / "requests.jsonl", models=[repository_of("steam") / "steam/1", self.models[0]])
        refused("--baseline", "--requests", self.requests, "--baseline", "third", code=2)
        refused("--requests must be a file", "--requests", "-", code=2)
        refused("/nowhere/plot.svg", "--requests", self.requests, "--plot", "/nowhere/plot.svg")
        result = rankpack("eval", "--requests", self.requests, check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn("eval needs MODEL_DIR", result.stderr)



class TestCalibrate(unittest.TestCase):
    """rankpack calibrate on the demo model, whose probabilities are too high for its requests."""

    @classmethod
    def setUpClass(cls):
        cls.folder = scratch("calibrate")
        cls.package = repository_of("steam") / "steam/1"
        cls.sample = ["--requests", DEMO / "requests.jsonl", "--expected", DEMO / "expected.jsonl"]
        cls.calibrated = cls.folder / "steam/2"
        cls.calibrated.parent.mkdir()
        cls.result = json.loads(rankpack("calibrate", cls.package, *cls.sample, "--output", cls.calibrated, "--json").stdout)
        cls.logits = numpy.concatenate(score(cls.package, DEMO / "requests.jsonl"))
        cls.labels = numpy.array([label for line in open(DEMO / "expected.jsonl", encoding="utf-8") for label in json.loads(line)["labels"]]) > 0.5

    def test_the_fit_is_where_the_gradient_vanishes(self):
        for h, fitted in enumerate(self.result["calibration"]):
            x, positive = self.logits[:, h], self.labels[:, h]
            targets = numpy.where(positive, (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2))
            off = 1 / (1 + numpy.exp(-(fitted["scale"] * x + fitted["shift"]))) - targets
            self.assertLess(abs(off.mean()), 1e-7, fitted)
            self.assertLess(abs((off * x).mean()), 1e-6, fitted)

    def test_the_figures_are_those_of_the_definitions_and_of_eval(self):
        evaluated = json.loads(rankpack("eval", self.package, self.calibrated, *self.sample, "--json").stdout)["models"]
        for h, (head, fitted) in enumerate(zip(self.result["heads"], self.result["calibration"])):
            x, positive = self.logits[:, h], self.labels[:, h]
            after = fitted["scale"] * x + fitted["shift"]
            self.assertAlmostEqual(head["positive"], positive.mean(), delta=1e-8)
            for when, z, model in (("before", x, evaluated[0]), ("after", after, evaluated[1])):
                self.assertAlmostEqual(head[f"mean_probability_{when}"], (1 / (1 + numpy.exp(-z))).mean(), delta=1e-6)
                self.assertAlmostEqual(head[f"normalised_entropy_{when}"], normalised_entropy(z, positive), delta=1e-6)
                self.assertAlmostEqual(model["heads"][h]["normalised_entropy"], normalised_entropy(z, positive), delta=1e-6)
            self.assertLess(head["normalised_entropy_after"], head["normalised_entropy_before"] - 0.01)
            self.assertAlmostEqual(head["mean_probability_after"], head["positive"], delta=1e-4)
            self.assertEqual(evaluated[0]["heads"][h]["auc"], evaluated[1]["heads"][h]["auc"])

    def test_the_package_is_the_model_with_its_calibration(self):
        rankpack("verify", self.calibrated)
        before, after = (json.loads((path / "manifest.json").read_text(encoding="utf-8")) for path in (self.package, self.calibrated))
        self.assertEqual(after["calibration"], self.result["calibration"])
        for key in ("weights", "tables", "heads", "features"):
            self.assertEqual(before[key], after[key])
        again = json.loads(rankpack("calibrate", self.calibrated, *self.sample, "--json").stdout)
        self.assertEqual(again["calibration"], self.result["calibration"])
        for head in again["heads"]:
            self.assertAlmostEqual(head["normalised_entropy_before"], head["normalised_entropy_after"], delta=1e-12)

    def test_what_cannot_be_fitted_is_refused(self):
        lines = [json.loads(line) for line in open(DEMO / "expected.jsonl", encoding="utf-8")]
        for change, words in ((lambda line: line.pop("labels"), "has no labels for some requests"),
                              (lambda line: line.update(labels=[[0, 0] for _ in line["labels"]]), "head 'play' has 0 positive and"),
                              (lambda line: line.update(labels=[[1 - row[0], row[1]] for row in line["labels"]]), "head 'play': the best scale is -")):
            changed = [json.loads(json.dumps(line)) for line in lines]
            for line in changed:
                change(line)
            (self.folder / "expected.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8")
            result = rankpack("calibrate", self.package, "--requests", DEMO / "requests.jsonl", "--expected", self.folder / "expected.jsonl",
                              "--output", self.folder / "none/1", check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn(words, result.stderr)
            self.assertFalse((self.folder / "none/1").exists())


if __name__ == "__main__":
    main()
