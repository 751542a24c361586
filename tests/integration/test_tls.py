#!/usr/bin/python3
"""TLS and certificates of clients, as stock clients and hostile ones meet them; certificates that change while rankd serves."""

import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
import unittest

import grpc

from certificates import Authority, Certificate, openssl
from rankd_fixture import (RANKD, RANKCTL, RankdServer, Stub, TIME_SCALE, main, rank_request, repository_of, requests_of, run, scratch, wait_for)
import rankd_pb2

CODE = grpc.StatusCode
SERVER_NAME = "rankd.example"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # and empty SETTINGS


def setUpModule():
    global CA, OTHER_CA, SERVER, CLIENT
    folder = scratch("certificates")
    CA, OTHER_CA = Authority(folder / "ca"), Authority(folder / "other", "Other CA")
    SERVER = CA.issue(SERVER_NAME, f"DNS:{SERVER_NAME},IP:127.0.0.1", "serverAuth", file="server")
    CLIENT = CA.issue("feed.example", "DNS:feed.example", "clientAuth", file="client")


def tls_server(*extra, certificate=None, **options):
    certificate = certificate or SERVER
    return RankdServer(repository_of("dot"), "--listen-tls", "127.0.0.1:0", "--tls-certificate", certificate.certificate, "--tls-key", certificate.key,
                       *extra, **options)


def channel_to(server, client=None, ca=None):
    key, chain = client.bytes() if client else (None, None)
    credentials = grpc.ssl_channel_credentials((ca or CA).certificate.read_bytes(), key, chain)
    return grpc.secure_channel(server.targets["tls"][0], credentials, options=[("grpc.enable_http_proxy", 0)])


def rank_code(channel):
    try:
        Stub(channel).Rank(rank_request("dot", requests_of("dot")[0]), timeout=10 * TIME_SCALE)
        return CODE.OK
    except grpc.RpcError as error:
        return error.code()


def tls_socket(server, client=None, alpn=("h2",), version=None, timeout=10):
    """A connected TLS socket of Python's ssl; raises ssl.SSLError or OSError where the server refuses."""
    context = ssl.create_default_context(cafile=CA.certificate)
    if alpn:
        context.set_alpn_protocols(alpn)
    if client:
        context.load_cert_chain(client.certificate, client.key)
    if version:
        context.minimum_version = context.maximum_version = version
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")
    return context.wrap_socket(raw_socket(server, timeout), server_hostname=SERVER_NAME)


def raw_socket(server, timeout=10):
    host, port = server.targets["tls"][0].rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout * TIME_SCALE)


def closed_after(connection):
    """Seconds until the server has closed this socket."""
    begun = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return time.monotonic() - begun


class TestClients(unittest.TestCase):
    def test_a_stock_client_calls_over_both_versions_of_tls_and_in_the_clear(self):
        with tls_server("--tls-min-version", "1.2") as server:
            with channel_to(server) as channel:
                self.assertEqual(rank_code(channel), CODE.OK)
            self.assertEqual(rank_code(server.channel), CODE.OK)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with tls_socket(server, version=version) as connection:
                    self.assertEqual(connection.selected_alpn_protocol(), "h2")
                    connection.sendall(PREFACE)
                    self.assertEqual(connection.recv(9)[3], 4, "the server's SETTINGS")

    def test_answers_are_the_same_as_without_tls_however_large(self):
        small = requests_of("dot")[0]
        request = rank_request("dot", {**small, "candidates": small["candidates"] * 4000}, include_logits=True)
        self.assertGreater(request.ByteSize(), 100000, "many TLS records")
        with tls_server() as server, channel_to(server) as channel:
            plain, secure = server.stub.Rank(request, timeout=30 * TIME_SCALE), Stub(channel).Rank(request, timeout=30 * TIME_SCALE)
            self.assertGreater(plain.ByteSize(), 20000, "several TLS records")
            self.assertEqual(list(plain.probabilities), list(secure.probabilities))

    def test_many_calls_at_once_on_several_connections(self):
        with tls_server("--event-loops", 2) as server:
            channels = [channel_to(server) for _ in range(4)]
            request = rank_request("dot", requests_of("dot")[0])
            futures = [Stub(channels[i % 4]).Rank.future(request, timeout=30 * TIME_SCALE) for i in range(400)]
            scores = {tuple(future.result().probabilities) for future in futures}
            self.assertEqual(len(scores), 1)
            for channel in channels:
                channel.close()

    def test_handshakes_are_computed_apart_from_what_serves(self):
        with tls_server() as server:
            for _ in range(100):
                tls_socket(server).close()
            spent_ns = {}
            for thread in pathlib.Path(f"/proc/{server.pid}/task").iterdir():
                spent_ns[(thread / "comm").read_text().strip()] = int((thread / "schedstat").read_text().split()[0])
            self.assertGreater(spent_ns["handshakes"], 2 * spent_ns["loop-0"], spent_ns)

    def test_rankctl_talks_tls_and_says_what_is_wrong(self):
        with tls_server("--tls-client-ca", CA.certificate) as server:
            target = server.targets["tls"][0]
            me = ("--cert", CLIENT.certificate, "--key", CLIENT.key)
            good = run(RANKCTL, "--target", target, "--ca", CA.certificate, *me, "health")
            self.assertEqual(good.stdout, "SERVING\n")
            run(RANKCTL, "--target", target, "--ca", CA.certificate, *me, "--server-name", SERVER_NAME, "bench", "--empty", "--seconds", "1")
            for arguments, words in ((("--ca", OTHER_CA.certificate, *me), "self-signed|unable to get|verify"),
                                     (("--ca", CA.certificate, *me, "--server-name", "else.example"), "mismatch"),
                                     (("--ca", CA.certificate, "--cert", CLIENT.certificate), "belong together"),
                                     (("--ca", scratch("none") / "none.pem"), "none.pem")):
                result = run(RANKCTL, "--target", target, *arguments, "health", check=False)
                self.assertNotEqual(result.returncode, 0)
                self.assertRegex(result.stderr, words)


class TestRefusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = tls_server("--handshake-timeout-s", 2)
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def tearDown(self):
        with channel_to(self.server) as channel:
            self.assertEqual(rank_code(channel), CODE.OK)

    def test_old_versions_and_missing_or_other_protocols_are_refused_in_the_handshake(self):
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            tls_socket(self.server, version=ssl.TLSVersion.TLSv1_1)
        for offer in ((), ("http/1.1",), ("h2c", "spdy/3")):
            with self.assertRaisesRegex((ssl.SSLError), "(?i)no.application.protocol", msg=str(offer)):
                tls_socket(self.server, alpn=offer)

    def test_plaintext_to_the_tls_port_is_refused_at_once(self):
        for opening in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\0" * 100):
            with raw_socket(self.server) as connection:
                connection.sendall(opening)
                self.assertLess(closed_after(connection), 1.5 * TIME_SCALE, opening)
        with grpc.insecure_channel(self.server.targets["tls"][0], options=[("grpc.enable_http_proxy", 0)]) as channel:
            self.assertEqual(rank_code(channel), CODE.UNAVAILABLE)

        def reported():  # at most one such line a second
            with raw_socket(self.server) as connection:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                closed_after(connection)
            return "does not speak TLS on a TLS port" in self.server.log()
        wait_for(reported, "a line in the log that tells the operator")

    def test_tls_to_the_plaintext_port_is_refused_at_once(self):
        with self.server.socket() as connection, self.assertRaises((ssl.SSLError, ConnectionError, OSError)):
            ssl.create_default_context(cafile=CA.certificate).wrap_socket(connection, server_hostname=SERVER_NAME)

    def test_a_handshake_that_stalls_or_trickles_ends_at_its_timer(self):
        silent = raw_socket(self.server, 30)
        half = raw_socket(self.server, 30)
        half.sendall(bytes((22, 3, 1, 2, 0, 1, 0, 1, 252)))
        trickling = raw_socket(self.server, 30)
        begun, ended = time.monotonic(), None
        while ended is None and time.monotonic() - begun < 20 * TIME_SCALE:
            try:
                trickling.sendall(bytes((22, 3, 1, 0, 1, 1)))  # a handshake record of one byte
                time.sleep(0.1)
                trickling.setblocking(False)
                if not trickling.recv(4096):
                    ended = time.monotonic() - begun
            except BlockingIOError:
                pass
            except ConnectionError:
                ended = time.monotonic() - begun
            finally:
                trickling.setblocking(True)
        self.assertIsNotNone(ended, "one-byte records held a connection open")
        self.assertLess(ended, 5 * TIME_SCALE)
        for connection in (silent, half):
            self.assertLess(closed_after(connection), 5 * TIME_SCALE)
            connection.close()
        trickling.close()

    def s_client(self, version):
        """OpenSSL's client, which reads a letter from its input and asks for new keys (K), or a new handshake (R)."""
        return subprocess.Popen(["openssl", "s_client", "-connect", self.server.targets["tls"][0], "-alpn", "h2", version, "-CAfile", CA.certificate],
                                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def test_a_flood_of_key_updates_is_cut_off(self):
        with self.s_client("-tls1_3") as client:
            sent = 0
            while client.poll() is None and sent < 5000:
                try:
                    client.stdin.write(b"K\n")
                    client.stdin.flush()
                except BrokenPipeError:
                    break
                sent += 1
                time.sleep(0.001)  # or it takes several lines for one
            self.assertLess(sent, 5000, "new keys without end")
            client.kill()

    def test_renegotiation_is_refused(self):
        with self.s_client("-tls1_2") as client:
            time.sleep(0.3)  # it takes letters once it is connected
            client.stdin.write(b"R\n")
            client.stdin.flush()
            client.wait(20 * TIME_SCALE)
            self.assertIn("no renegotiation", client.stderr.read().decode())

    def test_a_connection_that_breaks_tls_later_is_told_and_closed(self):
        connection = tls_socket(self.server)
        raw = socket.socket(fileno=os.dup(connection.fileno()))
        raw.settimeout(10 * TIME_SCALE)
        raw.sendall(bytes((23, 3, 3, 0, 32)) + bytes(32))  # a record that nobody has encrypted
        self.assertLess(closed_after(raw), 5 * TIME_SCALE)
        raw.close()
        connection.close()


class TestClientCertificates(unittest.TestCase):
    def code_with(self, server, client):
        with channel_to(server, client) as channel:
            return rank_code(channel)

    def test_only_a_valid_certificate_of_the_right_ca_and_use_is_let_in(self):
        expired = CA.issue("old.example", usage="clientAuth", start="20200101000000Z", end="20210101000000Z")
        early = CA.issue("new.example", usage="clientAuth", start="20450101000000Z", end="20460101000000Z")
        wrong_use = CA.issue("web.example", usage="serverAuth")
        stranger = OTHER_CA.issue("feed.example", "DNS:feed.example", "clientAuth")
        revoked = CA.issue("gone.example", usage="clientAuth")
        CA.revoke(revoked)
        with tls_server("--tls-client-ca", CA.certificate, "--tls-client-crl", CA.crl()) as server:
            self.assertEqual(self.code_with(server, CLIENT), CODE.OK)
            for who, client in {"none": None, "expired": expired, "not yet valid": early, "wrong use": wrong_use, "wrong CA": stranger,
                                "revoked": revoked}.items():
                self.assertEqual(self.code_with(server, client), CODE.UNAVAILABLE, who)
            self.assertEqual(self.code_with(server, CLIENT), CODE.OK)

    def test_a_client_may_be_unknown_where_the_options_say_so_but_not_false(self):
        stranger = OTHER_CA.issue("feed.example", usage="clientAuth", file="stranger")
        with tls_server("--tls-client-ca", CA.certificate, "--tls-client-certificates", "optional") as server:
            self.assertEqual(self.code_with(server, None), CODE.OK)
            self.assertEqual(self.code_with(server, CLIENT), CODE.OK)
            self.assertEqual(self.code_with(server, stranger), CODE.UNAVAILABLE)

    def test_a_revocation_counts_after_sighup_even_for_who_was_here_before(self):
        leaver = CA.issue("leaver.example", usage="clientAuth")
        with tls_server("--tls-client-ca", CA.certificate, "--tls-client-crl", CA.crl()) as server:
            self.assertEqual(self.code_with(server, leaver), CODE.OK)
            CA.revoke(leaver)
            CA.crl()
            os.kill(server.pid, signal.SIGHUP)
            wait_for(lambda: "new connections get" in server.log(), "certificates read again")
            self.assertEqual(self.code_with(server, leaver), CODE.UNAVAILABLE)
            self.assertEqual(self.code_with(server, CLIENT), CODE.OK)


class TestStart(unittest.TestCase):
    def refused(self, words, *arguments, status=1):
        for check in ((), ("--check",)):
            result = run(RANKD, "--model-repository", repository_of("dot"), "--listen", "127.0.0.1:0", *arguments, *check, check=False)
            self.assertEqual(result.returncode, status, result.stderr)
            self.assertRegex(result.stderr, words)

    def test_wrong_files_stop_the_start_with_file_and_fix(self):
        folder = scratch("tls")
        listen = ("--listen-tls", "127.0.0.1:0")
        good = ("--tls-certificate", SERVER.certificate, "--tls-key", SERVER.key)
        text = folder / "text.pem"
        text.write_text("no PEM\n")
        readable = folder / "readable.key"
        readable.write_bytes(SERVER.key.read_bytes())
        readable.chmod(0o644)
        locked = folder / "locked.key"
        openssl("pkey", "-in", SERVER.key, "-out", locked, "-aes256", "-passout", "pass:secret")
        locked.chmod(0o600)
        expired = CA.issue("past.example", start="20200101000000Z", end="20210101000000Z")
        late_crl = OTHER_CA.folder / "late.pem"
        openssl("ca", "-config", OTHER_CA.config, "-gencrl", "-out", late_crl, "-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z")
        for words, arguments in (
                (f"{readable} is open to every user .mode 0644.; run: chmod 0600", (*listen, "--tls-certificate", SERVER.certificate, "--tls-key", readable)),
                (f"{CLIENT.key} does not belong to the first certificate of {SERVER.certificate}",
                 (*listen, "--tls-certificate", SERVER.certificate, "--tls-key", CLIENT.key)),
                (f"{expired.certificate}: expired on 2021-01-01T00:00:00Z", (*listen, "--tls-certificate", expired.certificate, "--tls-key", expired.key)),
                (f"{text}.*takes PEM", (*listen, "--tls-certificate", text, "--tls-key", SERVER.key)),
                (f"{locked}.*without a passphrase", (*listen, "--tls-certificate", SERVER.certificate, "--tls-key", locked)),
                ("failed to open tls_key .*none: No such file", (*listen, "--tls-certificate", SERVER.certificate, "--tls-key", folder / "none")),
                (f"tls_certificate {folder}|{folder} is a directory", (*listen, "--tls-certificate", folder, "--tls-key", SERVER.key)),
                (f"tls_client_ca {text}", (*listen, *good, "--tls-client-ca", text)),
                (f"tls_client_crl {text}", (*listen, *good, "--tls-client-ca", CA.certificate, "--tls-client-crl", text)),
                ("next update was due on 2020-02-01", (*listen, *good, "--tls-client-ca", CA.certificate, "--tls-client-crl", late_crl))):
            with self.subTest(words):
                self.refused(words, *arguments)

    def test_options_that_do_not_fit_together_are_refused(self):
        for words, arguments in (
                ("tls_certificate is not set", ("--listen-tls", "127.0.0.1:0")),
                ("tls_key is not set", ("--listen-tls", "127.0.0.1:0", "--tls-certificate", SERVER.certificate)),
                ("listen_tls is not", ("--tls-certificate", SERVER.certificate, "--tls-key", SERVER.key)),
                ("tls_client_ca is not", ("--listen-tls", "127.0.0.1:0", "--tls-certificate", SERVER.certificate, "--tls-key", SERVER.key,
                                          "--tls-client-crl", "x"))):
            with self.subTest(words):
                self.refused(words, *arguments, status=2)

    def test_a_certificate_that_will_soon_expire_is_told_in_time(self):
        end = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + 5.5 * 86400))
        soon = CA.issue(SERVER_NAME, f"DNS:{SERVER_NAME},IP:127.0.0.1", end=end, file="soon")
        with tls_server(certificate=soon) as server:
            self.assertIn("tls_certificate expires in 5 days", server.log())
        with tls_server() as server:
            self.assertNotIn("expires in", server.log())

    def test_check_says_which_certificate_would_be_shown(self):
        result = run(RANKD, "--model-repository", repository_of("dot"), "--listen-tls", "127.0.0.1:0", "--tls-certificate", SERVER.certificate,
                     "--tls-key", SERVER.key, "--check")
        self.assertRegex(result.stdout, rf"tls: certificate /CN={SERVER_NAME}, until 20\d\d-")


