"""What a server must make of each frame that RFC 9113, 8441 and 7541 rule out or allow: a table in the order of the clauses.

A case sends something on a connection whose SETTINGS are settled (unless `begin` is false) and says which reactions are right:
`connection(CODE...)` is GOAWAY with one of these codes, or the end of the connection without one; `stream(CODE...)` is RST_STREAM with
one of these codes, or the same as a connection error; `refused(CODE...)` is either, or a 4xx;
`forgotten(CODE...)` is either, or that the frame is ignored and the next request is answered, as for a stream that a server has forgotten; `served` is an answer as if nothing were wrong.
"""

import struct

from .h2raw import (
    ACK, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, ENABLE_CONNECT_PROTOCOL, ENABLE_PUSH, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, NO_ERROR, PADDED, PING, PREFACE, PRIORITISED, PRIORITY,
    PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, block, frame, integer, literal, request,
    setting, text)

CASES = []
UPLOAD = [("content-type", "text/plain")]


class Connection:
    def __init__(self, *codes):
        self.codes = codes


class Stream(Connection):
    pass


class Refused(Stream):
    pass


class Forgotten(Stream):
    pass


def connection(*codes):
    return Connection(*codes)


def stream(*codes):
    return Stream(*codes)


def refused(*codes):
    return Refused(*codes)


def forgotten(*codes):
    return Forgotten(*codes)


served = "served"


class Case:
    def __init__(self, clause, name, expected, act, begin, settings):
        self.clause, self.name, self.expected, self.act, self.begin, self.settings = clause, name, expected, act, begin, settings


def case(clause, name, expected, begin=True, settings=b""):
    """The function acts on the connection and returns the number of the stream that is looked at, or None."""
    def add(act):
        CASES.append(Case(clause, name, expected, act, begin, settings))
        return act
    return add


def send(clause, name, expected, *frames, **options):
    """A case that only sends bytes; stream 1 is the one that is looked at."""
    @case(clause, name, expected, **options)
    def act(h2):
        # At once: an answer to the first frames must not come between.
        h2.send(b"".join(one(h2) if callable(one) else one for one in frames))
        return 1


def right(path="/", method="GET", more=(), number=1, flags=END_HEADERS | END_STREAM):
    return lambda h2: frame(HEADERS, flags, number, block(request(h2.domain, path, method, more=more)))


def wrong(change, number=1, flags=END_HEADERS | END_STREAM):
    """A request whose list of fields was changed."""
    return lambda h2: frame(HEADERS, flags, number, block(change(request(h2.domain))))


def u32(value):
    return struct.pack(">I", value)


OPEN = right("/upload", "POST", UPLOAD, flags=END_HEADERS)

# 3.4 The preface

