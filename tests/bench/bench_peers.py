#!/usr/bin/python3
"""Candidates per second beside PyTorch and ONNX Runtime: the same machine, model and inputs, in fp32 and int8, on one core and on all.

    tests/bench/peers/install
    bench_peers.py [--build DIR] [--venv DIR] [--rows N] [--models M,..] [--formats F,..] [--rounds N] [--seconds S] [--json]

Models: a DLRM of 26 tables x 128, bottom 13-512-256-128, top 479-1024-1024-512-256-1, of random weights, and the demo. Batches of 1, 32, 128 and 512 have
a user of their own in every row, so nothing can be computed once; the request is one user with 270 candidates, which the peers get with the user in every row.

rankd's fp32 scores must be the peers' within 1e-4 before anything is timed; of int8 the largest difference to fp32 is printed. Each side is a process
that is kept alive and warm, and runs when it is its turn, round after round; medians over the rounds are compared. The peers run the fastest of several
variants for each size (peers/torch_peer.py, peers/onnx_peer.py). On all cores, rankd and the peers run one process or thread per core, each with batches
of its own; the peers also run one process with a thread per core, and the better of the two counts.

"by cpu" is the ratio of candidates per second of processor time: the same on a quiet machine, and nearer to that on one that does other things."""

import json
import os
import statistics
import subprocess

import bench_common
import peer_models
from peer_models import REQUEST, SIZES, say

FRAMEWORKS = ("torch", "onnx")
# Times the best peer's rate, by number format and size.
TARGETS = {"fp32": {1: 3, 32: 3, 128: 1.3, 512: 1.3}, "int8": {1: 8, 32: 8, 128: 2.5, 512: 2.5, REQUEST: 5}}
TOLERANCE = 1e-4  # of fp32 logits, times max(1, |logit|)


def arguments():
    parser = peer_models.parser(__doc__)
    parser.add_argument("--formats", default="fp32,int8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement in each round")
    return peer_models.parse(parser)


# ---- sides ----

class Side:
    """A process that speaks engine_peer's protocol."""

    def __init__(self, name, command, environment=None):
        self.name = name
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **(environment or {})})

    def line(self):
        while True:
            line = self.process.stdout.readline()
            if line == "":
                raise SystemExit(f"{self.name} ended, exit status {self.process.wait()}")
            return line.rstrip("\n")

    def ready(self):
        """What it says of itself."""
        return self.line().removeprefix("ready ")

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return [float(value) for value in self.line().split()]

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)


class Rankd:
    """Two engines: one model for batches, and the same with a context for the request."""

    def __init__(self, build, flat, split, files):
        program = build / "tests/bench/engine_peer"
        self.flat = Side("rankd", [program, flat, *(files[size] for size in SIZES)])
        self.split = Side("rankd", [program, split, files[REQUEST]])
        self.describe = self.flat.ready()
        self.split.ready()

    def ask(self, command, size, *words):
        return (self.split if size == REQUEST else self.flat).ask(command, size, *words)

    def end(self):
        self.flat.end()
        self.split.end()


def peer(options, framework, number_format, package, files, processes, threads):
    return Side(f"{framework} {number_format}", [*peer_models.program(options, "worker.py"), "--framework", framework, "--format", number_format,
                "--package", package, "--processes", processes, "--threads", threads, *files.values()], peer_models.environment(options, threads))


# ---- measuring ----

def difference(found, expected):
    return max(abs(a - b) / max(1, abs(b)) for a, b in zip(found, expected, strict=True))


