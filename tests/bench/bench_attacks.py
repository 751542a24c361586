#!/usr/bin/python3
"""What an honest client keeps of its rate and its latency while others attack the server.

    bench_attacks.py [--build DIR] [--connections N] [--rounds N] [--seconds S] [--waves W] [--only NAME] [--json]

Each attack of tests/integration/attackers.py comes from 64 connections of another process, which connect again as soon as they are cut off. The
attacker must not win by using up the processors from outside: it runs at the lowest priority, sends so many waves of some ten kilobytes a second over
all its connections, and what it uses itself is no part of the result. One server runs all along; the honest client, `rankctl bench` at half the rate
that it reaches alone, is measured in turn without and with the attack, and the ratio of each pair counts (median over the rounds).

Printed for each attack: the rate and p99 of the honest client with the attack to those without, what the server uses of a processor for each, the
median time from an attacker's first byte to its end, its connections per second, and how much the server's memory grew, at most, for each of the 64
connections. Targets: 95% of the rate, p99 at most 1.5x, 1 s (of floods; what only holds memory is capped, and taken back by timers), 256 KiB."""

import itertools
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time

import bench_common

HOLD_S = 8  # until timers take back what is held
RATE_TARGET, P99_TARGET, CUT_OFF_TARGET_S, KIB_TARGET = 0.95, 1.5, 1, 256


# ---- the attacker: a process of its own ----

def attack(name, port, connections, waves_per_s, begun, stop, ends):
    """Until it is told to stop; sends the seconds that each of its connections lasted."""
    os.nice(19)
    import selectors
    import socket

    import attackers
    found = next(each for each in attackers.FLOODS + attackers.HOLDERS if each.name == name)
    source, made = found.waves(), []  # all connections send the same, which is made once

    def waves():
        for number in itertools.count():
            while len(made) <= number:
                made.append(next(source, b""))
            yield made[number]
    selector, due = selectors.DefaultSelector(), time.monotonic()

    class Connection:
        def __init__(self):
            self.socket = socket.create_connection(("127.0.0.1", port))
            self.socket.setblocking(False)
            self.waves, self.rest, self.begun = waves(), found.opening, time.monotonic()
            selector.register(self.socket, selectors.EVENT_READ, self)

        def send(self):
            if not self.rest:
                self.rest = next(self.waves, b"")
            try:
                self.rest = self.rest[self.socket.send(self.rest):]
            except BlockingIOError:
                pass
            except OSError:
                return False
            return True

        def receive(self):
            try:
                return self.socket.recv(65536) != b""
            except BlockingIOError:
                return True
            except OSError:
                return False

        def close(self):
            selector.unregister(self.socket)
            self.socket.close()
            ends.append(time.monotonic() - self.begun)

    told, ends, opened = ends, [], []
    while not stop.is_set():
        while len(opened) < connections:
            opened.append(Connection())
        begun.set()
        for connection in [key.data for key, _ in selector.select(max(0, due - time.monotonic()))]:
            if not connection.receive():
                connection.close()
                opened.remove(connection)
        if opened and time.monotonic() >= due:
            due = max(due + 1 / waves_per_s, time.monotonic() - 0.1)
            connection = opened.pop(0)  # in turn
            if connection.send():
                opened.append(connection)
            else:
                connection.close()
    told.put(ends)


class Attacker:
    def __init__(self, name, server, options):
        self.begun, self.stop, self.ends = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Queue()
        self.process = multiprocessing.Process(target=attack, args=(name, server.port, options.connections, options.waves, self.begun, self.stop, self.ends))

    def __enter__(self):
        self.process.start()
        if not self.begun.wait(60):
            sys.exit("the attacker does not come to attack")
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.lasted = self.ends.get()
        self.process.join()


