#!/usr/bin/python3
"""What an overload does to rankd: goodput, latency of what is accepted, refusals and recovery, at multiples of what it can do.

    bench_overload.py [--build DIR] [--seconds S] [--deadline-ms N] [--rounds N] [--candidates N] [--demo] [--json]

Goodput are answers within the deadline, timed from when a request was due. The model is a DLRM with 26 tables x 128, of which a request takes
milliseconds; of the demo model (--demo), microseconds, so that ten times its capacity is tens of thousands of messages a second, and the row is about
sockets. rankd has one worker and one event loop on one processor, the generator another. Capacity is the goodput of a closed loop with two in flight,
measured before each of the rounds: machines change. Then requests come as a Poisson process, at 0.5 to 10 times the capacity; medians over the
rounds. `late` is the share of computed requests that were done only after their deadline, as rankd counts them. Recovery: half of the capacity all
the time, ten times as much for two seconds, and how long after these end a 10 ms interval was the first of five in which all requests got good
answers. With two processors, what the generator and the system's network code need is taken from nobody else, but a shared machine shows: `behind` is
how late the generator's own sends were (p99). Where that is more than a millisecond, the row is about the generator and not about rankd, and nothing
is said to be met or missed by it."""

import csv
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile

import bench_common
import bench_latency

LOADS = 0.5, 0.85, 0.9, 1, 2, 5, 10
GOODPUT = {2: 98, 5: 95, 10: 90}  # percent of the peak, wanted
LOG_MS, QUIET = 10, 5
MAX_BEHIND_US = 1000
LARGEST = 512  # candidates of a batch at most, unless rankd is told otherwise


@dataclasses.dataclass
class Generator:
    options: object
    fixture: object
    server: object
    model: str
    requests: str
    core: int

    def command(self, *words, seconds=None):
        return ["taskset", "-c", str(self.core), str(self.fixture.RANKCTL), "--target", self.server.target, "bench", "--model", self.model,
                "--requests", str(self.requests), "--connections", "8", "--deadline-ms", str(self.options.deadline_ms), "--json",
                "--seconds", str(seconds or self.options.seconds), *map(str, words)]

    def run(self, *words):
        return json.loads(subprocess.run(self.command(*words), capture_output=True, text=True, check=False).stdout)

    def poisson(self, rate, *words):
        return self.run("--rate", round(rate), "--arrivals", "poisson", *words)


def capacity(generator):
    """A closed loop that keeps the worker busy, and no more."""
    return generator.run("--connections", 1, "--in-flight", 2)["goodput_per_s"]


def measured(generator, server, load, seed):
    """At this load of the capacity as it is just now."""
    def counts():
        return json.loads(server.rankctl("status", "--json").stdout)
    peak = capacity(generator)
    before = counts()
    found = generator.poisson(peak * load, "--seed", seed)
    after = counts()
    computed = after["batched_requests"] - before["batched_requests"]
    return {"load": load, "peak_per_s": peak, "rate": round(peak * load), "goodput_percent": 100 * found["goodput_per_s"] / peak,
            "goodput_per_s": found["goodput_per_s"],
            "p99_us": found["latency_us"]["p99"], "refused_p99_us": found["refused_us"]["p99"], "refused": found["refused_us"]["count"],
            "late_percent": 100 * (after["computed_late"] - before["computed_late"]) / max(computed, 1),
            "behind_us": found["lag_us"]["p99"], "unsent": found["unsent"], "generator_us_per_call": found["own_us_per_call"],
            "batch_us": 1e6 / peak * computed / max(after["batches"] - before["batches"], 1)}


def row(generator, server, load):
    """Medians over the rounds, each figure by itself."""
    rounds = [measured(generator, server, load, 1 + number) for number in range(generator.options.rounds)]
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def largest_batch_us(generator, largest):
    """What the worker takes for as many candidates as a batch may have, in one request."""
    return dataclasses.replace(generator, requests=largest).run()["latency_us"]["p50"]


def recovery(generator, peak):
    """When all was well again, in ms, None when that was not within the log; and how late the generators were."""
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "steady.csv")
        words = "--arrivals", "poisson", "--warmup-ms", 500
        with subprocess.Popen(generator.command("--rate", round(peak / 2), "--log", log, "--log-ms", LOG_MS, *words, seconds=6),
                              stdout=subprocess.PIPE) as steady:
            burst = json.loads(subprocess.run(generator.command("--rate", round(peak * 9.5), *words, seconds=2), capture_output=True, check=False).stdout)
            beside = json.loads(steady.communicate()[0])
        with open(log, encoding="ascii") as file:
            rows = [{name: float(value) for name, value in each.items()} for each in csv.DictReader(file)]
    ended_us = burst["begin_us"] + 2e6
    rows = [each for each in rows if each["begin_us"] >= ended_us]
    behind_us = max(burst["lag_us"]["p99"], beside["lag_us"]["p99"])
    for number, each in enumerate(rows[:-QUIET]):
        if all(later["good"] == later["ended"] for later in rows[number:number + QUIET]):
            return {"ms": (each["begin_us"] - ended_us) / 1000, "behind_us": behind_us}
    return {"ms": None, "behind_us": behind_us}


