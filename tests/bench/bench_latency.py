#!/usr/bin/python3
"""How even the time of a request is, and how much of it the front end adds: one in flight, 270 candidates.

    bench_latency.py [--build DIR] [--rounds N] [--seconds S] [--rows N] [--json]

The demo model (its requests joined to 270 candidates under one context) and a made-up DLRM with 26 tables x 128 in int8, each served
alone. An empty RPC is measured by turns with them: what its p99 is above its p50 comes from the machine and the sockets, and is in a
request's, too. Medians over the rounds.

What is added is all but the engine's time. Inside the server, from the call's headers to the encoded answer, it tells that itself, request
by request (include_costs); what is around it, sockets, wake-ups and the client, is in an empty RPC, too. One worker, so that no request is cut
into parts that run side by side, and an idle server: `rankctl rank` sends one request after the other and prints each answer."""

import json
import statistics
import tempfile

import bench_common

TARGET, CANDIDATES = 1.5, 270
ADDED_TARGET_US = 100
REPEATED = 10  # the file of requests, for `rankctl rank`
ENGINE_STAGES = ("lookup_us", "interaction_us", "towers_us", "rest_us")
STAGES = ("receive_us", "queue_us", "answer_us")


def join(source, target, candidates=CANDIDATES):
    """Requests of exactly so many candidates: those of the next ones join in."""
    with open(source, encoding="utf-8") as lines:
        requests = [json.loads(line) for line in lines]
    pool = [candidate for request in requests for candidate in request["candidates"]]
    for number, request in enumerate(requests[:40]):
        request["candidates"] = (pool[number * 50:] + pool)[:candidates]
        target.write(json.dumps(request) + "\n")
    target.flush()


def percentile(values, percent):
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


def added(costs, empty_p50_us):
    """Beside the engine, from what the server told of its requests."""
    inside = [each["total_us"] - sum(each[stage] for stage in ENGINE_STAGES) for each in costs]
    found = {stage: percentile([each[stage] for each in costs], 50) for stage in STAGES}
    return {**found, "inside_p50_us": percentile(inside, 50), "inside_p99_us": percentile(inside, 99),
            "p50_us": percentile(inside, 50) + empty_p50_us}


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
            ranking = ("--model", model, "--requests", requests)

            def bench(server, *words):
                found = server.rankctl("bench", "--seconds", options.seconds, "--json", *words, timeout=60 + options.seconds)
                return json.loads(found.stdout)["latency_us"]
            ranked, empty, extra = [], [], []
            with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as repeated, fixture.RankdServer(repository, ready_s=120) as server, \
                    fixture.RankdServer(repository, "--workers", 1, ready_s=120) as alone:
                with open(requests, encoding="utf-8") as lines:
                    repeated.write(lines.read() * REPEATED)
                repeated.flush()
                bench(server, *ranking)  # warm
                for _ in range(options.rounds):
                    ranked.append(bench(server, *ranking))
                    empty.append(bench(server, "--empty"))
                    told = alone.rankctl("rank", *ranking[:2], "--requests", repeated.name, "--costs", "--json", timeout=60)
                    extra.append(added([json.loads(line)["costs"] for line in told.stdout.splitlines()], empty[-1]["p50"]))
            results[name] = {f"{what}_{percentile}_us": statistics.median(each[percentile] for each in found)
                             for what, found in (("rank", ranked), ("empty", empty)) for percentile in ("p50", "p99")}
            results[name]["ratio"] = statistics.median(each["p99"] / each["p50"] for each in ranked)
            results[name]["added"] = {key: statistics.median(each[key] for each in extra) for key in extra[0]}
    if options.json:
        bench_common.print_json(results)
        return
    for name, found in results.items():
        print(f"{name}: {CANDIDATES} candidates, one request at a time: p50 {found['rank_p50_us']:.0f} us, p99 {found['rank_p99_us']:.0f} us: "
              f"{found['ratio']:.2f} x; target {TARGET}: {'met' if found['ratio'] <= TARGET else 'missed'} "
              f"(empty RPC: p50 {found['empty_p50_us']:.0f}, p99 {found['empty_p99_us']:.0f} us)")
        more = found["added"]
        print(f"  added by the front end: p50 {more['p50_us']:.0f} us with the sockets; target {ADDED_TARGET_US}: "
              f"{'met' if more['p50_us'] < ADDED_TARGET_US else 'missed'} (inside the server p50 {more['inside_p50_us']:.0f}, p99 "
              f"{more['inside_p99_us']:.0f} us: {', '.join(f'{stage[:-3]} {more[stage]:.0f}' for stage in STAGES)})")


if __name__ == "__main__":
    main()