send("3.4", "bytes that are no preface", connection(PROTOCOL_ERROR), b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n" + b"x" * 40, begin=False)
send("3.4", "a preface with one byte changed", connection(PROTOCOL_ERROR), PREFACE[:-6] + b"SX\r\n\r\n" + frame(SETTINGS), begin=False)
send("3.4", "no SETTINGS behind the preface", connection(PROTOCOL_ERROR), PREFACE + frame(PING, 0, 0, bytes(8)), begin=False)
send("3.4", "HEADERS before SETTINGS", connection(PROTOCOL_ERROR), PREFACE, right(), begin=False)
send("3.4", "an acknowledgement as the first SETTINGS", connection(PROTOCOL_ERROR), PREFACE + frame(SETTINGS, ACK), begin=False)
send("3.4", "a request right behind the preface, without waiting", served, PREFACE + frame(SETTINGS), right(), begin=False)


@case("3.4", "a preface byte by byte", served, begin=False)
def _(h2):
    for byte in PREFACE + frame(SETTINGS) + right()(h2):
        h2.send(bytes([byte]))
    return 1


# 4.1 Frame format

send("4.1", "a frame of an unknown type", served, frame(0x16, 0, 0, bytes(8)), right())
send("4.1", "a frame of an unknown type on an idle stream", served, frame(0xFA, 0xFF, 77, b"x"), right())
send("4.1", "unknown flags of PING", served, frame(PING, 0xFE, 0, bytes(8)), right())
send("4.1", "unknown flags of SETTINGS", served, frame(SETTINGS, 0xFE), right())
send("4.1", "the reserved bit of a stream identifier", served, lambda h2: frame(HEADERS, END_HEADERS | END_STREAM, 0x80000001, block(request(h2.domain))))
send("4.1", "unknown flags of HEADERS", served, right(flags=END_HEADERS | END_STREAM | 0x42))

# 4.2 Frame size

send("4.2", "DATA beyond SETTINGS_MAX_FRAME_SIZE", stream(FRAME_SIZE_ERROR), OPEN, lambda h2: frame(DATA, END_STREAM, 1, bytes(h2.settings.get(MAX_FRAME_SIZE, 16384) + 1)))
send("4.2", "HEADERS beyond SETTINGS_MAX_FRAME_SIZE", connection(FRAME_SIZE_ERROR), lambda h2: frame(
    HEADERS, END_HEADERS | END_STREAM, 1, block(request(h2.domain, more=[("x-a", "a" * (h2.settings.get(MAX_FRAME_SIZE, 16384) + 1))]))))
send("4.2", "an unknown frame beyond SETTINGS_MAX_FRAME_SIZE", connection(FRAME_SIZE_ERROR), lambda h2: frame(
    0x16, 0, 0, bytes(h2.settings.get(MAX_FRAME_SIZE, 16384) + 1)))
send("4.2", "DATA of exactly 16,384 bytes", served, OPEN, frame(DATA, END_STREAM, 1, bytes(16384)))

# 4.3 Field blocks

send("4.3", "an index that is in no table", connection(COMPRESSION_ERROR), frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\x03"))
send("4.3", "a block that ends in the midst of a string", connection(COMPRESSION_ERROR), lambda h2: frame(
    HEADERS, END_HEADERS | END_STREAM, 1, block(request(h2.domain))[:-1]))
send("4.3", "DATA between HEADERS and CONTINUATION", connection(PROTOCOL_ERROR), lambda h2: right(flags=END_STREAM)(h2) + frame(DATA, END_STREAM, 1, b"x"))
send("4.3", "HEADERS of another stream between HEADERS and CONTINUATION", connection(PROTOCOL_ERROR), lambda h2: right(flags=END_STREAM)(h2) + right(number=3)(h2))
send("4.3", "an unknown frame between HEADERS and CONTINUATION", connection(PROTOCOL_ERROR), lambda h2: right(flags=END_STREAM)(h2) + frame(0x16, 0, 1))
send("4.3", "PING between HEADERS and CONTINUATION", connection(PROTOCOL_ERROR), lambda h2: right(flags=END_STREAM)(h2) + frame(PING, 0, 0, bytes(8)))
send("4.3", "CONTINUATION of another stream", connection(PROTOCOL_ERROR), lambda h2: right(flags=END_STREAM)(h2) + frame(CONTINUATION, END_HEADERS, 3))

# 5.1 Stream states

send("5.1", "DATA on an idle stream", connection(PROTOCOL_ERROR, STREAM_CLOSED), frame(DATA, END_STREAM, 1, b"x"))
send("5.1", "RST_STREAM on an idle stream", connection(PROTOCOL_ERROR), frame(RST_STREAM, 0, 1, u32(CANCEL)))
send("5.1", "WINDOW_UPDATE on an idle stream", connection(PROTOCOL_ERROR), frame(WINDOW_UPDATE, 0, 1, u32(100)))
send("5.1", "CONTINUATION on an idle stream", connection(PROTOCOL_ERROR), frame(CONTINUATION, END_HEADERS, 1, b""))
send("5.1", "PRIORITY on an idle stream", served, frame(PRIORITY, 0, 77, u32(0) + b"\x10"), right())
send("5.1", "DATA on a half-closed stream", stream(STREAM_CLOSED), right("/drip/never"), frame(DATA, END_STREAM, 1, b"x"))
# STREAM_CLOSED is what the RFC says; NIO's state machine calls it a PROTOCOL_ERROR of the stream.
send("5.1", "HEADERS on a half-closed stream", stream(STREAM_CLOSED, PROTOCOL_ERROR), right("/drip/never"), right())
send("5.1", "CONTINUATION on a half-closed stream", connection(PROTOCOL_ERROR, STREAM_CLOSED), right("/drip/never"), frame(CONTINUATION, END_HEADERS, 1, b""))


def answered(h2):
    number = h2.request()
    assert h2.response(number).status == 200
    return number


@case("5.1", "DATA on a closed stream", forgotten(STREAM_CLOSED))
def _(h2):
    number = answered(h2)
    h2.frame(DATA, END_STREAM, number, b"x")
    return number


@case("5.1", "HEADERS on a closed stream", stream(STREAM_CLOSED, PROTOCOL_ERROR))
def _(h2):
    number = answered(h2)
    h2.send(right(number=number)(h2))
    return number


@case("5.1", "CONTINUATION on a closed stream", connection(PROTOCOL_ERROR, STREAM_CLOSED))
def _(h2):
    number = answered(h2)
    h2.frame(CONTINUATION, END_HEADERS, number, block(request(h2.domain)))
    return number


@case("5.1", "HEADERS on a stream that we have reset", forgotten(STREAM_CLOSED, PROTOCOL_ERROR))
def _(h2):
    h2.send(OPEN(h2) + frame(RST_STREAM, 0, 1, u32(CANCEL)))
    h2.ping()
    h2.send(right()(h2))
    return 1


for kind, payload in ((WINDOW_UPDATE, u32(5)), (RST_STREAM, u32(CANCEL)), (PRIORITY, u32(0) + b"\x01")):
    @case("5.1", f"frame {kind} on a closed stream is tolerated", served)
    def _(h2, kind=kind, payload=payload):
        number = answered(h2)
        h2.frame(kind, 0, number, payload)
        h2.send(right(number=number + 2)(h2))
        return number + 2


# 5.1.1 Stream identifiers

send("5.1.1", "an even stream identifier", connection(PROTOCOL_ERROR), right(number=2))
send("5.1.1", "HEADERS on stream 0", connection(PROTOCOL_ERROR), right(number=0))
send("5.1.1", "a smaller identifier than before", connection(PROTOCOL_ERROR, STREAM_CLOSED), right(number=5), right(number=3))


@case("5.1.1", "identifiers may be left out", served)
def _(h2):
    h2.send(right(number=101)(h2))
    return 101


@case("5.1.1", "the largest identifier", served)
def _(h2):
    h2.send(right(number=0x7FFFFFFF)(h2))
    return 0x7FFFFFFF


# 5.1.2 Concurrency

@case("5.1.2", "more streams than SETTINGS_MAX_CONCURRENT_STREAMS", stream(REFUSED_STREAM, PROTOCOL_ERROR, ENHANCE_YOUR_CALM))
def _(h2):
    most = h2.settings.get(3, 1000)
    for index in range(most + 1):
        h2.send(right("/upload", "POST", UPLOAD, 1 + 2 * index, END_HEADERS)(h2))
    return 1 + 2 * most


# 5.3 Priority: deprecated, and to be tolerated

send("5.3", "a stream that depends on itself", served + " or stream(PROTOCOL_ERROR) or connection(PROTOCOL_ERROR)", lambda h2: frame(
    HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 1, u32(1) + b"\x10" + block(request(h2.domain))))
send("5.3", "HEADERS with a priority", served, lambda h2: frame(
    HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 1, u32(0x80000000) + b"\xff" + block(request(h2.domain))))

# 6.1 DATA

send("6.1", "DATA on stream 0", connection(PROTOCOL_ERROR), frame(DATA, END_STREAM, 0, b"x"))
send("6.1", "padding of the payload's length", connection(PROTOCOL_ERROR), OPEN, frame(DATA, END_STREAM | PADDED, 1, b"\x06hello"))
send("6.1", "padding beyond the payload", connection(PROTOCOL_ERROR), OPEN, frame(DATA, END_STREAM | PADDED, 1, b"\xffhello"))
send("6.1", "PADDED without a length", connection(PROTOCOL_ERROR, FRAME_SIZE_ERROR), OPEN, frame(DATA, END_STREAM | PADDED, 1))
send("6.1", "right padding", served, OPEN, frame(DATA, END_STREAM | PADDED, 1, b"\x05hello" + bytes(5)))
send("6.1", "padding alone", served, OPEN, frame(DATA, PADDED, 1, b"\xff" + bytes(255)), frame(DATA, END_STREAM, 1, b"x"))


@case("6.1", "padding counts for the windows, and they are given back", served)
def _(h2):
    h2.send(OPEN(h2))
    # The server would stall us if it forgot the padding.
    for _ in range(3 * max(65535, h2.settings.get(INITIAL_WINDOW_SIZE, 65535)) // 256):
        h2.until(lambda: h2.room(1) >= 256, "window for padding")
        h2.window -= 256
        h2.stream_windows[1] = h2.stream_windows.get(1, 0) - 256
        h2.frame(DATA, PADDED, 1, b"\xfe" + bytes(255))
    h2.data(1, b"", end=True)
    return 1


# 6.2 HEADERS

send("6.2", "padding beyond the block", connection(PROTOCOL_ERROR), lambda h2: frame(
    HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\xff" + block(request(h2.domain))[:100]))
send("6.2", "PADDED without a length", connection(PROTOCOL_ERROR, FRAME_SIZE_ERROR), frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1))
send("6.2", "a priority that is cut off", connection(PROTOCOL_ERROR, FRAME_SIZE_ERROR), frame(HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 1, bytes(4)))
send("6.2", "right padding and priority", served, lambda h2: frame(
    HEADERS, END_HEADERS | END_STREAM | PADDED | PRIORITISED, 1, b"\x03" + u32(0) + b"\x10" + block(request(h2.domain)) + bytes(3)))

# 6.3 PRIORITY

send("6.3", "PRIORITY on stream 0", connection(PROTOCOL_ERROR), frame(PRIORITY, 0, 0, u32(0) + b"\x10"))
send("6.3", "PRIORITY of another length than 5", stream(FRAME_SIZE_ERROR), OPEN, frame(PRIORITY, 0, 1, bytes(4)))

# 6.4 RST_STREAM

send("6.4", "RST_STREAM on stream 0", connection(PROTOCOL_ERROR), frame(RST_STREAM, 0, 0, u32(CANCEL)))
send("6.4", "RST_STREAM of another length than 4", connection(FRAME_SIZE_ERROR), OPEN, frame(RST_STREAM, 0, 1, bytes(3)))


@case("6.4", "an unknown error code of RST_STREAM", served)
def _(h2):
    h2.send(OPEN(h2) + frame(RST_STREAM, 0, 1, u32(0xDEADBEEF)) + right(number=3)(h2))
    return 3


# 6.5 SETTINGS

send("6.5", "SETTINGS on a stream", connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 1, setting(3, 100)))
send("6.5", "an acknowledgement with a payload", connection(FRAME_SIZE_ERROR), frame(SETTINGS, ACK, 0, setting(3, 100)))
send("6.5", "a length that is no multiple of 6", connection(FRAME_SIZE_ERROR), frame(SETTINGS, 0, 0, bytes(5)))
send("6.5.2", "SETTINGS_ENABLE_PUSH of 2", connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 0, setting(ENABLE_PUSH, 2)))
send("6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE of 2^31", connection(FLOW_CONTROL_ERROR), frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 1 << 31)))
send("6.5.2", "SETTINGS_MAX_FRAME_SIZE below 16,384", connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 0, setting(MAX_FRAME_SIZE, 16383)))
send("6.5.2", "SETTINGS_MAX_FRAME_SIZE of 2^24", connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 0, setting(MAX_FRAME_SIZE, 1 << 24)))
send("6.5.2", "an unknown setting", served, frame(SETTINGS, 0, 0, setting(0xFF, 77)), right())
send("6.5.3", "an acknowledgement that was not asked for is no fault of the stream", served + " or connection(PROTOCOL_ERROR)", frame(SETTINGS, ACK), right())


