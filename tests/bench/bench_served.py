#!/usr/bin/python3
"""Requests per core within 50 ms p99: rankd beside the server that a team writes first, gRPC for Python around PyTorch or ONNX Runtime.

    tests/bench/peers/install
    bench_served.py [--build DIR] [--venv DIR] [--rows N] [--models M,..] [--formats F,..] [--rounds N] [--seconds S] [--limit-ms MS] [--json]

The request is one user with 270 candidates, of the models of bench_peers.py. `rankctl bench` sends it at a steady rate, open loop, and counts latency
from when a call was due; the highest rate is searched at which the p99 stays within the limit and every call is answered. First each server has one core
and the client another (rankd: one event loop and one worker), then each has all cores and shares them with the client; rankd is one process, the peer one
per core on the same port. "Per core" is requests per second of processor time that the server spent, from /proc, so that the client's share does not count.

The peer is what answers most in a closed loop on one core: PyTorch or ONNX Runtime in their fastest variant, one or four calls at a time. Searches take
turns; medians over the rounds are compared."""

import json
import os
import socket
import statistics
import subprocess

import bench_common
import peer_models
from peer_models import REQUEST, say

FRAMEWORKS, POOLS = ("torch", "onnx"), (1, 4)
TARGET = 20
STEPS = 5  # of the search


def arguments():
    parser = peer_models.parser(__doc__)
    parser.add_argument("--formats", default="fp32,int8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--limit-ms", type=float, default=50, help="that the p99 must keep")
    return peer_models.parse(parser)


