#!/usr/bin/python3
"""What becomes of a model's logits: calibration, value models, the best by either; and what an answer says beside the scores."""

import json
import math
import random
import time
import unittest

import grpc

from rankd_fixture import (RankdServer, TIME_SCALE, expected_of, main, rank_request, rankpack, read_jsonl, reference_models, requests_of, scratch,
                           seed)
import rankd_pb2

CODE = grpc.StatusCode
MAX_BATCH = 64
SUMS, LOGITS, POWERS = (rankd_pb2.ValueModel.SUM_OF_PROBABILITIES, rankd_pb2.ValueModel.SUM_OF_LOGITS, rankd_pb2.ValueModel.PRODUCT_OF_POWERS)
ENGAGE = {"name": "engage", "kind": "product_of_powers", "factor": 2.5, "terms": [{"head": "play", "weight": 1}, {"head": "binge", "weight": 0.5}]}
EITHER = {"name": "either", "kind": "sum_of_probabilities", "terms": [{"head": "binge", "weight": 0.75}, {"head": "play", "weight": 0.25}]}


def formula(kind, factor=0.0, **weights):
    return rankd_pb2.ValueModel(kind=kind, factor=factor, terms=[rankd_pb2.ValueModel.Term(head=head, weight=weight) for head, weight in weights.items()])


def plain_value(model, heads, logits, probabilities):
    """The definition, for one candidate, from what the answer says."""
    logit, p, factor = dict(zip(heads, logits)), dict(zip(heads, probabilities)), model.factor or 1.0
    if model.kind == POWERS:
        return factor * math.prod(max(p[term.head], 2.0 ** -126) ** term.weight for term in model.terms)
    return factor * math.fsum(term.weight * (logit if model.kind == LOGITS else p)[term.head] for term in model.terms)


