"""A web service that speaks HTTP/2 in clear with prior knowledge, made of PyPI's h2. Right or wrong, as its paths say.

/ (the service's name), /bytes/N, /endless, /slow/NAME (half now, half after `release(NAME)`), /hold (no answer), /early/ID (401 before the
body is there), /head/COUNT/SIZE and /trailers/COUNT/SIZE (so many fields), /reset/CODE, /short (four bytes for a length of one), /cookie
(each time another one of 4 KB), /ping (a PING for each DATA frame), /refuse (REFUSED_STREAM), /late/STATUS/LENGTH/NAME (a whole answer whose
stream does not end; more bytes after `release(NAME)`). Everything else is answered with the length of the request's body.
"""

import collections
import os
import select
import socket
import threading

PIECE = 1 << 16
CONTENT = os.urandom(PIECE)
# Bytes that may wait for the agent to read.
BUFFER = 1 << 18
ENDLESS = 1 << 60
# What must never become the answer to another request.
STOLEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
STREAMS, WINDOW = 2000, 1 << 20


class Body:
    """What is left of an answer, and the trailers behind it."""

    def __init__(self, left, content=CONTENT, trailers=None):
        self.left, self.content, self.trailers = left, content, trailers


class H2Service:
    """Runs in threads of the test's own process, one for each connection.

    `posts` counts requests by path, `streams` are those that are open now, `faults` what the agent did wrong in h2's opinion.
    """

    def __init__(self, name, frame_size=16384):
        self.name, self.frame_size = name, frame_size
        self.lock = threading.Lock()
        self.posts, self.gates, self.faults = collections.Counter(), {}, []
        self.opened = self.streams = self.pings = self.answered_pings = self.early = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.target = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self.count("opened")
            threading.Thread(target=ServiceConnection(self, connection).run, daemon=True).start()

    def count(self, name, more=1):
        with self.lock:
            setattr(self, name, getattr(self, name) + more)

    def gate(self, name):
        with self.lock:
            return self.gates.setdefault(name, threading.Event())

    def release(self, name):
        self.gate(name).set()

    def close(self):
        self.listener.close()


