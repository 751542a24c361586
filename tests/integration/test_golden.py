"""Every reference model against its true answers, on both roads: rankpack score (no server), and rankctl through a running rankd."""

import json
import math
import unittest

import rankd_fixture as fixture

TOLERANCE = 1e-5  # of max(1, |logit|): the float32 promise
IN_TREE = {"steam", "dot", "dot_self", "cat", "dcn_v2"}
STEAM_AUC = "0.78820"


def auc(scores, labels):
    """The chance that a positive is scored above a negative; ties count half. By ranks."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    rank_sum, positives, i = 0.0, sum(labels), 0
    while i < len(order):
        j = i
        while j < len(order) and scores[order[j]] == scores[order[i]]:
            j += 1
        mean_rank = (i + 1 + j) / 2
        rank_sum += mean_rank * sum(labels[k] for k in order[i:j])
        i = j
    negatives = len(labels) - positives
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


class TestGolden(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.models = fixture.reference_models()
        cls.repository = fixture.repository_of(*sorted(cls.models))

    def compare(self, name, output, road):
        got, expected = [json.loads(line) for line in output.splitlines()], fixture.expected_of(name)
        self.assertEqual([x["id"] for x in expected], [g["id"] for g in got])
        worst = (0.0, None)
        for x, g in zip(expected, got):
            for kind in ("logits", "probabilities"):
                self.assertEqual([len(row) for row in x[kind]], [len(row) for row in g[kind]], f"{name} {x['id']}: shape of {kind}")
            for i, (wanted, scored, probabilities) in enumerate(zip(x["logits"], g["logits"], g["probabilities"])):
                for head, (w, s, p) in enumerate(zip(wanted, scored, probabilities)):
                    error = abs(w - s) / max(1, abs(w))
                    worst = max(worst, (error, f"{x['id']} candidate {i} head {head}: expected {w!r}, got {s!r}"), key=lambda e: e[0])
                    true_probability = x["probabilities"][i][head]
                    self.assertLessEqual(abs(true_probability - p), TOLERANCE,
                                         f"{name} {x['id']} candidate {i} head {head}: probability {p!r}, expected {true_probability!r}")
                    self.assertLessEqual(abs(sigmoid(s) - p), 1e-6, f"{name} {x['id']}: {p!r} is not the sigmoid of {s!r}")
        self.assertLessEqual(worst[0], TOLERANCE, f"{name} by {road}: {worst[1]}")
        print(f"{name} by {road}: largest error {worst[0]:.2e}", flush=True)

    def score(self, name):
        return fixture.rankpack("score", self.repository / name / "1", "--requests", self.models[name] / "requests.jsonl").stdout

    def test_the_reference_models_are_there(self):
        self.assertLessEqual(IN_TREE, set(self.models))

    def test_rankpack_score_equals_the_reference(self):
        for name in sorted(self.models):
            with self.subTest(model=name):
                self.compare(name, self.score(name), "rankpack score")

    def test_rankd_and_rankctl_equal_the_reference(self):
        with fixture.RankdServer(self.repository) as server:
            for name in sorted(self.models):
                with self.subTest(model=name):
                    output = server.rankctl("rank", "--model", name, "--requests", self.models[name] / "requests.jsonl", timeout=120).stdout
                    self.compare(name, output, "rankd")

    def test_every_instruction_set_equals_the_reference(self):
        outputs = {name: set() for name in IN_TREE - {"steam"}}
        for isa in ("scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16"):  # a mask: the highest that may be used
            with self.subTest(isa=isa):
                for name in sorted(outputs):
                    output = fixture.rankpack("score", self.repository / name / "1", "--requests", self.models[name] / "requests.jsonl",
                                              env={"RANKD_CPU": isa}).stdout
                    self.compare(name, output, f"rankpack score, {isa}")
                    outputs[name].add(output)
        for name, texts in outputs.items():
            self.assertEqual(len(texts), 1, f"{name}: the last bits depend on the instruction set")

    def test_small_batches_give_the_same_scores_as_large_ones(self):
        with fixture.RankdServer(self.repository, "--max-batch", "7") as server:
            for name in sorted(IN_TREE - {"steam"}):
                with self.subTest(model=name):
                    output = server.rankctl("rank", "--model", name, "--requests", self.models[name] / "requests.jsonl").stdout
                    self.compare(name, output, "rankd in batches of 7")

    def test_golden_requests_given_at_import_are_replayed(self):
        folder = self.models["dot"]
        package = fixture.scratch("golden") / "dot/1"
        package.parent.mkdir()
        fixture.rankpack("import", "--config", folder / "config.json", "--weights", folder / "model.safetensors", "--output", package,
                         "--golden-requests", folder / "requests.jsonl", "--golden-scores", folder / "expected.jsonl")
        fixture.rankpack("verify", package)

    def test_wrong_golden_scores_are_refused_at_import(self):
        folder, own = self.models["dot"], fixture.scratch("golden")
        expected = fixture.expected_of("dot")
        wrong = [dict(x, logits=[[v + 0.01 for v in row] for row in x["logits"]]) for x in expected]
        (own / "wrong.jsonl").write_text("".join(json.dumps(x) + "\n" for x in wrong))
        (own / "dot").mkdir()
        result = fixture.rankpack("import", "--config", folder / "config.json", "--weights", folder / "model.safetensors",
                                  "--output", own / "dot/1", "--golden-requests", folder / "requests.jsonl",
                                  "--golden-scores", own / "wrong.jsonl", check=False)
        self.assertNotEqual(result.returncode, 0, result.stdout)
        self.assertFalse((own / "dot/1").exists(), "a package whose scores are wrong was published")

    def test_steam_auc_of_play_is_the_reference_s(self):
        with fixture.RankdServer(self.repository) as server:
            output = server.rankctl("rank", "--model", "steam", "--requests", self.models["steam"] / "requests.jsonl", timeout=120).stdout
        scores = [row[0] for line in output.splitlines() for row in json.loads(line)["logits"]]
        labels = [row[0] for x in fixture.expected_of("steam") for row in x["labels"]]
        self.assertEqual(len(scores), len(labels))
        self.assertEqual(STEAM_AUC, f"{auc(scores, labels):.5f}")


if __name__ == "__main__":
    fixture.main()
