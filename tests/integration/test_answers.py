#!/usr/bin/python3
"""What an answer says beside the scores: where the time went, which ids were out of range."""

import json
import time
import unittest

import grpc

from rankd_fixture import RankdServer, TIME_SCALE, main, rank_request, rankpack, reference_models, requests_of, scratch

CODE = grpc.StatusCode
MAX_BATCH = 64


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
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(import_steam(), "--workers", 2, "--max-batch", MAX_BATCH, *cls.options)
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


if __name__ == "__main__":
    main()
