"""A web service that keeps each request as the bytes that came, and answers with bytes a test has chosen."""

import base64
import hashlib
import re
import socket
import threading

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Request:
    """`ended` is set when its connection has ended, of which `connection` is the number."""

    def __init__(self, head, connection, ended):
        self.head, self.connection, self.ended = head, connection, ended
        self.line, *fields = head.split(b"\r\n")
        self.target = self.line.split(b" ")[1]
        self.fields = [(name.decode("latin-1"), value.strip(b" ").decode("latin-1")) for name, _, value in (one.partition(b":") for one in fields)]
        self.body, self.trailers, self.complete = b"", [], False

    def get(self, name):
        values = [value for field, value in self.fields if field.lower() == name]
        return ", ".join(values) if values else None


class RecordingOrigin:
    """Runs in threads of the test's own process. `answers` are by path without query: bytes, or (bytes, whether the connection ends).

    A path that begins with `/hold` is not answered: the request is held until its connection ends.
    """

    def __init__(self):
        self.answers = {}
        self.requests = []
        self.opened = 0
        self.lock = threading.Lock()
        self.holding = self.most_holding = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.target = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self.opened += 1
            threading.Thread(target=self.serve, args=(connection, self.opened), daemon=True).start()

    def serve(self, connection, number):
        ended = threading.Event()
        reader = connection.makefile("rb")
        try:
            connection.settimeout(60)
            while self.exchange(connection, reader, number, ended):
                pass
        except (OSError, ValueError):
            pass
        finally:
            reader.close()
            connection.close()
            ended.set()

    def exchange(self, connection, reader, number, ended):
        lines = []
        while (line := reader.readline()) != b"\r\n":
            if not line:
                return False
            lines.append(line)
        request = Request(b"".join(lines).removesuffix(b"\r\n"), number, ended)
        self.requests.append(request)
        path = request.target.partition(b"?")[0].decode("latin-1")
        if (request.get("expect") or "").lower() == "100-continue":
            if path.startswith("/refuse"):
                connection.sendall(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return False
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.read_body(request, reader)
        request.complete = True
        if path.startswith("/hold"):
            self.hold(connection)
            return False
        if path.startswith("/websocket") and (request.get("upgrade") or "").lower() == "websocket":
            self.upgrade(connection, reader, request)
            return False
        answer = self.answers.get(path, OK)
        answer, ends = answer if isinstance(answer, tuple) else (answer, False)
        connection.sendall(answer)
        return not ends

    def hold(self, connection):
        with self.lock:
            self.holding += 1
            self.most_holding = max(self.most_holding, self.holding)
        try:
            while connection.recv(65536):
                pass
        finally:
            with self.lock:
                self.holding -= 1

    @staticmethod
    def read_body(request, reader):
        if "chunked" in (request.get("transfer-encoding") or "").lower():
            while size := int(reader.readline().split(b";")[0], 16):
                request.body += reader.read(size)
                reader.readline()
            while (line := reader.readline().rstrip(b"\r\n")):
                name, _, value = line.partition(b":")
                request.trailers.append((name.lower().decode("latin-1"), value.strip().decode("latin-1")))
        elif length := request.get("content-length"):
            while len(request.body) < int(length):
                piece = reader.read1(min(65536, int(length) - len(request.body)))
                if not piece:
                    raise ConnectionError
                request.body += piece

    @staticmethod
    def upgrade(connection, reader, request):
        """Raw bytes come back as they are."""
        key = (request.get("sec-websocket-key") or "").encode()
        accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        # It may rest for as long as its client likes.
        connection.settimeout(None)
        while piece := reader.read1(65536):
            connection.sendall(piece)

    def seen(self, pattern):
        """The requests whose target matches."""
        return [request for request in self.requests if re.search(pattern, request.target)]

    def close(self):
        self.listener.close()