@case("6.5.3", "each SETTINGS is acknowledged, in its order", served)
def _(h2):
    before = sum(one.kind == SETTINGS and one.flags & ACK for one in h2.frames)
    for _ in range(3):
        h2.frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 70000))
    h2.until(lambda: sum(one.kind == SETTINGS and one.flags & ACK for one in h2.frames) == before + 3, "three acknowledgements")
    h2.send(right()(h2))
    return 1


@case("6.5.3", "a setting that is named twice: the last one counts", served)
def _(h2):
    h2.frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 1000) + setting(INITIAL_WINDOW_SIZE, 1))
    h2.send(right()(h2))
    h2.ping()
    h2.head(1)
    assert len(h2.responses[1].body) <= 1, f"{len(h2.responses[1].body)} bytes into a window of 1"
    h2.grow(1, 100_000)
    return 1


# 6.6 PUSH_PROMISE

send("6.6", "PUSH_PROMISE of a client", connection(PROTOCOL_ERROR), OPEN, lambda h2: frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(request(h2.domain))))

# 6.7 PING

send("6.7", "PING on a stream", connection(PROTOCOL_ERROR), frame(PING, 0, 1, bytes(8)))
send("6.7", "PING of another length than 8", connection(FRAME_SIZE_ERROR), frame(PING, 0, 0, bytes(6)))
send("6.7", "an acknowledgement that was not asked for", served, frame(PING, ACK, 0, bytes(8)), right())


