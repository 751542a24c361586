#!/usr/bin/python3
"""All cores against one: the engine on a DLRM with 26 tables x 128, fp32 and int8, in batches of 128.

    bench_scaling.py [--build DIR] [--rows N] [--seconds S] [--json]"""

import bench_common

TARGET = 0.95


def main():
    parser = bench_common.parser(__doc__, makes_models=True)
    parser.add_argument("--rows", type=int, default=100000, help="of each table")
    parser.add_argument("--seconds", type=float, default=6, help="measuring time of each model")
    options = parser.parse_args()
    shape = ["--shape", "dlrm-26x128", "--max-rows", options.rows]
    package, requests = bench_common.synthetic(options, "dlrm-26x128", shape), bench_common.synthetic_requests(options, "dlrm-26x128", shape)
    results = {}
    for towers in "fp32", "int8":
        model = package if towers == "fp32" else bench_common.quantised(options, package, "int8", "int8")
        results[towers] = bench_common.measure(options, "bench_scaling", "--model", model, "--requests", requests, "--seconds", options.seconds)
    if options.json:
        bench_common.print_json(results)
        return
    for towers, found in results.items():
        print(f"{towers}: one core {found['alone_per_s']:.0f} candidates/s, {found['cores']} cores {found['together_per_s']:.0f}: "
              f"{found['ratio']:.3f} x {found['cores']} x one; target {TARGET}: {'met' if found['ratio'] >= TARGET else 'missed'}")


if __name__ == "__main__":
    main()
