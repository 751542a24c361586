#!/usr/bin/python3
"""Does a serving rankd's memory stay flat? Its resident size over a million requests.

    bench_steady.py [--build DIR] [--requests N] [--json]

Sends the demo's requests over 8 connections in ten equal parts and reads the server's resident memory (VmRSS) after each. The first tenth is the
warm-up; growth is what the last reading is above it. (That a warm server calls no malloc at all is a test: test_daemon_malloc.py.)"""

import json
import subprocess
import sys

import bench_common

PARTS = 10


def arguments():
    parser = bench_common.parser(__doc__)
    parser.add_argument("--requests", type=int, default=1000000)
    return parser.parse_args()


def main():
    options = arguments()
    fixture = bench_common.fixture(options.build)

    readings, sent = [], 0
    with fixture.RankdServer(fixture.repository_of("steam")) as server:
        for part in range(PARTS):
            while sent < (part + 1) * options.requests // PARTS:
                bench = subprocess.run([fixture.RANKCTL, "--target", server.target, "bench", "--model", "steam", "--requests", fixture.DEMO / "requests.jsonl",
                                        "--connections", "8", "--in-flight", "2", "--seconds", "1", "--json"],
                                       check=True, capture_output=True, text=True)
                answers = json.loads(bench.stdout)["by_status"]
                if set(answers) != {"OK"}:
                    sys.exit(f"not every request was answered: {answers}")
                sent += answers["OK"]
            readings.append({"requests": sent, "rss_kb": server.status_kb()})
            if not options.json:
                print(f"{sent:>10} requests  {readings[-1]['rss_kb']:>8} kB resident", flush=True)
    growth = readings[-1]["rss_kb"] - readings[0]["rss_kb"]
    if options.json:
        print(json.dumps({"readings": readings, "growth_kb": growth}, indent=2))
    else:
        print(f"growth after the first tenth: {growth} kB")


if __name__ == "__main__":
    main()