@case("6.7", "PING is answered with its own bytes", served)
def _(h2):
    h2.ping()
    h2.send(right()(h2))
    return 1


# 6.8 GOAWAY

send("6.8", "GOAWAY on a stream", connection(PROTOCOL_ERROR), frame(GOAWAY, 0, 1, u32(0) + u32(0)))
send("6.8", "GOAWAY that is too short", connection(FRAME_SIZE_ERROR), frame(GOAWAY, 0, 0, u32(0)))
send("6.8", "a stream in hand ends in spite of GOAWAY", served, right(), frame(GOAWAY, 0, 0, u32(0) + u32(NO_ERROR) + b"bye"))

# 6.9 Windows

send("6.9", "WINDOW_UPDATE of zero on a stream", stream(PROTOCOL_ERROR), OPEN, frame(WINDOW_UPDATE, 0, 1, u32(0)))
send("6.9", "WINDOW_UPDATE of zero on the connection", connection(PROTOCOL_ERROR), frame(WINDOW_UPDATE, 0, 0, u32(0)))
send("6.9", "WINDOW_UPDATE of another length than 4", connection(FRAME_SIZE_ERROR), frame(WINDOW_UPDATE, 0, 0, bytes(3)))
send("6.9.1", "a connection window beyond 2^31-1", connection(FLOW_CONTROL_ERROR), frame(WINDOW_UPDATE, 0, 0, u32(0x7FFFFFFF)), frame(WINDOW_UPDATE, 0, 0, u32(0x7FFFFFFF)))
send("6.9.1", "a stream window beyond 2^31-1", stream(FLOW_CONTROL_ERROR), OPEN, frame(WINDOW_UPDATE, 0, 1, u32(0x7FFFFFFF)), frame(WINDOW_UPDATE, 0, 1, u32(0x7FFFFFFF)))
send("6.9.2", "an initial window that moves a stream's beyond 2^31-1", connection(FLOW_CONTROL_ERROR), OPEN, frame(
    WINDOW_UPDATE, 0, 1, u32(0x7FFFFFFF - 65535)), frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 65536)))


