#!/usr/bin/python3
"""What time does to the connections of a running rankd: silent, hasty, idle and old ones, and windows that stay shut."""

import struct
import threading
import time
import unittest

import h2.config
import h2.connection
import h2.events
import h2.settings

from rankd_fixture import RankdServer, TIME_SCALE, main, rank_request, repository_of, requests_of, wait_for
from test_wire import CHECK, Connection, framed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS_ACK = bytes([0, 0, 0, 4, 1, 0, 0, 0, 0])
PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"12345678"
GOAWAY, ENHANCE_YOUR_CALM = 7, 11


def read_to_the_end(sock, limit_s):
    """All bytes until the server closes."""
    sock.settimeout(limit_s * TIME_SCALE)
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def goaways(data):
    """(error code, text) of each GOAWAY among the frames."""
    found = []
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        if data[3] == GOAWAY:
            found.append((struct.unpack(">I", data[13:17])[0], data[17:9 + length].decode()))
        data = data[9 + length:]
    return found


class TestTimers(unittest.TestCase):
    def test_hasty_pings_are_too_many(self):
        with RankdServer(repository_of("dot")) as server, server.socket() as sock:
            sock.sendall(PREFACE + SETTINGS_ACK + PING * 4)
            self.assertIn((ENHANCE_YOUR_CALM, "too_many_pings"), goaways(read_to_the_end(sock, 5)))
            wait_for(lambda: "too_many_pings" in server.log(), "the log says why")

    def test_silent_peers_are_pinged_and_those_that_do_not_answer_go(self):
        with RankdServer(repository_of("dot"), "--keepalive-s", 1, "--keepalive-timeout-s", 1) as server:
            with server.socket() as mute, server.socket() as cut:
                mute.sendall(PREFACE + SETTINGS_ACK)
                cut.sendall(PREFACE + SETTINGS_ACK + bytes([0, 0, 100, 1, 4]))  # a part of a frame's head
                for sock in (mute, cut):
                    data = read_to_the_end(sock, 8)
                    self.assertEqual(goaways(data)[0], (0, "keepalive pings are not answered"))
                    self.assertIn(b"rk alive", data)
            with Connection(server) as alive:
                answered, limit = 0, time.monotonic() + 20 * TIME_SCALE
                alive.socket.settimeout(20 * TIME_SCALE)
                while answered < 2 and time.monotonic() < limit:  # h2 answers pings by itself
                    answered += sum(isinstance(event, h2.events.PingReceived) for event in alive.h2.receive_data(alive.socket.recv(65536)))
                    alive.flush()
                self.assertGreaterEqual(answered, 2)
                headers, _ = alive.call(framed(b""))
                self.assertEqual(headers["grpc-status"], "0")

    def test_no_call_fails_because_connections_grow_old_or_idle(self):
        with RankdServer(repository_of("dot"), "--max-connection-age-s", 1, "--connection-age-grace-s", 5, "--idle-timeout-s", 1) as server:
            request, failures, count = rank_request("dot", requests_of("dot")[0]), [], [0, 0, 0]
            limit = time.monotonic() + 3

            def ask(number):
                while time.monotonic() < limit:
                    try:
                        server.stub.Rank(request, timeout=20 * TIME_SCALE)
                        count[number] += 1
                    except Exception as error:
                        failures.append(error)
                    time.sleep(0.001 if number < 2 else 1.3)

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(count))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])
            self.assertGreater(min(count), 1)

    def test_answers_that_are_not_taken_are_given_up(self):
        with RankdServer(repository_of("dot"), "--stall-timeout-s", 1) as server, server.socket() as sock:
            client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
            client.initiate_connection()
            client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
            for stream in range(1, 41, 2):
                client.send_headers(stream, [(":method", "POST"), (":scheme", "http"), (":path", CHECK), (":authority", "t"),
                                             ("content-type", "application/grpc")])
                client.send_data(stream, framed(b""), end_stream=True)
            sock.sendall(client.data_to_send())
            sock.settimeout(10 * TIME_SCALE)
            resets = []
            while len(resets) < 20:
                data = sock.recv(65536)
                self.assertTrue(data, "the connection lives")
                resets += [event.error_code for event in client.receive_data(data) if isinstance(event, h2.events.StreamReset)]
                sock.sendall(client.data_to_send())
            self.assertEqual(set(resets), {ENHANCE_YOUR_CALM})


if __name__ == "__main__":
    main()
