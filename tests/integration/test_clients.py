#!/usr/bin/python3
"""Stock clients, as they come: curl, nghttp, h2load, and a C++ gRPC client where libgrpc++ was there when the tests were built. Each that is not
installed is skipped."""

import pathlib
import re
import shutil
import struct
import subprocess
import unittest

from rankd_fixture import BUILD, RankdServer, TIME_SCALE, main, rank_request, repository_of, requests_of, scratch
import rankd_pb2 as pb

CPP_CLIENT = BUILD / "tests/integration/cpp_client"
CHECK, RANK = "/grpc.health.v1.Health/Check", "/rankd.v1.Ranking/Rank"


def framed(message):
    return struct.pack(">BI", 0, len(message)) + message


def needs(program):
    found = shutil.which(program)
    return unittest.skipUnless(found, f"{program} is not installed")


def execute(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, timeout=60 * TIME_SCALE, check=False)


class TestClients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of("dot"))
        cls.server.__enter__()
        cls.folder = scratch("clients")
        cls.request = rank_request("dot", requests_of("dot")[0], include_logits=True)
        cls.body = cls.folder / "rank"
        cls.body.write_bytes(framed(cls.request.SerializeToString()))
        cls.empty = cls.folder / "empty"
        cls.empty.write_bytes(framed(b""))
        cls.expected = cls.server.stub.Rank(cls.request, timeout=20 * TIME_SCALE)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def url(self, path):
        return f"http://{self.server.target}{path}"

    def check_answer(self, data):
        self.assertEqual(struct.unpack(">BI", data[:5]), (0, len(data) - 5))
        self.assertEqual(pb.RankResponse.FromString(data[5:]), self.expected)

    @needs("curl")
    def test_curl(self):
        answer, headers = self.folder / "curl.answer", self.folder / "curl.headers"
        result = execute("curl", "--silent", "--show-error", "--noproxy", "*", "--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H",
                         "te: trailers", "--data-binary", f"@{self.body}", "--dump-header", headers, "--output", answer, self.url(RANK))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.check_answer(answer.read_bytes())
        self.assertRegex(headers.read_text(), r"(?s)^HTTP/2 200.*grpc-status: 0")

    @needs("nghttp")
    def test_nghttp(self):
        result = execute("nghttp", "-v", "-H", "content-type: application/grpc", "-H", "te: trailers", "-H", ":method: POST", "-d", self.empty,
                         self.url(CHECK))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(b"grpc-status: 0", result.stdout)
        self.assertNotIn(b"GOAWAY", result.stdout.split(b"send GOAWAY")[0])

    @needs("h2load")
    def test_h2load(self):
        result = execute("h2load", "-n", 2000, "-c", 4, "-m", 16, "-H", "content-type: application/grpc", "-H", "te: trailers", "-d", self.body, self.url(RANK))
        self.assertEqual(result.returncode, 0, result.stderr)
        told = re.search(r"requests: 2000 total, 2000 started, 2000 done, (\d+) succeeded, (\d+) failed", result.stdout.decode())
        self.assertEqual(told.groups(), ("2000", "0"), result.stdout.decode())

    @unittest.skipUnless(CPP_CLIENT.exists(), "libgrpc++ was not there when the tests were built")
    def test_cpp(self):
        """Unary with deadline and metadata, a stream of requests, a watch that is given up, an unknown method: what the client prints is checked here."""
        request = self.folder / "cpp.request"
        request.write_bytes(self.request.SerializeToString())
        answer = self.folder / "cpp.answer"
        result = execute(CPP_CLIENT, self.server.target, request, answer)
        self.assertEqual(result.returncode, 0, result.stdout.decode() + result.stderr.decode())
        self.assertEqual(pb.RankResponse.FromString(pathlib.Path(answer).read_bytes()), self.expected)
        self.assertEqual(result.stdout.decode().split("\n")[:-1],
                         ["rank 0", "stream 50 answers, 0", "watch 1 message", "unknown 12: unknown method /a.B/C"])


if __name__ == "__main__":
    main()
