#!/usr/bin/python3
"""Candidates per second on one core: the steam model and a synthetic DLRM, in batches of 1, 32, 128 and 512.

    bench_models.py [--build DIR] [--rows N] [--seconds S] [--json]

The DLRM has 26 tables x 128, bottom 13-512-256-128, top 479-1024-1024-512-256-1; rankpack makes it once, in BUILD/bench. bench_engine then
alternates the engine with the limits that it probes in the same run: the rate of a large sgemm, and a gather that only touches the rows."""

import json
import subprocess
import sys

import bench_common


def arguments():
    parser = bench_common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=100000, help="of each of the 26 tables (100000 rows are 49 MiB a table)")
    parser.add_argument("--seconds", type=float, default=1, help="measuring time of each size and probe")
    return parser.parse_args()


def synthetic(rankpack, folder, rows):
    """The package and its requests, made once for each number of rows."""
    package, requests = folder / f"dlrm-26x128-{rows}" / "1", folder / f"dlrm-26x128-{rows}.jsonl"
    if not (package.exists() and requests.exists()):
        print(f"making a DLRM of 26 tables of {rows} rows in {package}", file=sys.stderr, flush=True)
        subprocess.run([rankpack, "synth", "--shape", "dlrm-26x128", "--max-rows", str(rows), "--output", package, "--requests", "32",
                        "--candidates", "512", "--requests-output", requests], check=True, stdout=subprocess.DEVNULL)
    return package, requests


def main():
    options = arguments()
    fixture = bench_common.fixture(options.build)

    folder = options.build / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    models = {
        "steam": (fixture.repository_of("steam") / "steam/1", fixture.DEMO / "requests.jsonl"),
        "dlrm-26x128": synthetic(fixture.RANKPACK, folder, options.rows),
    }
    results = {}
    for name, (package, requests) in models.items():
        command = [options.build / "tests/bench/bench_engine", "--model", package, "--requests", requests, "--seconds", str(options.seconds)]
        if options.json:
            results[name] = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
        else:
            print(f"== {name}", flush=True)
            subprocess.run(command, check=True)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
