#!/usr/bin/python3
"""How far lookups hide behind multiplications: whole batches against the longer of lookups alone and everything else alone.

    bench_overlap.py [--build DIR] [--made DIR] [--table-gib N] [--candidates 512] [--seconds S] [--json]

A made-up model with 26 tables x 128, int8 rows in huge pages and int8 towers (MLPerf's). First the two halves are measured with one id
in a bag; then with as many that both take about as long, which is where hiding one behind the other could save most."""

import shutil
import sys

import bench_common

TARGET = 1.15
ROW_BYTES, TABLES = 136, 26


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def check_room(options, table_bytes, to_write):
    """Ends the program when memory or disk are too small."""
    for what, wanted, free in (("memory", table_bytes * 1.2, available_bytes()),
                               (str(bench_common.made_folder(options)), to_write * 1.1, shutil.disk_usage(bench_common.made_folder(options)).free)):
        if wanted > free:
            sys.exit(f"bench_overlap.py: {wanted / 2 ** 30:.1f} GiB are needed in {what}, {free / 2 ** 30:.1f} GiB are free: give a smaller --table-gib" +
                     (", or another folder with --made" if what != "memory" else ""))


def measure(options, package, shape, pooling_factor):
    requests = bench_common.synthetic_requests(options, "overlap", [*shape, "--pooling-factor", pooling_factor], options.requests, options.candidates)
    return bench_common.measure(options, "bench_overlap", "--model", package, "--requests", requests, "--candidates", options.candidates,
                                "--seconds", options.seconds)


def main():
    parser = bench_common.parser(__doc__, makes_models=True)
    parser.add_argument("--table-gib", type=float, default=8, help="of int8 rows in all tables; twice as much on disk")
    parser.add_argument("--candidates", type=int, default=512, help="in a batch")
    parser.add_argument("--requests", type=int, default=48, help="how many there are")
    parser.add_argument("--seconds", type=float, default=8, help="measuring time")
    options = parser.parse_args()
    table_bytes = options.table_gib * 2 ** 30
    rows = int(table_bytes / TABLES / ROW_BYTES)
    shape = ["--tables", TABLES, "--dim", 128, "--rows", rows, "--bottom", "13-512-256-128", "--top", "0-1024-1024-512-256-1", "--context-features", 0,
             "--context-dense", 0]
    made = [*shape, "--row-format", "int8"]
    exists = (bench_common.made_folder(options) / (bench_common.named("overlap", made) + "-int8-int8") / "1").exists()
    check_room(options, table_bytes, 0 if exists else 2 * table_bytes)
    package = bench_common.quantised(options, bench_common.synthetic(options, "overlap", made), "int8", "int8")
    first = measure(options, package, shape, 1)
    balanced, pooling_factor = first, 1
    for _ in range(2):  # a longer bag takes less time for each of its ids
        pooling_factor = max(1, round(pooling_factor * balanced["rest_us"] / balanced["lookup_us"]))
        balanced = measure(options, package, shape, pooling_factor)
    balanced["pooling_factor"] = pooling_factor
    if options.json:
        bench_common.print_json({"one_id": first, "balanced": balanced})
        return
    print(f"{options.candidates} candidates, {balanced['bytes'] / 2 ** 30:.1f} GiB, us a candidate")
    print(f"{'ids in a bag':>12} {'whole':>9} {'lookups':>9} {'(reading':>9} {'arithm.)':>9} {'the rest':>9} {'ratio':>7} {'possible':>9}")
    for ids, found in (1, first), (pooling_factor, balanced):
        each = [found[key] / options.candidates for key in ("whole_us", "lookup_us", "gather_us", "arithmetic_us", "rest_us")]
        print(f"{ids:12}" + "".join(f" {us:9.3f}" for us in each) + f" {found['ratio']:7.2f} {found['least_ratio']:9.2f}")
    print(f"ratio: whole over the longer half; target when balanced {TARGET}: {'met' if balanced['ratio'] <= TARGET else 'missed'}")
    print("possible: reading may hide behind arithmetic, but the arithmetic of lookups not behind that of the rest")


if __name__ == "__main__":
    main()
