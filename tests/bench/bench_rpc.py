#!/usr/bin/python3
"""Empty calls a second of one event loop of rankd, against nghttpd and a C++ gRPC server on the same machine in the same run.

    bench_rpc.py [--build DIR] [--rounds N] [--seconds S] [--clients C] [--streams M] [--json]

h2load sends POSTs by turns to rankd (grpc.health.v1.Health/Check with the five bytes of an empty message), to nghttpd (the same request,
answered with a file of the size of rankd's answer) and to grpc_peer (libgrpc++, asynchronous, one completion queue and one thread: the same call;
left out where the build has none). The server runs on one processor and h2load on the other; medians over the rounds are compared. Where h2load
is the slower of the two, a server idles: calls for each second of the server's own processor time say what the server could do."""

import contextlib
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
CALL = "/grpc.health.v1.Health/Check"
TARGETS = {"nghttpd": 0.7, "grpc++": 2.0}
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


def processor_s(pid):
    """The time that a process has had, user and system."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class GrpcPeer:
    """libgrpc++, answering the same call."""

    def __init__(self, program):
        self.process = subprocess.Popen([program, CALL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


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
    """Requests a second, and how many there were; every one must have been answered with 200."""
    result = subprocess.run(["taskset", "-c", str(processor), "h2load", f"--clients={options.clients}", f"--max-concurrent-streams={options.streams}",
                             f"--duration={options.seconds}", "--threads=1", f"--data={body}",
                             "--header=content-type: application/grpc", "--header=te: trailers", url],
                            capture_output=True, text=True, check=True, timeout=options.seconds + 60)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", result.stdout)
    bad = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", result.stdout)
    good = re.search(r"(\d+) succeeded", result.stdout)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", result.stdout)
    if not (rate and bad and good and codes) or any(map(int, bad.groups())) or int(good[1]) == 0 or any(map(int, codes.groups()[1:])):
        raise SystemExit(f"h2load to {url} failed:\n{result.stdout}\n{result.stderr}")
    return float(rate[1]), int(good[1])


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

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        rankd = running.enter_context(fixture.RankdServer(fixture.repository_of("steam"), "--event-loops", "1", "--workers", "1"))
        nghttpd = running.enter_context(Nghttpd(folder))
        servers = {"rankd": (rankd.pid, f"http://{rankd.target}{CALL}"), "nghttpd": (nghttpd.process.pid, f"http://127.0.0.1:{nghttpd.port}/answer")}
        program = pathlib.Path(options.build) / "tests/bench/grpc_peer"
        if program.exists():
            peer = running.enter_context(GrpcPeer(program))
            servers["grpc++"] = (peer.process.pid, f"http://127.0.0.1:{peer.port}{CALL}")
        body = pathlib.Path(folder) / "body"
        body.write_bytes(EMPTY_MESSAGE)
        for pid, _ in servers.values():
            pin(pid, server_processor)
        found = {name: {"requests_per_s": [], "requests_per_processor_s": []} for name in servers}
        for _, url in servers.values():
            h2load(options, client_processor, body, url)  # warm
        for _ in range(options.rounds):
            for name, (pid, url) in servers.items():
                before = processor_s(pid)
                rate, requests = h2load(options, client_processor, body, url)
                found[name]["requests_per_s"].append(rate)
                found[name]["requests_per_processor_s"].append(requests / (processor_s(pid) - before))

    result = {name: {figure: statistics.median(values) for figure, values in figures.items()} for name, figures in found.items()}
    for name in found:
        result[name]["lowest"], result[name]["highest"] = min(found[name]["requests_per_s"]), max(found[name]["requests_per_s"])
    ratios = {name: {figure: result["rankd"][figure] / result[name][figure] for figure in ("requests_per_s", "requests_per_processor_s")}
              for name in found if name != "rankd"}
    if options.json:
        print(json.dumps({**result, "ratios": ratios, "rounds": options.rounds, "clients": options.clients, "streams": options.streams}))
        return
    print(f"empty RPCs on one processor, {options.clients} connections x {options.streams} streams, medians of {options.rounds} rounds:")
    for name, figures in result.items():
        print(f"  {name:8} {figures['requests_per_s']:10.0f} requests/s ({figures['lowest']:.0f} to {figures['highest']:.0f}), "
              f"{figures['requests_per_processor_s']:10.0f} for each second of its processor time")
    for name, ratio in ratios.items():
        met = "met" if ratio["requests_per_processor_s"] >= TARGETS[name] else "missed"
        print(f"  rankd / {name} = {ratio['requests_per_s']:.2f}, of processor time {ratio['requests_per_processor_s']:.2f}; target {TARGETS[name]}: {met}")


if __name__ == "__main__":
    main()
