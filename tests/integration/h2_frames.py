"""What the conformance tests share: frames of HTTP/2 made by hand, a client that sends anything, and tables of cases.

A case is what a client sends and what it must get for it:

    Case("6.7", "PING with an ACK is not answered", [ping(b"ignored.", ACK), ping(b"answered")], pong(b"answered"))

What is sent is a list of bytes, sent in one piece, and of waits (until, acked, ended), which cut it there. Nothing sleeps: what comes last is
a call that has to be answered, or the end of the connection. Header blocks are literals that touch no table, so that a frame means
the same wherever it stands. Sections are those of RFC 9113 and RFC 7541, but for h2spec's cases its own, which are RFC 7540's."""

import socket
import ssl
import struct
import typing
import unittest

import hpack

from certificates import Authority
from rankd_fixture import RankdServer, TIME_SCALE, repository_of, scratch

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL,
 COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM) = range(12)
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)

FRAME_HEADER_BYTES = 9
LARGEST_FRAME = 16384  # rankd announces no other SETTINGS_MAX_FRAME_SIZE
HONEST_STREAM = 0x7fffffff  # of the call that ends a case; no case needs a higher one
TIMEOUT_S = 10 * TIME_SCALE  # only a server that is wrong lets it pass

MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CHECK = "/grpc.health.v1.Health/Check"
REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", CHECK), (":authority", "test"), ("te", "trailers"), ("content-type", "application/grpc")]
MESSAGE = bytes(5)  # an empty HealthCheckRequest; the answer to it is ANSWER_BYTES long
ANSWER_BYTES = 7
NO_SUCH_SERVICE = "5"  # what message_of gets: NOT_FOUND


# ---- frames ----

def frame(kind, flags, stream, payload=b"", length=None):
    return (len(payload) if length is None else length).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def integer(value, bits, first=0):
    """RFC 7541, section 5.1: with so many bits free in its first byte, whose others are given."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    result, value = bytearray([first | most]), value - most
    while value >= 128:
        result.append(value % 128 | 128)
        value //= 128
    return bytes(result + bytes([value]))


def text(value):
    value = value.encode("latin-1") if isinstance(value, str) else value
    return integer(len(value), 7) + value


def huffman(value):
    coder = hpack.huffman.HuffmanEncoder(hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH)
    value = coder.encode(value.encode())
    return integer(len(value), 7, 0x80) + value


def block(fields):
    """Literals without indexing, the name not indexed either (RFC 7541, section 6.2.2)."""
    return fields if isinstance(fields, bytes) else b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def but(**changes):
    """REQUEST with other values, by name without colon and with underscores; None leaves a header out."""
    changes = {name.replace("_", "-"): value for name, value in changes.items()}
    fields = [(name, changes.get(name.lstrip(":"), value)) for name, value in REQUEST]
    return [(name, value) for name, value in fields if value is not None]


def headers(stream, fields=REQUEST, end=True, whole=True, priority=None, padding=None):
    """priority: (depends on, exclusive, weight as it is sent). fields: pairs, or the block's bytes."""
    payload, flags = block(fields), END_STREAM * end | END_HEADERS * whole
    if priority is not None:
        payload, flags = priority_of(*priority) + payload, flags | WITH_PRIORITY
    if padding is not None:
        payload, flags = bytes([padding]) + payload + bytes(padding), flags | PADDED
    return frame(HEADERS, flags, stream, payload)


def continuation(stream, fields, whole=True):
    return frame(CONTINUATION, END_HEADERS * whole, stream, block(fields))


def data(stream, payload=MESSAGE, end=True, padding=None):
    if padding is None:
        return frame(DATA, END_STREAM * end, stream, payload)
    return frame(DATA, END_STREAM * end | PADDED, stream, bytes([padding]) + payload + bytes(padding))


def call(stream, fields=REQUEST, payload=MESSAGE):
    return headers(stream, fields, end=False) + data(stream, payload)


