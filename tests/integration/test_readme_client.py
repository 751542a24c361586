"""The Python client that README.md shows, as it stands there, against a running rankd with the demo model."""

import math
import os
import re
import subprocess
import unittest

import rankd_fixture as fixture

README = (fixture.SOURCE / "README.md").read_text(encoding="utf-8")
DEFAULT_TARGET = "127.0.0.1:8470"


def snippet():
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    return blocks[0] if blocks else ""


class TestReadmeClient(unittest.TestCase):
    def test_the_readme_shows_one_client_of_under_twenty_lines(self):
        blocks = re.findall(r"```python\n(.*?)```", README, re.S)
        self.assertEqual(1, len(blocks))
        self.assertLess(len([line for line in blocks[0].splitlines() if line.strip()]), 20)

    def test_the_readme_s_client_prints_the_true_ranking(self):
        # As the README says: run beside what its protoc command made, from the root of the checkout.
        folder = fixture.scratch("client")
        command = re.search(r"^(protoc .*)$", README, re.M).group(1)
        self.assertIn(" proto/rankd.proto", command)
        program = snippet()
        self.assertIn(DEFAULT_TARGET, program)
        with fixture.RankdServer(fixture.repository_of("steam")) as server:
            made = subprocess.run(re.sub(r"--python_out=\S+", f"--python_out={folder}", command), shell=True, cwd=fixture.SOURCE,
                                  capture_output=True, text=True)
            self.assertEqual(made.returncode, 0, made.stderr)
            script = folder / "client.py"
            script.write_text(program.replace(DEFAULT_TARGET, server.target))
            environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
            result = subprocess.run(["/usr/bin/python3", str(script)], cwd=fixture.SOURCE, capture_output=True, text=True,
                                    timeout=60 * fixture.TIME_SCALE, env={**environment, "PYTHONPATH": str(folder)})
        self.assertEqual(result.returncode, 0, result.stderr)
        request, expected = fixture.requests_of("steam")[0], fixture.expected_of("steam")[0]
        play = [row[0] for row in expected["probabilities"]]
        best = sorted(range(len(play)), key=lambda i: -play[i])[:5]
        rows = [line.split() for line in result.stdout.splitlines()]
        self.assertEqual(5, len(rows), result.stdout)
        for row, i in zip(rows, best):
            self.assertEqual(request["candidates"][i]["ids"]["game"][0], int(row[0]), f"{result.stdout}\nexpected candidates {best}")
            self.assertTrue(math.isclose(play[i], float(row[1]), abs_tol=1e-4), f"{row}: expected {play[i]}")


if __name__ == "__main__":
    fixture.main()
