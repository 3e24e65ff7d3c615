"""A web service that answers each path with the bytes it was given for it, right or wrong."""

import socket
import threading

OK = b"HTTP/1.1 200 OK\r\n"

# path: (answer, whether the connection ends after it)
RIGHT = {
    "/trailers": (OK + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n", False),
    "/until-close": (b"HTTP/1.0 200 OK\r\n\r\nok", True),
    "/until-close-11": (OK + b"\r\nok", True),
    "/extension": (OK + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n", False),
    "/lower-case": (b"HTTP/1.1 200 \r\ncontent-length: 2\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nok", False),
    "/no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", False),
    "/not-modified": (b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 99\r\n\r\n', False),
}

WRONG = {
    "/length-and-chunked": (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", False),
    "/two-lengths": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!", False),
    "/bad-length": (OK + b"Content-Length: two\r\n\r\nok", False),
    "/no-http": (b"hello, I am no web server\r\n\r\n", True),
    "/nothing": (b"", True),
    "/half-a-head": (OK + b"Content-Le", True),
    "/nul": (OK + b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\nok", False),
    "/huge-head": (OK + b"X-A: " + b"a" * 300_000 + b"\r\nContent-Length: 2\r\n\r\nok", False),
    "/many-fields": (OK + b"".join(b"X-%d: 1\r\n" % number for number in range(20_000)) + b"Content-Length: 2\r\n\r\nok", False),
    "/unasked-101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", False),
    "/status-999999": (b"HTTP/1.1 999999 What\r\nContent-Length: 2\r\n\r\nok", False),
    "/many-1xx": (b"HTTP/1.1 102 Processing\r\n\r\n" * 1000 + OK + b"Content-Length: 2\r\n\r\nok", False),
    "/binary": (bytes(range(256)) * 40, True),
}

# The head is right, so it may have left before the fault shows: no complete answer may come of it.
TORN = {
    "/bad-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", False),
    "/short": (OK + b"Content-Length: 100\r\n\r\nok", True),
    "/chunked-cut": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", True),
    "/huge-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n0\r\n\r\n", True),
}

# A complete answer with bytes behind it, which must never become the answer to another request.
SURPLUS = {
    "/surplus": (OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 6\r\n\r\nstolen", False),
}

EARLY = {
    "/early-hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", False),
}

# Heads that do not go into one frame of HTTP/2.
FIELDS = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 300) for number in range(100))
LONG = {
    "/long-head": (OK + FIELDS + b"Content-Length: 4\r\n\r\nlong", False),
    "/long-trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nlong\r\n0\r\n" + FIELDS + b"\r\n", False),
}

# A value in ISO 8859-1, and one in UTF-8.
TEXTS = {"/texts": (OK + b"X-Latin: caf\xe9\r\nX-UTF: caf\xc3\xa9\r\nContent-Length: 2\r\n\r\nok", False)}

ALL = {**EARLY, **RIGHT, **WRONG, **TORN, **SURPLUS, **LONG, **TEXTS, "/plain": (OK + b"Content-Length: 2\r\n\r\nok", False)}


class CannedOrigin:
    """Runs in threads of the test's own process."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.target = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    @staticmethod
    def serve(connection):
        with connection:
            connection.settimeout(60)
            received = b""
            try:
                while True:
                    while b"\r\n\r\n" not in received:
                        piece = connection.recv(65536)
                        if not piece:
                            return
                        received += piece
                    head, _, received = received.partition(b"\r\n\r\n")
                    path = head.split(b" ")[1].decode()
                    answer, ends = ALL[path]
                    connection.sendall(answer)
                    if ends:
                        return
            except OSError:
                return

    def close(self):
        self.listener.close()


class EarlyOrigin(CannedOrigin):
    """Answers 401 to each head and takes the body afterwards, whatever it is; `answered` so many."""

    def __init__(self):
        self.answered, self.lock = 0, threading.Lock()
        super().__init__()

    def serve(self, connection):
        with connection:
            connection.settimeout(60)
            received = b""
            try:
                while b"\r\n\r\n" not in received:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    received += piece
                connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
                with self.lock:
                    self.answered += 1
                while connection.recv(65536):
                    pass
            except OSError:
                return