class TestReload(unittest.TestCase):
    def shown(self, server):
        with tls_socket(server) as connection:
            return connection.getpeercert()["serialNumber"]

    def test_certificates_are_replaced_under_load_without_a_failed_call(self):
        folder = scratch("rotation")
        live = Certificate(folder / "server.pem", folder / "server.key")
        pairs = [CA.issue(SERVER_NAME, f"DNS:{SERVER_NAME},IP:127.0.0.1", "serverAuth", file=f"rotated{i}") for i in range(3)]

        def put(pair):
            for kind in ("certificate", "key"):
                fresh = folder / "fresh"
                fresh.write_bytes(getattr(pair, kind).read_bytes())
                fresh.chmod(0o600)
                fresh.replace(getattr(live, kind))

        put(pairs[0])
        with tls_server("--event-loops", 2, certificate=live) as server:
            failures, calls, stop = [], [0], threading.Event()

            def call_on():
                """Some calls on an old connection, some on a new one each."""
                with channel_to(server) as lasting:
                    while not stop.is_set():
                        with channel_to(server) as fresh:
                            for channel in (lasting, fresh):
                                code = rank_code(channel)
                                calls[0] += 1
                                if code != CODE.OK:
                                    failures.append(code)

            threads = [threading.Thread(target=call_on) for _ in range(3)]
            for thread in threads:
                thread.start()
            serials = {self.shown(server)}
            try:
                for turn in range(1, 6):
                    put(pairs[turn % 3])
                    os.kill(server.pid, signal.SIGHUP)
                    wait_for(lambda turn=turn: server.log().count("new connections get the certificate") == turn, "new certificates")
                    serials.add(self.shown(server))
                before = self.shown(server)
                live.certificate.write_text("broken\n")
                os.kill(server.pid, signal.SIGHUP)
                wait_for(lambda: "the certificates stay as they were" in server.log(), "a bad certificate is refused")
                self.assertEqual(self.shown(server), before)
                seen = calls[0]
                wait_for(lambda: calls[0] > seen + 20, "calls go on")
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            self.assertEqual(failures, [])
            self.assertEqual(len(serials), 3, "each certificate was shown")
            self.assertRegex(server.log(), f"stay as they were: .*{re.escape(str(live.certificate))}")

    def test_a_draining_server_says_goodbye_over_tls(self):
        with tls_server() as server:
            with tls_socket(server) as connection:
                connection.sendall(PREFACE)
                data = connection.recv(65536)
                os.kill(server.pid, signal.SIGTERM)
                while b"\x07\0\0\0\0\0" not in data:  # GOAWAY: type 7, no flags, stream 0
                    part = connection.recv(65536)
                    self.assertTrue(part, f"closed after {data!r}")
                    data += part
            self.assertEqual(server.stop(), 0)
            self.assertIn("drained, every open call was answered", server.log())

    def test_sighup_without_anything_to_read_is_harmless(self):
        with RankdServer(repository_of("dot")) as server:
            os.kill(server.pid, signal.SIGHUP)
            wait_for(lambda: "no certificates" in server.log(), "an answer to SIGHUP")
            self.assertEqual(rank_code(server.channel), CODE.OK)