def demo(fixture, folder):
    paths = []
    for candidates in (bench_latency.CANDIDATES, LARGEST):
        paths.append(os.path.join(folder, f"{candidates}.jsonl"))
        with open(paths[-1], "w", encoding="utf-8") as joined:
            bench_latency.join(fixture.DEMO / "requests.jsonl", joined, candidates)
    return fixture.repository_of("steam"), "steam", *paths


def made_up(options, folder):
    shape = ["--shape", "dlrm-26x128", "--max-rows", 100000]
    package = bench_common.synthetic(options, "dlrm-26x128", shape)
    bench_common.quietly("cp", "-r", package.parent, folder)  # nothing else in its repository
    requests = [bench_common.synthetic_requests(options, "dlrm-26x128", shape, 24, candidates) for candidates in (options.candidates, LARGEST)]
    return folder, package.parent.name, *requests


def measure(options):
    fixture = bench_common.fixture(options.build)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("bench_overload.py needs two processors: one for rankd, one for the generator")
    with tempfile.TemporaryDirectory() as folder:
        repository, model, requests, largest = demo(fixture, folder) if options.demo else made_up(options, folder)
        with fixture.RankdServer(repository, "--workers", 1, "--event-loops", 1, ready_s=120) as server:
            subprocess.run(["taskset", "-a", "-c", "-p", str(cores[0]), str(server.pid)], check=True, stdout=subprocess.DEVNULL)
            generator = Generator(options, fixture, server, model, requests, cores[1])
            generator.run()  # warm
            largest_us = largest_batch_us(generator, largest)
            rows = [row(generator, server, load) for load in LOADS]
            peak = statistics.median(each["peak_per_s"] for each in rows)
            recovered = [recovery(generator, peak) for _ in range(options.rounds)]
    return {"peak_per_s": peak, "deadline_ms": options.deadline_ms, "largest_batch_us": largest_us, "rows": rows, "recovery": recovered}


def verdict(met, *measured):
    """Whether a target is met, where the generator kept up with what it should send."""
    if max(each["behind_us"] for each in measured) > MAX_BEHIND_US:
        return "cannot be told, the generator was behind"
    return "met" if met else "MISSED"


def main():
    parser = bench_common.parser(__doc__, makes_models=True)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of each load")
    parser.add_argument("--deadline-ms", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=100, help="of a request to the made-up model")
    parser.add_argument("--demo", action="store_true", help="measure the demo model")
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        bench_common.print_json(found)
        return
    candidates = bench_latency.CANDIDATES if options.demo else options.candidates
    print(f"capacity {found['peak_per_s']:.0f} requests/s within {options.deadline_ms} ms, each of {candidates} candidates; rankd on one processor, the "
          "generator on another")
    print(f"{'load':>5} {'rate/s':>8} {'goodput/s':>10} {'of peak':>8} {'p99 ms':>8} {'refused':>8} {'their p99':>10} {'late':>7} {'behind':>8}")
    rows = {each["load"]: each for each in found["rows"]}
    for each in rows.values():
        print(f"{each['load']:>5} {each['rate']:>8.0f} {each['goodput_per_s']:>10.0f} {each['goodput_percent']:>7.1f}% {each['p99_us'] / 1000:>8.2f} "
              f"{each['refused']:>8.0f} {each['refused_p99_us'] / 1000:>7.2f} ms {each['late_percent']:>6.2f}% {each['behind_us'] / 1000:>5.2f} ms")
    for load, wanted in GOODPUT.items():
        percent = rows[load]["goodput_percent"]
        print(f"goodput at {load}x: {percent:.1f}% of peak; wanted {wanted}: {verdict(percent >= wanted, rows[load])}")
    over = [rows[load] for load in GOODPUT]
    slower = max(each["p99_us"] for each in over) / rows[0.9]["p99_us"]
    refused = max(each["refused_p99_us"] for each in over) / 1000
    late = max(each["late_percent"] for each in over)
    lasted = [each["ms"] for each in found["recovery"] if each["ms"] is not None]
    print(f"p99 of what is accepted: {slower:.2f} x that at 0.9 load; wanted 1.5: {verdict(slower <= 1.5, rows[0.9], *over)}")
    print(f"p99 of refusals: {refused:.2f} ms; wanted 2: {verdict(refused <= 2, *over)}")
    print(f"computed after the deadline: {late:.3f}%; wanted 0.1: {verdict(late <= 0.1, *over)}")
    recovered = len(lasted) == len(found["recovery"])
    print(f"recovery: {'median ' + format(statistics.median(lasted), '.0f') + ' ms' if recovered else 'not within the log'}; wanted 100: "
          f"{verdict(recovered and statistics.median(lasted) <= 100, *found['recovery'])}")
    at85 = rows[0.85]
    print(f"p99 at 85% of capacity: {at85['p99_us'] / found['largest_batch_us']:.2f} x the {found['largest_batch_us'] / 1000:.1f} ms of a batch of {LARGEST} "
          f"candidates; wanted 2: {verdict(at85['p99_us'] <= 2 * found['largest_batch_us'], at85)} ({at85['p99_us'] / at85['batch_us']:.1f} x the "
          f"{at85['batch_us'] / 1000:.1f} ms of a mean batch there: alone, a worker that is busy for 85% of random arrivals' time has a queue of that length)")


if __name__ == "__main__":
    main()
