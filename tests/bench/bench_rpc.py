#!/usr/bin/python3
"""Empty calls a second of one event loop of rankd, against nghttpd on the same machine in the same run.

    bench_rpc.py [--build DIR] [--rounds N] [--seconds S] [--clients C] [--streams M] [--json]

h2load sends POSTs by turns to rankd (grpc.health.v1.Health/Check with the five bytes of an empty message) and to nghttpd (the same request, answered
with a file of the size of rankd's answer). The server runs on one processor and h2load on the other; medians over the rounds are compared."""

import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

import bench_common

EMPTY_MESSAGE = bytes(5)
ANSWER_BYTES = 7  # HealthCheckResponse{SERVING} with its prefix


def arguments():
    parser = bench_common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement in each round")
    parser.add_argument("--clients", type=int, default=4, help="connections")
    parser.add_argument("--streams", type=int, default=32, help="calls in flight on each connection")
    return parser.parse_args()


def pin(pid, processor):
    """All threads of a process."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {processor})


class Nghttpd:
    """nghttpd with one worker, serving one small file."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def __enter__(self):
        (self.folder / "answer").write_bytes(bytes(ANSWER_BYTES))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(["nghttpd", "--no-tls", "--workers=1", "--address=127.0.0.1", f"--htdocs={self.folder}", str(self.port)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 10
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"nghttpd ended, exit status {self.process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if time.monotonic() > limit:
                    self.__exit__()
                    raise SystemExit("nghttpd does not answer") from None
                time.sleep(0.01)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)


def h2load(options, processor, body, url):
    """Requests a second; every one must have been answered with 200."""
    result = subprocess.run(["taskset", "-c", str(processor), "h2load", f"--clients={options.clients}", f"--max-concurrent-streams={options.streams}",
                             f"--duration={options.seconds}", "--warm-up-time=300ms", "--threads=1", f"--data={body}",
                             "--header=content-type: application/grpc", "--header=te: trailers", url],
                            capture_output=True, text=True, check=True, timeout=options.seconds + 60)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", result.stdout)
    bad = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", result.stdout)
    good = re.search(r"(\d+) succeeded", result.stdout)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", result.stdout)
    if not (rate and bad and good and codes) or any(map(int, bad.groups())) or int(good[1]) == 0 or any(map(int, codes.groups()[1:])):
        raise SystemExit(f"h2load to {url} failed:\n{result.stdout}\n{result.stderr}")
    return float(rate[1])


def main():
    options = arguments()
    for program in ("nghttpd", "h2load", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: apt-get install nghttp2-server nghttp2-client util-linux")
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        raise SystemExit("this needs two processors: one for the server, one for h2load")
    server_processor, client_processor = processors[:2]
    fixture = bench_common.fixture(options.build)

    rates = {"rankd": [], "nghttpd": []}
    with tempfile.TemporaryDirectory() as folder, \
            fixture.RankdServer(fixture.repository_of("steam"), "--event-loops", "1", "--workers", "1") as rankd, Nghttpd(folder) as nghttpd:
        body = pathlib.Path(folder) / "body"
        body.write_bytes(EMPTY_MESSAGE)
        pin(rankd.pid, server_processor)
        pin(nghttpd.process.pid, server_processor)
        urls = {"rankd": f"http://{rankd.target}/grpc.health.v1.Health/Check", "nghttpd": f"http://127.0.0.1:{nghttpd.port}/answer"}
        for _ in range(options.rounds):
            for name, url in urls.items():
                rates[name].append(h2load(options, client_processor, body, url))

    result = {name: {"requests_per_s": statistics.median(values), "lowest": min(values), "highest": max(values)} for name, values in rates.items()}
    result["ratio"] = result["rankd"]["requests_per_s"] / result["nghttpd"]["requests_per_s"]
    result["rounds"], result["clients"], result["streams"] = options.rounds, options.clients, options.streams
    if options.json:
        print(json.dumps(result))
        return
    print(f"empty RPCs on one processor, {options.clients} connections x {options.streams} streams, medians of {options.rounds} rounds:")
    for name in rates:
        print(f"  {name:8} {result[name]['requests_per_s']:10.0f} requests/s   ({result[name]['lowest']:.0f} to {result[name]['highest']:.0f})")
    print(f"  rankd / nghttpd = {result['ratio']:.2f}")


if __name__ == "__main__":
    main()
