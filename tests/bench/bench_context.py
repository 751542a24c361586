#!/usr/bin/python3
"""What it is worth to compute the context once: 270 candidates of one user, against the same with all features given per candidate.

    bench_context.py [--build DIR] [--rows N] [--seconds S] [--json]

Made-up models, each in both forms and in fp32 and int8. The feed models: 30 tables x 64 with 20 ids in a bag (a user's histories),
18 of them the user's, so 60% of the lookups, and half of 16 dense inputs; one puts the vectors one behind the other (cat), the other
multiplies pairs of them (dot), of which the user's are a third. dlrm: 26 tables x 128 with 1 id, 16 of them the user's, and MLPerf's
towers, which are 95% of the work, nearly all of it behind the first layer: there is little to save."""

import json

import bench_common

TARGET = 2.0
FEED = ["--tables", 30, "--dim", 64, "--pooling-factor", 20, "--bottom", "16-128-64", "--top", "0-256-64-1"]
SHAPES = {
    "feed cat": [*FEED, "--interaction", "cat"],
    "feed dot": [*FEED, "--interaction", "dot"],
    "dlrm": ["--shape", "dlrm-26x128", "--bottom", "16-512-256-128"],
}
CONTEXT_FEATURES = {"feed cat": 18, "feed dot": 18, "dlrm": 16}


def flatten(requests, flat):
    """The same requests with the context repeated for each candidate."""
    with requests.open(encoding="utf-8") as source, flat.open("w", encoding="utf-8") as target:
        for line in source:
            request = json.loads(line)
            context = request["context"]
            for candidate in request["candidates"]:
                candidate["dense"] = context.get("dense", []) + candidate.get("dense", [])
                candidate["ids"] = {**context["ids"], **candidate["ids"]}
            request["context"] = {}
            target.write(json.dumps(request) + "\n")


def main():
    parser = bench_common.parser(__doc__, makes_models=True)
    parser.add_argument("--rows", type=int, default=100000, help="of each table")
    parser.add_argument("--requests", type=int, default=24, help="how many there are")
    parser.add_argument("--seconds", type=float, default=4, help="measuring time of each pair")
    options = parser.parse_args()
    results = {}
    for name, shape in SHAPES.items():
        label = name.replace(" ", "-")
        shape = [*shape, "--max-rows" if name == "dlrm" else "--rows", options.rows]
        sides = ["--context-features", CONTEXT_FEATURES[name], "--context-dense", 8]
        package = bench_common.synthetic(options, label, [*shape, *sides])
        requests = bench_common.synthetic_requests(options, label, [*shape, *sides], options.requests, 270)
        flat = bench_common.synthetic(options, f"{label}-flat", [*shape, "--context-features", 0, "--context-dense", 0])
        flat_requests = requests.with_suffix(".flat.jsonl")
        if not flat_requests.exists():
            flatten(requests, flat_requests)
        for towers in "fp32", "int8":
            pair = [package, flat] if towers == "fp32" else [bench_common.quantised(options, each, "int8", "int8") for each in (package, flat)]
            results[f"{name} {towers}"] = bench_common.measure(options, "bench_context", "--model", pair[0], "--requests", requests, "--flat-model", pair[1],
                                                               "--flat-requests", flat_requests, "--seconds", options.seconds)
    if options.json:
        bench_common.print_json(results)
        return
    print(f"{'270 candidates':14} {'context once':>14} {'per candidate':>14} {'ratio':>7}   largest difference of a logit")
    for name, found in results.items():
        target = f"  target {TARGET}: {'met' if found['ratio'] >= TARGET else 'missed'}" if name.startswith("feed cat") else ""
        print(f"{name:14} {found['once_us']:11.1f} us {found['flat_us']:11.1f} us {found['ratio']:7.2f}   {found['largest_difference']:.2g}{target}")


if __name__ == "__main__":
    main()