def pin(pid, cores):
    """All threads of a process."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)


def processor_s(pids):
    """User and system time of processes, in seconds."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Peer:
    """One or more processes of peers/serve.py on one port."""

    def __init__(self, options, fixture, made, framework, number_format, pool, cores):
        """cores: a set of processors for each process."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.target = "127.0.0.1:%d" % probe.getsockname()[1]
        self.processes, self.pids = [], []
        for of_process in cores:
            command = [*peer_models.program(options, "serve.py"), "--framework", framework, "--format", number_format, "--package", made.split,
                       "--generated", fixture.GENERATED, "--threads", 1, "--pool", pool, "--port", self.target.rsplit(":", 1)[1],
                       "--example", made.files[REQUEST]]
            self.processes.append(subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                                   env={**os.environ, **peer_models.environment(options, 1)},
                                                   preexec_fn=lambda of_process=of_process: os.sched_setaffinity(0, of_process)))
        for process in self.processes:
            line = process.stdout.readline()
            if not line.startswith("ready "):
                raise SystemExit(f"{framework} server ended, exit status {process.wait()}")
            self.pids.append(process.pid)
        self.about = {**json.loads(line.removeprefix("ready ")), "framework": framework, "calls at a time": pool}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.stdin.close()
            process.wait(30)


def repository(made, number_format):
    """Folders as rankd wants them, around the package that is there."""
    package = made.split_int8 if number_format == "int8" else made.split
    name = json.loads((package / "manifest.json").read_text(encoding="utf-8"))["name"]
    folder = made.folder / "served" / number_format
    (folder / name).mkdir(parents=True, exist_ok=True)
    if not (folder / name / "1").exists():
        subprocess.run(["cp", "--archive", "--link", package, folder / name / "1"], check=True)
    return folder, name


class Client:
    """rankctl bench, on cores of its own when there are any."""

    def __init__(self, options, fixture, name, made, cores, connections):
        self.command = [fixture.RANKCTL, "bench", "--model", name, "--requests", made.files[REQUEST], "--connections", connections, "--json"]
        self.cores, self.options = cores, options

    def bench(self, target, seconds, *words):
        command = [str(word) for word in (*self.command, "--target", target, "--seconds", seconds, *words)]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, self.cores), check=False)
        if not done.stdout.startswith("{"):
            raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout)

    def capacity(self, target):
        """Requests a second in a closed loop, from which searches begin."""
        return self.bench(target, max(1, self.options.seconds // 2), "--in-flight", 4)["requests_per_s"]

    def holds(self, server, rate):
        """At this rate: (whether the limit holds, requests per second of processor time, p99 in ms)."""
        before = processor_s(server.pids)
        result = self.bench(server.target, self.options.seconds, "--rate", rate)
        spent = processor_s(server.pids) - before
        late = result["latency_us"]["p99"] / 1e3
        every = set(result["by_status"]) == {"OK"} and result["unsent"] + result["unanswered"] + result["lost_connections"] == 0
        answered = rate * (self.options.seconds + min(1, self.options.seconds / 10))  # with rankctl's warm-up, in which the server works too
        return every and late <= self.options.limit_ms, answered / max(spent, 1e-9), late

    def highest(self, server):
        """The highest rate that holds, by halving between one that does and one that does not."""
        low, high, best = 0, max(2, round(1.2 * self.capacity(server.target))), (0, 0, 0)
        for step in range(STEPS):
            rate = max(1, round(0.75 * high)) if step == 0 else (low + high) // 2
            if rate in (low, high):
                break
            good, per_core, late = self.holds(server, rate)
            if not good:  # once more: something else may have had the processor
                good, per_core, late = self.holds(server, rate)
            if good:
                low, best = rate, (rate, per_core, late)
            else:
                high = rate
        return best


def best_peer(options, fixture, made, number_format, client, core):
    """(framework, calls at a time) of the server that answers most on one core, and what all of them did."""
    tried = {}
    for framework in FRAMEWORKS:
        for pool in POOLS:
            with Peer(options, fixture, made, framework, number_format, pool, [{core}]) as peer:
                client.capacity(peer.target)
                tried[framework, pool] = (client.capacity(peer.target), peer.about)
                say(f"  {peer.about['version']}, {peer.about['variant']}, {pool} calls at a time: {tried[framework, pool][0]:.0f} requests/s")
    return max(tried, key=lambda one: tried[one][0]), [{**about, "closed_loop_requests_per_s": rate} for rate, about in tried.values()]


def measure(options, client, servers):
    """{server: medians of what the searches found}."""
    found = {name: [] for name in servers}
    for number in range(options.rounds):
        for name, server in servers.items():
            found[name].append(client.highest(server))
            say("  round %d, %s: %d requests/s, %.0f per core, p99 %.1f ms" % (number + 1, name, *found[name][-1]))
    return {name: dict(zip(("requests_per_s", "requests_per_core", "p99_ms"), map(statistics.median, zip(*values)))) for name, values in found.items()}


def compare(options, fixture, name, number_format, cores):
    made = peer_models.made(options, fixture, name)
    folder, served_name = repository(made, number_format)
    say(f"{name} {number_format}")
    alone = Client(options, fixture, served_name, made, set(cores[1:]), 4)
    (framework, pool), tried = best_peer(options, fixture, made, number_format, alone, cores[0])
    results = []
    for count in (1, len(cores)):
        client = alone if count == 1 else Client(options, fixture, served_name, made, set(cores), 8 * count)
        words = ("--event-loops", 1, "--workers", 1) if count == 1 else ("--event-loops", count)
        with fixture.RankdServer(folder, *words, ready_s=120) as rankd, \
                Peer(options, fixture, made, framework, number_format, pool, [{core} for core in cores[:count]]) as peer:
            pin(rankd.pid, set(cores[:count]))
            rankd.pids = [rankd.pid]
            found = measure(options, client, {"rankd": rankd, "peer": peer})
        results.append({"model": name, "format": number_format, "cores": count, **found, "framework": framework, "variant": peer.about["variant"],
                        "calls_at_a_time": pool, "version": peer.about["version"], "target": TARGET,
                        "ratio": found["rankd"]["requests_per_core"] / max(found["peer"]["requests_per_core"], 1e-9),
                        "ratio_of_rates": found["rankd"]["requests_per_s"] / max(found["peer"]["requests_per_s"], 1e-9)})
    return results, tried


def print_table(options, results):
    print(f"highest rate of {REQUEST}-candidate requests with p99 <= {options.limit_ms:g} ms; per core: per second of the server's processor time\n")
    print(f"{'model':12} {'format':6} {'cores':>5} {'rankd/s':>8} {'per core':>9} {'p99 ms':>7} {'peer/s':>8} {'per core':>9} {'p99 ms':>7} {'ratio':>6} "
          f"{'target':>6}   peer")
    for row in results:
        sides = " ".join(f"{row[side]['requests_per_s']:8.0f} {row[side]['requests_per_core']:9.0f} {row[side]['p99_ms']:7.1f}" for side in ("rankd", "peer"))
        print(f"{row['model']:12} {row['format']:6} {row['cores']:5} {sides} {row['ratio']:6.2f} {row['target']:6}   "
              f"{row['version']}, {row['variant']}, {row['calls_at_a_time']} calls at a time")


def main():
    options = arguments()
    fixture = bench_common.fixture(options.build)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this needs two processors: one for the server, one for the client")
    results, tried = [], {}
    for name in options.models.split(","):
        for number_format in options.formats.split(","):
            rows, of_peers = compare(options, fixture, name, number_format, cores)
            results += rows
            tried[f"{name} {number_format}"] = of_peers
    if options.json:
        print(json.dumps({"bench": "served", "limit_ms": options.limit_ms, "rounds": options.rounds, "tried": tried, "results": results}, indent=2))
        return
    print_table(options, results)


if __name__ == "__main__":
    main()
