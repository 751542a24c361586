#!/usr/bin/python3
"""Triton's own clients, unchanged: tritonclient.grpc and perf_analyzer. Skipped unless tests/bench/triton/install has fetched them, or RANKD_TRITON says
where they are."""

import json
import os
import pathlib
import re
import subprocess
import unittest

from rankd_fixture import BUILD, RankdServer, TIME_SCALE, main, rank_request, repository_of, requests_of, scratch
from row_requests import tensors

VENV = pathlib.Path(os.environ.get("RANKD_TRITON") or BUILD / "triton-venv")
CLIENT = pathlib.Path(__file__).with_name("triton_client.py")


@unittest.skipUnless((VENV / "bin/perf_analyzer").exists(), f"Triton's clients are not in {VENV}: tests/bench/triton/install fetches them")
class TestTriton(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of("steam", "dot"))
        cls.server.__enter__()
        cls.folder = scratch("triton")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def execute(self, *command):
        libraries = next(VENV.rglob("libcudart.so.12")).parent
        environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120 * TIME_SCALE, check=False,
                                env={**environment, "LD_LIBRARY_PATH": str(libraries)})
        self.assertEqual(result.returncode, 0, result.stdout[-4000:] + result.stderr[-4000:])
        return result.stdout

    def test_tritonclient(self):
        for model in ("steam", "dot"):
            for apart in (False, True):
                with self.subTest(model=model, apart=apart):
                    request = requests_of(model)[0]
                    path = self.folder / "input.json"
                    path.write_text(json.dumps({"model": model, "inputs": tensors(model, request, apart)}))
                    told = json.loads(self.execute(VENV / "bin/python", CLIENT, self.server.target, path))
                    ranked = self.server.stub.Rank(rank_request(model, request, include_logits=True), timeout=20 * TIME_SCALE)
                    self.assertEqual(sum(told["probabilities"], []), list(ranked.probabilities))
                    self.assertEqual(sum(told["logits"], []), list(ranked.logits))
                    self.assertEqual(told["ready"], [True] * 4)
                    self.assertEqual((told["server"], told["id"], told["no_probabilities"]), ("rankd", "a-1", True))
                    self.assertTrue(told["later"])
                    self.assertEqual(told["index"], [["dot", "1", "READY"], ["steam", "1", "READY"]])
                    self.assertGreaterEqual(told["counted"], 2)
                    self.assertEqual((told["load"], told["unload"], told["unknown"]), (None, "StatusCode.UNIMPLEMENTED", "StatusCode.NOT_FOUND"))
                    self.assertTrue(all(name.startswith("context_") for name in told["optional"]))

    def test_perf_analyzer(self):
        """Its measurements do not matter here: that it measures does."""
        path = self.folder / "requests.json"
        requests = [{name: {"content": values, "shape": shape} for name, _, shape, values in tensors("steam", request)}
                    for request in requests_of("steam")[:10]]
        path.write_text(json.dumps({"data": requests}))
        told = self.execute(VENV / "bin/perf_analyzer", "-m", "steam", "-u", self.server.target, "-i", "grpc", "--input-data", path, "--concurrency-range", 4,
                            "--measurement-mode", "count_windows", "--measurement-request-count", 200, "--stability-percentage", 999)
        figures = re.search(r"Request count: (\d+)\n", told)
        self.assertTrue(figures and int(figures.group(1)) >= 200, told)
        inside = re.search(r"Server:\s+Inference count: (\d+)\s+Execution count: (\d+)\s+Successful request count: (\d+)", told)
        self.assertTrue(inside and int(inside.group(3)) >= 200, told)


if __name__ == "__main__":
    main()
