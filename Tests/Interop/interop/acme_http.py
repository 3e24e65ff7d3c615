"""What the tests' CA answers with, and its HTTP/1.1 connections, which may break off where a test wants them to."""

import http.server
import json
import socket
import struct
import time

NAMESPACE = "urn:ietf:params:acme:error:"
# What the connection does in place of an answer, or in its midst.
STALL, RESET, CUT, HALF = "stall", "reset", "cut", "half"


class Answer:
    def __init__(self, status, body=b"", fields=None, action=None):
        self.status, self.action = status, action
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.fields = fields or {}

    @property
    def json(self):
        return json.loads(self.body)

    def with_json(self, **members):
        """The same with these members; None takes one away."""
        members = {**self.json, **members}
        return Answer(self.status, {name: value for name, value in members.items() if value is not None}, self.fields, self.action)

    def with_fields(self, **fields):
        return Answer(self.status, self.body, {**self.fields, **{name.replace("_", "-"): value for name, value in fields.items()}}, self.action)


def problem(status, kind, detail="", **fields):
    return Answer(
        status, {"type": NAMESPACE + kind, "detail": detail or f"the test says {kind}"},
        {"Content-Type": "application/problem+json", **{name.replace("_", "-"): value for name, value in fields.items()}})


def abort(connection):
    """A reset, for whoever is at the other side."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
        connection.close()
    except OSError:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, ca):
        self.ca = ca
        super().__init__(address, Handler)

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.ca.connections.add(self.connection)

    def finish(self):
        self.server.ca.connections.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.ca.handle(self.command, self.path, self.headers, body)
        if answer.action in (STALL, RESET):
            if answer.action == STALL:
                time.sleep(100)
            self.close_connection = True
            return abort(self.connection)
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.fields}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if answer.action in (CUT, HALF):
            self.wfile.write(answer.body[:len(answer.body) // 2])
            if answer.action == HALF:
                time.sleep(100)
            self.close_connection = True
            return abort(self.connection)
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_POST = do_HEAD = do

    def log_message(self, *_):
        pass
