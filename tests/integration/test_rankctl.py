#!/usr/bin/python3
"""rankctl as people use it: what it prints, and with which status it ends."""

import json
import math
import socket
import threading
import unittest

from rankd_fixture import DEMO, RankdServer, main, rankctl, repository_of, requests_of, scratch


class TestRankctl(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of("steam"))
        cls.server.__enter__()
        cls.folder = scratch("rankctl")
        cls.one = cls.folder / "one.jsonl"
        cls.one.write_text(json.dumps(requests_of("steam")[0]) + "\n", encoding="utf-8")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def rank(self, *words, **options):
        return self.server.rankctl("rank", "--model", "steam", "--requests", self.one, *words, **options)

    def test_top_is_sorted_and_names_the_candidates(self):
        request = requests_of("steam")[0]
        titles = {int(line.split("\t")[0]): line.rstrip("\n").split("\t")[-1] for line in (DEMO / "games.tsv").read_text(encoding="utf-8").splitlines()}
        everything = json.loads(self.rank().stdout)
        play = [row[0] for row in everything["probabilities"]]
        best = sorted(range(len(play)), key=lambda i: -play[i])[:10]
        top = json.loads(self.rank("--top", 10, "--titles", DEMO / "games.tsv", "--json").stdout)
        self.assertEqual(top["positions"], best)
        self.assertEqual(top["candidate_ids"], [request["candidates"][i]["ids"]["game"][0] for i in best])
        self.assertEqual(top["titles"], [titles[i] for i in top["candidate_ids"]])
        table = self.rank("--top", 10, "--titles", DEMO / "games.tsv").stdout.splitlines()
        self.assertEqual(len(table), 12)
        for line, title in zip(table[2:], top["titles"]):
            self.assertIn(title[:48], line)

    def test_another_head_and_another_feature_can_be_asked_for(self):
        everything = json.loads(self.rank().stdout)
        binge = [row[1] for row in everything["probabilities"]]
        top = json.loads(self.rank("--top", 3, "--order-by", "binge", "--title-feature", "popularity", "--json").stdout)
        self.assertEqual(top["positions"], sorted(range(len(binge)), key=lambda i: -binge[i])[:3])
        candidates = requests_of("steam")[0]["candidates"]
        self.assertEqual(top["candidate_ids"], [candidates[i]["ids"]["popularity"][0] for i in top["positions"]])

    def test_a_formula_ranks_and_its_values_are_printed(self):
        everything = json.loads(self.rank("--value", "2 * play * binge^0.5").stdout)
        expected = [2 * play * math.sqrt(binge) for play, binge in everything["probabilities"]]
        for mine, theirs in zip(everything["values"], expected):
            self.assertAlmostEqual(mine, theirs, delta=1e-8)  # scores are printed with nine digits
        best = sorted(range(len(expected)), key=lambda i: -everything["values"][i])[:5]
        top = json.loads(self.rank("--value", "2*play*binge^.5", "--top", 5, "--json").stdout)
        self.assertEqual((top["positions"], top["values"]), (best, [everything["values"][i] for i in best]))
        table = self.rank("--value", "2*play*binge^.5", "--top", 5).stdout.splitlines()
        self.assertIn("value", table[1].split())
        for line, value in zip(table[2:], top["values"]):
            self.assertIn(f"{value:.6g}", line.split())
        for text, weights in (("0.7*play + 0.3*binge", (0.7, 0.3)), ("binge", (0, 1))):
            rows = json.loads(self.rank("--value", text).stdout)
            for value, (play, binge) in zip(rows["values"], rows["probabilities"]):
                self.assertAlmostEqual(value, weights[0] * play + weights[1] * binge, delta=1e-7)  # weights are float32
        rows = json.loads(self.rank("--value", "logit(play) + -2*logit(binge)").stdout)
        for value, (play, binge) in zip(rows["values"], rows["logits"]):
            self.assertAlmostEqual(value, play - 2 * binge, delta=1e-7)

    def test_a_wrong_formula_is_usage_and_a_wrong_name_the_servers_word(self):
        result = self.rank("--value", "play ** binge", check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn("--value: formula 'play ** binge', character 7: a head or a number is missing", result.stderr)
        for words, text in ((["--value-model", "best"], "value_model is 'best'; the model's value models are:"),
                            (["--value", "play^2 * clap"], "value.terms[1].head is 'clap', not one of the model's 2 heads"),
                            (["--value", "play", "--order-by", "binge"], "order_by and value are both given")):
            result = self.rank(*words, check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"{self.one}:1: INVALID_ARGUMENT: {text}", result.stderr)

    def test_costs_are_a_table_or_part_of_the_json(self):
        stages = ["receive_us", "queue_us", "lookup_us", "interaction_us", "towers_us", "rest_us", "answer_us", "total_us"]
        plain, asked = self.rank(), self.rank("--costs")
        self.assertEqual((plain.stdout, plain.stderr), (asked.stdout, ""))
        heading, row = asked.stderr.splitlines()
        self.assertEqual(heading.split()[:9], ["microseconds"] + [stage.removesuffix("_us") for stage in stages])
        self.assertEqual(len(row.split()), 11)
        result = json.loads(self.rank("--costs", "--json").stdout)
        self.assertEqual(list(result["costs"]), stages + ["batches", "batch_candidates"])
        self.assertEqual(result["costs"]["batch_candidates"], len(result["probabilities"]))
        self.assertGreater(result["costs"]["total_us"] * result["costs"]["batches"], result["costs"]["towers_us"])  # they may run side by side
        self.assertNotIn("costs", json.loads(self.rank("--json").stdout))

    def test_health_tells_by_its_exit_status(self):
        self.assertEqual(self.server.rankctl("health").stdout, "SERVING\n")
        unknown = self.server.rankctl("health", "--service", "nobody", check=False)
        self.assertEqual(unknown.returncode, 1)

    def test_status_is_there_for_people_and_programs(self):
        status = json.loads(self.server.rankctl("status", "--json").stdout)
        self.assertEqual([(model["name"], model["version"], model["state"]) for model in status["models"]], [("steam", 1, "serving")])
        self.assertIn("steam version 1: serving", self.server.rankctl("status").stdout)

    def test_errors_name_the_line_and_what_the_server_said(self):
        result = self.server.rankctl("rank", "--model", "nope", "--requests", self.one, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"{self.one}:1: NOT_FOUND", result.stderr)
        self.assertIn("nope", result.stderr)

    def test_wrong_usage_ends_with_2(self):
        for words in (["rank"], ["rank", "--model", "x"], ["sing"], ["rank", "--loud"], ["status", "--top", "3"], ["status", "--deadline-ms", "-1"],
                      ["rank", "--model", "m", "--requests", "r", "--titles", "t"], [], ["status", "--target"]):
            result = rankctl("127.0.0.1:1", *words, check=False)
            self.assertEqual(result.returncode, 2, f"{words}: {result.stderr}")
            self.assertNotEqual(result.stderr, "")
        self.assertEqual(rankctl("not-a-target", "status", check=False).returncode, 2)
        self.assertTrue(rankctl("127.0.0.1:1", "--help").stdout.startswith("Examples:"))

    def test_nobody_there_ends_with_3_and_says_what_to_do(self):
        with socket.socket() as bound:  # bound but not listening: refused
            bound.bind(("127.0.0.1", 0))
            target = f"127.0.0.1:{bound.getsockname()[1]}"
            result = rankctl(target, "health", check=False)
        self.assertEqual(result.returncode, 3)
        self.assertIn("rankd --model-repository", result.stderr)

    def test_a_server_that_is_silent_costs_only_the_deadline(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            result = rankctl(f"127.0.0.1:{silent.getsockname()[1]}", "health", "--deadline-ms", 200, check=False, timeout=10)
        self.assertEqual(result.returncode, 1)
        self.assertIn("DEADLINE_EXCEEDED", result.stderr)

    def test_a_server_that_hangs_up_or_is_no_rankd_is_named(self):
        for says in (b"", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"):
            with socket.socket() as other:
                other.bind(("127.0.0.1", 0))
                other.listen()
                def answer():
                    connection, _ = other.accept()
                    with connection:
                        connection.recv(100)
                        connection.sendall(says)
                thread = threading.Thread(target=answer)
                thread.start()
                result = rankctl(f"127.0.0.1:{other.getsockname()[1]}", "health", check=False, timeout=10)
                thread.join()
            self.assertEqual(result.returncode, 1)
            self.assertIn("connection", result.stderr)

    def test_bench_counts_what_it_sent(self):
        for words in (["--empty"], ["--model", "steam", "--requests", self.one], ["--empty", "--rate", 500]):
            before = json.loads(self.server.rankctl("status", "--json").stdout)["requests"]
            result = json.loads(self.server.rankctl("bench", *words, "--seconds", 1, "--connections", 2, "--in-flight", 3, "--json").stdout)
            after = json.loads(self.server.rankctl("status", "--json").stdout)["requests"]
            self.assertEqual(list(result["by_status"]), ["OK"], result)
            self.assertEqual((result["lost_connections"], result["unanswered"], result["unsent"]), (0, 0, 0))
            times = result["latency_us"]
            self.assertTrue(0 < times["p50"] <= times["p90"] <= times["p99"] <= times["p99.9"] <= times["max"], times)
            if "--empty" not in words:
                candidates = len(requests_of("steam")[0]["candidates"])
                self.assertAlmostEqual(result["candidates_per_s"] / result["requests_per_s"], candidates, places=6)
                self.assertGreaterEqual(after - before, result["by_status"]["OK"])
            if "--rate" in words:
                self.assertAlmostEqual(result["requests_per_s"], 500, delta=5)


if __name__ == "__main__":
    main()
