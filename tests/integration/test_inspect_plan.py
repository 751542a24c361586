#!/usr/bin/python3
"""rankpack inspect --plan: every row of the reference models is placed once, loads are what the requests read, and what is drawn can be read."""

import collections
import json
import math
import pathlib
import unittest
import xml.etree.ElementTree

from rankd_fixture import main, rankpack, reference_models, repository_of, requests_of, scratch


def package_of(name):
    return repository_of(name) / name / "1"


def plan_of(name, *options):
    return json.loads(rankpack("inspect", package_of(name), "--plan", "--json", *options).stdout)


def lines_of(row_bytes):
    """Cache lines that a row lies on, over all the places within a line where rows of this size begin."""
    step = math.gcd(row_bytes, 64)
    return sum((start + row_bytes - 1) // 64 + 1 for start in range(0, 64, step)) / (64 // step)


def expected_loads(model, requests):
    """By table, what these requests read, counted here."""
    tables = {table["name"]: table for table in model["tables"]}
    loads = collections.Counter()
    for feature in model["features"]:
        context = feature["side"] == "context"
        table, ids = tables[feature["table"]], 0
        for request in requests:
            ids += sum(len(row["ids"][feature["name"]]) for row in ([request["context"]] if context else request["candidates"]))
        loads[table["name"]] += ids / len(requests) * lines_of(4 * table["dim"])
    return loads


class TestPlan(unittest.TestCase):
    def test_every_row_of_every_reference_model_is_placed_once_and_loads_are_what_requests_read(self):
        for name in sorted(reference_models()):
            for shards in (1, 2, 5):
                model = plan_of(name, "--shards", shards, "--requests", reference_models()[name] / "requests.jsonl")
                plan, requests = model["plan"], requests_of(name)
                self.assertEqual(plan["sampled_requests"], len(requests))
                self.assertAlmostEqual(plan["candidates_per_request"], sum(len(r["candidates"]) for r in requests) / len(requests))
                loads = expected_loads(model, requests)
                for table in model["tables"]:
                    pieces = [piece for piece in plan["pieces"] if piece["table"] == table["name"]]
                    self.assertEqual([p["first_row"] for p in pieces], [sum(q["rows"] for q in pieces[:i]) for i in range(len(pieces))])
                    self.assertEqual(sum(piece["rows"] for piece in pieces), table["rows"])
                    self.assertEqual(len({piece["shard"] for piece in pieces}), len(pieces))
                    self.assertAlmostEqual(sum(piece["lines_per_request"] for piece in pieces), loads[table["name"]], delta=1e-6 * (1 + loads[table["name"]]))
                self.assertEqual(len(plan["shards"]), shards)
                busiest = max(shard["lines_per_request"] for shard in plan["shards"])
                row = max(loads[table["name"]] / table["rows"] for table in model["tables"])
                self.assertLessEqual(busiest, 4 / 3 * sum(loads.values()) / shards + row + 1e-9, f"{name} on {shards} shards")

    def test_without_requests_the_options_say_what_a_request_reads(self):
        model = plan_of("steam", "--candidates", 10, "--ids-per-feature", 3)
        tables, loads = {table["name"]: table for table in model["tables"]}, collections.Counter()
        for feature in model["features"]:
            loads[feature["table"]] += (3 if feature["side"] == "context" else 30) * lines_of(4 * tables[feature["table"]]["dim"])
        self.assertAlmostEqual(model["plan"]["shards"][0]["lines_per_request"], sum(loads.values()))

    def test_a_pruned_table_brings_the_list_of_its_rows(self):
        plan, output = scratch("pruned") / "plan.json", scratch("pruned") / "steam/2"
        output.parent.mkdir()
        plan.write_text(json.dumps({"format": {"name": "rankd-plan", "version": 1}, "tables": [{"name": "user", "kept": [[0, 100]]}]}))
        rankpack("quantize", package_of("steam"), "--plan", plan, "--output", output)
        pieces = json.loads(rankpack("inspect", output, "--plan", "--json").stdout)["plan"]["pieces"]
        self.assertEqual([piece["rows"] for piece in pieces if piece["table"] == "user" and "rows" in piece], [101])
        self.assertEqual([piece["table"] for piece in pieces if piece.get("kept_list")], ["user"])
        self.assertIn("which rows are kept", rankpack("inspect", output, "--plan").stdout)

    def test_the_text_has_a_bar_for_every_shard_and_a_line_for_every_piece(self):
        text = rankpack("inspect", package_of("steam"), "--plan", "--shards", 3, "--capacity", "4M").stdout
        plan = plan_of("steam", "--shards", 3, "--capacity", "4M")["plan"]
        self.assertIn("rows on 3 shards of 4.0 MiB", text)
        self.assertEqual(sum(line.count("#") > 0 for line in text.splitlines()), 3)
        self.assertEqual(len(text.split("first row")[1].splitlines()) - 1, len(plan["pieces"]))

    def test_the_picture_shows_every_piece_twice(self):
        path = scratch("plot") / "plan.svg"
        rankpack("inspect", package_of("steam"), "--plan", "--shards", 2, "--plot", path)
        svg = xml.etree.ElementTree.parse(path).getroot()
        parts = [rect for rect in svg.iter("{http://www.w3.org/2000/svg}rect") if rect.get("class").startswith("part")]
        self.assertEqual(len(parts), 2 * len(plan_of("steam", "--shards", 2)["plan"]["pieces"]))
        for part in parts:
            self.assertLessEqual(float(part.get("x")) + float(part.get("width")), float(svg.get("width")))
        result = rankpack("inspect", package_of("steam"), "--plan", "--plot", pathlib.Path("/nowhere/plan.svg"), check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nowhere/plan.svg", result.stderr)

    def test_what_does_not_fit_or_makes_no_sense_is_refused(self):
        result = rankpack("inspect", package_of("steam"), "--plan", "--shards", 2, "--capacity", "1M", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"more than the 2\.0 MiB left on 2 shards of 1\.0 MiB")
        for options in (["--shards", 2], ["--plan", "--shards", 0], ["--plan", "--shards", 257], ["--plan", "--capacity", "much"],
                        ["--plan", "--requests", "x", "--candidates", 3]):
            result = rankpack("inspect", package_of("steam"), *options, check=False)
            self.assertEqual(result.returncode, 2, f"{options}: {result.stderr}")
        missing = rankpack("inspect", package_of("steam"), "--plan", "--requests", "/nowhere.jsonl", check=False)
        self.assertEqual(missing.returncode, 1)
        self.assertIn("/nowhere.jsonl", missing.stderr)


if __name__ == "__main__":
    main()