def import_steam(**fields):
    """A repository with the demo model, its configuration changed, as 'steam' version 1."""
    repository, folder = scratch("answers"), reference_models()["steam"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for table in config["tables"]:
        if table["name"] in ("game", "history"):
            table["out_of_range"] = "modulo"
    config.update(fields)
    (repository / ".config.json").write_text(json.dumps(config), encoding="utf-8")
    (repository / "steam").mkdir()
    rankpack("import", "--config", repository / ".config.json", "--weights", folder / "model.safetensors", "--output", repository / "steam/1")
    return repository


def many(candidates):
    """A request with so many candidates, made of a real one's over and over."""
    request = requests_of("steam")[0]
    some = request["candidates"]
    return dict(request, candidates=(some * (candidates // len(some) + 1))[:candidates])


class Served(unittest.TestCase):
    options, fields = (), {}

    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(import_steam(**cls.fields), "--workers", 2, "--max-batch", MAX_BATCH, *cls.options)
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def rank(self, request, **fields):
        return self.server.stub.Rank(rank_request("steam", request, **fields), timeout=20 * TIME_SCALE)

    def refused(self, code, text, request, **fields):
        with self.assertRaises(grpc.RpcError) as caught:
            self.rank(request, **fields)
        self.assertEqual((caught.exception.code(), caught.exception.details()), (code, text))


class TestCosts(Served):
    STAGES = ("receive_us", "queue_us", "lookup_us", "interaction_us", "towers_us", "rest_us", "answer_us")

    def test_they_come_only_when_asked_for_and_change_no_score(self):
        plain = self.rank(many(50), include_logits=True)
        self.assertFalse(plain.HasField("costs"))
        asked = self.rank(many(50), include_logits=True, include_costs=True)
        self.assertTrue(asked.HasField("costs"))
        asked.ClearField("costs")
        self.assertEqual(asked, plain)

    def test_the_stages_of_one_batch_are_the_time_in_the_server(self):
        for _ in range(20):
            begin = time.monotonic()
            costs = self.rank(many(50), include_costs=True).costs
            passed_us = (time.monotonic() - begin) * 1e6
            self.assertEqual(costs.batch_candidates, 50)
            for stage in self.STAGES[2:]:
                self.assertGreater(getattr(costs, stage), 0, f"{stage}: {costs}")
            if costs.batches == 1:  # it was not spread over workers
                self.assertLessEqual(sum(getattr(costs, stage) for stage in self.STAGES), costs.total_us + 0.01, str(costs))
            self.assertLess(costs.total_us, passed_us, str(costs))

    def test_those_of_many_batches_are_their_sum(self):
        costs = self.rank(many(1000), include_costs=True).costs
        self.assertGreaterEqual(costs.batches, 1000 // MAX_BATCH)
        self.assertEqual(costs.batch_candidates, 1000)
        for stage in self.STAGES[2:]:
            self.assertGreater(getattr(costs, stage), 0, f"{stage}: {costs}")


class TestSharedCosts(Served):
    """One worker that is busy, so that small requests wait and then share batches."""

    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(import_steam(), "--workers", 1, "--max-batch", MAX_BATCH, "--in-place-us", 0, "--max-queued-ms", 0,
                                 "--max-streams", 1024)
        cls.server.__enter__()

    def test_a_request_that_shares_a_batch_is_told_all_of_it(self):
        large, small = rank_request("steam", many(20000)), rank_request("steam", many(1), include_costs=True)
        busy = [self.server.stub.Rank.future(large, timeout=60 * TIME_SCALE) for _ in range(12)]
        calls = [self.server.stub.Rank.future(small, timeout=60 * TIME_SCALE) for _ in range(200)]
        costs = [call.result().costs for call in calls]
        for call in busy:
            call.result()
        for cost in costs:
            self.assertEqual(cost.batches, 1)
            self.assertTrue(1 <= cost.batch_candidates <= MAX_BATCH, cost)
            self.assertLess(cost.queue_us, cost.total_us)
        self.assertGreater(max(cost.batch_candidates for cost in costs), 1)


class TestCostsInPlace(TestCosts):
    """The same where the event loop itself scores what is small."""
    options = ("--in-place-us", 1000)


class TestCostsByWorkers(TestCosts):
    options = ("--in-place-us", 0)


class TestOutOfRange(Served):
    def test_they_are_counted_by_feature(self):
        request = json.loads(json.dumps(requests_of("steam")[0]))
        plain = self.rank(request)
        self.assertEqual((plain.out_of_range_ids, list(plain.out_of_range)), (0, []))
        for i in (0, 3, 5):
            request["candidates"][i]["ids"]["game"] = [-1 - i]
        request["context"]["ids"]["history"][0] += 3600
        answer = self.rank(request)
        self.assertEqual(answer.out_of_range_ids, 4)
        self.assertEqual([(item.feature, item.count) for item in answer.out_of_range], [("history", 1), ("game", 3)])
        self.assertEqual(answer.version, 1)


class TestValues(Served):
    fields = {"value_models": [ENGAGE, EITHER]}
    FORMULAS = (formula(SUMS, play=0.3, binge=0.7), formula(SUMS, factor=-2, binge=1), formula(LOGITS, binge=1.5, play=-0.5),
                formula(LOGITS, play=0), formula(POWERS, play=1, binge=0.5), formula(POWERS, factor=3, binge=-0.25), formula(POWERS, play=0.1, binge=2))

    def check(self, request, answer, everything, value, k):
        """The answer has the values of `value` and, with k, the best k by them, against the answer without top_k."""
        count, heads = len(request["candidates"]), list(everything.heads)
        rows = [(everything.logits[i * 2:i * 2 + 2], everything.probabilities[i * 2:i * 2 + 2]) for i in range(count)]
        expected = [plain_value(value, heads, *row) for row in rows]
        order = list(answer.positions) if k else list(range(count))
        self.assertEqual(len(order), min(k, count) if k else count)
        self.assertEqual(len(answer.values), len(order))
        for value_of, i in zip(answer.values, order):
            self.assertAlmostEqual(value_of, expected[i], delta=1e-12 * max(1, abs(expected[i])))
        if k:
            all_values = list(everything.values)
            self.assertEqual(order, sorted(range(count), key=lambda i: (-all_values[i], i))[:k])
            self.assertEqual(list(answer.values), [all_values[i] for i in order])
            self.assertEqual(list(answer.probabilities), [p for i in order for p in rows[i][1]])

    def test_values_are_the_formula_and_top_k_sorts_by_them(self):
        rng = random.Random(seed())
        for request in rng.sample(requests_of("steam"), 10):
            for value in self.FORMULAS:
                everything = self.rank(request, include_logits=True, value=value)
                self.assertEqual((len(everything.positions), everything.value_model), (0, ""))
                self.check(request, everything, everything, value, 0)
                for k in (1, rng.randint(2, len(request["candidates"])), len(request["candidates"]) + 7):
                    self.check(request, self.rank(request, top_k=k, value=value), everything, value, k)

    def test_those_of_the_model_are_named(self):
        request = requests_of("steam")[0]
        for model, value in ((ENGAGE, formula(POWERS, factor=2.5, play=1, binge=0.5)), (EITHER, formula(SUMS, binge=0.75, play=0.25))):
            named, given = self.rank(request, value_model=model["name"]), self.rank(request, value=value)
            self.assertEqual((named.value_model, given.value_model), (model["name"], ""))
            self.assertEqual(list(named.values), list(given.values))
            self.assertGreater(len(set(named.values)), 1)

    def test_without_one_there_are_no_values(self):
        answer = self.rank(requests_of("steam")[0], top_k=3)
        self.assertEqual((len(answer.values), answer.value_model), (0, ""))

    def test_equal_values_stand_in_the_order_of_the_request(self):
        request = many(1000)  # every candidate is there many times
        answer = self.rank(request, top_k=1000, value=formula(POWERS, play=1, binge=0.5))
        places = list(zip(answer.values, answer.positions))
        self.assertEqual(places, sorted(places, key=lambda place: (-place[0], place[1])))
        self.assertLess(len(set(answer.values)), 100)

    def test_values_have_the_same_bits_whatever_shares_the_batch(self):
        request, value = many(500), formula(POWERS, play=0.7, binge=0.3)
        whole = self.rank(request, value=value)
        for i in (0, 63, 64, 250, 499):
            one = self.rank(dict(request, candidates=[request["candidates"][i]]), value=value)
            self.assertEqual(one.values[0], whole.values[i])

    def test_what_is_wrong_is_invalid_and_named(self):
        good, play = requests_of("steam")[0], formula(SUMS, play=1)
        one = "give one of order_by, value_model and value"
        for text, fields in (
                (f"order_by and value are both given; {one}", {"order_by": "play", "value": play}),
                (f"order_by and value_model are both given; {one}", {"order_by": "play", "value_model": "engage"}),
                (f"value_model and value are both given; {one}", {"value_model": "engage", "value": play}),
                ("value_model is 'engages'; the model's value models are: engage, either", {"value_model": "engages"}),
                ("value.kind is 0; it takes SUM_OF_PROBABILITIES (1), SUM_OF_LOGITS (2) or PRODUCT_OF_POWERS (3)", {"value": formula(0, play=1)}),
                ("value.kind is 4; it takes SUM_OF_PROBABILITIES (1), SUM_OF_LOGITS (2) or PRODUCT_OF_POWERS (3)", {"value": formula(4, play=1)}),
                ("value.terms is empty; a value needs at least one head", {"value": formula(SUMS)}),
                ("value.terms[1].head is 'bing', not one of the model's 2 heads; did you mean 'binge'?", {"value": formula(POWERS, play=1, bing=1)}),
                ("value.terms[0].weight is nan; weights must be finite", {"value": formula(POWERS, play=math.nan)}),
                ("value.terms[0].weight is inf; weights must be finite", {"value": formula(SUMS, play=math.inf)}),
                ("value.factor is nan; it must be finite and not 0", {"value": formula(SUMS, factor=math.nan, play=1)}),
                ("value.factor is -inf; it must be finite and not 0", {"value": formula(SUMS, factor=-math.inf, play=1)})):
            self.refused(CODE.INVALID_ARGUMENT, text, good, **fields)
        twice = rankd_pb2.ValueModel(kind=SUMS, terms=[rankd_pb2.ValueModel.Term(head="play", weight=1)] * 2)
        self.refused(CODE.INVALID_ARGUMENT, "value.terms[1].head is 'play', as is that of terms[0]; give each head once", good, value=twice)
        many_terms = rankd_pb2.ValueModel(kind=SUMS, terms=[rankd_pb2.ValueModel.Term(head="play", weight=1)] * 3000)
        self.refused(CODE.INVALID_ARGUMENT, "value.terms has 3000 terms for the model's 2 heads; give each head once", good, value=many_terms)
        many_terms.terms.extend(list(many_terms.terms) * 15)
        with self.assertRaises(grpc.RpcError) as caught:
            self.rank(good, value=many_terms)
        self.assertEqual(caught.exception.code(), CODE.RESOURCE_EXHAUSTED)
        self.assertIn("too many unknown fields or tiny submessages", caught.exception.details())

    def test_a_value_past_every_number_is_invalid(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.rank(many(50), value=formula(POWERS, play=-1e6))
        self.assertEqual(caught.exception.code(), CODE.INVALID_ARGUMENT)
        self.assertIn("is inf: the value model's exponents are too large", caught.exception.details())
        self.assertEqual(set(self.rank(many(50), value=formula(POWERS, binge=3e38)).values), {0.0})


class TestRankpackValues(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = scratch("values")
        cls.package = import_steam(value_models=[ENGAGE, EITHER], default_value_model="either") / "steam/1"
        cls.requests = cls.folder / "requests.jsonl"
        cls.requests.write_text("".join(json.dumps(request) + "\n" for request in requests_of("steam")[:3]), encoding="utf-8")

    def score(self, *words, **options):
        return rankpack("score", self.package, "--requests", self.requests, *words, **options)

    def test_lines_have_the_values_of_the_formula_or_the_default(self):
        for words, value in (((), formula(SUMS, binge=0.75, play=0.25)), (("--value-model", "engage"), formula(POWERS, factor=2.5, play=1, binge=0.5)),
                             (("--value", "logit(binge) + 0.5*logit(play)"), formula(LOGITS, binge=1, play=0.5))):
            for line in self.score(*words).stdout.splitlines():
                scores = json.loads(line)
                self.assertEqual(len(scores["values"]), len(scores["logits"]))
                for mine, logits, probabilities in zip(scores["values"], scores["logits"], scores["probabilities"]):
                    self.assertAlmostEqual(mine, plain_value(value, ("play", "binge"), logits, probabilities),
                                           delta=1e-8 * max(1, abs(mine)))  # scores are printed with nine digits

    def test_lines_with_values_can_be_expected_ones(self):
        expected = self.folder / "expected.jsonl"
        expected.write_text(self.score().stdout, encoding="utf-8")
        self.assertIn("within", self.score("--expected", expected).stdout)

    def test_the_table_is_sorted_by_them(self):
        values = json.loads(self.score("--value-model", "engage").stdout.splitlines()[0])["values"]
        lines = self.score("--value-model", "engage", "--top", 4).stdout.splitlines()
        self.assertIn("by 2.5 * play * binge^0.5", lines[0])
        best = sorted(range(len(values)), key=lambda i: -values[i])[:4]
        self.assertEqual([int(line.split()[1]) for line in lines[2:6]], best)
        self.assertEqual([line.split()[2] for line in lines[2:6]], [f"{values[i]:.6g}" for i in best])
        self.assertIn("by binge", self.score("--head", "binge", "--top", 1).stdout)

    def test_what_is_wrong_is_said(self):
        for words, text in ((("--value", "play + clap"), "--value.terms[1].head is 'clap', not one of the model's 2 heads"),
                            (("--value", "play +"), "character 7: a head or a number is missing"),
                            (("--value-model", "best"), "--value-model is 'best', the model has no such value model; its first is 'engage'"),
                            (("--value", "play", "--value-model", "engage"), "give one of --head, --value and --value-model")):
            result = self.score(*words, check=False)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(text, result.stderr)

    def test_inspect_shows_them(self):
        text = rankpack("inspect", self.package).stdout
        self.assertIn("value engage: 2.5 * play * binge^0.5", text)
        self.assertIn("value either (default): 0.75*binge + 0.25*play", text)
        self.assertEqual(json.loads(rankpack("inspect", self.package, "--json").stdout)["default_value_model"], "either")


class TestDefaultValue(Served):
    fields = {"value_models": [EITHER, ENGAGE], "default_value_model": "engage"}

    def test_the_status_names_those_that_there_are(self):
        model = self.server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=10).models[0]
        self.assertEqual((list(model.value_models), model.default_value_model), (["either", "engage"], "engage"))
        self.assertIn("value models either engage (default)", self.server.rankctl("status").stdout)

    def test_it_is_used_unless_the_request_says_otherwise(self):
        request = requests_of("steam")[0]
        by_default, by_name = self.rank(request, top_k=5), self.rank(request, top_k=5, value_model="engage")
        self.assertEqual(by_default.value_model, "engage")
        self.assertEqual(by_default, by_name)
        self.assertEqual(self.rank(request, value_model="either").value_model, "either")
        own = self.rank(request, value=formula(SUMS, play=1))
        self.assertEqual((own.value_model, list(own.values)), ("", list(own.probabilities)[::2]))
        by_head = self.rank(request, top_k=5, order_by="binge")
        self.assertEqual((by_head.value_model, len(by_head.values)), ("", 0))
        binge = list(by_head.probabilities)[1::2]
        self.assertEqual(binge, sorted(binge, reverse=True))


class TestCalibration(Served):
    SCALE, SHIFT = 0.8, -0.25
    fields = {"calibration": [{"head": "binge", "scale": SCALE, "shift": SHIFT}], "value_models": [EITHER]}

    def calibrated(self, play, binge):
        return 1 / (1 + math.exp(-play)), 1 / (1 + math.exp(-(self.SCALE * binge + self.SHIFT)))

    def test_probabilities_are_calibrated_and_logits_are_the_models_own(self):
        for request, expected in list(zip(requests_of("steam"), expected_of("steam")))[:10]:
            answer = self.rank(request, include_logits=True)
            for i, logits in enumerate(expected["logits"]):
                for mine, theirs in zip(answer.logits[2 * i:2 * i + 2], logits):
                    self.assertAlmostEqual(mine, theirs, delta=1e-5 * max(1, abs(theirs)))
                for mine, theirs in zip(answer.probabilities[2 * i:2 * i + 2], self.calibrated(*answer.logits[2 * i:2 * i + 2])):
                    self.assertAlmostEqual(mine, theirs, delta=1e-6)

    def test_values_are_of_calibrated_probabilities(self):
        answer = self.rank(requests_of("steam")[0], value_model="either")
        for i, value in enumerate(answer.values):
            play, binge = answer.probabilities[2 * i:2 * i + 2]
            self.assertAlmostEqual(value, 0.25 * play + 0.75 * binge, delta=1e-12)

    def test_rankpack_gives_the_same_and_quantising_keeps_it(self):
        folder, package = scratch("calibration"), self.server.repository / "steam/1"
        (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests_of("steam")[:5]), encoding="utf-8")
        rankpack("quantize", package, "--rows", "int8", "--output", folder / "small")
        manifests = [json.loads((path / "manifest.json").read_text(encoding="utf-8")) for path in (package, folder / "small")]
        for key in ("calibration", "value_models"):
            self.assertEqual(manifests[0][key], manifests[1][key])
        for path in (package, folder / "small"):
            for line in rankpack("score", path, "--requests", folder / "requests.jsonl").stdout.splitlines():
                scores = json.loads(line)
                for logits, probabilities in zip(scores["logits"], scores["probabilities"]):
                    for mine, theirs in zip(probabilities, self.calibrated(*logits)):
                        self.assertAlmostEqual(mine, theirs, delta=1e-6)
        golden = read_jsonl(package / "golden.scores.jsonl")[0]
        self.assertAlmostEqual(golden["probabilities"][0][1], self.calibrated(*golden["logits"][0])[1], delta=1e-6)


if __name__ == "__main__":
    main()