def message_of(size):
    """A framed HealthCheckRequest of so many bytes in all, from 140 to 16391, that asks for a service of a long name."""
    name = b"x" * (size - 8)
    return struct.pack(">BI", 0, size - 5) + b"\x0a" + bytes([len(name) % 128 | 128, len(name) // 128]) + name


def priority_of(depends_on, exclusive, weight):
    return struct.pack(">IB", depends_on | exclusive << 31, weight)


def priority(stream, depends_on=0, exclusive=False, weight=255):
    return frame(PRIORITY, 0, stream, priority_of(depends_on, exclusive, weight))


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def settings(*entries, flags=0, stream=0):
    return frame(SETTINGS, flags, stream, b"".join(struct.pack(">HI", *entry) for entry in entries))


def ping(payload=bytes(8), flags=0, stream=0):
    return frame(PING, flags, stream, payload)


def goaway(code=NO_ERROR, last_stream=0, debug=b"", stream=0):
    return frame(GOAWAY, 0, stream, struct.pack(">II", last_stream, code) + debug)


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


PREFACE = MAGIC + settings()


# ---- a client that sends anything ----

class Frame(typing.NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: dict  # of HEADERS

    @property
    def code(self):  # of RST_STREAM and GOAWAY
        return struct.unpack(">I", self.payload[:4] if self.kind == RST_STREAM else self.payload[4:8])[0]

    def ends(self):
        return self.kind == RST_STREAM or self.kind in (DATA, HEADERS) and self.flags & END_STREAM != 0

    def __str__(self):
        names = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION")
        told = self.fields or (self.code, self.payload[8:].decode("latin-1")) if self.kind in (RST_STREAM, GOAWAY, HEADERS) else self.payload.hex()
        return f"{names[self.kind]} flags {self.flags} stream {self.stream}: {told}"


class RawClient:
    """Keeps all frames that came. It answers none of them by itself, not even SETTINGS: rankd waits ten seconds for that."""

    def __init__(self, server, opening=PREFACE):
        self.socket = server.socket()
        self.socket.settimeout(TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = hpack.Decoder()
        self.frames, self.rest, self.closed = [], b"", False
        self.send(opening)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, payload):
        try:
            self.socket.sendall(payload)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            pass  # reading tells

    def finish_sending(self):
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is closed already

    def receive(self):
        """Takes what comes next; False at the end of the connection."""
        try:
            received = self.socket.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError):
            received = b""
        except TimeoutError:
            raise AssertionError(f"nothing more came within {TIMEOUT_S:g} s after\n{self}") from None
        self.closed |= not received
        self.rest += received
        while len(self.rest) >= FRAME_HEADER_BYTES:
            end = FRAME_HEADER_BYTES + int.from_bytes(self.rest[:3], "big")
            if len(self.rest) < end:
                break
            kind, flags, stream = struct.unpack(">BBI", self.rest[3:FRAME_HEADER_BYTES])
            payload, self.rest = self.rest[FRAME_HEADER_BYTES:end], self.rest[end:]
            fields = dict(self.decoder.decode(payload)) if kind == HEADERS else {}
            self.frames.append(Frame(kind, flags, stream, payload, fields))
        return not self.closed

    def wait(self, condition):
        """Until condition(self), or to the end of the connection; whether it came true."""
        while not condition(self):
            if not self.receive():
                return condition(self)
        return True

    def of(self, kind, stream=None, flags=0):
        return [frame for frame in self.frames if frame.kind == kind and stream in (None, frame.stream) and frame.flags & flags == flags]

    def ended(self, stream):
        return any(frame.ends() for frame in self.frames if frame.stream == stream)

    def answer(self, stream):
        """What it says: all headers and trailers of the stream."""
        return {name: value for frame in self.of(HEADERS, stream) for name, value in frame.fields.items()}

    def __str__(self):
        return "".join(f"  {frame}\n" for frame in self.frames) + ("  (closed)" if self.closed else "")


# ---- waits, between what is sent ----

def until(kind, count=1, **which):
    return lambda client: len(client.of(kind, **which)) >= count


def acked(count):
    """So many of our SETTINGS are in force; the first one is that of the preface."""
    return until(SETTINGS, count, flags=ACK)


def ended(stream):
    return lambda client: client.ended(stream)


# ---- what must come of it ----

def fail(client, what):
    raise AssertionError(f"{what}; this came:\n{client}")


def honest_call(client):
    """The connection goes on: a call on it is answered."""
    client.send(settings((INITIAL_WINDOW_SIZE, 65535)) + call(HONEST_STREAM))
    if not client.wait(ended(HONEST_STREAM)) or client.answer(HONEST_STREAM).get("grpc-status") != "0":
        fail(client, "an honest call on the connection is not answered")
    if client.of(GOAWAY):
        fail(client, "the connection is told to go")


def answered(stream=1, grpc="0", http="200"):
    """The stream has its answer; grpc is its grpc-status, None where there is to be none."""
    def check(client):
        client.wait(ended(stream))
        honest_call(client)
        answer = client.answer(stream)
        if (answer.get(":status"), answer.get("grpc-status")) != (http, grpc):
            fail(client, f"stream {stream} is not answered with HTTP status {http}, gRPC status {grpc}")
    return check


def stream_error(stream, *codes):
    """The stream is reset with one of the codes, and the connection goes on."""
    def check(client):
        client.wait(ended(stream))
        honest_call(client)
        if not any(frame.code in codes for frame in client.of(RST_STREAM, stream)):
            fail(client, f"stream {stream} is not reset with one of {codes}")
    return check


def connection_error(*codes):
    """GOAWAY with one of the codes, then the end."""
    def check(client):
        client.wait(lambda client: False)
        if not client.of(GOAWAY) or client.of(GOAWAY)[-1].code not in codes:
            fail(client, f"no GOAWAY with one of {codes}")
    return check


def closed(client):
    """The connection ends, with a word or without (RFC 9113, section 3.4: GOAWAY may be left out for who does not speak HTTP/2)."""
    client.wait(lambda client: False)


def hung_up(client):
    """Nothing is wrong as far as it goes, and no more comes: the connection ends with the client's side of it, and without an error."""
    client.finish_sending()
    client.wait(lambda client: False)
    if any(frame.code != NO_ERROR for frame in client.of(GOAWAY)):
        fail(client, "what came was no error so far")


def pong(payload=bytes(8)):
    """The ping is answered, and no other."""
    def check(client):
        honest_call(client)
        if [frame.payload for frame in client.of(PING, 0, ACK)] != [payload]:
            fail(client, f"{payload} is not what was answered")
    return check


def pong_or_closed(payload=bytes(8)):
    def check(client):
        client.wait(until(PING, flags=ACK))
        if [frame.payload for frame in client.of(PING, 0, ACK)] not in ([payload], [] if client.closed else None):
            fail(client, f"{payload} is not what was answered")
    return check


def settings_first(client):
    """The server's own preface: SETTINGS, without ACK (RFC 9113, section 3.4)."""
    client.wait(lambda client: client.frames)
    if not client.frames or client.frames[0].kind != SETTINGS or client.frames[0].flags & ACK:
        fail(client, "the first frame is not the server's SETTINGS")
    honest_call(client)


def sent_data(stream, *lengths):
    """The answer's DATA frames so far, which the window cut; the rest comes when it opens."""
    def check(client):
        client.wait(until(DATA, len(lengths), stream=stream))
        if tuple(len(frame.payload) for frame in client.of(DATA, stream)) != lengths:
            fail(client, f"stream {stream}: DATA frames of other lengths than {lengths}")
        honest_call(client)
        if not client.wait(ended(stream)) or sum(len(frame.payload) for frame in client.of(DATA, stream)) != ANSWER_BYTES:
            fail(client, f"stream {stream}: the answer is not whole when its window opens")
    return check


def discarded(client):
    """As if it had not been sent."""
    honest_call(client)
    if client.of(RST_STREAM):
        fail(client, "a stream is reset")


def instead(why, check):
    """Another answer than h2spec's, which the RFC allows."""
    assert why
    return check


# ---- tables of cases ----

class Case(typing.NamedTuple):
    section: str
    title: str
    sent: list
    expected: typing.Callable
    opening: bytes = PREFACE


def run_case(server, case):
    with RawClient(server, case.opening) as client:
        pending = b""
        for step in case.sent:
            if isinstance(step, bytes):
                pending += step
                continue
            client.send(pending)
            pending = b""
            if not client.wait(step):
                fail(client, "the connection ended early")
        client.send(pending)
        case.expected(client)


class SecurePeer:
    """For RawClient: sockets of a server's TLS address. What is sent in one piece is a record of its own."""

    def __init__(self, server, authority):
        self.address = server.targets["tls"][0].rsplit(":", 1)
        self.context = ssl.create_default_context(cafile=authority.certificate)
        self.context.set_alpn_protocols(["h2"])

    def socket(self):
        return self.context.wrap_socket(socket.create_connection((self.address[0], int(self.address[1])), TIMEOUT_S), server_hostname="rankd.example")


class ListedCases:
    """Beside CasesTest: `cases` of a list, of which `counts` says how many each section has, and `total` how many there are."""

    def test_cases(self):
        self.run_cases(self.cases)

    def test_cases_over_tls(self):
        self.run_cases_over_tls(self.cases)

    def test_no_case_is_missing(self):
        self.check_list(self.cases, self.counts)
        self.assertEqual(len(self.cases), self.total)


class CasesTest(unittest.TestCase):
    """One rankd for all cases of a file. None of its timers may do what the case is to show."""
    arguments = ()

    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of("dot"), "--handshake-timeout-s", 3600, "--keepalive-s", 0, "--ping-interval-s", 0, *cls.arguments)
        cls.peer = cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def run_cases(self, cases):
        numbers = {}
        for case in cases:
            numbers[case.section] = numbers.get(case.section, 0) + 1
            with self.subTest(f"{case.section}/{numbers[case.section]} {case.title}"):
                run_case(self.peer, case)
        with RawClient(self.peer) as other:  # whatever was sent, others are served
            honest_call(other)

    def run_cases_over_tls(self, cases):
        """The same where bytes come in records, and from a loop of their own that has done the handshake."""
        authority = Authority(scratch("authority"))
        certificate = authority.issue("rankd.example", "DNS:rankd.example", "serverAuth")
        with RankdServer(repository_of("dot"), "--listen-tls", "127.0.0.1:0", "--tls-certificate", certificate.certificate, "--tls-key", certificate.key,
                         *self.arguments) as server:
            plain, self.peer = self.peer, SecurePeer(server, authority)
            try:
                self.run_cases(cases)
            finally:
                self.peer = plain

    def check_list(self, cases, counts):
        """That no case is missing: so many of each section, all different."""
        found = {}
        for case in cases:
            found[case.section] = found.get(case.section, 0) + 1
        self.assertEqual(found, counts)
        self.assertEqual(len({(case.section, case.title) for case in cases}), sum(counts.values()))
