"""HTTP/2 frame by frame: a client that can say everything, right or wrong, and that reads what comes back. RFC 9113."""

import socket
import ssl
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, \
    COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, HTTP_1_1_REQUIRED = range(14)
CODES = [
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
    "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"]

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)
ENABLE_CONNECT_PROTOCOL = 8


def code_name(code):
    return CODES[code] if code < len(CODES) else str(code)


# HPACK, RFC 7541: only what needs no table, so that every byte is the test's own

def integer(value, prefix, first=0):
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes([first | value])
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def text(value):
    value = value.encode("latin-1") if isinstance(value, str) else value
    return integer(len(value), 7) + value


def literal(name, value, first=0x00):
    """Without indexing; `first` 0x40 is with incremental indexing, 0x10 never indexed."""
    return bytes([first]) + text(name) + text(value)


def block(fields):
    return b"".join(literal(name, value) for name, value in fields)


def request(domain, path="/", method="GET", scheme="https", more=()):
    return [(":method", method), (":scheme", scheme), (":authority", domain), (":path", path), *more]


def setting(identifier, value):
    return struct.pack(">HI", identifier, value)


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    return struct.pack(">I", len(payload) if length is None else length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Frame:
    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload
        self.fields = None

    @property
    def code(self):
        """The error code of RST_STREAM and GOAWAY."""
        return struct.unpack(">I", self.payload[:4] if self.kind == RST_STREAM else self.payload[4:8])[0]

    @property
    def last_stream(self):
        return struct.unpack(">I", self.payload[:4])[0] & 0x7FFFFFFF

    def __repr__(self):
        name = ["DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION"]
        shown = name[self.kind] if self.kind < 10 else str(self.kind)
        if self.kind in (RST_STREAM, GOAWAY):
            return f"{shown}({self.stream}, {code_name(self.code)}{' ' + repr(self.payload[8:80]) if self.kind == GOAWAY and self.payload[8:] else ''})"
        if self.fields is not None:
            return f"{shown}({self.stream}, {dict(self.fields).get(':status')}{', end' if self.flags & END_STREAM else ''})"
        return f"{shown}({self.stream}, {len(self.payload)} bytes)"


class Closed(Exception):
    """The server has ended the connection."""


class Response:
    def __init__(self):
        self.informational, self.fields, self.body, self.trailers, self.ended, self.reset = [], None, b"", None, False, None

    @property
    def status(self):
        return None if self.fields is None else int(self.get(":status"))

    def get(self, name):
        values = [value for field, value in self.fields or [] if field == name]
        return ", ".join(values) if values else None

    def __repr__(self):
        return f"status {self.status}, {len(self.body)} bytes, trailers {self.trailers}, ended {self.ended}, reset {self.reset}"


class H2:
    """One connection. Acknowledges SETTINGS and answers PING by itself, and gives windows back, unless told not to.

    `settings` are sent with the preface; `begin=False` sends nothing at all.
    """

    def __init__(self, edge, domain, settings=b"", begin=True, automatic=True, timeout=8, source=None, refill=True):
        import hpack

        self.domain, self.timeout, self.automatic, self.refill = domain, timeout, automatic, refill
        self.socket = edge.open_tls(domain, timeout, ["h2", "http/1.1"], source)
        self.protocol = self.socket.selected_alpn_protocol()
        self.buffer, self.frames, self.closed = b"", [], False
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self.gathered = b""
        self.responses = {}
        self.settings = {}
        self.goaway = None
        self.window, self.stream_windows = 65535, {}
        self.next_stream = 1
        self.pings = 0
        if begin:
            self.send(PREFACE + frame(SETTINGS, payload=settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # Sending

    def send(self, data):
        """False when the server has closed already: what it said before can still be read."""
        try:
            self.socket.settimeout(self.timeout)
            self.socket.sendall(data)
            return True
        except (ConnectionError, ssl.SSLError, BrokenPipeError):
            return False

    def frame(self, *arguments, **options):
        return self.send(frame(*arguments, **options))

    def headers(self, stream, fields, flags=END_HEADERS | END_STREAM):
        return self.frame(HEADERS, flags, stream, fields if isinstance(fields, bytes) else block(fields))

    def request(self, path="/", method="GET", more=(), end=True):
        """A new stream with a right request; returns its number."""
        stream = self.next_stream
        self.next_stream += 2
        self.headers(stream, request(self.domain, path, method, more=more), END_HEADERS | (END_STREAM if end else 0))
        return stream

    def data(self, stream, payload=b"", end=False):
        return self.frame(DATA, END_STREAM if end else 0, stream, payload)

    def reset(self, stream, code=CANCEL):
        return self.frame(RST_STREAM, 0, stream, struct.pack(">I", code))

    def grow(self, stream, increment):
        return self.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))

    def upload(self, stream, body, end=True):
        """Within the windows that the server gives."""
        view = memoryview(body)
        while len(view):
            self.until(lambda: self.room(stream) > 0, "window for a body")
            count = min(len(view), self.room(stream), self.settings.get(MAX_FRAME_SIZE, 16384))
            self.window -= count
            self.stream_windows[stream] = self.stream_windows.get(stream, 0) - count
            self.data(stream, bytes(view[:count]), end and count == len(view))
            view = view[count:]

    def room(self, stream):
        return min(self.window, self.settings.get(INITIAL_WINDOW_SIZE, 65535) + self.stream_windows.get(stream, 0))

    # Receiving

    def read_frame(self, deadline):
        """The next frame; None at the deadline; Closed at the end."""
        while True:
            if len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) >= 9 + length:
                    kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
                    payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
                    return self.note(Frame(kind, flags, stream & 0x7FFFFFFF, payload))
            if self.closed:
                raise Closed(repr(self.frames[-3:]))
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                piece = self.socket.recv(1 << 17)
            except (socket.timeout, ssl.SSLWantReadError):
                return None
            except (ConnectionError, ssl.SSLError):
                piece = b""
            if not piece:
                self.closed = True
            self.buffer += piece

    def note(self, got):
        self.frames.append(got)
        response = self.responses.setdefault(got.stream, Response()) if got.stream else None
        if got.kind == SETTINGS and not got.flags & ACK:
            for offset in range(0, len(got.payload), 6):
                identifier, value = struct.unpack(">HI", got.payload[offset:offset + 6])
                self.settings[identifier] = value
            if self.automatic:
                self.frame(SETTINGS, ACK)
        elif got.kind == PING and not got.flags & ACK and self.automatic:
            self.frame(PING, ACK, 0, got.payload)
        elif got.kind in (HEADERS, CONTINUATION):
            payload = got.payload
            if got.kind == HEADERS and got.flags & PADDED:
                payload = payload[1:len(payload) - payload[0]]
            if got.kind == HEADERS and got.flags & PRIORITISED:
                payload = payload[5:]
            self.gathered += payload
            self.ends_stream = bool(got.flags & END_STREAM) if got.kind == HEADERS else self.ends_stream
            if got.flags & END_HEADERS:
                got.fields = [(field[0], field[1]) for field in self.decoder.decode(self.gathered)]
                self.gathered = b""
                self.sort_fields(response, got.fields)
                response.ended = response.ended or self.ends_stream
        elif got.kind == DATA:
            payload = got.payload[1:len(got.payload) - got.payload[0]] if got.flags & PADDED else got.payload
            response.body += payload
            response.ended = response.ended or bool(got.flags & END_STREAM)
            if self.refill and got.payload:
                self.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(got.payload))))
                if not response.ended:
                    self.grow(got.stream, len(got.payload))
        elif got.kind == RST_STREAM:
            response.reset = got.code
        elif got.kind == GOAWAY:
            self.goaway = got.code
        elif got.kind == WINDOW_UPDATE:
            increment = struct.unpack(">I", got.payload)[0] & 0x7FFFFFFF
            if got.stream == 0:
                self.window += increment
            else:
                self.stream_windows[got.stream] = self.stream_windows.get(got.stream, 0) + increment
        return got

    @staticmethod
    def sort_fields(response, fields):
        status = dict(fields).get(":status")
        if status is None:
            response.trailers = fields
        elif status.startswith("1"):
            response.informational.append(fields)
        else:
            response.fields = fields

    def until(self, condition, what, timeout=None):
        """Reads until the condition holds; Closed or TimeoutError otherwise."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not condition():
            if self.read_frame(deadline) is None:
                raise TimeoutError(f"not within the time: {what}; frames {self.frames[-5:]}")

    def response(self, stream, timeout=None):
        """The whole response of a stream, or what came before its reset."""
        self.responses.setdefault(stream, Response())
        self.until(lambda: self.responses[stream].ended or self.responses[stream].reset is not None, f"the response of stream {stream}", timeout)
        return self.responses[stream]

    def head(self, stream, timeout=None):
        self.responses.setdefault(stream, Response())
        self.until(
            lambda: self.responses[stream].fields is not None or self.responses[stream].reset is not None, f"the head of stream {stream}", timeout)
        return self.responses[stream]

    def get(self, path="/", method="GET", more=()):
        return self.response(self.request(path, method, more))

    def ready(self):
        """The server's SETTINGS are here and ours are acknowledged."""
        self.until(lambda: any(one.kind == SETTINGS and one.flags & ACK for one in self.frames) and any(
            one.kind == SETTINGS and not one.flags & ACK for one in self.frames), "SETTINGS and their acknowledgement")
        return self

    def ping(self):
        """Everything sent so far has been read by the server when this returns."""
        self.pings += 1
        payload = b"ping%04d" % self.pings
        self.frame(PING, 0, 0, payload)
        self.until(lambda: any(one.kind == PING and one.flags & ACK and one.payload == payload for one in self.frames), "the answer to a PING")

    def ends(self, timeout=8):
        """Whether the server closes the connection within this time."""
        deadline = time.monotonic() + timeout
        try:
            while self.read_frame(deadline) is not None:
                pass
            return False
        except Closed:
            return True
