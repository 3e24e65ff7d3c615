"""WebSockets by hand: RFC 6455 frames over a stream of HTTP/2 (RFC 8441) or over a raw HTTP/1.1 connection."""

import os
import struct

from .h2raw import END_HEADERS, request
from .http1_cases import WEBSOCKET, get
from .system import check_equal
from .wire import Wire

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def masked(opcode, payload):
    """A frame as a client sends it."""
    key = os.urandom(4)
    count = len(payload)
    if count < 126:
        head = bytes([0x80 | opcode, 0x80 | count])
    elif count < 65536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + struct.pack(">H", count)
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack(">Q", count)
    pad = (key * (count // 4 + 1))[:count]
    return head + key + (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(count, "big")


def take(buffer):
    """The first whole frame of the bytes: (opcode, payload, rest), or None."""
    if len(buffer) < 2:
        return None
    count, offset = buffer[1] & 127, 2
    if count >= 126:
        size = 2 if count == 126 else 8
        if len(buffer) < 2 + size:
            return None
        count, offset = int.from_bytes(buffer[2:2 + size], "big"), 2 + size
    if len(buffer) < offset + count:
        return None
    return buffer[0] & 15, buffer[offset:offset + count], buffer[offset + count:]


class H2WebSocket:
    """One stream of a connection; `path` is an echo service."""

    def __init__(self, h2, path="/websocket?room=2", more=(), status=200):
        self.h2 = h2
        self.stream = h2.next_stream
        h2.next_stream += 2
        fields = request(h2.domain, path, "CONNECT", more=[(":protocol", "websocket"), ("sec-websocket-version", "13"), *more])
        # Pseudo-fields first.
        fields.sort(key=lambda field: not field[0].startswith(":"))
        h2.headers(self.stream, fields, END_HEADERS)
        self.response = h2.head(self.stream)
        check_equal(self.response.status, status, f"status of an extended CONNECT to {path}")

    def send(self, opcode, payload=b""):
        self.h2.upload(self.stream, masked(opcode, payload), end=False)

    def receive(self, timeout=10):
        self.h2.until(lambda: take(self.response.body) is not None, "a WebSocket frame", timeout)
        opcode, payload, self.response.body = take(self.response.body)
        return opcode, payload


class WireWebSocket:
    """One HTTP/1.1 connection."""

    def __init__(self, edge, domain, path="/websocket", source=None, timeout=10):
        self.wire = Wire(edge, domain, timeout, source)
        self.wire.send(get(WEBSOCKET, path.encode(), host=b"Host: " + domain.encode() + b"\r\n"))
        check_equal(self.wire.answer().status, 101, "status of a WebSocket handshake")

    def send(self, opcode, payload=b""):
        self.wire.send(masked(opcode, payload))

    def receive(self):
        while (taken := take(self.wire.buffer)) is None:
            self.wire.more()
        opcode, payload, self.wire.buffer = taken
        return opcode, payload

    def close(self):
        self.wire.close()
