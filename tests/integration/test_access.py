#!/usr/bin/python3
"""Who may call what: certificates' names and tokens, admin calls at an address of their own, rules that change while rankd serves."""

import hashlib
import os
import signal
import unittest

import grpc

from certificates import Authority
from rankd_fixture import RANKCTL, RANKD, RankdServer, Stub, TIME_SCALE, main, rank_request, repository_of, requests_of, run, scratch, wait_for
import health_pb2
import rankd_pb2

CODE = grpc.StatusCode
RANK, ADMIN = "rankd.v1.Ranking", "rankd.v1.Admin"


def setUpModule():
    global CA, SERVER, FEED, OPS
    CA = Authority(scratch("certificates"))
    SERVER = CA.issue("rankd.example", "DNS:rankd.example,IP:127.0.0.1", "serverAuth", file="server")
    FEED = CA.issue("a feed", "DNS:feed.example,URI:spiffe://example/feed", "clientAuth", file="feed")
    OPS = CA.issue("ops.example", usage="clientAuth", file="ops")


def sha256(token):
    return hashlib.sha256(token.encode()).hexdigest()


def rules_file(text):
    path = scratch("access") / "access.yaml"
    path.write_text(text)
    return path


class Caller:
    """One way to come in; what each call is answered."""

    def __init__(self, target, client=None, token=None, tls=True):
        options = [("grpc.enable_http_proxy", 0)]
        if tls:
            key, chain = client.bytes() if client else (None, None)
            self.channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(CA.certificate.read_bytes(), key, chain), options=options)
        else:
            self.channel = grpc.insecure_channel(target, options=options)
        self.stub, self.metadata = Stub(self.channel), (("authorization", f"Bearer {token}"),) if token else ()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def answer(self, method):
        request = {"Rank": rank_request("dot", requests_of("dot")[0]), "GetStatus": rankd_pb2.StatusRequest(),
                   "Check": health_pb2.HealthCheckRequest()}[method]
        try:
            getattr(self.stub, method)(request, metadata=self.metadata, timeout=10 * TIME_SCALE)
            return CODE.OK, ""
        except grpc.RpcError as error:
            return error.code(), error.details()

    def codes(self):
        """(Rank, GetStatus, Check)"""
        return tuple(self.answer(method)[0] for method in ("Rank", "GetStatus", "Check"))


