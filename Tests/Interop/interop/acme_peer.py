"""What a gateway lists as another gateway and is none: it notes each question for a key authorization, and answers as a test says."""

import secrets
import socket
import threading
import time

from .acme_http import abort
from .acme_keys import encode, jwk_of, new_key, thumbprint
from .system import free_port


def new_token():
    return encode(secrets.token_bytes(32))


class Peer:
    """`answers`: by token, bytes or a function of the connection; 404 for all others."""

    def __init__(self, address):
        self.address, self.port = address, free_port(address=address)
        self.key = new_key()
        self.thumbprint = thumbprint(jwk_of(self.key))
        self.questions, self.answers = [], {}
        self.listener = socket.create_server((address, self.port), backlog=128)
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def plain_address(self):
        return f"{self.address}:{self.port}"

    def close(self):
        self.listener.close()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    head += piece
                lines = head.decode("latin-1").split("\r\n")
                path = lines[0].split(" ")[1]
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:]) if name}
                token = path.rpartition("/")[2]
                self.questions.append((token, path, fields))
                answer = self.answers.get(token)
                if callable(answer):
                    answer(connection)
                elif answer is None:
                    connection.sendall(response(b"no such token", "404 Not Found"))
                else:
                    connection.sendall(answer)
            except OSError:
                pass

    def asked(self, token):
        return [one for one in self.questions if one[0] == token]


def response(body, status="200 OK", fields=""):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{fields}\r\n".encode() + body


def slowly(data):
    def send(connection):
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(1)
    return send


def stall(connection):
    connection.recv(1)


def huge(token, mark):
    def send(connection):
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 30}\r\n\r\n{token}.{mark}".encode())
        for _ in range(1 << 14):
            connection.sendall(b"x" * 65536)
    return send


def forgeries(token, good, own, elsewhere):
    """Answers that are not to be served, though `good` is the thumbprint that is listed. `own` is that of the gateway which asks."""
    right = f"{token}.{good}".encode()
    foreign = thumbprint(jwk_of(new_key()))
    return {
        "a foreign thumbprint": response(f"{token}.{foreign}".encode()),
        "the gateway's own thumbprint": response(f"{token}.{own}".encode()),
        "a line end behind it": response(right + b"\n"),
        "a space behind it": response(right + b" "),
        "a NUL behind it": response(right + b"\0"),
        "a space before it": response(b" " + right),
        "a mark of the byte order before it": response(b"\xef\xbb\xbf" + right),
        "twice": response(right + right),
        "another token": response(f"{new_token()}.{good}".encode()),
        "a longer token": response(f"{token}a.{good}".encode()),
        "no token": response(good.encode()),
        "no thumbprint": response(f"{token}.".encode()),
        "no dot": response(f"{token}{good}".encode()),
        "other letters": response(f"{token}.{good.swapcase()}".encode()),
        "nothing": response(b""),
        "a page": response(b"<html>" + right + b"</html>"),
        "a huge body": huge(token, good),
        "a huge head": response(right, fields="X: " + "x" * 4_000_000 + "\r\n"),
        "404": response(right, "404 Not Found"),
        "201": response(right, "201 Created"),
        "206": response(right, "206 Partial Content", f"Content-Range: bytes 0-{len(right) - 1}/{len(right)}\r\n"),
        "a redirect": response(right, "302 Found", f"Location: http://{elsewhere}/.well-known/acme-challenge/{token}\r\n"),
        "no answer": stall,
        "a body that does not end": lambda one: (one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + right), stall(one)),
        "one byte a second": slowly(response(right)),
        "a reset": abort,
        "a reset in the middle": lambda one: (one.sendall(response(right)[:-5]), abort(one)),
        "an end in the middle": lambda one: one.sendall(response(right)[:-5]),
        "no HTTP": right,
        "interim answers without end": lambda one: [(one.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n"), time.sleep(0.01)) for _ in range(2000)],
    }
