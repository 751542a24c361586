"""deploy/quickstart on a copy of the tree whose path has a space in it: the second run is quick, the server stops, and a port that
is taken does no harm. The copy borrows the programs that are under test, so nothing is compiled here."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest

import rankd_fixture as fixture

IGNORED = shutil.ignore_patterns("build*", ".git", "__pycache__")


class TestQuickstart(unittest.TestCase):
    def setUp(self):
        self.home = fixture.scratch("quick start")
        self.tree = self.home / "a clone"
        self.tree.mkdir()
        for name in ("deploy", "proto"):
            shutil.copytree(fixture.SOURCE / name, self.tree / name, ignore=IGNORED)
        for program in (fixture.RANKD, fixture.RANKCTL, fixture.RANKPACK):
            target = self.tree / "build" / program.relative_to(fixture.BUILD)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(program, target)
        # Stand-ins for what a fresh machine would really do; the programs are built already.
        self.bin = self.home / "bin"
        self.bin.mkdir()
        for name in ("meson", "ninja"):
            (self.bin / name).write_text(f"#!/bin/sh\necho {name} \"$@\" >>'{self.home}/called'\n")
            (self.bin / name).chmod(0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.addCleanup(self.stop_whatever_runs)

    def stop_whatever_runs(self):
        pid_file = self.tree / "build/demo/pid"
        if pid_file.exists():
            pid = int(pid_file.read_text())
            command = pathlib.Path(f"/proc/{pid}/cmdline")
            if command.exists() and str(self.tree).encode() in command.read_bytes():
                os.kill(pid, signal.SIGKILL)

    def quickstart(self, *arguments, check=True, cwd="/", path=None):
        result = subprocess.run([str(self.tree / "deploy/quickstart"), *map(str, arguments)], cwd=cwd, stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=120 * fixture.TIME_SCALE,
                                env={**os.environ, "PATH": f"{self.bin}:{path or os.environ['PATH']}"})
        if check:
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result

    def pid(self):
        return int((self.tree / "build/demo/pid").read_text())

    def test_a_player_s_games_are_ranked_and_a_second_run_reuses_the_server(self):
        first = self.quickstart("--port", self.port).stdout
        self.assertIn("player-203 has played Counter-Strike", first)
        self.assertIn("DayZ", first)  # what the reference scores put first
        self.assertIn(f"127.0.0.1:{self.port}", first)
        self.assertIn("--stop", first)
        pid, begun = self.pid(), time.monotonic()
        second = self.quickstart("--port", self.port, cwd=self.home).stdout
        self.assertLess(time.monotonic() - begun, 10 * fixture.TIME_SCALE)
        self.assertEqual(pid, self.pid(), second)
        self.assertIn("running already", second)
        self.assertIn("DayZ", second)
        self.assertIn("has ended", self.quickstart("--stop").stdout)
        self.assertFalse(pathlib.Path(f"/proc/{pid}").exists())
        self.assertIn("no demo server", self.quickstart("--stop").stdout)

    def test_the_best_ten_are_in_the_order_of_the_true_scores(self):
        printed = self.quickstart("--port", self.port, "--player", "player-2481").stdout
        index = next(i for i, request in enumerate(fixture.requests_of("steam")) if request["id"] == "player-2481")
        request, play = fixture.requests_of("steam")[index], [row[0] for row in fixture.expected_of("steam")[index]["probabilities"]]
        titles = {int(f[0]): f[3] for f in (line.split("\t") for line in (fixture.DEMO / "games.tsv").read_text().splitlines())}
        best = [titles[request["candidates"][i]["ids"]["game"][0]] for i in sorted(range(len(play)), key=lambda i: -play[i])[:10]]
        table = printed[printed.index("are to be ranked"):] if "are to be ranked" in printed else printed[printed.index("ranked"):]
        places = [table.find(title) for title in best]
        self.assertNotIn(-1, places, f"{best}\n{printed}")
        self.assertEqual(sorted(places), places, printed)

    def test_a_taken_port_is_not_fatal(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", self.port))
            other.listen()
            printed = self.quickstart("--port", self.port).stdout
        self.assertIn("in use; taking another", printed)
        self.assertNotIn(f"serves 127.0.0.1:{self.port} ", printed)

    def test_a_server_that_died_is_replaced(self):
        self.quickstart("--port", self.port)
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        self.quickstart("--port", self.port)
        self.assertNotEqual(pid, self.pid())

    def test_a_pid_of_somebody_else_is_left_alone(self):
        other = subprocess.Popen(["sleep", "60"])
        try:
            (self.tree / "build/demo").mkdir(parents=True)
            (self.tree / "build/demo/pid").write_text(f"{other.pid}\n")
            self.assertIn("no demo server", self.quickstart("--stop").stdout)
            self.assertIsNone(other.poll(), "quickstart --stop ended a process that is not its own")
        finally:
            other.kill()
            other.wait()

    def test_a_damaged_package_is_imported_again(self):
        self.quickstart("--port", self.port)
        self.quickstart("--stop")
        package = self.tree / "build/demo/repository/steam/1"
        largest = max((p for p in package.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        os.chmod(largest, 0o644)
        with open(largest, "r+b") as file:
            file.seek(100)
            byte = file.read(1)
            file.seek(100)
            file.write(bytes([byte[0] ^ 1]))
        self.assertIn("importing the demo model", self.quickstart("--port", self.port).stdout)

    def test_missing_packages_without_root_or_sudo_give_the_command_to_run(self):
        # dpkg-query says that one is missing; no sudo on the path; id says that we are nobody.
        for name, text in (("dpkg-query", "case \"$*\" in *meson*) exit 1;; esac\necho installed"), ("id", "echo 1000")):
            (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.bin / name).chmod(0o755)
        tools = self.home / "tools"
        tools.mkdir()
        for name in ("bash", "sh", "awk", "grep", "dirname", "basename", "cat", "uname", "mkdir", "tail", "sed", "env", "tr", "head", "cut"):
            (tools / name).symlink_to(shutil.which(name))
        result = subprocess.run([str(tools / "bash"), str(self.tree / "deploy/quickstart")], stdin=subprocess.DEVNULL, capture_output=True,
                                text=True, timeout=60, env={"PATH": f"{self.bin}:{tools}", "HOME": str(self.home)})
        self.assertNotEqual(result.returncode, 0, result.stdout)
        self.assertIn("apt-get update && apt-get install --no-install-recommends meson", result.stderr)

    def test_wrong_arguments_are_named(self):
        for arguments, text in ((["--port"], "--port"), (["--port", "many"], "many"), (["--prot", "1"], "--prot"),
                                (["--player"], "--player")):
            with self.subTest(arguments=arguments):
                result = self.quickstart(*arguments, check=False)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn(text, result.stderr)

    def test_an_unknown_player_is_named(self):
        result = self.quickstart("--port", self.port, "--player", "nobody", check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stderr, re.compile("no player 'nobody'.*player-", re.S))


if __name__ == "__main__":
    fixture.main()