@case("6.9.1", "no byte goes into a window of zero", served, settings=setting(INITIAL_WINDOW_SIZE, 0))
def _(h2):
    h2.refill = False
    h2.send(right("/bytes/1000")(h2))
    h2.head(1)
    h2.ping()
    assert h2.responses[1].body == b"", "bytes into a closed window"
    h2.grow(1, 1)
    h2.until(lambda: len(h2.responses[1].body) == 1, "one byte")
    h2.ping()
    assert len(h2.responses[1].body) == 1, "more than the window"
    h2.grow(1, 100_000)
    return 1


@case("6.9.2", "a window that has become negative", served, settings=setting(INITIAL_WINDOW_SIZE, 1000))
def _(h2):
    h2.refill = False
    h2.send(right("/bytes/5000")(h2))
    h2.until(lambda: 1 in h2.responses and len(h2.responses[1].body) == 1000, "the first 1,000 bytes")
    h2.frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 100))
    h2.grow(1, 900)
    h2.ping()
    assert len(h2.responses[1].body) == 1000, "bytes into a negative window"
    h2.grow(1, 1)
    h2.until(lambda: len(h2.responses[1].body) == 1001, "one more byte")
    h2.frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 50_000))
    return 1


@case("6.9.1", "the connection's window holds all streams together", served, settings=setting(INITIAL_WINDOW_SIZE, 1 << 20))
def _(h2):
    h2.refill = False
    h2.send(right("/bytes/50000")(h2) + right("/bytes/50000", number=3)(h2))
    h2.until(lambda: sum(len(one.body) for one in h2.responses.values()) >= 65535, "the connection's window is used up")
    h2.ping()
    assert sum(len(one.body) for one in h2.responses.values()) == 65535, "more than the connection's window"
    h2.grow(0, 1 << 20)
    h2.response(3)
    return 1


