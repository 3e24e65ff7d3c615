#!/usr/bin/python3
"""The web service behind the tunnel: a threaded HTTP/1.1 server that answers what the tests ask for and records what it saw.

    origin.py ADDRESS PORT

Paths: / (an HTML page), /bytes/N, /chunked/N, /upload (SHA-256 of the body), /echo (chunks come back as they came),
/headers, /together/N (answers when N requests are there), /drip/NAME (half now, half after /release/NAME), /endless/NAME,
/stall/NAME (takes nothing of a body until /release/NAME), /break (ends in the middle), /status/N, /seen (what was recorded, for the test itself), and a WebSocket echo for every upgrade request.
"""

import asyncio
import hashlib
import http.server
import json
import socket
import sys
import threading
import time

PAGE = b"<!doctype html><html><head><title>kakuremichi</title></head><body><h1>It works</h1></body></html>\n"
# Of a length that is no multiple of any segment or buffer, so that displaced bytes change the checksum.
PATTERN = hashlib.shake_256(b"kakuremichi").digest(1_000_003)


def pattern(count):
    """The first `count` bytes of the endless test text, in pieces."""
    while count > 0:
        piece = PATTERN[:count]
        yield piece
        count -= len(piece)


def pattern_digest(count):
    digest = hashlib.sha256()
    for piece in pattern(count):
        digest.update(piece)
    return digest.hexdigest()


class Record:
    """What the origin saw, by the name in the path."""

    def __init__(self):
        self.lock = threading.Lock()
        self.events = {}
        self.released = {}
        self.barriers = {}

    def note(self, name, **values):
        with self.lock:
            self.events.setdefault(name, {}).update(values)

    def gate(self, name):
        with self.lock:
            return self.released.setdefault(name, threading.Event())

    def barrier(self, count):
        with self.lock:
            return self.barriers.setdefault(count, threading.Barrier(count))

    def snapshot(self):
        with self.lock:
            return json.dumps(self.events)


