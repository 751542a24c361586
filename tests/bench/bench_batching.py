#!/usr/bin/python3
"""How rankd batches under load, and what its hand-overs cost when there is none.

    bench_batching.py [--build DIR] [--rounds N] [--seconds S] [--json]

Batching: 8 connections send 1-candidate requests as fast as they are answered; the mean batch is what GetStatus counted, slices per engine run.

Latency: one connection, one request at a time. A 1-candidate request should take little more than an empty RPC (health Check, answered on the
event loop) plus the engine's time for it alone (bench_engine); the ratio of the two p50s is printed. Everything is measured by turns, round after
round against the same rankd, and medians over the rounds are compared, so that whatever else the machine does hits all alike."""

import json
import statistics
import subprocess
import tempfile

import bench_common


def arguments():
    parser = bench_common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement in each round")
    return parser.parse_args()


def main():
    options = arguments()
    fixture = bench_common.fixture(options.build)

    def output(*command):
        return json.loads(subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout)

    repository = fixture.repository_of("steam")
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as lone, fixture.RankdServer(repository) as server:
        with open(fixture.DEMO / "requests.jsonl", encoding="utf-8") as lines:
            for line in lines:
                request = json.loads(line)
                request["candidates"] = request["candidates"][:1]
                lone.write(json.dumps(request) + "\n")
        lone.flush()

        def bench(*words):
            return output(fixture.RANKCTL, "--target", server.target, "bench", "--seconds", options.seconds, "--json", *words)

        def status():
            return output(fixture.RANKCTL, "--target", server.target, "status", "--json")
        ranking = ("--model", "steam", "--requests", lone.name)
        bench(*ranking)  # warm
        empty, alone, compute, batches, rates = [], [], [], [], []
        for _ in range(options.rounds):
            empty.append(bench("--empty")["latency_us"]["p50"])
            alone.append(bench(*ranking)["latency_us"]["p50"])
            engine = output(options.build / "tests/bench/bench_engine", "--model", repository / "steam/1", "--requests", lone.name,
                            "--batch", 1, "--seconds", options.seconds / 2, "--json")
            compute.append(engine["results"][0]["us_per_batch"])
            before = status()
            rates.append(bench(*ranking, "--connections", 8)["requests_per_s"])
            after = status()
            batches.append((after["batched_requests"] - before["batched_requests"]) / (after["batches"] - before["batches"]))
    figures = {
        "mean_batch_under_load": statistics.median(batches),
        "requests_per_s_under_load": statistics.median(rates),
        "empty_rpc_p50_us": statistics.median(empty),
        "lone_compute_us": statistics.median(compute),
        "lone_request_p50_us": statistics.median(alone),
    }
    # Within a round, where the machine is most alike; the median of the rounds does not follow one that was disturbed.
    figures["ratio"] = statistics.median(request / (rpc + engine) for request, rpc, engine in zip(alone, empty, compute))
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"8 connections, 1-candidate requests: {figures['mean_batch_under_load']:.2f} requests per engine run, "
          f"{figures['requests_per_s_under_load']:.0f} requests/s")
    print(f"one request at a time, p50: {figures['lone_request_p50_us']:.0f} us; empty RPC {figures['empty_rpc_p50_us']:.0f} us + compute "
          f"{figures['lone_compute_us']:.1f} us: ratio {figures['ratio']:.2f}")


if __name__ == "__main__":
    main()
