"""Opens COUNT connections over TLS and rests: crowd_client.py PORT DOMAIN COUNT KIND

Each comes from one of 250 addresses of loopback and does one thing before it rests: a request (KIND `request`), or a WebSocket's handshake
and a message that comes back (KIND `websocket`). Prints `resting` when all have, and keeps them until it is ended."""

import resource
import signal
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

THREADS = 16
# A masked text message of two bytes, with a mask of zeros.
MESSAGE, ECHO = b"\x81\x82\0\0\0\0hi", b"\x81\x02hi"


def until(connection, end):
    data = b""
    while end not in data:
        piece = connection.recv(65536)
        if not piece:
            raise OSError(f"ended after {data!r}")
        data += piece
    return data.partition(end)


def ask(connection, domain):
    connection.sendall(f"GET /small HTTP/1.1\r\nHost: {domain}\r\n\r\n".encode())
    head, _, body = until(connection, b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b" 200 " not in head[:20]:
        raise OSError(f"answered {head!r}")
    while len(body) < int(fields[b"content-length"]):
        body += connection.recv(65536)


def upgrade(connection, domain):
    connection.sendall((
        f"GET /websocket HTTP/1.1\r\nHost: {domain}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n").encode())
    head, _, _ = until(connection, b"\r\n\r\n")
    if b" 101 " not in head[:20]:
        raise OSError(f"answered {head!r}")
    connection.sendall(MESSAGE)
    until(connection, ECHO)


def main(port, domain, count, kind):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])

    def open_one(index):
        raw = socket.socket()
        raw.settimeout(30)
        raw.bind((f"127.1.1.{1 + index % 250}", 0))
        raw.connect(("127.0.0.1", int(port)))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = context.wrap_socket(raw, server_hostname=domain)
        (ask if kind == "request" else upgrade)(connection, domain)
        return connection

    with ThreadPoolExecutor(THREADS) as threads:
        connections = list(threads.map(open_one, range(int(count))))
    print("resting", len(connections), flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
