#!/usr/bin/env python3
"""One peer, kept warm: a framework and a number format, with the batches that it is to score. The protocol of engine_peer.

    worker.py --framework torch|onnx --format fp32|int8 --package DIR --processes P --threads T FILE.jsonl...

The best variant is found for each size by timing them all. Then P processes are forked off, each on a core of its own unless it has several threads,
which share the tables; "run SIZE SECONDS N" has the first N of them score batches at the same time."""

import argparse
import importlib
import json
import os
import statistics
import sys
import time

import package

TUNING_S, TUNING_ROUNDS = 0.1, 3


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--framework", choices=("torch", "onnx"), required=True)
    parser.add_argument("--format", choices=("fp32", "int8"), required=True)
    parser.add_argument("--package", required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("files", nargs="+")
    return parser.parse_args()


class Size:
    """Batches of one size, and the variant that is fastest with them: by time (0), or by processor time (1), which is the same where there is one
    thread, and is not disturbed by what else the machine does."""

    def __init__(self, peer, variants, batches, by):
        self.peer, self.rows, self.prepared = peer, batches[0].rows, {}
        for variant in variants:
            self.prepared[variant] = [variant.prepare(batch) for batch in batches]
            for inputs in self.prepared[variant][:3]:  # compiles, and specialises
                peer.call(variant, inputs)
        rates = {variant: [] for variant in variants}
        for _ in range(TUNING_ROUNDS):
            for variant in variants:
                rates[variant].append(self.rates(variant, TUNING_S)[by])
        self.tried = {variant.name: statistics.median(values) for variant, values in rates.items()}
        self.best = max(variants, key=lambda variant: self.tried[variant.name])
        self.prepared = {self.best: self.prepared[self.best]}

    def rates(self, variant, seconds, first=0):
        """Candidates a second, and a second of processor time."""
        call, prepared, clock = self.peer.call, self.prepared[variant], time.perf_counter
        count, runs, processor_start, start = len(prepared), 0, time.process_time(), clock()
        end, now = start + seconds, start
        while now < end:
            call(variant, prepared[(first + runs) % count])
            runs += 1
            now = clock()
        return runs * self.rows / (now - start), runs * self.rows / (time.process_time() - processor_start)

    def run(self, seconds, part):
        return self.rates(self.best, seconds, int(part * len(self.prepared[self.best])))

    def scores(self):
        return self.peer.logits(self.best, self.prepared[self.best][0])


def fork_child(sizes, number, processes, core):
    """A child that answers "SIZE SECONDS" lines; its pipes."""
    to_child, from_child = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(to_child[1])
        os.close(from_child[0])
        os.sched_setaffinity(0, {core})
        with os.fdopen(to_child[0]) as commands, os.fdopen(from_child[1], "w") as answers:
            for line in commands:
                size, seconds = line.split()
                print(*sizes[int(size)].run(float(seconds), number / processes), file=answers, flush=True)
        os._exit(0)
    os.close(to_child[0])
    os.close(from_child[1])
    return os.fdopen(to_child[1], "w"), os.fdopen(from_child[0])


def obey(sizes, processes, cores):
    """With one process its threads are the framework's, else children do the work."""
    children = [fork_child(sizes, number, processes, cores[number]) for number in range(processes)] if processes > 1 else []
    for line in sys.stdin:
        command, size, *rest = line.split()
        if command == "score":
            print(" ".join(f"{value:.9g}" for value in sizes[int(size)].scores().reshape(-1)), flush=True)
        elif not children:
            print(*sizes[int(size)].run(float(rest[0]), 0), flush=True)
        else:
            chosen = children[:int(rest[1])]
            for commands, _ in chosen:
                print(size, rest[0], file=commands, flush=True)
            rates = [tuple(map(float, answers.readline().split())) for _, answers in chosen]
            print(sum(rate for rate, _ in rates), statistics.harmonic_mean([rate for _, rate in rates]), flush=True)


def main():
    options = arguments()
    cores = sorted(os.sched_getaffinity(0))
    if options.threads == 1:
        os.sched_setaffinity(0, {cores[0]})
    peer = importlib.import_module(options.framework + "_peer")
    model = package.load(options.package)
    batches = [[package.tiled(request, model) for request in package.read_requests(path)] for path in options.files]
    with peer.guard():
        variants = peer.variants(model, options.format, options.threads, [batch for of_size in batches for batch in of_size])
        sizes = {made.rows: made for made in (Size(peer, variants, of_size, int(options.threads == 1)) for of_size in batches)}
        best = {size: {"best": made.best.name, "tried": made.tried} for size, made in sizes.items()}
        print("ready " + json.dumps({"version": peer.VERSION, "sizes": best}), flush=True)
        obey(sizes, options.processes, cores)


if __name__ == "__main__":
    main()
