#!/usr/bin/python3
"""Where a running rankd's rows lie: every kind of memory gives the same bits, what does not fit is said, and files may go once they are copied."""

import ctypes
import os
import resource
import shutil
import subprocess
import unittest

from rankd_fixture import (RANKD, TIME_SCALE, RankdServer, expected_of, main, rank_request, rankpack, reference_models, repository_of, requests_of,
                           run, scratch, wait_for)

PLACES = [("--row-memory", "mapped"), ("--row-memory", "huge_pages"), ("--row-memory", "huge_pages", "--shards", "3"),
          ("--shards", "256", "--shard-capacity-mib", "64")]
PR_CAPBSET_DROP, CAP_IPC_LOCK = 24, 14


def check(repository, *options, **more):
    return run(RANKD, "--model-repository", repository, "--check", *options, **more)


def scores(server, model):
    """All logits of the model's reference requests, as they came over the wire."""
    logits = []
    for request in requests_of(model):
        answer = server.stub.Rank(rank_request(model, request, include_logits=True), timeout=20 * TIME_SCALE)
        logits.append(list(answer.logits))
    return logits


class TestScores(unittest.TestCase):
    def test_every_place_gives_the_golden_scores_and_the_same_bits(self):
        models = sorted(reference_models())
        repository, first = repository_of(*models), {}
        for options in PLACES:
            with RankdServer(repository, *options) as server:
                for model in models:
                    got = scores(server, model)
                    self.assertEqual(got, first.setdefault(model, got), f"{model} with {options}")
        for model in models:
            for request, expected, got in zip(requests_of(model), expected_of(model), first[model]):
                wanted = [x for row in expected["logits"] for x in row]
                self.assertEqual(len(wanted), len(got))
                worst = max(abs(w - g) / max(1, abs(w)) for w, g in zip(wanted, got))
                self.assertLessEqual(worst, 1e-5, f"{model} {request['id']}")


class TestPlacement(unittest.TestCase):
    def table_of(self, *options):
        """The shards that --check prints: {column: value} each."""
        lines = check(repository_of("steam", "dot"), *options).stdout.splitlines()
        head = next(i for i, line in enumerate(lines) if line.startswith("SHARD"))
        return [dict(zip(lines[head].split(), line.split())) for line in lines[head + 1:]]

    def test_check_prints_what_lies_on_every_shard_of_all_models(self):
        files = list(repository_of("steam", "dot").rglob("*.rows"))
        tables = {(path.parent, path.name.split(".")[0]) for path in files}
        one, three = self.table_of("--shards", 1), self.table_of("--shards", 3)
        self.assertEqual([shard["SHARD"] for shard in three], ["0", "1", "2"])
        self.assertEqual(int(one[0]["TABLES"]), len(tables))
        self.assertEqual(one[0]["READS"], "100%")
        self.assertGreaterEqual(sum(int(shard["TABLES"]) for shard in three), len(tables))
        rows = sum(path.stat().st_size for path in files)
        for shards in (one, three):
            self.assertLessEqual(abs(sum(int(shard["BYTES"]) for shard in shards) - rows), 64 * (len(tables) + 3))
        self.assertLessEqual(abs(sum(int(shard["READS"].rstrip("%")) for shard in three) - 100), 2)
        self.assertTrue(all(int(shard["READS"].rstrip("%")) <= 60 for shard in three), three)

    def test_mapped_rows_are_said_to_be_mapped_and_lie_on_no_shard(self):
        self.assertIn("mapped files", check(repository_of("dot"), "--row-memory", "mapped").stdout)
        result = check(repository_of("dot"), "--row-memory", "mapped", "--shards", 2, check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn("shards is 2, but row_memory is mapped", result.stderr)

    def test_rows_past_the_capacity_are_refused_with_how_much_they_are_too_many(self):
        repository = scratch("repository")
        package = repository / "large/1"
        package.parent.mkdir()
        rankpack("synth", "--tables", 3, "--rows", 40000, "--dim", 16, "--output", package)
        result = check(repository, "--shards", 2, "--shard-capacity-mib", 3, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"all rows together, 7\.3 MiB .*, are 1\.3 MiB more than the 6\.0 MiB left on 2 shards of 3\.0 MiB")
        self.assertIn("SHARD", check(repository, "--shards", 2, "--shard-capacity-mib", 4).stdout)
        second = repository / "second/1"
        second.parent.mkdir()
        shutil.copytree(package, second)
        result = check(repository, "--shards", 2, "--shard-capacity-mib", 4, check=False)
        self.assertRegex(result.stderr, r"second version 1 is not served: .* left on 2 shards of 4\.0 MiB")

    def test_the_log_says_where_rows_lie(self):
        with RankdServer(repository_of("dot"), "--shards", 2) as server:
            self.assertRegex(server.log(), r"shard=1 node=\w+ tables=\d+ in huge pages: [\d.]+ MiB, \d+% of all reads")
        with RankdServer(repository_of("dot"), "--row-memory", "mapped") as server:
            self.assertIn("rows are read from the mapped files", server.log())


class TestLock(unittest.TestCase):
    def test_locked_rows_count_as_locked(self):
        for memory in ("mapped", "huge_pages"):
            with RankdServer(repository_of("steam"), "--row-memory", memory, "--lock-memory", "yes") as server:
                rows = sum(path.stat().st_size for path in repository_of("steam").rglob("*.rows"))
                self.assertGreaterEqual(server.status_kb("VmLck") * 1024, rows)

    def test_a_limit_in_the_way_is_named_with_its_fix(self):
        def forbid():
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0)
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        result = subprocess.run([str(RANKD), "--model-repository", str(repository_of("steam")), "--check", "--lock-memory", "yes"],
                                capture_output=True, text=True, timeout=60 * TIME_SCALE, preexec_fn=forbid, check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("RLIMIT_MEMLOCK", result.stderr)
        self.assertIn("LimitMEMLOCK=infinity", result.stderr)


class TestFilesThatGo(unittest.TestCase):
    def test_copied_rows_outlive_their_files(self):
        repository, names = scratch("repository"), ("cat", "dot", "steam")
        for name in names:
            shutil.copytree(repository_of(*names) / name, repository / name)
        for path in repository.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)

        def damage_weights(model):
            with open(repository / model / "1/towers.weights", "r+b") as file:
                byte = file.read(1)[0]
                file.seek(0)
                file.write(bytes([byte ^ 0x10]))

        with RankdServer(repository, "--scrub-interval-s", 1, "--scrub-rate-mib-s", 65536) as server:
            before = scores(server, "dot")
            for rows in (repository / "dot/1").glob("*.rows"):
                os.truncate(rows, 0)
            # The scrubber goes by name. Once it has seen the first model's damage it looks at dot, and then at the last one.
            for model in ("cat", "steam"):
                damage_weights(model)
                wait_for(lambda: f"ALARM model={model}" in server.log(), f"the damage to {model} is found", 30)
            self.assertNotIn("ALARM model=dot", server.log())
            self.assertEqual(scores(server, "dot"), before)
        result = check(repository, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"model dot version 1 is not served: .* has 0 bytes where \d+ are expected")


if __name__ == "__main__":
    main()
