#!/usr/bin/python3
"""Many short connections, in several processes with plain sockets; a program so that it can be in a namespace.

    churn.py clients COUNT RATE PROCESSES KIND [AUTHORITY] ADDRESS:PORT...   COUNT exchanges, RATE begun a second, over the addresses in turn
    churn.py server PROCESSES ADDRESS:PORT...                                answers requests, one a connection; the client's side ends first
    churn.py closing-server PROCESSES ADDRESS:PORT...                        the same, but the server's side ends first

Kinds: `echo` (a text comes back, the client ends first), `http` (a request with Connection: close, the server ends first), `tls` (a
request on a connection that stays open). Clients print one JSON object: done, seconds, problems.
"""

import ctypes
import json
import os
import signal
import socket
import ssl
import sys
import time

TIMEOUT = 30
PR_SET_PDEATHSIG = 1
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\nConnection: close\r\n\r\n"


def fork():
    """A child that ends with its parent."""
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return pid


def endpoint(text):
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


def connect(to):
    opened = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
    opened.settimeout(TIMEOUT)
    opened.connect(to)
    return opened


def read_to_end(opened):
    received = b""
    while piece := opened.recv(4096):
        received += piece
    return received


def echo(to, text):
    with connect(to) as opened:
        opened.sendall(text)
        opened.shutdown(socket.SHUT_WR)
        return read_to_end(opened) == text


def http(to, text):
    with connect(to) as opened:
        opened.sendall(b"GET /%s HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n" % text)
        return read_to_end(opened).endswith(b"\r\n\r\n" + text)


def connect_tls(authority, to, domain):
    raw = connect(to)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ssl.create_default_context(cafile=authority).wrap_socket(raw, server_hostname=domain)


class Gateway:
    """Requests on an open connection: it is the gateway that makes a new one in the tunnel for each."""

    def __init__(self, authority, to, domain):
        self.opened, self.domain = connect_tls(authority, to, domain), domain.encode()

    def ask(self, text):
        self.opened.sendall(b"GET /%s HTTP/1.1\r\nHost: %s\r\n\r\n" % (text, self.domain))
        received = b""
        while not received.endswith(b"\r\n\r\n" + text):
            piece = self.opened.recv(4096)
            if not piece or len(received) > 4096:
                raise OSError(f"answer {received[:100]!r}")
            received += piece
        return received.startswith(b"HTTP/1.1 200 ")


def work(number, count, rate, processes, ask):
    """Every connection has its time; who is late does not wait."""
    done, problems = 0, []
    start = time.monotonic()
    for index in range(number, count, processes):
        wait = start + index / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        try:
            if ask(index, b"%016d" % index):
                done += 1
            else:
                problems.append(f"{index}: another answer")
        except OSError as error:
            problems.append(f"{index}: {error!r}")
            if len(problems) > 20:
                break
    return {"done": done, "problems": problems}


def clients(count, rate, processes, kind, *destinations):
    count, rate, processes = int(count), float(rate), int(processes)
    authority = destinations[0] if kind == "tls" else None
    to = destinations[1:] if kind == "tls" else destinations
    results = []
    start = time.monotonic()
    for number in range(processes):
        reader, writer = os.pipe()
        if fork() == 0:
            if kind == "tls":
                port, *domains = to
                open_ones = [Gateway(authority, ("127.0.0.1", int(port)), domain) for domain in domains]
                result = work(number, count, rate, processes, lambda index, text: open_ones[index // processes % len(open_ones)].ask(text))
            else:
                ends = [endpoint(text) for text in to]
                action = {"echo": echo, "http": http}[kind]
                result = work(
                    number, count, rate, processes, lambda index, text: action(ends[index // processes % len(ends)], text))
            os.write(writer, json.dumps(result).encode()[:60000])
            os._exit(0)
        os.close(writer)
        results.append(reader)
    total = {"done": 0, "problems": []}
    for reader in results:
        with os.fdopen(reader, "rb") as file:
            result = json.loads(file.read() or b'{"done": 0, "problems": ["a process died"]}')
        total["done"] += result["done"]
        total["problems"] += result["problems"]
    print(json.dumps(total | {"seconds": time.monotonic() - start, "problems": total["problems"][:20]}))


def serve(listener, ends_first):
    while True:
        opened = listener.accept()[0]
        try:
            with opened:
                opened.settimeout(TIMEOUT)
                head = opened.recv(4096)
                while not head.endswith(b"\r\n\r\n"):
                    piece = opened.recv(4096)
                    if not piece:
                        break
                    head += piece
                else:
                    opened.sendall(ANSWER + head[5:21])
                    if not ends_first:
                        opened.recv(1)
        except OSError:
            pass


def server(processes, *addresses, ends_first=False):
    for text in addresses:
        address, port = endpoint(text)
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(4096)
        for _ in range(int(processes)):
            if fork() == 0:
                serve(listener, ends_first)
    os.wait()


def closing_server(processes, *addresses):
    server(processes, *addresses, ends_first=True)


if __name__ == "__main__":
    {"clients": clients, "server": server, "closing-server": closing_server}[sys.argv[1]](*sys.argv[2:])
