#!/usr/bin/python3
"""Many transfers at once, each in a process of its own, with every byte compared; a program so that it can be in a namespace.

    bulk.py clients FLOWS LENGTH get|put SECONDS ADDRESS:PORT...                HTTP/1.1 straight to these, in turn
    bulk.py clients FLOWS LENGTH get|put SECONDS tls AUTHORITY PORT DOMAIN...   through a gateway on loopback
    bulk.py server ADDRESS:PORT...                                              GET /N: N bytes; PUT: reads the body, then says `right`

No progress for SECONDS ends a flow. Clients print one JSON object: seconds, problems, times (of each flow, in seconds), and
again (how often one had to begin anew because the gateway said 503).
"""

import json
import os
import re
import signal
import socket
import sys
import time

from churn import connect, connect_tls, endpoint, fork
from origin import PATTERN

ATTEMPTS = 8
DOUBLE_PATTERN = memoryview(PATTERN + PATTERN)
HEAD = {"get": b"GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n", "put": b"PUT / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n"}


def send(opened, count):
    sent = 0
    while sent < count:
        start = sent % len(PATTERN)
        piece = DOUBLE_PATTERN[start:start + min(32768, count - sent)]
        opened.sendall(piece)
        sent += len(piece)


def compare(piece, offset):
    start = offset % len(PATTERN)
    if piece != DOUBLE_PATTERN[start:start + len(piece)]:
        raise OSError(f"other bytes than sent, near {offset}")


def receive(opened, count, piece=b""):
    received = 0
    while True:
        compare(piece, received)
        received += len(piece)
        if received >= count:
            return
        piece = opened.recv(min(1 << 18, count - received))
        if not piece:
            raise OSError(f"the end after {received} of {count} bytes")


def receive_head(opened):
    received = b""
    while b"\r\n\r\n" not in received:
        piece = opened.recv(65536)
        if not piece:
            raise OSError(f"the end behind {received[:200]!r}")
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


class Unavailable(OSError):
    """The gateway got no connection within its 3 s: its SYN was lost more than once among the others' bytes. It asks to try again."""


def flow(opened, host, kind, length):
    if kind == "put":
        opened.sendall(HEAD["put"] % (host, length))
        send(opened, length)
    else:
        opened.sendall(HEAD["get"] % (length, host))
    head, rest = receive_head(opened)
    if head.startswith(b"HTTP/1.1 503 "):
        raise Unavailable
    if not head.startswith(b"HTTP/1.1 200 "):
        raise OSError(f"answer {head[:100]!r}")
    if kind == "get":
        receive(opened, length, rest)
    else:
        while len(rest) < 5 and (piece := opened.recv(16)):
            rest += piece
        if rest != b"right":
            raise OSError(f"answer {rest[:100]!r}")


def open_flow(number, where, timeout):
    if where[0] == "tls":
        domain = where[3 + number % len(where[3:])]
        opened, host = connect_tls(where[1], ("127.0.0.1", int(where[2])), domain), domain.encode()
    else:
        opened, host = connect(endpoint(where[number % len(where)])), b"app.example.com"
    opened.settimeout(timeout)
    return opened, host


def clients(flows, length, kind, timeout, *where):
    flows, length, timeout = int(flows), int(length), float(timeout)
    children, problems, times, again = [], [], [], 0
    begin_reader, begin_writer = os.pipe()
    # Closed by each that has its connection, or has died.
    ready_reader, ready_writer = os.pipe()
    for number in range(flows):
        reader, writer = os.pipe()
        if fork() == 0:
            os.close(begin_writer)
            os.close(ready_reader)
            try:
                opened, host = open_flow(number, where, timeout)
                os.close(ready_writer)
                os.read(begin_reader, 1)
                start, again = time.monotonic(), 0
                while True:
                    try:
                        flow(opened, host, kind, length)
                        break
                    except Unavailable:
                        if again == ATTEMPTS:
                            raise
                    again += 1
                    opened.close()
                    time.sleep(1)
                    opened, host = open_flow(number, where, timeout)
                outcome = {"seconds": time.monotonic() - start, "again": again}
            except Exception as error:
                outcome = {"problem": f"flow {number}: {error!r}"}
            os.write(writer, json.dumps(outcome).encode())
            os._exit(0)
        os.close(writer)
        children.append(reader)
    os.close(begin_reader)
    os.close(ready_writer)
    os.read(ready_reader, 1)
    start = time.monotonic()
    os.close(begin_writer)
    for reader in children:
        with os.fdopen(reader, "rb") as file:
            outcome = json.loads(file.read() or b'{"problem": "a process died"}')
        problems += [outcome[name] for name in outcome if name == "problem"]
        times += [outcome[name] for name in outcome if name == "seconds"]
        again += outcome.get("again", 0)
    print(json.dumps({"seconds": time.monotonic() - start, "problems": problems[:20], "times": times, "again": again}))


def serve(opened):
    opened.settimeout(120)
    head, rest = receive_head(opened)
    if head.startswith(b"GET "):
        count = int(re.match(rb"GET /(\d+)", head)[1])
        opened.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % count)
        send(opened, count)
    else:
        receive(opened, int(re.search(rb"(?i)content-length: (\d+)", head)[1]), rest)
        opened.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nright")
    opened.recv(1)


def server(*addresses):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for text in addresses:
        address, port = endpoint(text)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, port), family=family, backlog=1024)
        if text != addresses[-1] and fork() != 0:
            continue
        while True:
            opened = listener.accept()[0]
            if fork() == 0:
                try:
                    serve(opened)
                finally:
                    os._exit(0)
            opened.close()


if __name__ == "__main__":
    {"clients": clients, "server": server}[sys.argv[1]](*sys.argv[2:])
