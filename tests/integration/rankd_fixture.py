"""What the integration tests share: the programs under test, the reference models, and a rankd to talk to.

meson passes where things are in the environment (RANKD_SOURCE, RANKD_BUILD); run by hand, the tests take the checkout that they lie in and
its build/ folder. Everything a test writes is under one temporary folder that is gone when the process ends.

    class TestRank(unittest.TestCase):
        def test_scores_are_returned(self):
            with RankdServer(repository_of("steam")) as server:
                answer = server.stub.Rank(rank_request("steam", requests_of("steam")[0]), timeout=5)
"""

import atexit
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(os.environ.get("RANKD_SOURCE") or pathlib.Path(__file__).resolve().parents[2])
BUILD = pathlib.Path(os.environ.get("RANKD_BUILD") or SOURCE / "build")
GENERATED = pathlib.Path(os.environ.get("RANKD_GENERATED") or BUILD / "tests/integration")  # rankd_pb2.py, health_pb2.py
RANKD = BUILD / "server/rankd"
RANKCTL = BUILD / "server/tools/rankctl"
RANKPACK = BUILD / "model/tools/rankpack"
DEMO = SOURCE / "deploy/demo/steam"

# Slow builds (sanitizers, valgrind) stretch every limit by the same factor.
TIME_SCALE = float(os.environ.get("RANKD_TIME_SCALE", "1"))
SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer", "runtime error:")

sys.path.insert(0, str(GENERATED))