class TestMemory(unittest.TestCase):
    def test_half_a_handshake_that_announces_much_costs_little(self):
        with tls_server("--handshake-timeout-s", 60) as server:
            def half():
                connection = raw_socket(server)
                connection.sendall(bytes((22, 3, 1, 64, 0, 1, 1, 255, 255)) + bytes(16000))  # a ClientHello of 128 KiB, of which 16000 bytes come
                return connection
            warm = [half() for _ in range(10)]
            self.connections(server, 11)
            before = server.status_kb()
            attackers = [half() for _ in range(64)]
            self.connections(server, 75)
            each_kb = (server.status_kb() - before) / len(attackers)
            with channel_to(server) as channel:
                self.assertEqual(rank_code(channel), CODE.OK)
            for connection in warm + attackers:
                connection.close()
            if os.environ.get("RANKD_SANITIZED", "none") == "none":
                self.assertLess(each_kb, 256, "kB per half a handshake")

    def connections(self, server, count):
        wait_for(lambda: server.stub.GetStatus(rankd_pb2.StatusRequest(), timeout=10 * TIME_SCALE).connections >= count, f"{count} connections")

    def test_an_idle_connection_costs_little(self):
        with tls_server() as server:
            warm = [tls_socket(server) for _ in range(20)]
            before = server.status_kb()
            connections = [tls_socket(server) for _ in range(200)]
            self.connections(server, 221)
            each_kb = (server.status_kb() - before) / 200
            for connection in warm + connections:
                connection.close()
            if os.environ.get("RANKD_SANITIZED", "none") == "none":
                self.assertLess(each_kb, 128, "kB per idle connection")


if __name__ == "__main__":
    main()
