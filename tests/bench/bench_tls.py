#!/usr/bin/python3
"""What TLS costs per call: processor time of one event loop of rankd with it and without, and of nghttpd with it.

    bench_tls.py [--build DIR] [--rounds N] [--calls N] [--clients C] [--streams M] [--json]

h2load sends empty calls (see bench_rpc.py) by turns to rankd in the clear, to rankd over TLS 1.3 and to nghttpd over TLS 1.3 with the same P-256
certificate. The server runs on one processor and h2load on the other; medians over the rounds are compared, with many calls in flight and with one.
Then the rate of the client in the clear while others do nothing but TLS handshakes, with the same rankd or with another beside it."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import bench_common
import bench_rpc


FLOOD = """
import socket, ssl, sys
host, port = sys.argv[1].rsplit(":", 1)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
while True:
    try:
        context.wrap_socket(socket.create_connection((host, int(port)), 10)).close()
    except OSError:
        pass
"""


def arguments():
    parser = bench_common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200000, help="in each measurement; a tenth with one call in flight")
    parser.add_argument("--clients", type=int, default=4, help="connections")
    parser.add_argument("--streams", type=int, default=32, help="calls in flight on each connection")
    parser.add_argument("--attackers", type=int, default=4, help="clients that do nothing but handshakes")
    return parser.parse_args()


class TlsNghttpd:
    """nghttpd with one worker and TLS, serving one small file."""

    def __init__(self, folder, certificate):
        self.folder, self.certificate = pathlib.Path(folder), certificate

    def __enter__(self):
        (self.folder / "answer").write_bytes(bytes(bench_rpc.ANSWER_BYTES))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(["nghttpd", "--workers=1", "--address=127.0.0.1", f"--htdocs={self.folder}", str(self.port),
                                         str(self.certificate.key), str(self.certificate.certificate)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > limit:
                    raise SystemExit("nghttpd does not answer") from None
                time.sleep(0.01)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)


def processor_us(pid):
    """What a process has used so far, its threads together."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def load(processor, body, url, calls, clients, streams):
    """Sends so many calls; every one must have been answered with 200. Returns how many a second."""
    result = subprocess.run(["taskset", "-c", str(processor), "h2load", f"--requests={calls}", f"--clients={clients}", f"--max-concurrent-streams={streams}",
                             "--threads=1", f"--data={body}", "--header=content-type: application/grpc", "--header=te: trailers", url],
                            capture_output=True, text=True, check=True, timeout=600)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", result.stdout)
    if not rate or f"status codes: {calls} 2xx" not in result.stdout:
        raise SystemExit(f"h2load to {url} failed:\n{result.stdout}\n{result.stderr}")
    return float(rate[1])


def measure(rounds, servers, processor, body, calls, clients, streams):
    """servers: name -> (URL, process). Medians by name."""
    rates, costs = ({name: [] for name in servers} for _ in range(2))
    for _ in range(rounds):
        for name, (url, pid) in servers.items():
            before = processor_us(pid)
            rates[name].append(load(processor, body, url, calls, clients, streams))
            costs[name].append((processor_us(pid) - before) / calls)
    return {name: {"requests_per_s": statistics.median(rates[name]), "us_per_call": statistics.median(costs[name])} for name in servers}


@contextlib.contextmanager
def flood(target, count):
    attackers = [subprocess.Popen([sys.executable, "-c", FLOOD, target]) for _ in range(count)]
    try:
        time.sleep(0.5)  # until all of them are at it
        yield
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()


def measure_flood(options, servers, processor, body):
    """servers: name -> target of the flood; the calls all go to "here". Median calls a second by name."""
    url = f"http://{servers['here'].targets[''][0]}/grpc.health.v1.Health/Check"
    rates = {name: [] for name in servers}
    for _ in range(options.rounds):
        for name, server in servers.items():
            with flood(server.targets["tls"][0], options.attackers):
                rates[name].append(load(processor, body, url, options.calls, options.clients, options.streams))
    return {name: statistics.median(values) for name, values in rates.items()}


def main():
    options = arguments()
    for program in ("nghttpd", "h2load", "taskset", "openssl"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: apt-get install nghttp2-server nghttp2-client util-linux openssl")
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        raise SystemExit("this needs two processors: one for the server, one for h2load")
    fixture = bench_common.fixture(options.build)
    from certificates import Authority

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        certificate = Authority(pathlib.Path(folder) / "ca").issue("localhost", "DNS:localhost,IP:127.0.0.1", file="server")
        body = pathlib.Path(folder) / "body"
        body.write_bytes(bench_rpc.EMPTY_MESSAGE)
        flags = ("--event-loops", "1", "--workers", "1", "--listen-tls", "127.0.0.1:0",
                 "--tls-certificate", certificate.certificate, "--tls-key", certificate.key)
        with fixture.RankdServer(fixture.repository_of("steam"), *flags) as rankd, fixture.RankdServer(fixture.repository_of("steam"), *flags) as beside, \
                TlsNghttpd(folder, certificate) as nghttpd:
            bench_rpc.pin(beside.pid, processors[0])
            bench_rpc.pin(rankd.pid, processors[0])
            bench_rpc.pin(nghttpd.process.pid, processors[0])
            servers = {"rankd": (f"http://{rankd.targets[''][0]}/grpc.health.v1.Health/Check", rankd.pid),
                       "rankd, TLS": (f"https://{rankd.targets['tls'][0]}/grpc.health.v1.Health/Check", rankd.pid),
                       "nghttpd, TLS": (f"https://127.0.0.1:{nghttpd.port}/answer", nghttpd.process.pid)}
            for name, clients, streams, calls in (("many", options.clients, options.streams, options.calls), ("one", 1, 1, options.calls // 10)):
                found = measure(options.rounds, servers, processors[1], body, calls, clients, streams)
                plain, tls, peer = (found[server]["us_per_call"] for server in servers)
                results[name] = {"clients": clients, "streams": streams, "servers": found, "us_more": tls - plain, "to_plain": tls / plain,
                                 "to_nghttpd": tls / peer}
            flooded = measure_flood(options, {"here": rankd, "beside": beside}, processors[1], body)
    if options.json:
        bench_common.print_json({**results, "flood": {"requests_per_s": flooded, "ratio": flooded["here"] / flooded["beside"]}})
        return
    for result in results.values():
        print(f"{result['clients']} connections x {result['streams']} calls in flight, medians of {options.rounds} rounds:")
        for name, found in result["servers"].items():
            print(f"  {name:14} {found['us_per_call']:6.2f} us of the processor per call, {found['requests_per_s']:8.0f} calls/s")
        print(f"  TLS / plain = {result['to_plain']:.2f}, {result['us_more']:.2f} us more; rankd / nghttpd over TLS = {result['to_nghttpd']:.2f}")
    print(f"{options.attackers} others that do nothing but handshakes, medians of {options.rounds} rounds:")
    for name, rate in flooded.items():
        print(f"  {name:14} {rate:8.0f} calls/s in the clear")
    print(f"  here / beside = {flooded['here'] / flooded['beside']:.2f}")


if __name__ == "__main__":
    main()
