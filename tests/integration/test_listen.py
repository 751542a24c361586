#!/usr/bin/python3
"""Where rankd listens: several addresses, Unix sockets, and how many connections one address may have."""

import contextlib
import signal
import socket
import unittest

import grpc

from rankd_fixture import RANKCTL, RANKD, RankdServer, Stub, TIME_SCALE, main, rank_request, repository_of, requests_of, run, scratch, wait_for

CODE = grpc.StatusCode


def rank_code(target):
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            Stub(channel).Rank(rank_request("dot", requests_of("dot")[0]), timeout=10 * TIME_SCALE)
            return CODE.OK
        except grpc.RpcError as error:
            return error.code()


class TestAddresses(unittest.TestCase):
    def test_every_address_of_a_list_serves_and_the_ready_file_names_them(self):
        path = scratch("socket") / "rankd.sock"
        with RankdServer(repository_of("dot"), "--listen", f"127.0.0.1:0, 127.0.0.2:0,unix:{path}") as server:
            targets = server.targets[""]
            self.assertEqual([target.rsplit(":", 1)[0] for target in targets], ["127.0.0.1", "127.0.0.2", "unix"])
            for target in targets:
                self.assertEqual(rank_code(target), CODE.OK, target)
            self.assertEqual(run(RANKCTL, "--target", f"unix:{path}", "health").stdout, "SERVING\n")
            server.stop()
        self.assertFalse(path.exists(), "the socket's file is left behind")

    def test_a_socket_that_a_killed_server_left_is_taken_over_but_not_one_in_use(self):
        path = scratch("socket") / "rankd.sock"
        with RankdServer(repository_of("dot"), "--listen", f"unix:{path}") as server:
            result = run(RANKD, "--model-repository", repository_of("dot"), "--listen", f"unix:{path}", check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"failed to listen on unix:{path}: Address already in use", result.stderr)
            self.assertEqual(rank_code(f"unix:{path}"), CODE.OK, "the one that serves is left alone")
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        self.assertTrue(path.exists())
        with RankdServer(repository_of("dot"), "--listen", f"unix:{path}"):
            self.assertEqual(rank_code(f"unix:{path}"), CODE.OK)

    def test_a_file_in_the_way_of_a_socket_is_not_removed(self):
        path = scratch("socket") / "precious"
        path.write_text("data")
        result = run(RANKD, "--model-repository", repository_of("dot"), "--listen", f"unix:{path}", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(path.read_text(), "data")

    def test_wrong_lists_are_refused(self):
        for listen, words in (("127.0.0.1:0,here", "listen is 'here'; it takes HOST:PORT"), ("", "both empty"), ("unix:x", "whole path"),
                              (",".join(["127.0.0.1:0"] * 17), "at most 16")):
            result = run(RANKD, "--model-repository", repository_of("dot"), "--listen", listen, "--check", check=False)
            self.assertEqual(result.returncode, 2, listen)
            self.assertIn(words, result.stderr)


class TestShares(unittest.TestCase):
    def test_one_address_cannot_take_all_connections(self):
        with RankdServer(repository_of("dot"), "--max-connections-per-peer", 4, "--handshake-timeout-s", 60) as server, contextlib.ExitStack() as open_ones:
            def connect(source):
                connection = socket.create_connection(("127.0.0.1", server.port), 10 * TIME_SCALE, (source, 0))
                return open_ones.enter_context(connection)

            def served(connection):
                try:
                    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
                    return connection.recv(9) != b""
                except ConnectionError:
                    return False

            greedy = [connect("127.0.0.2") for _ in range(10)]
            self.assertEqual(sum(map(served, greedy)), 4)
            self.assertTrue(served(connect("127.0.0.3")), "another address has its own share")
            self.assertIn("max_connections_per_peer", server.log())
            for connection in greedy:
                connection.close()
            wait_for(lambda: served(connect("127.0.0.2")), "room again, once they have gone")


if __name__ == "__main__":
    main()