def beyond_window(h2, *numbers):
    """More than the server has room for: without waiting for what it gives back, which takes it a moment."""
    size = h2.settings.get(MAX_FRAME_SIZE, 16384)
    for index in range(2 + (h2.settings.get(INITIAL_WINDOW_SIZE, 65535) + (1 << 24)) // size):
        if not h2.send(frame(DATA, 0, numbers[index % len(numbers)], bytes(size))):
            return


@case("6.9.1", "DATA beyond the stream's window", stream(FLOW_CONTROL_ERROR))
def _(h2):
    # The web service takes nothing, so that no window is given back for ever.
    h2.send(right("/stall/never", "POST", UPLOAD, flags=END_HEADERS)(h2))
    beyond_window(h2, 1)
    return 1


# 6.10 CONTINUATION

def split(h2, pieces, flags=END_STREAM):
    whole = block(request(h2.domain, more=[("x-a", "a" * 100)]))
    size = -(-len(whole) // pieces)
    parts = [whole[offset:offset + size] for offset in range(0, len(whole), size)]
    out = frame(HEADERS, flags, 1, parts[0])
    for index, part in enumerate(parts[1:], 2):
        out += frame(CONTINUATION, END_HEADERS if index == len(parts) else 0, 1, part)
    return out


send("6.10", "a block in two CONTINUATIONs", served, lambda h2: split(h2, 3))
send("6.10", "an empty CONTINUATION", served, lambda h2: frame(HEADERS, END_STREAM, 1, block(request(h2.domain))) + frame(CONTINUATION, END_HEADERS, 1))
send("6.10", "an empty HEADERS before CONTINUATION", served, lambda h2: frame(HEADERS, END_STREAM, 1) + frame(CONTINUATION, END_HEADERS, 1, block(request(h2.domain))))
send("6.10", "CONTINUATION on stream 0", connection(PROTOCOL_ERROR), right(flags=END_STREAM), frame(CONTINUATION, END_HEADERS, 0))
send("6.10", "CONTINUATION behind END_HEADERS", connection(PROTOCOL_ERROR, STREAM_CLOSED), OPEN, frame(CONTINUATION, END_HEADERS, 1))
send("6.10", "CONTINUATION behind DATA", connection(PROTOCOL_ERROR, STREAM_CLOSED), OPEN, frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1))

# 8.1 Messages

send("8.1", "trailers without END_STREAM", refused(PROTOCOL_ERROR), OPEN, frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS, 1, block([("x-sum", "1")])))
send("8.1", "a pseudo-field in the trailers", refused(PROTOCOL_ERROR), OPEN, frame(DATA, 0, 1, b"x"), frame(
    HEADERS, END_HEADERS | END_STREAM, 1, block([(":path", "/")])))
send("8.1", "trailers", served, OPEN, frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS | END_STREAM, 1, block([("x-sum", "1")])))
send("8.1", "trailers of a request without DATA", served, OPEN, frame(HEADERS, END_HEADERS | END_STREAM, 1, block([("x-sum", "1")])))
send("8.1.1", "a content-length that is too long", refused(PROTOCOL_ERROR), right("/upload", "POST", [("content-length", "5")], flags=END_HEADERS), frame(DATA, END_STREAM, 1, b"x"))
send("8.1.1", "a content-length that is too short", refused(PROTOCOL_ERROR), right("/upload", "POST", [("content-length", "1")], flags=END_HEADERS), frame(DATA, END_STREAM, 1, b"hello"))
send("8.1.1", "a content-length too short for two DATA", refused(PROTOCOL_ERROR), right("/upload", "POST", [("content-length", "1")], flags=END_HEADERS), frame(
    DATA, 0, 1, b"h"), frame(DATA, END_STREAM, 1, b"ello"))
send("8.1.1", "a content-length without DATA", refused(PROTOCOL_ERROR), right("/upload", "POST", [("content-length", "5")]))
send("8.1.1", "two content-lengths", refused(PROTOCOL_ERROR), right("/upload", "POST", [("content-length", "1"), ("content-length", "2")], flags=END_HEADERS), frame(
    DATA, END_STREAM, 1, b"x"))
send("8.1.1", "a content-length that is no number", refused(PROTOCOL_ERROR), right("/upload", "POST", [("content-length", "+1")], flags=END_HEADERS), frame(
    DATA, END_STREAM, 1, b"x"))
send("8.1.1", "a right content-length", served, right("/upload", "POST", [("content-length", "1")], flags=END_HEADERS), frame(DATA, END_STREAM, 1, b"x"))

# 8.2 Fields

