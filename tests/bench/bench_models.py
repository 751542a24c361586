#!/usr/bin/python3
"""Candidates per second on one core, where the time goes, and how near that is to what the core could do.

    bench_models.py [--build DIR] [--rows N] [--seconds S] [--batch 1,32,128,512] [--roofline F.svg] [--json]

The demo model, a DLRM with 26 tables x 128 and the shape of MLPerf's DLRM-DCNv2, both made once by rankpack in BUILD/bench, as they are and with int8 rows
and bf16 or int8 towers (whose layers find a range for each row that they read, or have ranges fixed by a sample).
bench_engine alternates the engine with the limits that it probes in the same run: reading the rows, and multiplying in each format."""

import sys

import bench_common
import roofline

TARGET = 0.85


def read_arguments():
    parser = bench_common.parser(__doc__, makes_models=True)
    parser.add_argument("--rows", type=int, default=100000, help="most rows of a table (100000 rows are 49 MiB a table)")
    parser.add_argument("--seconds", type=float, default=1, help="measuring time of each size and probe")
    parser.add_argument("--batch", default="1,32,128,512", help="candidates per batch")
    parser.add_argument("--models", default="", help="only models whose names contain this")
    parser.add_argument("--roofline", help="draw the stages of the largest batch into this SVG file")
    return parser.parse_args()


def models(options):
    fixture = bench_common.fixture(options.build)
    yield "steam", fixture.repository_of("steam") / "steam/1", fixture.DEMO / "requests.jsonl"
    for shape, candidates in ("dlrm-26x128", 512), ("mlperf-dlrm-dcnv2", 256):
        arguments = ["--shape", shape, "--max-rows", options.rows]
        for towers in "fp32", "bf16", "int8", "int8 calibrated":
            name = f"{shape} {towers}"
            if options.models not in name:
                continue
            package = bench_common.synthetic(options, shape, arguments)
            requests = bench_common.synthetic_requests(options, shape, arguments, 32, candidates)
            number_format, _, calibrated = towers.partition(" ")
            sample = bench_common.synthetic_requests(options, shape, arguments, 8, 128) if calibrated else None
            yield name, package if towers == "fp32" else bench_common.quantised(options, package, "int8", number_format, sample), requests


def print_table(name, found):
    peaks = ", ".join(f"{number_format} {rate:.0f}" for number_format, rate in found["macs_per_us"].items())
    print(f"\n{name} (peaks, multiply-adds per us: {peaks})")
    print(f"{'batch':>6} {'candidates/s':>13} | {'us/candidate':>12} {'lookup':>8} {'interaction':>11} {'towers':>8} {'rest':>7} | "
          f"{'gather':>8} {'compute':>8} {'of limit':>8}")
    for row in found["results"]:
        each = [us / row["batch"] for us in (row["us_per_batch"], *(stage["us"] for stage in row["stages"].values()), row["gather_us"], row["compute_us"])]
        print(f"{row['batch']:6} {row['candidates_per_s']:13.0f} | {each[0]:12.3f} {each[1]:8.3f} {each[2]:11.3f} {each[3]:8.3f} {each[4]:7.3f} | "
              f"{each[5]:8.3f} {each[6]:8.3f} {row['of_limit']:8.1%}")
    sys.stdout.flush()


def main():
    options = read_arguments()
    results = {}
    for name, package, requests in models(options):
        if options.models not in name:
            continue
        results[name] = bench_common.measure(options, "bench_engine", "--model", package, "--requests", requests, "--seconds", options.seconds,
                                             "--batch", options.batch)
        if not options.json:
            print_table(name, results[name])
    if options.json:
        bench_common.print_json(results)
    else:
        print(f"\nof limit: the longer of gather and compute, over what it took; the target is {TARGET:.0%} in large batches")
    if options.roofline:
        roofline.draw(options.roofline, results)


if __name__ == "__main__":
    main()
