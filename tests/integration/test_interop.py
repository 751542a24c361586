#!/usr/bin/python3
"""gRPC's interoperability cases: a stock client (python3-grpcio) against grpc.testing.TestService on rankd's gRPC layer.

The cases are those of https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md, by the names they have there. What a stock
client does not show, whether a message travelled compressed, is read off the frames by python3-h2."""

import concurrent.futures
import gzip
import queue
import signal
import subprocess
import threading
import time
import unittest

import grpc

from rankd_fixture import BUILD, SANITIZER_MARKS, TIME_SCALE, main, scratch
from test_wire import Connection, framed

import interop_pb2 as pb

SERVICE = "/grpc.testing.TestService/"
LARGE_REQUEST, LARGE_RESPONSE = 271828, 314159
REQUEST_SIZES, RESPONSE_SIZES = (27182, 8, 1828, 45904), (31415, 9, 2653, 58979)
CODE = grpc.StatusCode


def payload(size):
    return pb.Payload(body=bytes(size))


class Stub:
    def __init__(self, channel):
        for kind, name, request, response in (
                ("unary_unary", "EmptyCall", pb.Empty, pb.Empty),
                ("unary_unary", "UnaryCall", pb.SimpleRequest, pb.SimpleResponse),
                ("unary_unary", "UnimplementedCall", pb.Empty, pb.Empty),
                ("unary_stream", "StreamingOutputCall", pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse),
                ("stream_unary", "StreamingInputCall", pb.StreamingInputCallRequest, pb.StreamingInputCallResponse),
                ("stream_stream", "FullDuplexCall", pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse)):
            setattr(self, name, getattr(channel, kind)(SERVICE + name, request.SerializeToString, response.FromString))


class Requests:
    """Requests of a stream, one when asked."""

    def __init__(self):
        self.queue = queue.SimpleQueue()

    def send(self, request):
        self.queue.put(request)

    def close(self):
        self.queue.put(None)

    def __iter__(self):
        return iter(self.queue.get, None)


