#!/usr/bin/python3
"""Pooled lookups of PyTorch beside those of bench_pool: tables of the same size in huge pages, bags of 32 random rows, one core.

    bench_pool_torch.py [--build DIR] [--mib 2048] [--rounds 31] [--json]

PyTorch and bench_pool run one after the other, three times; medians of the three, nanoseconds per row. A PyTorch that was built without FBGEMM, as
Debian's is, has plain loops for int8 and int4: only its fp32 figure is one to be measured against then."""

import json
import mmap
import os
import statistics
import subprocess
import time

import numpy
import torch

import bench_common

DIM, BAG, BAGS, TURNS = 128, 32, 512, 3
ROW_BYTES = {"fp32": 4 * DIM, "int8": DIM + 8, "int4": DIM // 2 + 4}


def lookup(name):
    """A function of (table, ids, offsets) that gives the sums."""
    if name == "fp32":
        return lambda table, ids, offsets: torch.nn.functional.embedding_bag(ids, table, offsets, mode="sum")
    of = {"int8": torch.ops.quantized.embedding_bag_byte_rowwise_offsets, "int4": torch.ops.quantized.embedding_bag_4bit_rowwise_offsets}[name]
    return lambda table, ids, offsets: of(table, ids, offsets, mode=0)


def measure(memory, name, rounds, random):
    """The median over the rounds; every round asks for rows of its own."""
    rows = len(memory) // ROW_BYTES[name]
    table = torch.from_numpy(numpy.frombuffer(memory, dtype=numpy.float32 if name == "fp32" else numpy.uint8,
                                              count=rows * ROW_BYTES[name] // (4 if name == "fp32" else 1)).reshape(rows, -1))
    offsets = torch.arange(0, BAGS * BAG, BAG)
    run, times = lookup(name), []
    for _ in range(rounds + 1):
        ids = torch.from_numpy(random.integers(0, rows, BAGS * BAG))
        start = time.perf_counter_ns()
        run(table, ids, offsets)
        times.append((time.perf_counter_ns() - start) / (BAGS * BAG))
    return statistics.median(times[1:])


def ours(build, mib, rounds, name):
    done = subprocess.run([str(build / "tests/bench/bench_pool"), "--json", "--mib", str(mib), "--rounds", str(rounds), "--format", name],
                          capture_output=True, check=True, text=True)
    return json.loads(done.stdout)["results"][0]["ns"]


def main():
    parser = bench_common.parser(__doc__)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    random = numpy.random.default_rng(1)
    times = {name: ([], []) for name in ROW_BYTES}
    for _ in range(TURNS):
        memory = mmap.mmap(-1, arguments.mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        block = random.integers(0x30, 0x40, 1 << 20, dtype=numpy.uint8).tobytes()  # small positive numbers in every format
        for _ in range(arguments.mib):
            memory.write(block)
        for name, (torch_ns, _) in times.items():
            torch_ns.append(measure(memory, name, arguments.rounds, random))
        del memory
        for name, (_, our_ns) in times.items():
            our_ns.append(ours(arguments.build, arguments.mib, arguments.rounds, name))
    results = [{"format": name, "torch_ns": statistics.median(t), "ns": statistics.median(o), "times_torch_rate": statistics.median(t) / statistics.median(o)}
               for name, (t, o) in times.items()]
    if arguments.json:
        print(json.dumps({"bench": "pool_torch", "torch": torch.__version__, "mib": arguments.mib, "results": results}, indent=2))
        return
    print(f"PyTorch {torch.__version__}, {BAG} rows a bag, dim {DIM}, {arguments.mib} MiB, ns per row")
    print(f"{'format':8} {'torch':>8} {'ours':>8} {'torch/ours':>11}")
    for result in results:
        print(f"{result['format']:8} {result['torch_ns']:8.2f} {result['ns']:8.2f} {result['times_torch_rate']:11.2f}")


if __name__ == "__main__":
    main()