class ServiceConnection:
    def __init__(self, service, connection):
        import h2.config
        import h2.connection
        import h2.settings

        self.service, self.socket = service, connection
        config = h2.config.H2Configuration(
            client_side=False, header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
            codes.MAX_CONCURRENT_STREAMS: STREAMS, codes.INITIAL_WINDOW_SIZE: WINDOW, codes.MAX_FRAME_SIZE: service.frame_size,
            codes.MAX_HEADER_LIST_SIZE: 1 << 18})
        self.h2.max_inbound_frame_size = service.frame_size
        self.h2.decoder.max_header_list_size = 1 << 18
        self.out = bytearray()
        # By stream: what is to be sent, requests whose end is waited for (path, length), gates.
        self.bodies, self.requests, self.waiting = {}, {}, {}
        self.live, self.surplus = set(), set()

    def run(self):
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(16 * WINDOW)
        try:
            while self.turn():
                pass
        except (OSError, ValueError):
            pass
        finally:
            self.service.count("streams", -len(self.live))
            self.socket.close()

    def turn(self):
        """False at the end."""
        self.pump()
        self.out += self.h2.data_to_send()
        readable, writable, _ = select.select([self.socket], [self.socket] if self.out else [], [], 0.02)
        if readable:
            data = self.socket.recv(1 << 18)
            if not data or not self.receive(data):
                return False
        if writable:
            del self.out[:self.socket.send(self.out)]
        return True

    def receive(self, data):
        import h2.events
        import h2.exceptions

        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self.service.faults.append(repr(error))
            return False
        for event in events:
            if isinstance(event, h2.events.ConnectionTerminated):
                if event.error_code:
                    self.service.faults.append(f"GOAWAY with {event.error_code!r} {event.additional_data!r}")
            elif isinstance(event, h2.events.PingAckReceived):
                self.service.count("answered_pings")
            elif getattr(event, "stream_id", None):
                self.handle(event, h2.events)
        return True

    def handle(self, event, events):
        from h2.exceptions import ProtocolError

        stream = event.stream_id
        try:
            if isinstance(event, events.RequestReceived):
                fields = dict(event.headers)
                self.live.add(stream)
                self.service.count("streams")
                if fields[":method"] == "POST":
                    with self.service.lock:
                        self.service.posts[fields[":path"]] += 1
                self.requests[stream] = [fields[":path"], 0]
                self.begin(stream, *fields[":path"].strip("/").split("/"))
            elif isinstance(event, events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                if request := self.requests.get(stream):
                    request[1] += len(event.data)
                    if request[0] == "/ping":
                        self.service.count("pings")
                        self.h2.ping(b"datadata")
            elif isinstance(event, events.StreamEnded):
                if request := self.requests.get(stream):
                    self.answer(stream, b"%d" % request[1])
            elif isinstance(event, events.StreamReset):
                self.forget(stream)
        # The stream may be closed by something that is read later.
        except (ProtocolError, KeyError):
            self.forget(stream)

    def begin(self, stream, verb, *arguments):
        if verb == "":
            self.answer(stream, self.service.name.encode())
        elif verb == "bytes":
            self.answer(stream, Body(int(arguments[0])))
        elif verb == "endless":
            self.answer(stream, Body(ENDLESS))
        elif verb == "slow":
            self.head(stream)
            self.h2.send_data(stream, b"first\n")
            self.waiting[stream] = self.service.gate(arguments[0])
        elif verb == "hold":
            self.requests.pop(stream)
        elif verb == "early":
            self.service.count("early")
            self.answer(stream, b"not allowed", status="401")
        elif verb == "head":
            self.answer(stream, b"long", many(*arguments))
        elif verb == "trailers":
            self.answer(stream, Body(4, b"long", many(*arguments)))
        elif verb == "reset":
            self.h2.reset_stream(stream, int(arguments[0]))
            self.forget(stream)
        elif verb == "refuse":
            self.h2.reset_stream(stream, 7)
            self.forget(stream)
        elif verb == "late":
            status, length, name = arguments
            self.head(stream, [("content-length", length)] if status == "200" else [], status)
            if length != "0":
                self.h2.send_data(stream, bytes(int(length)))
            self.waiting[stream] = self.service.gate(name)
            self.surplus.add(stream)
        elif verb == "short":
            self.answer(stream, b"four", [("content-length", "1")])
        elif verb == "cookie":
            self.answer(stream, b"ok", [("set-cookie", "a=" + os.urandom(2048).hex())])

    def head(self, stream, more=(), status="200"):
        self.requests.pop(stream, None)
        self.h2.send_headers(stream, [(":status", status), *more])

    def answer(self, stream, body, more=(), status="200"):
        self.head(stream, more, status)
        self.bodies[stream] = body if isinstance(body, Body) else Body(len(body), body)

    def pump(self):
        """As much of the answers as the windows allow, by turns."""
        from h2.exceptions import ProtocolError

        for stream in [stream for stream, gate in self.waiting.items() if gate.is_set()]:
            del self.waiting[stream]
            self.bodies[stream] = Body(len(STOLEN), STOLEN) if stream in self.surplus else Body(7, b"second\n")
        for stream, body in list(self.bodies.items()):
            if len(self.out) >= BUFFER:
                return
            try:
                self.send(stream, body)
            except (ProtocolError, KeyError):
                self.forget(stream)
            self.out += self.h2.data_to_send()

    def send(self, stream, body):
        count = min(body.left, len(body.content), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
        if count <= 0 and body.left:
            return
        body.left -= count
        # Whose turn it was waits for the others.
        self.bodies[stream] = self.bodies.pop(stream)
        self.h2.send_data(stream, body.content[:count], end_stream=not body.left and not body.trailers)
        if not body.left:
            if body.trailers:
                self.h2.send_headers(stream, body.trailers, end_stream=True)
            self.forget(stream)

    def forget(self, stream):
        for kept in (self.bodies, self.requests, self.waiting):
            kept.pop(stream, None)
        if stream in self.live:
            self.live.discard(stream)
            self.surplus.discard(stream)
            self.service.count("streams", -1)


def many(count, size):
    return [(f"x-{number}", "v" * int(size)) for number in range(int(count))]