class TestInterop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = scratch("interop")
        ready = folder / "ready"
        cls.log = folder / "log"
        with open(cls.log, "wb") as log:
            cls.process = subprocess.Popen([str(BUILD / "tests/integration/interop_service"), str(ready)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        limit = time.monotonic() + 30 * TIME_SCALE
        while not ready.exists():
            if cls.process.poll() is not None or time.monotonic() > limit:
                cls.process.kill()
                cls.process.wait()
                raise AssertionError(f"the test service did not start: {cls.log.read_text()}")
            time.sleep(0.005)
        cls.target = ready.read_text(encoding="ascii").strip()
        cls.port = int(cls.target.rsplit(":", 1)[1])

    @classmethod
    def tearDownClass(cls):
        cls.process.send_signal(signal.SIGTERM)
        status = cls.process.wait(30 * TIME_SCALE)
        log = cls.log.read_text(errors="replace")
        if status != 0 or any(mark in log for mark in SANITIZER_MARKS):
            raise AssertionError(f"the test service ended with {status}:\n{log[-8000:]}")

    def setUp(self):
        self.channel = grpc.insecure_channel(self.target, options=[("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)])
        self.stub = Stub(self.channel)
        self.timeout = 20 * TIME_SCALE

    def tearDown(self):
        self.channel.close()

    @classmethod
    def socket(cls):  # what Connection wants of a server
        import socket
        return socket.create_connection(("127.0.0.1", cls.port), 5 * TIME_SCALE)

    def status_of(self, call):
        with self.assertRaises(grpc.RpcError) as raised:
            call()
        return raised.exception.code(), raised.exception.details()

    # ---- unary ----

    def test_empty_unary(self):
        self.assertEqual(self.stub.EmptyCall(pb.Empty(), timeout=self.timeout), pb.Empty())

    def large(self, stub=None):
        request = pb.SimpleRequest(response_size=LARGE_RESPONSE, payload=payload(LARGE_REQUEST))
        response = (stub or self.stub).UnaryCall(request, timeout=self.timeout)
        self.assertEqual(response.payload.body, bytes(LARGE_RESPONSE))

    def test_large_unary(self):
        self.large()

    def test_concurrent_large_unary(self):
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            for done in [pool.submit(self.large) for _ in range(200)]:
                done.result()

    def test_client_compressed_unary(self):
        request = pb.SimpleRequest(expect_compressed=pb.BoolValue(value=True), response_size=LARGE_RESPONSE, payload=payload(LARGE_REQUEST))
        code, _ = self.status_of(lambda: self.stub.UnaryCall(request, timeout=self.timeout))  # the probe: it travels as it is
        self.assertEqual(code, CODE.INVALID_ARGUMENT)
        response = self.stub.UnaryCall(request, timeout=self.timeout, compression=grpc.Compression.Gzip)
        self.assertEqual(response.payload.body, bytes(LARGE_RESPONSE))
        request.expect_compressed.value = False
        self.assertEqual(self.stub.UnaryCall(request, timeout=self.timeout).payload.body, bytes(LARGE_RESPONSE))

    def test_a_client_that_compresses_with_deflate_learns_what_is_taken(self):
        code, details = self.status_of(lambda: self.stub.EmptyCall(pb.Empty(), timeout=self.timeout, compression=grpc.Compression.Deflate))
        self.assertEqual(code, CODE.UNIMPLEMENTED)
        self.assertIn("deflate", details)

    def test_server_compressed_unary(self):
        for compressed in (True, False):
            request = pb.SimpleRequest(response_compressed=pb.BoolValue(value=compressed), response_size=LARGE_RESPONSE, payload=payload(LARGE_REQUEST))
            self.assertEqual(self.stub.UnaryCall(request, timeout=self.timeout).payload.body, bytes(LARGE_RESPONSE))
            with Connection(self) as connection:
                for accepts in ("gzip", "identity,deflate,gzip", "identity,deflate", None):
                    extra = [("grpc-accept-encoding", accepts)] if accepts else []
                    headers, body = connection.call(framed(pb.SimpleRequest(
                        response_compressed=pb.BoolValue(value=compressed), response_size=LARGE_RESPONSE).SerializeToString()),
                        path=SERVICE + "UnaryCall", extra=extra)
                    expected = compressed and accepts is not None and "gzip" in accepts
                    self.assertEqual((headers["grpc-status"], body[0], headers.get("grpc-encoding")),
                                     ("0", int(expected), "gzip" if expected else None), (compressed, accepts))
                    message = gzip.decompress(body[5:]) if expected else body[5:]
                    self.assertEqual(pb.SimpleResponse.FromString(message).payload.body, bytes(LARGE_RESPONSE))

    def test_custom_metadata(self):
        sent = (("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"))

        def check(call):
            self.assertEqual(dict(call.initial_metadata()).get(sent[0][0]), sent[0][1])
            self.assertEqual(dict(call.trailing_metadata()).get(sent[1][0]), sent[1][1])

        request = pb.SimpleRequest(response_size=LARGE_RESPONSE, payload=payload(LARGE_REQUEST))
        _, call = self.stub.UnaryCall.with_call(request, timeout=self.timeout, metadata=sent)
        check(call)
        one = pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=LARGE_RESPONSE)], payload=payload(LARGE_REQUEST))
        call = self.stub.FullDuplexCall(iter([one]), timeout=self.timeout, metadata=sent)
        self.assertEqual([len(response.payload.body) for response in call], [LARGE_RESPONSE])
        check(call)

    def test_status_code_and_message(self):
        status = pb.EchoStatus(code=2, message="test status message")
        expected = (CODE.UNKNOWN, "test status message")
        self.assertEqual(self.status_of(lambda: self.stub.UnaryCall(pb.SimpleRequest(response_status=status), timeout=self.timeout)), expected)
        stream = pb.StreamingOutputCallRequest(response_status=status)
        self.assertEqual(self.status_of(lambda: list(self.stub.FullDuplexCall(iter([stream]), timeout=self.timeout))), expected)
        self.assertEqual(self.status_of(lambda: list(self.stub.StreamingOutputCall(stream, timeout=self.timeout))), expected)

    def test_special_status_message(self):
        text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
        status = pb.EchoStatus(code=2, message=text)
        self.assertEqual(self.status_of(lambda: self.stub.UnaryCall(pb.SimpleRequest(response_status=status), timeout=self.timeout)), (CODE.UNKNOWN, text))

    def test_every_status_code_comes_through(self):
        for code in CODE:
            if code is CODE.OK:
                continue
            status = pb.EchoStatus(code=code.value[0], message=code.name)
            self.assertEqual(self.status_of(lambda: self.stub.UnaryCall(pb.SimpleRequest(response_status=status), timeout=self.timeout)), (code, code.name))

    def test_unimplemented_method(self):
        self.assertEqual(self.status_of(lambda: self.stub.UnimplementedCall(pb.Empty(), timeout=self.timeout))[0], CODE.UNIMPLEMENTED)

    def test_unimplemented_service(self):
        call = self.channel.unary_unary("/grpc.testing.UnimplementedService/UnimplementedCall", pb.Empty.SerializeToString, pb.Empty.FromString)
        self.assertEqual(self.status_of(lambda: call(pb.Empty(), timeout=self.timeout))[0], CODE.UNIMPLEMENTED)

    # ---- streams from the client ----

    def test_client_streaming(self):
        requests = [pb.StreamingInputCallRequest(payload=payload(size)) for size in REQUEST_SIZES]
        self.assertEqual(self.stub.StreamingInputCall(iter(requests), timeout=self.timeout).aggregated_payload_size, sum(REQUEST_SIZES))

    def test_client_compressed_streaming(self):
        probe = pb.StreamingInputCallRequest(expect_compressed=pb.BoolValue(value=True), payload=payload(27182))
        self.assertEqual(self.status_of(lambda: self.stub.StreamingInputCall(iter([probe]), timeout=self.timeout))[0], CODE.INVALID_ARGUMENT)
        response = self.stub.StreamingInputCall(iter([probe] * 3), timeout=self.timeout, compression=grpc.Compression.Gzip)
        self.assertEqual(response.aggregated_payload_size, 3 * 27182)
        plain = pb.StreamingInputCallRequest(expect_compressed=pb.BoolValue(value=False), payload=payload(8000))
        with Connection(self) as connection:  # a stock client compresses all messages of a call, or none
            headers, body = connection.call(framed(gzip.compress(probe.SerializeToString()), flag=1) + framed(plain.SerializeToString()),
                                            path=SERVICE + "StreamingInputCall", extra=[("grpc-encoding", "gzip")])
            self.assertEqual(headers["grpc-status"], "0", headers)
            self.assertEqual(pb.StreamingInputCallResponse.FromString(body[5:]).aggregated_payload_size, 27182 + 8000)

    def test_cancel_after_begin(self):
        requests = Requests()
        call = self.stub.StreamingInputCall.future(iter(requests))
        call.cancel()
        self.assertEqual(call.code(), CODE.CANCELLED)
        requests.close()
        self.stub.EmptyCall(pb.Empty(), timeout=self.timeout)

    # ---- streams from the server ----

    def outputs(self, sizes=RESPONSE_SIZES, **options):
        return pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=size, **options) for size in sizes])

    def test_server_streaming(self):
        sizes = [len(response.payload.body) for response in self.stub.StreamingOutputCall(self.outputs(), timeout=self.timeout)]
        self.assertEqual(sizes, list(RESPONSE_SIZES))

    def test_server_streaming_without_answers(self):
        self.assertEqual(list(self.stub.StreamingOutputCall(self.outputs(()), timeout=self.timeout)), [])

    def test_server_streaming_in_intervals(self):
        began = time.monotonic()
        sizes = [len(response.payload.body) for response in self.stub.StreamingOutputCall(self.outputs(interval_us=20000), timeout=self.timeout)]
        self.assertEqual(sizes, list(RESPONSE_SIZES))
        self.assertGreaterEqual(time.monotonic() - began, 0.07)  # four times 20 ms, of a clock that counts whole milliseconds

    def test_server_compressed_streaming(self):
        request = pb.StreamingOutputCallRequest(response_parameters=[
            pb.ResponseParameters(compressed=pb.BoolValue(value=True), size=31415), pb.ResponseParameters(compressed=pb.BoolValue(value=False), size=92653)])
        sizes = [len(response.payload.body) for response in self.stub.StreamingOutputCall(request, timeout=self.timeout)]
        self.assertEqual(sizes, [31415, 92653])
        with Connection(self) as connection:
            _, body = connection.call(framed(request.SerializeToString()), path=SERVICE + "StreamingOutputCall", extra=[("grpc-accept-encoding", "gzip")])
            first = 5 + int.from_bytes(body[1:5], "big")
            self.assertEqual((body[0], body[first]), (1, 0))
            self.assertLess(first, 1000)
            self.assertGreater(len(body) - first, 92653)

    def test_a_slow_reader_gets_all_and_costs_little(self):
        count, size = 400, 100000
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            before = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
        call = self.stub.StreamingOutputCall(self.outputs([size] * count), timeout=4 * self.timeout)
        next(call)
        time.sleep(0.3)
        self.assertEqual(sum(len(response.payload.body) for response in call), (count - 1) * size)
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            after = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
        if TIME_SCALE == 1:  # a sanitizer keeps what was freed
            self.assertLess(after - before, 8192, "kB more for a stream of 40 MB")

    # ---- both ----

    def test_ping_pong(self):
        requests = Requests()
        call = self.stub.FullDuplexCall(iter(requests), timeout=self.timeout)
        for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES):
            requests.send(pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=response_size)], payload=payload(request_size)))
            self.assertEqual(len(next(call).payload.body), response_size)
        requests.close()
        self.assertEqual(list(call), [])
        self.assertEqual(call.code(), CODE.OK)

    def test_empty_stream(self):
        call = self.stub.FullDuplexCall(iter([]), timeout=self.timeout)
        self.assertEqual(list(call), [])
        self.assertEqual(call.code(), CODE.OK)

    def test_many_requests_before_the_first_answer_is_read(self):
        requests = [self.outputs([1000 + number], interval_us=100) for number in range(300)]
        call = self.stub.FullDuplexCall(iter(requests), timeout=4 * self.timeout)
        self.assertEqual([len(response.payload.body) for response in call], [1000 + number for number in range(300)])

    def test_cancel_after_first_response(self):
        requests = Requests()
        call = self.stub.FullDuplexCall(iter(requests), timeout=self.timeout)
        requests.send(pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=31415)], payload=payload(27182)))
        self.assertEqual(len(next(call).payload.body), 31415)
        call.cancel()
        self.assertEqual(call.code(), CODE.CANCELLED)
        requests.close()

    def test_timeout_on_sleeping_server(self):
        requests = Requests()
        call = self.stub.FullDuplexCall(iter(requests), timeout=0.001)
        requests.send(pb.StreamingOutputCallRequest(payload=payload(27182)))
        self.assertEqual(self.status_of(lambda: list(call))[0], CODE.DEADLINE_EXCEEDED)
        requests.close()

    def test_a_deadline_passes_between_two_answers(self):
        call = self.stub.StreamingOutputCall(self.outputs([10, 10], interval_us=3_000_000), timeout=0.05)
        self.assertEqual(self.status_of(lambda: list(call))[0], CODE.DEADLINE_EXCEEDED)

    def test_all_at_once(self):
        """Every kind of call from many threads on one connection, a part of them cancelled."""
        failures = []

        def one(number):
            try:
                if number % 4 == 0:
                    self.large()
                elif number % 4 == 1:
                    self.assertEqual(len(list(self.stub.StreamingOutputCall(self.outputs(), timeout=self.timeout))), 4)
                elif number % 4 == 2:
                    self.assertEqual(len(list(self.stub.FullDuplexCall(iter([self.outputs([9])] * 5), timeout=self.timeout))), 5)
                else:
                    call = self.stub.StreamingOutputCall(self.outputs([50000] * 20, interval_us=1000), timeout=self.timeout)
                    next(call)
                    call.cancel()
            except BaseException as error:  # whatever it is, the test says so
                failures.append(error)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(48)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])


if __name__ == "__main__":
    main()