SCRATCH = pathlib.Path(tempfile.mkdtemp(prefix="rankd-test-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


def seed():
    """The run's seed, printed once; RANKD_SEED repeats a run."""
    if not hasattr(seed, "value"):
        seed.value = int(os.environ.get("RANKD_SEED") or random.SystemRandom().randrange(1 << 32))
        print(f"RANKD_SEED={seed.value}", file=sys.stderr, flush=True)
    return seed.value


# ---- programs ----

def run(program, *arguments, input=None, timeout=60, check=True, env=None):
    """Runs one of our programs to its end; output is text. With check, a failure raises with both outputs."""
    command = [str(program), *map(str, arguments)]
    result = subprocess.run(command, input=input, capture_output=True, text=True, timeout=timeout * TIME_SCALE,
                            env={**os.environ, **env} if env else None)
    for mark in SANITIZER_MARKS:
        if mark in result.stderr:
            raise AssertionError(f"{' '.join(command)}:\n{result.stderr[-8000:]}")
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit status {result.returncode}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
    return result


def rankpack(*arguments, **options):
    return run(RANKPACK, *arguments, **options)


def rankctl(target, *arguments, **options):
    return run(RANKCTL, "--target", target, *arguments, **options)


# ---- reference models ----

@functools.lru_cache(maxsize=None)
def reference_models():
    """Folders with config.json, model.safetensors, requests.jsonl and expected.jsonl, by name: those in the tree, and those of
    RANKD_REFERENCE or ../shared/reference, which win."""
    models = {}
    beside = pathlib.Path(os.environ.get("RANKD_REFERENCE") or SOURCE.parent / "shared/reference")
    for root in (SOURCE / "tests/golden", DEMO.parent, beside):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if (folder / "config.json").is_file() and (folder / "expected.jsonl").is_file():
                    models[folder.name] = folder
    return models


def read_jsonl(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


@functools.lru_cache(maxsize=None)
def _requests_of(name):
    return read_jsonl(reference_models()[name] / "requests.jsonl")


def requests_of(name):
    return list(_requests_of(name))


@functools.lru_cache(maxsize=None)
def expected_of(name):
    return read_jsonl(reference_models()[name] / "expected.jsonl")


def import_model(name, repository, version=1):
    """Imports a reference model into REPOSITORY/name/version; the package folder."""
    folder, package = reference_models()[name], pathlib.Path(repository) / name / str(version)
    package.parent.mkdir(parents=True, exist_ok=True)
    rankpack("import", "--config", folder / "config.json", "--weights", folder / "model.safetensors", "--output", package)
    return package


@functools.lru_cache(maxsize=None)
def repository_of(*names):
    """A model repository with these reference models as version 1, made once per process. Do not change it: import your own."""
    repository = SCRATCH / ("repository-" + "-".join(names))
    for name in names:
        import_model(name, repository)
    return repository


def scratch(name):
    """A fresh folder for one test."""
    return pathlib.Path(tempfile.mkdtemp(prefix=name + "-", dir=SCRATCH))


# ---- the wire ----

def _features(message, rows):
    """One side of a JSON request as rankd.v1.Features: arrays of all rows, one after the other."""
    for row in rows:
        message.dense.extend(row.get("dense", ()))
    for feature in (rows[0].get("ids", {}) if rows else {}):
        jagged = message.ids.add(feature=feature)
        for row in rows:
            jagged.ids.extend(row["ids"][feature])
            jagged.lengths.append(len(row["ids"][feature]))
            jagged.weights.extend(row.get("weights", {}).get(feature, ()))


def rank_request(model, request, **fields):
    """A JSON-lines request as a RankRequest; `fields` sets top_k, include_logits and the like."""
    import rankd_pb2
    message = rankd_pb2.RankRequest(model=model, request_id=request.get("id", ""), num_candidates=len(request["candidates"]), **fields)
    _features(message.context, [request.get("context", {})])
    _features(message.candidates, request["candidates"])
    return message


class Stub:
    """rankd's methods as a stock gRPC client calls them."""

    def __init__(self, channel):
        import health_pb2
        import rankd_pb2
        for path, request, response in (
                ("/rankd.v1.Ranking/Rank", rankd_pb2.RankRequest, rankd_pb2.RankResponse),
                ("/rankd.v1.Admin/GetStatus", rankd_pb2.StatusRequest, rankd_pb2.StatusResponse),
                ("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse)):
            setattr(self, path.rsplit("/", 1)[1], channel.unary_unary(path, request.SerializeToString, response.FromString))


# ---- the server ----

class RankdServer:
    """A rankd on a free loopback port, ready when entered, ended by its own pid when left. Leaving fails when a sanitizer spoke or when
    it had died by itself."""

    def __init__(self, repository, *extra_args, env=None, ready_s=30):
        self.repository, self.extra_args, self.env, self.ready_s = repository, extra_args, env, ready_s * TIME_SCALE
        self.folder = scratch("rankd")
        self.log_path = self.folder / "rankd.log"
        self.process = self._channel = self._stub = None

    def __enter__(self):
        self.ready_file = self.folder / "ready"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [str(RANKD), "--model-repository", str(self.repository), "--listen", "127.0.0.1:0",
                 "--ready-file", str(self.ready_file), *map(str, self.extra_args)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(self.env or {})})
        self.pid = self.process.pid
        limit = time.monotonic() + self.ready_s
        while not self.ready_file.exists():  # written by rename once requests are served; holds the address
            if self.process.poll() is not None:
                raise AssertionError(f"rankd ended before it was ready, exit status {self.process.returncode}:\n{self.log()[-8000:]}")
            if time.monotonic() > limit:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"rankd was not ready after {self.ready_s:g} s:\n{self.log()[-8000:]}")
            time.sleep(0.005)
        # One address a line, in the order of the options; those that are not plaintext say so: "tls 127.0.0.1:8471".
        self.targets = {}
        for line in self.ready_file.read_text(encoding="ascii").splitlines():
            kind, _, address = line.rpartition(" ")
            self.targets.setdefault(kind, []).append(address)
        self.target = next(iter(self.targets.values()))[0]
        self.port = int(self.target.rsplit(":", 1)[1]) if not self.target.startswith("unix:") else None
        return self

    def log(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def channel(self):
        if self._channel is None:
            import grpc
            self._channel = grpc.insecure_channel(self.target, options=[("grpc.enable_http_proxy", 0)])
        return self._channel

    @property
    def stub(self):
        if self._stub is None:
            self._stub = Stub(self.channel)
        return self._stub

    def rankctl(self, *arguments, **options):
        return rankctl(self.target, *arguments, **options)

    def socket(self, timeout=5):
        return socket.create_connection(("127.0.0.1", self.port), timeout * TIME_SCALE)

    def status_kb(self, field="VmRSS"):
        """A line of /proc/PID/status, in kB."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(field + ":"))

    def stop(self, signal_number=signal.SIGTERM, timeout=10):
        """Asks it to end and waits; its exit status."""
        if self._channel is not None:
            self._channel.close()
            self._channel = self._stub = None
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            return self.process.wait(timeout * TIME_SCALE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"rankd did not end within {timeout * TIME_SCALE:g} s of signal {signal_number}:\n{self.log()[-8000:]}") from None

    def __exit__(self, kind, error, trace):
        died = self.process.poll()
        if died is None:
            status = self.stop()
        else:
            status = died
        log = self.log()
        complaint = None
        if any(mark in log for mark in SANITIZER_MARKS):
            complaint = "a sanitizer spoke"
        elif status not in (0, -signal.SIGKILL, -signal.SIGTERM):
            complaint = f"exit status {status}"
        if complaint:
            raise AssertionError(f"rankd: {complaint}:\n{log[-8000:]}")
        if kind is not None:
            print(f"rankd's log:\n{log[-4000:]}", file=sys.stderr)


def wait_for(condition, what, seconds=20):
    """Looks again and again until it is true; `what` says what did not come."""
    limit = time.monotonic() + seconds * TIME_SCALE
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"after {seconds * TIME_SCALE:g} s still not: {what}")
        time.sleep(0.002)


def main():
    """Instead of unittest.main(): counts go to stderr where deploy/test finds them."""
    unittest.main(verbosity=2)
