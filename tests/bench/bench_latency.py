#!/usr/bin/python3
"""How even the time of a request is: one in flight, 270 candidates; p99 against p50.

    bench_latency.py [--build DIR] [--rounds N] [--seconds S] [--rows N] [--json]

The demo model (its requests joined to 270 candidates under one context) and a made-up DLRM with 26 tables x 128 in int8, each served
alone. An empty RPC is measured by turns with them: what its p99 is above its p50 comes from the machine and the sockets, and is in a
request's, too. Medians over the rounds."""

import json
import statistics
import tempfile

import bench_common

TARGET, CANDIDATES = 1.5, 270


def join(source, target):
    """Requests of exactly CANDIDATES candidates: those of the next ones join in."""
    with open(source, encoding="utf-8") as lines:
        requests = [json.loads(line) for line in lines]
    pool = [candidate for request in requests for candidate in request["candidates"]]
    for number, request in enumerate(requests[:40]):
        request["candidates"] = (pool[number * 50:] + pool)[:CANDIDATES]
        target.write(json.dumps(request) + "\n")
    target.flush()


def main():
    parser = bench_common.parser(__doc__, makes_models=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement in each round")
    parser.add_argument("--rows", type=int, default=100000, help="of each table of the made-up model")
    options = parser.parse_args()
    fixture = bench_common.fixture(options.build)
    shape = ["--shape", "dlrm-26x128", "--max-rows", options.rows]
    dlrm = bench_common.quantised(options, bench_common.synthetic(options, "dlrm-26x128", shape), "int8", "int8")
    made_up = bench_common.synthetic_requests(options, "dlrm-26x128", shape, 24, CANDIDATES)
    results = {}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as joined:
        join(fixture.DEMO / "requests.jsonl", joined)
        for name, repository, model, requests in (("steam fp32", fixture.repository_of("steam"), "steam", joined.name),
                                                  ("dlrm-26x128 int8", dlrm.parent.parent, dlrm.parent.name, made_up)):
            if model != "steam":  # nothing else in its repository
                repository = fixture.scratch("latency")
                bench_common.quietly("cp", "-r", dlrm.parent, repository / model)
            with fixture.RankdServer(repository, ready_s=120) as server:
                def bench(*words):
                    found = server.rankctl("bench", "--seconds", options.seconds, "--json", *words, timeout=60 + options.seconds)
                    return json.loads(found.stdout)["latency_us"]
                ranking = ("--model", model, "--requests", requests)
                bench(*ranking)  # warm
                ranked, empty = [], []
                for _ in range(options.rounds):
                    ranked.append(bench(*ranking))
                    empty.append(bench("--empty"))
            results[name] = {f"{what}_{percentile}_us": statistics.median(each[percentile] for each in found)
                             for what, found in (("rank", ranked), ("empty", empty)) for percentile in ("p50", "p99")}
            results[name]["ratio"] = statistics.median(each["p99"] / each["p50"] for each in ranked)
    if options.json:
        bench_common.print_json(results)
        return
    for name, found in results.items():
        print(f"{name}: {CANDIDATES} candidates, one request at a time: p50 {found['rank_p50_us']:.0f} us, p99 {found['rank_p99_us']:.0f} us: "
              f"{found['ratio']:.2f} x; target {TARGET}: {'met' if found['ratio'] <= TARGET else 'missed'} "
              f"(empty RPC: p50 {found['empty_p50_us']:.0f}, p99 {found['empty_p99_us']:.0f} us)")


if __name__ == "__main__":
    main()