def compare(options, name, number_format, packages, files, cores):
    """Rows of results for one model in one format."""
    split, flat, exact, quantized = packages
    say(f"{name} {number_format}: starting rankd and the peers")
    references = Rankd(options.build, *exact, files)
    expected = {size: references.ask("score", size) for size in files}
    references.end()
    rankd = Rankd(options.build, *(quantized if number_format == "int8" else exact), files)
    peers, about = {}, {}
    for framework in FRAMEWORKS:  # one after the other: they look for their best variants, alone on the machine
        for processes, threads in [(cores, 1)] + ([(1, cores)] if cores > 1 else []):
            side = peers[framework, threads] = peer(options, framework, number_format, flat, files, processes, threads)
            about[framework, threads] = json.loads(side.ready())
            say(f"  {about[framework, threads]['version']}, {threads} threads: " +
                ", ".join(f"{size}: {of['best']}" for size, of in about[framework, threads]["sizes"].items()))
    differences = {size: {side: difference(ask("score", size), expected[size])
                          for side, ask in [("rankd", rankd.ask)] + [(framework, peers[framework, 1].ask) for framework in FRAMEWORKS]} for size in files}
    for size, of in differences.items():
        if number_format == "fp32" and max(of.values()) > TOLERANCE:
            raise SystemExit(f"{name} fp32, {size} candidates: scores differ from rankd's by {of}")

    # Who may run: (side, cores it uses, how it is asked).
    turns = [("rankd", count, lambda size, count=count: rankd.ask("run", size, options.seconds, count)) for count in sorted({1, cores})]
    for (framework, threads), side in peers.items():
        counts = [cores] if threads > 1 else sorted({1, cores})
        turns += [(framework, count, lambda size, side=side, count=count: side.ask("run", size, options.seconds, count)) for count in counts]
    rates = {}
    for round_number in range(options.rounds):
        say(f"  round {round_number + 1} of {options.rounds}")
        for size in files:
            for turn, (_, _, run) in enumerate(turns):
                rates.setdefault((size, turn), []).append(run(size))
    for side in (rankd, *peers.values()):
        side.end()

    results = []
    for count in sorted({1, cores}):
        for size in files:
            best, per_core = {}, {}
            for turn, (side, used, _) in enumerate(turns):
                if used == count:
                    rate, of_processor = map(statistics.median, zip(*rates[size, turn]))
                    best[side], per_core[side] = max(best.get(side, 0), rate), max(per_core.get(side, 0), of_processor)
            winner = max(FRAMEWORKS, key=best.get)
            results.append({"model": name, "format": number_format, "cores": count, "candidates": size, "request": size == REQUEST, **best,
                            "best_peer": winner, "variant": about[winner, 1]["sizes"][str(size)]["best"], "ratio": best["rankd"] / best[winner],
                            "target": TARGETS[number_format].get(size), "per_processor_s": per_core,
                            "ratio_of_processor_time": per_core["rankd"] / max(per_core[framework] for framework in FRAMEWORKS),
                            "logit_difference": differences[size]})
    return results, {f"{framework} {threads} threads": of for (framework, threads), of in about.items()}, rankd.describe


def print_table(results):
    print(f"{'model':12} {'format':6} {'cores':>5} {'batch':>11} {'rankd/s':>10} {'PyTorch/s':>10} {'ONNX RT/s':>10} {'ratio':>6} {'by cpu':>6} "
          f"{'target':>6}   best peer")
    for row in results:
        batch = "request 270" if row["request"] else row["candidates"]
        target = "" if row["target"] is None else row["target"]
        print(f"{row['model']:12} {row['format']:6} {row['cores']:5} {batch:>11} {row['rankd']:10.0f} {row['torch']:10.0f} {row['onnx']:10.0f} "
              f"{row['ratio']:6.2f} {row['ratio_of_processor_time']:6.2f} {target:>6}   {row['best_peer']}: {row['variant']}")


def main():
    options = arguments()
    fixture = bench_common.fixture(options.build)
    cores = len(os.sched_getaffinity(0))
    results, about, describe = [], {}, None
    for name in options.models.split(","):
        made = peer_models.made(options, fixture, name)
        split, flat, quantized, files = made.split, made.flat, (made.flat_int8, made.split_int8), made.files
        for number_format in options.formats.split(","):
            rows, tried, describe = compare(options, name, number_format, (split, flat, (flat, split), quantized), files, cores)
            results += rows
            about[f"{name} {number_format}"] = tried
    if options.json:
        print(json.dumps({"bench": "peers", "engine": describe, "cores": cores, "rounds": options.rounds, "tried": about, "results": results}, indent=2))
        return
    print(f"{describe}\n{', '.join(sorted({of['version'] for tried in about.values() for of in tried.values()}))}\n")
    print_table(results)
    for row in results:
        if row["format"] == "int8" and row["cores"] == 1:
            print(f"int8, {row['model']}, {row['candidates']} candidates: largest difference to fp32 logits: " +
                  ", ".join(f"{side} {value:.2g}" for side, value in row["logit_difference"].items()))


if __name__ == "__main__":
    main()