class Watch:
    """The most memory that the server has meanwhile, in KiB, and the processor time that it takes, in seconds."""

    def __init__(self, server):
        self.server, self.peak, self.over = server, 0, threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.over.wait(0.02):
            self.peak = max(self.peak, self.server.status_kb())

    def processor_s(self):
        with open(f"/proc/{self.server.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self):
        self.begun, self.used = time.monotonic(), -self.processor_s()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.used += self.processor_s()
        self.seconds = time.monotonic() - self.begun
        self.over.set()
        self.thread.join()


# ---- the honest client ----

def honest(fixture, server, seconds, rate):
    ranking = ("--model", "steam", "--requests", fixture.DEMO / "requests.jsonl", "--connections", 4)
    words = ("--in-flight", 1) if rate == 0 else ("--rate", rate)
    return json.loads(server.rankctl("bench", "--seconds", seconds, "--json", *ranking, *words, timeout=60 + seconds, check=False).stdout)


def main():
    parser = bench_common.parser(__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--waves", type=int, default=4000, help="a second, over all connections of the attacker")
    parser.add_argument("--only", help="this attack alone")
    options = parser.parse_args()
    fixture = bench_common.fixture(options.build)
    import attackers
    chosen = [each for each in attackers.FLOODS + attackers.HOLDERS if options.only in (None, each.name)]
    results = {}
    with fixture.RankdServer(fixture.repository_of("steam")) as server:
        capacity = honest(fixture, server, options.seconds, 0)
        rate = int(rate_of(capacity) / 2)
        for name, is_flood in ((each.name, bool(each.codes)) for each in chosen):
            seconds = options.seconds if is_flood else max(options.seconds, HOLD_S)
            pairs, lasted, growth = [], [], 0
            for _ in range(options.rounds):
                with Watch(server) as quiet:
                    alone = honest(fixture, server, seconds, rate)
                with Attacker(name, server, options) as attacker, Watch(server) as busy:
                    beside = honest(fixture, server, seconds, rate)
                lasted += attacker.lasted
                growth = max(growth, busy.peak - quiet.peak)
                pairs.append((rate_of(beside) / rate_of(alone), beside["latency_us"]["p99"] / alone["latency_us"]["p99"],
                              quiet.used / quiet.seconds, busy.used / busy.seconds, wrong_of(beside)))
            kept, p99, idle, loaded, _ = (statistics.median(column) for column in zip(*pairs))
            results[name] = {"rate_kept": kept, "p99_ratio": p99, "server_processor": idle, "server_processor_attacked": loaded,
                             "cut_off_s": statistics.median(lasted) if lasted else None, "connections_per_s": len(lasted) / options.rounds / seconds,
                             "kib_per_connection": growth / options.connections, "errors": sum(pair[4] for pair in pairs), "must_end": is_flood}
            if not options.json:
                show(name, results[name])
    if options.json:
        bench_common.print_json({"rate": rate, "connections": options.connections, "waves_per_s": options.waves, "attacks": results})


def rate_of(found):
    """Right answers a second."""
    return found["goodput_per_s"]


def wrong_of(found):
    return sum(found["by_status"].values()) - found["by_status"].get("OK", 0) + found["unanswered"] + found["unsent"]


def show(name, found):
    missed = [what for what, met in (("rate", found["rate_kept"] >= RATE_TARGET), ("p99", found["p99_ratio"] <= P99_TARGET),
                                     ("end", not found["must_end"] or (found["cut_off_s"] is not None and found["cut_off_s"] <= CUT_OFF_TARGET_S)),
                                     ("memory", found["kib_per_connection"] <= KIB_TARGET)) if not met]
    lasted = "never" if found["cut_off_s"] is None else f"{1000 * found['cut_off_s']:.0f} ms"
    print(f"{name:40} rate {100 * found['rate_kept']:5.1f}%  p99 {found['p99_ratio']:.2f}x  server {found['server_processor']:.2f} -> "
          f"{found['server_processor_attacked']:.2f} processors  cut off {lasted} ({found['connections_per_s']:.0f}/s)  "
          f"{found['kib_per_connection']:.0f} KiB each  errors {found['errors']}  "
          f"{', '.join(missed) + ' missed' if missed else 'met'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
