#!/usr/bin/python3
"""rankd from start to end: what it refuses to start on, how it drains, what it does when files or descriptors go wrong."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest

import grpc

from rankd_fixture import (RANKD, RankdServer, Stub, TIME_SCALE, import_model, main, rank_request, repository_of, requests_of, run, scratch, wait_for)
import health_pb2
import rankd_pb2

CODE = grpc.StatusCode


def small(model="steam"):
    return rank_request(model, requests_of(model)[0])


def rank_code(server, model="steam"):
    try:
        server.stub.Rank(small(model), timeout=10 * TIME_SCALE)
        return CODE.OK
    except grpc.RpcError as error:
        return error.code()


class TestStart(unittest.TestCase):
    def test_check_prints_what_would_be_served(self):
        result = run(RANKD, "--model-repository", repository_of("steam", "dot"), "--check")
        self.assertIn("steam", result.stdout)
        self.assertIn("dot", result.stdout)

    def test_check_fails_when_anything_is_wrong_though_the_rest_would_be_served(self):
        repository = scratch("repository")
        import_model("dot", repository)
        (repository / "empty").mkdir()
        result = run(RANKD, "--model-repository", repository, "--check", check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("dot", result.stdout)
        self.assertIn("holds no version", result.stderr)

    def test_nothing_to_serve_is_an_error(self):
        result = run(RANKD, "--model-repository", scratch("empty"), "--listen", "127.0.0.1:0", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("rankpack import", result.stderr)

    def test_wrong_usage_is_told_apart_from_failure(self):
        result = run(RANKD, "--worker", "1", check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn("did you mean 'workers'?", result.stderr)

    def test_the_configuration_file_is_read_and_its_mistakes_are_placed(self):
        config = scratch("config") / "rankd.yaml"
        config.write_text(f"model_repository: {repository_of('dot')}\nworkers: many\n")
        result = run(RANKD, "--config", config, "--check", check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn(f"{config}:2:10: workers is 'many'", result.stderr)
        config.write_text(f"model_repository: {repository_of('dot')}\nworkers: 1\n")
        self.assertIn("dot", run(RANKD, "--config", config, "--check").stdout)

    def test_the_highest_version_that_loads_is_served(self):
        repository = scratch("repository")
        import_model("dot", repository, 2)
        import_model("dot", repository, 10)
        with RankdServer(repository) as server:
            self.assertEqual(server.stub.Rank(small("dot"), timeout=10 * TIME_SCALE).version, 10)
        rows = next((repository / "dot/10").glob("*.rows"))
        data = bytearray(rows.read_bytes())
        data[len(data) // 2] ^= 1
        rows.chmod(0o644)
        rows.write_bytes(data)
        with RankdServer(repository) as server:
            self.assertEqual(server.stub.Rank(small("dot"), timeout=10 * TIME_SCALE).version, 2)
            self.assertIn(rows.name, server.log())
            self.assertIn("error", server.log())

    def test_a_taken_port_is_named(self):
        with RankdServer(repository_of("dot")) as server:
            result = run(RANKD, "--model-repository", repository_of("dot"), "--listen", server.target, check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn(server.target, result.stderr)
            self.assertIn("Address already in use", result.stderr)

    def test_the_service_manager_hears_that_it_is_ready_and_that_it_stops(self):
        path = str(scratch("notify") / "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(20 * TIME_SCALE)
            with RankdServer(repository_of("dot"), env={"NOTIFY_SOCKET": path}) as server:
                self.assertEqual(manager.recv(100), b"READY=1")
                server.stop()
                self.assertEqual(manager.recv(100), b"STOPPING=1")


class TestStop(unittest.TestCase):
    def test_sigterm_answers_every_call_that_was_taken(self):
        with RankdServer(repository_of("steam"), "--workers", 1, "--max-batch", 512, "--max-streams", 1024) as server:
            request = requests_of("steam")[0]
            some = request["candidates"]
            large = rank_request("steam", dict(request, candidates=(some * (400 // len(some) + 1))[:400]))
            calls = [server.stub.Rank.future(large, timeout=120 * TIME_SCALE) for _ in range(300)]

            def taken():
                now = server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=10 * TIME_SCALE)
                return now.requests + now.queued >= 299  # one may be with the worker
            wait_for(taken, "all calls have arrived")
            server.process.send_signal(signal.SIGTERM)
            codes = [call.code() for call in calls]
            self.assertEqual(codes.count(CODE.OK), 300, set(codes))
            self.assertEqual(server.process.wait(20 * TIME_SCALE), 0)

    def test_under_load_every_call_ends_with_an_answer_or_unavailable(self):
        with RankdServer(repository_of("steam")) as server:
            stopping, results = threading.Event(), []

            def client(number):
                channel = grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0), ("rankd.test", number)])
                stub, done = Stub(channel), []
                while not done or done[-1] == CODE.OK:
                    told = stopping.is_set()
                    try:
                        stub.Rank(small(), timeout=20 * TIME_SCALE)
                        done.append(CODE.OK)
                    except grpc.RpcError as error:
                        done.append(error.code())
                        if not told and not stopping.is_set():
                            done.append("before the signal")
                channel.close()
                results.append(done)
            threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            wait_for(lambda: server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=5 * TIME_SCALE).requests > 300, "load")
            stopping.set()
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGTERM)  # a second one is safe
            for thread in threads:
                thread.join(60 * TIME_SCALE)
            self.assertEqual(len(results), 6)
            for done in results:
                self.assertEqual(done[-1], CODE.UNAVAILABLE)
            self.assertEqual(server.process.wait(20 * TIME_SCALE), 0)

    def test_silent_and_idle_clients_do_not_hold_up_the_end(self):
        with RankdServer(repository_of("dot")) as server:
            silent = server.socket()
            server.stub.Rank(small("dot"), timeout=10 * TIME_SCALE)  # its channel stays open and idle
            began = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            self.assertEqual(server.process.wait(15 * TIME_SCALE), 0)
            self.assertLess(time.monotonic() - began, 10 * TIME_SCALE)
            silent.close()

    def test_the_log_may_be_a_pipe_that_nobody_reads(self):
        read_end, write_end = os.pipe()
        ready = scratch("pipe") / "ready"
        os.set_blocking(write_end, False)
        try:
            while True:
                os.write(write_end, bytes(4096))
        except BlockingIOError:
            pass
        os.set_blocking(write_end, True)
        process = subprocess.Popen([str(RANKD), "--model-repository", str(repository_of("dot")), "--listen", "127.0.0.1:0",
                                    "--ready-file", str(ready)], stdout=subprocess.DEVNULL, stderr=write_end)
        try:
            wait_for(ready.exists, "it serves though its log is full")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(15 * TIME_SCALE), 0)
        finally:
            process.kill()
            process.wait()
            os.close(read_end)
            os.close(write_end)


class TestConnections(unittest.TestCase):
    def test_a_client_that_says_nothing_is_closed_in_time(self):
        with RankdServer(repository_of("dot"), "--handshake-timeout-s", 1) as server:
            with server.socket(timeout=15) as mute:
                began = time.monotonic()
                while mute.recv(4096):
                    pass
                self.assertGreater(time.monotonic() - began, 0.5)
            self.assertEqual(rank_code(server, "dot"), CODE.OK)

    def test_connections_past_the_limit_are_closed_and_the_others_served(self):
        with RankdServer(repository_of("dot"), "--max-connections", 5, "--handshake-timeout-s", 60) as server:
            self.assertEqual(rank_code(server, "dot"), CODE.OK)
            sockets = [server.socket() for _ in range(20)]

            def closed(each):
                each.setblocking(False)
                try:
                    while each.recv(4096):
                        pass
                    return True
                except ConnectionResetError:
                    return True
                except BlockingIOError:
                    return False
            wait_for(lambda: sum(map(closed, sockets)) >= 16, "the connections past the limit are closed")
            self.assertEqual(rank_code(server, "dot"), CODE.OK)
            self.assertEqual(sum(map(closed, sockets)), 16)
            for each in sockets:
                each.close()

    def test_running_out_of_descriptors_neither_spins_nor_stops_the_service(self):
        with RankdServer(repository_of("dot")) as server:
            self.assertEqual(rank_code(server, "dot"), CODE.OK)
            used = len(os.listdir(f"/proc/{server.pid}/fd"))
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 4, used + 4))
            sockets = [server.socket() for _ in range(30)]
            wait_for(lambda: "raise the limit on open files" in server.log(), "the log says what is wrong")

            def processor_seconds():
                with open(f"/proc/{server.pid}/stat", encoding="ascii") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            before = processor_seconds()
            time.sleep(1)
            self.assertLess(processor_seconds() - before, 0.3 * TIME_SCALE)
            self.assertEqual(rank_code(server, "dot"), CODE.OK)
            for each in sockets:
                each.close()

            def new_client_served():
                with grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0), ("rankd.test", time.time_ns() % 10 ** 9)]) as channel:
                    try:
                        Stub(channel).Rank(small("dot"), timeout=2 * TIME_SCALE)
                        return True
                    except grpc.RpcError:
                        return False
            wait_for(new_client_served, "new clients are served again")

    def test_several_event_loops_share_the_connections(self):
        with RankdServer(repository_of("steam"), "--event-loops", 3) as server:
            channels = [grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0), ("rankd.test", i)]) for i in range(9)]
            calls = [Stub(channel).Rank.future(small(), timeout=20 * TIME_SCALE) for channel in channels for _ in range(20)]
            for call in calls:
                call.result()
            self.assertEqual(server.stub.GetStatus(rankd_pb2.StatusRequest()).connections, 10)
            for channel in channels:
                channel.close()


class TestDamage(unittest.TestCase):
    def server_on_a_copy(self, *options):
        repository = scratch("repository")
        for model in ("steam", "dot"):
            shutil.copytree(repository_of(model) / model, repository / model)
        for path in repository.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return repository, RankdServer(repository, *options)

    def test_a_row_file_truncated_while_served_costs_its_model_only(self):
        repository, server = self.server_on_a_copy("--row-memory", "mapped", "--scrub-interval-s", 0)
        with server:
            self.assertEqual(rank_code(server), CODE.OK)
            for rows in (repository / "steam/1").glob("*.rows"):
                os.truncate(rows, 0)
            self.assertEqual(rank_code(server), CODE.DATA_LOSS)
            self.assertEqual(rank_code(server), CODE.DATA_LOSS)
            self.assertEqual(rank_code(server, "dot"), CODE.OK)
            self.assertIn("ALARM model=steam", server.log())
            health = server.stub.Check(health_pb2.HealthCheckRequest(service="steam"), timeout=10)
            self.assertEqual(health.status, health_pb2.HealthCheckResponse.NOT_SERVING)
            health = server.stub.Check(health_pb2.HealthCheckRequest(service="dot"), timeout=10)
            self.assertEqual(health.status, health_pb2.HealthCheckResponse.SERVING)
            states = {m.name: m.state for m in server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=10).models}
            self.assertEqual(states, {"steam": "damaged", "dot": "serving"})

    def test_bytes_overwritten_while_served_are_found_by_the_scrubber(self):
        repository, server = self.server_on_a_copy("--row-memory", "mapped", "--scrub-interval-s", 1)
        with server:
            self.assertEqual(rank_code(server), CODE.OK)
            rows = sorted((repository / "steam/1").glob("*.rows"))[-1]
            with open(rows, "r+b") as file:
                file.seek(rows.stat().st_size // 2)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 0x10]))
            wait_for(lambda: rank_code(server) == CODE.DATA_LOSS, "the damage is found", 30)
            self.assertIn("ALARM model=steam", server.log())
            self.assertIn(rows.name, server.log())
            self.assertEqual(rank_code(server, "dot"), CODE.OK)


if __name__ == "__main__":
    main()