FIELDS = {
    "an upper-case name": ("X-Upper", "1"), "a name with a blank": ("x a", "1"), "a name with a colon": ("x:a", "1"), "an empty name": ("", "1"),
    "a name with a control character": ("x\x01", "1"), "a name above ASCII": ("x\xe4", "1"), "a value with NUL": ("x-a", "a\x00b"),
    "a value with LF": ("x-a", "a\nx-b: 1"), "a value with CR": ("x-a", "a\rb"), "a value with a blank before it": ("x-a", " a"),
    "a value with a blank behind it": ("x-a", "a "), "a value with a tab behind it": ("x-a", "a\t"),
}
for what, field in FIELDS.items():
    # NIO's decoder takes an empty name for an error of HPACK.
    codes = [PROTOCOL_ERROR] + ([COMPRESSION_ERROR] if what == "an empty name" else [])
    send("8.2.1", what, refused(*codes), right(more=[field]))
    if "\x00" in field[1] or "\n" in field[1] or what == "an upper-case name":
        send("8.2.1", f"{what} in the trailers", refused(PROTOCOL_ERROR), OPEN, frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS | END_STREAM, 1, block([field])))

for field in (("connection", "close"), ("keep-alive", "timeout=5"), ("proxy-connection", "close"), ("transfer-encoding", "chunked"), ("upgrade", "h2c")):
    send("8.2.2", f"{field[0]}", refused(PROTOCOL_ERROR), right(more=[field]))
send("8.2.2", "te other than trailers", refused(PROTOCOL_ERROR), right(more=[("te", "trailers, deflate")]))
send("8.2.2", "te: trailers", served, right(more=[("te", "trailers")]))
send("8.2.3", "cookie in crumbs", served, right(more=[("cookie", "a=1"), ("cookie", "b=2")]))

# 8.3 Pseudo-fields

send("8.3", "an unknown pseudo-field", refused(PROTOCOL_ERROR), wrong(lambda fields: fields + [(":test", "x")]))
send("8.3", "an unknown pseudo-field before others", refused(PROTOCOL_ERROR), wrong(lambda fields: [(":test", "x")] + fields))
send("8.3", "a pseudo-field of responses", refused(PROTOCOL_ERROR), wrong(lambda fields: [(":status", "200")] + fields))
send("8.3", "a pseudo-field behind a field", refused(PROTOCOL_ERROR), wrong(lambda fields: [fields[0], ("x-a", "1"), *fields[1:]]))
for index, name in enumerate((":method", ":scheme", ":authority", ":path")):
    if name != ":authority":
        send("8.3.1", f"no {name}", refused(PROTOCOL_ERROR), wrong(lambda fields, index=index: fields[:index] + fields[index + 1:]))
    send("8.3.1", f"two of {name}", refused(PROTOCOL_ERROR), wrong(lambda fields, index=index: fields[:index] + [fields[index]] + fields[index:]))
    send("8.3.1", f"an empty {name}", refused(PROTOCOL_ERROR), wrong(lambda fields, index=index: [
        (one, "" if number == index else value) for number, (one, value) in enumerate(fields)]))
send("8.3.1", "no :authority and no host", refused(PROTOCOL_ERROR), wrong(lambda fields: [one for one in fields if one[0] != ":authority"]))
send("8.3.1", "host instead of :authority", served, wrong(lambda fields: [one for one in fields if one[0] != ":authority"] + [("host", fields[2][1])]))
send("8.3.1", "host beside :authority, both equal", served, wrong(lambda fields: fields + [("host", fields[2][1])]))
send("8.3.1", "host beside :authority, another name", refused(PROTOCOL_ERROR), wrong(lambda fields: fields + [("host", "other.example.com")]))
send("8.3.1", "user information in :authority", refused(PROTOCOL_ERROR), wrong(lambda fields: [
    (name, "a@" + value if name == ":authority" else value) for name, value in fields]))
send("8.3.1", "a :path without a slash", refused(PROTOCOL_ERROR), right("upload"))
send("8.3.1", "a :path in absolute form", refused(PROTOCOL_ERROR), wrong(lambda fields: [
    (name, f"https://{fields[2][1]}/" if name == ":path" else value) for name, value in fields]))
send("8.3.1", "a :path with a blank", refused(PROTOCOL_ERROR), right("/a b"))
send("8.3.1", "a :path with a line end", refused(PROTOCOL_ERROR), right("/ HTTP/1.1\r\nx: y"))
send("8.3.1", "a :path with NUL", refused(PROTOCOL_ERROR), right("/\x00"))
send("8.3.1", "a :method with a blank", refused(PROTOCOL_ERROR), right("/", "GET /x HTTP/1.1"))
send("8.3.1", "an asterisk of GET", refused(PROTOCOL_ERROR), right("*"))

# 8.5 and RFC 8441: CONNECT