RECORD = Record()
WEBSOCKET_PORT = None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "origin"
    timeout = 120
    disable_nagle_algorithm = True
    # Whether a chunked body has ended too early.
    is_cut = False

    def log_message(self, *_):
        pass

    def answer(self, body, content_type="text/plain", status=200):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.path = self.path.partition("?")[0] if not self.path.startswith("/headers") else self.path
        verb, _, argument = self.path.lstrip("/").partition("/")
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.relay_to_websocket_server()
        elif verb == "":
            self.answer(PAGE, "text/html")
        elif verb == "bytes":
            self.send_pattern(int(argument), chunked=False)
        elif verb == "chunked":
            self.send_pattern(int(argument), chunked=True)
        elif verb.startswith("headers"):
            fields = [[name, value] for name, value in self.headers.items()]
            self.answer(json.dumps({"path": self.path, "fields": fields, "client": self.client_address[1]}).encode(), "application/json")
        elif verb == "together":
            self.answer_together(int(argument))
        elif verb == "drip":
            self.drip(argument)
        elif verb == "release":
            RECORD.gate(argument).set()
            self.answer(b"released\n")
        elif verb == "endless":
            self.send_without_end(argument)
        elif verb == "break":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"x" * 5000)
            self.close_connection = True
        elif verb == "status":
            self.answer(b"as asked\n", status=int(argument))
        elif verb == "seen":
            self.answer(RECORD.snapshot().encode(), "application/json")
        else:
            self.answer(b"no such page\n", status=404)

    def do_POST(self):
        verb, _, argument = self.path.lstrip("/").partition("/")
        if verb == "echo":
            self.echo_chunks()
            return
        if verb == "stall":
            RECORD.gate(argument).wait(30)
            self.close_connection = True
            return
        name = argument or "upload"
        digest, length = hashlib.sha256(), 0
        RECORD.note(name, expect=self.headers.get("Expect"), received=0, ended=None)
        try:
            for piece in self.body():
                digest.update(piece)
                length += len(piece)
                RECORD.note(name, received=length)
        except ConnectionError:
            self.is_cut = True
        expected = self.headers.get("Content-Length")
        complete = not self.is_cut and (expected is None or int(expected) == length)
        RECORD.note(name, ended="complete" if complete else "cut off")
        if complete:
            self.answer(json.dumps({"sha256": digest.hexdigest(), "length": length}).encode(), "application/json")
        else:
            self.close_connection = True

    do_PUT = do_POST

    def body(self):
        """The body's bytes as they come."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while True:
                line = self.rfile.readline(64)
                if not line:
                    self.is_cut = True
                    return
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    while self.rfile.readline(8192).strip():
                        pass
                    return
                yield self.rfile.read(size)
                self.rfile.readline(8)
        remaining = int(self.headers.get("Content-Length", "0"))
        while remaining > 0:
            piece = self.rfile.read1(min(remaining, 1 << 18))
            if not piece:
                return
            remaining -= len(piece)
            yield piece

    def start_chunked(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, piece):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def send_pattern(self, count, chunked):
        if chunked:
            self.start_chunked()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(count))
            self.end_headers()
        if self.command == "HEAD":
            return
        for piece in pattern(count):
            self.chunk(piece) if chunked else self.wfile.write(piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def echo_chunks(self):
        pieces = self.body()
        self.start_chunked()
        for piece in pieces:
            self.chunk(piece)
        self.wfile.write(b"0\r\n\r\n")

    def answer_together(self, count):
        try:
            RECORD.barrier(count).wait(30)
            self.answer(b"together\n")
        except threading.BrokenBarrierError:
            self.answer(b"the others did not come\n", status=500)

    def drip(self, name):
        RECORD.note(name, started=True)
        self.start_chunked()
        self.chunk(b"first\n")
        RECORD.gate(name).wait(30)
        self.chunk(b"second\n")
        self.wfile.write(b"0\r\n\r\n")

    def send_without_end(self, name):
        self.connection.settimeout(60)
        self.start_chunked()
        sent = 0
        try:
            while True:
                self.chunk(PATTERN[:65536])
                sent += 65536
                RECORD.note(name, sent=sent, closed=None)
        except OSError as error:
            RECORD.note(name, closed=time.time(), how=str(error))
            self.close_connection = True

    def relay_to_websocket_server(self):
        """Hands the connection to the real WebSocket server, request line and fields unchanged."""
        self.close_connection = True
        with socket.create_connection(("127.0.0.1", WEBSOCKET_PORT)) as server:
            fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            server.sendall(self.raw_requestline + fields.encode("latin-1") + b"\r\n")
            back = threading.Thread(target=copy, args=(server.makefile("rb", 0), self.connection), daemon=True)
            back.start()
            copy(self.rfile, server)
            back.join()


def copy(source, destination):
    """Until the source ends; then the destination's input ends too."""
    read = getattr(source, "read1", source.read)
    try:
        while piece := read(65536):
            destination.sendall(piece)
        destination.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, address, port):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), Handler)

    def server_bind(self):
        """Without the name look-up of the base class."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, *_):
        pass


def start_websocket_server():
    """Debian's python3-websockets as the echo service; None where it is not installed."""
    try:
        import websockets
    except ImportError:
        return None
    ready = threading.Event()
    port = []

    async def echo(connection):
        try:
            async for message in connection:
                await connection.send(message)
        except websockets.ConnectionClosed:
            pass
        RECORD.note("websocket", close_code=connection.close_code)

    async def serve():
        async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
            port.append(server.sockets[0].getsockname()[1])
            ready.set()
            await asyncio.Future()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    ready.wait(10)
    return port[0] if port else None


if __name__ == "__main__":
    WEBSOCKET_PORT = start_websocket_server()
    Server(sys.argv[1], int(sys.argv[2])).serve_forever()