class TestRules(unittest.TestCase):
    def test_names_and_tokens_open_their_services_alone(self):
        rules = rules_file(f"""
tokens: {{feed: {sha256("feed secret")!r}, batch: {sha256("batch-secret")}}}
services:
  {RANK}: {{names: ["spiffe://example/feed"], tokens: [batch]}}
  {ADMIN}: {{names: [ops.example]}}
""")
        with RankdServer(repository_of("dot"), "--listen-tls", "127.0.0.1:0", "--tls-certificate", SERVER.certificate, "--tls-key", SERVER.key,
                         "--tls-client-ca", CA.certificate, "--tls-client-certificates", "optional", "--access-file", rules) as server:
            target = server.targets["tls"][0]
            no, denied, yes = CODE.UNAUTHENTICATED, CODE.PERMISSION_DENIED, CODE.OK
            for expected, options in (((no, no, yes), {}), ((yes, denied, yes), {"client": FEED}), ((denied, yes, yes), {"client": OPS}),
                                      ((yes, denied, yes), {"token": "batch-secret"}), ((denied, denied, yes), {"token": "guess"}),
                                      ((yes, yes, yes), {"client": OPS, "token": "batch-secret"})):
                with Caller(target, **options) as caller:
                    self.assertEqual(caller.codes(), expected, options)
            with Caller(server.target, tls=False, token="batch-secret") as caller:
                self.assertEqual(caller.codes(), (yes, denied, yes))
            with Caller(server.target, tls=False) as caller:
                self.assertEqual(caller.codes(), (no, no, yes))
                self.assertIn("certificate, or a token: authorization: Bearer TOKEN", caller.answer("Rank")[1])

    def test_a_refused_call_costs_its_connection_nothing(self):
        rules = rules_file(f"tokens: {{feed: {sha256('s')}}}\nservices: {{{RANK}: {{tokens: feed}}}}\n")
        with RankdServer(repository_of("dot"), "--access-file", rules) as server, Caller(server.target, tls=False, token="s") as good:
            for i in range(200):
                good.metadata = (("authorization", "Bearer s" if i % 2 else "Bearer t"),)
                self.assertEqual(good.answer("Rank")[0], CODE.OK if i % 2 else CODE.PERMISSION_DENIED)
            with self.assertRaises(grpc.RpcError) as refused:  # never authorised, for there is nothing to call
                good.channel.unary_unary("/no.Such/Method")(b"", timeout=10 * TIME_SCALE)
            self.assertEqual(refused.exception.code(), CODE.UNIMPLEMENTED)

    def test_rankctl_sends_its_token_and_shows_the_refusal(self):
        rules = rules_file(f"tokens: {{ops: {sha256('top secret'.replace(' ', '-'))}}}\nservices: {{{ADMIN}: {{tokens: [ops]}}}}\n")
        token = scratch("token") / "token"
        token.write_text("top-secret\n")
        with RankdServer(repository_of("dot"), "--access-file", rules) as server:
            self.assertIn("dot version 1", server.rankctl("--token-file", token, "status").stdout)
            refused = server.rankctl("status", check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("UNAUTHENTICATED: rankd.v1.Admin takes a token", refused.stderr)
            for wrong in ("", "two words"):
                token.write_text(wrong)
                self.assertEqual(server.rankctl("--token-file", token, "status", check=False).returncode, 2)

    def test_rules_are_read_again_on_sighup_and_bad_ones_are_not_taken(self):
        rules = rules_file(f"tokens: {{one: {sha256('one')}}}\nservices: {{{RANK}: {{tokens: one}}}}\n")
        with RankdServer(repository_of("dot"), "--access-file", rules, "--event-loops", 2) as server:
            with Caller(server.target, tls=False, token="one") as one, Caller(server.target, tls=False, token="two") as two:
                self.assertEqual([caller.answer("Rank")[0] for caller in (one, two)], [CODE.OK, CODE.PERMISSION_DENIED])
                rules.write_text(f"tokens: {{two: {sha256('two')}}}\nservices: {{{RANK}: {{tokens: two}}}}\n")
                os.kill(server.pid, signal.SIGHUP)
                wait_for(lambda: "calls are judged by new rules for 1 services, 1 tokens" in server.log(), "new rules")
                self.assertEqual([caller.answer("Rank")[0] for caller in (one, two)], [CODE.PERMISSION_DENIED, CODE.OK])
                rules.write_text("services: {a: b}\n")
                os.kill(server.pid, signal.SIGHUP)
                wait_for(lambda: "the access rules stay as they were" in server.log(), "bad rules are refused")
                self.assertIn(f"{rules}:1:15: the rule of a is 'b'", server.log())
                self.assertEqual([caller.answer("Rank")[0] for caller in (one, two)], [CODE.PERMISSION_DENIED, CODE.OK])


class TestStart(unittest.TestCase):
    def test_bad_rules_stop_the_start_and_the_check(self):
        rules = rules_file(f"services:\n  {RANK}: {{names: [feed.example]}}\n")
        for text, words in ((None, "tls_client_ca is not set, so nobody could call it"), ("services:\n  a: {token: x}\n", ":2:7: 'token' is no way in")):
            if text:
                rules.write_text(text)
            for check in ((), ("--check",)):
                result = run(RANKD, "--model-repository", repository_of("dot"), "--listen", "127.0.0.1:0", "--access-file", rules, *check, check=False)
                self.assertEqual(result.returncode, 1)
                self.assertIn(words, result.stderr)
        rules.write_text("services: {'*': anyone}\n")
        result = run(RANKD, "--model-repository", repository_of("dot"), "--listen", "127.0.0.1:0", "--access-file", rules, "--check")
        self.assertIn("access: rules for 1 services, 0 tokens", result.stdout)


class TestAdminApart(unittest.TestCase):
    def test_admin_calls_have_an_address_of_their_own(self):
        path = scratch("socket") / "admin.sock"
        with RankdServer(repository_of("dot"), "--listen-admin", f"unix:{path}") as server:
            self.assertEqual(server.targets["admin"], [f"unix:{path}"])
            with Caller(server.target, tls=False) as caller:
                self.assertEqual(caller.codes(), (CODE.OK, CODE.PERMISSION_DENIED, CODE.OK))
                self.assertIn("listen_admin", caller.answer("GetStatus")[1])
            with Caller(f"unix:{path}", tls=False) as caller:
                self.assertEqual(caller.codes(), (CODE.OK, CODE.OK, CODE.OK))
            self.assertIn("dot version 1", run(RANKCTL, "--target", f"unix:{path}", "status").stdout)


if __name__ == "__main__":
    main()