CONNECT = [(":method", "CONNECT"), (":authority", "app.example.com:443")]
send("8.5", "CONNECT", refused(PROTOCOL_ERROR, CANCEL, REFUSED_STREAM), frame(HEADERS, END_HEADERS, 1, block(CONNECT)))
send("8.5", "CONNECT with :path and :scheme", refused(PROTOCOL_ERROR), frame(HEADERS, END_HEADERS, 1, block([*CONNECT, (":scheme", "https"), (":path", "/")])))


@case("RFC 8441 3", "SETTINGS_ENABLE_CONNECT_PROTOCOL is 1", served)
def _(h2):
    assert h2.settings.get(ENABLE_CONNECT_PROTOCOL) == 1, f"settings {h2.settings}"
    h2.send(right()(h2))
    return 1


send("RFC 8441 4", ":protocol of GET", refused(PROTOCOL_ERROR), wrong(lambda fields: [*fields, (":protocol", "websocket")]))
send("RFC 8441 4", ":protocol without :path", refused(PROTOCOL_ERROR), lambda h2: frame(HEADERS, END_HEADERS, 1, block(
    [one for one in request(h2.domain, method="CONNECT") if one[0] != ":path"] + [(":protocol", "websocket")])))
send("RFC 8441 4", "an unknown :protocol", "501", lambda h2: frame(HEADERS, END_HEADERS, 1, block(request(h2.domain, method="CONNECT") + [(":protocol", "connect-udp")])))

# RFC 7541

def hpack_block(before=b"", behind=b""):
    return lambda h2: frame(HEADERS, END_HEADERS | END_STREAM, 1, before + block(request(h2.domain)) + behind)


send("RFC 7541 2.3.3", "index 0", connection(COMPRESSION_ERROR), hpack_block(behind=b"\x80"))
send("RFC 7541 2.3.3", "an index behind the dynamic table", connection(COMPRESSION_ERROR), hpack_block(behind=b"\xbe"))
send("RFC 7541 2.3.3", "a name's index behind the tables", connection(COMPRESSION_ERROR), hpack_block(behind=b"\x7f\x7f" + text("x")))
send("RFC 7541 4.2", "a table size update behind a field", connection(COMPRESSION_ERROR), hpack_block(behind=b"\x20"))
send("RFC 7541 4.2", "a table size update first", served, hpack_block(before=b"\x20"))
send("RFC 7541 4.2", "two table size updates first", served, hpack_block(before=b"\x20\x3f\xe1\x1f"))
send("RFC 7541 6.3", "a table larger than SETTINGS_HEADER_TABLE_SIZE", connection(COMPRESSION_ERROR), lambda h2: hpack_block(
    before=integer(h2.settings.get(1, 4096) + 1, 5, 0x20))(h2))
send("RFC 7541 5.1", "an integer beyond every bound", connection(COMPRESSION_ERROR), hpack_block(behind=b"\xff" + b"\xff" * 12 + b"\x01"))
send("RFC 7541 5.1", "an integer that is cut off", connection(COMPRESSION_ERROR), hpack_block(behind=b"\xff\x80"))
send("RFC 7541 5.2", "a string longer than the block", connection(COMPRESSION_ERROR), hpack_block(behind=b"\x00\x7f\x64abc"))
send("RFC 7541 5.2", "Huffman padding of more than 7 bits", connection(COMPRESSION_ERROR), hpack_block(behind=b"\x00" + text("x-a") + b"\x82\x1f\xff"))
send("RFC 7541 5.2", "Huffman padding that is not of ones", connection(COMPRESSION_ERROR), hpack_block(behind=b"\x00" + text("x-a") + b"\x81\x18"))
send("RFC 7541 5.2", "the EOS symbol in a Huffman string", connection(COMPRESSION_ERROR), hpack_block(behind=b"\x00" + text("x-a") + b"\x84\xff\xff\xff\xff"))
send("RFC 7541 5.2", "right Huffman padding", served, hpack_block(behind=b"\x00" + text("x-a") + b"\x81\x1f"))
send("RFC 7541 2.3.2", "the dynamic table keeps what was added", served, lambda h2: frame(
    HEADERS, END_HEADERS | END_STREAM, 1, block(request(h2.domain)) + literal("x-kept", "1", 0x40) + b"\xbe"))
send("RFC 7541 6.2.3", "a field that is never indexed", served, lambda h2: frame(
    HEADERS, END_HEADERS | END_STREAM, 1, block(request(h2.domain)) + literal("x-a", "a", 0x10)))
