#!/usr/bin/python3
"""Very many slow clients in one process, without threads.

    crowd.py PORT DOMAIN AUTHORITY COUNT TLS PACE SECONDS

Opens COUNT connections from 127.1.0.1 on, four from each address; the first TLS of them shake hands and then send a request's head byte by
byte, the others send a ClientHello byte by byte; a byte each PACE seconds. Prints `open N` when all are there, then after SECONDS, or when
all have been ended by the server, one JSON object: opened, refused (that never were), ended, longest (seconds that one was kept), answered.
"""

import json
import resource
import select
import socket
import ssl
import sys
import time

from garbage import client_hello

EACH = 4


class Client:
    def __init__(self, index, context, domain, port):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        address = index // EACH
        self.socket.bind((f"127.{1 + address // 60000}.{address // 250 % 240}.{1 + address % 250}", 0))
        self.socket.connect_ex(("127.0.0.1", port))
        self.since = time.monotonic()
        self.answered = False
        self.head = f"GET / HTTP/1.1\r\nHost: {domain}\r\nX-Slow: ".encode()
        self.sent = 0
        self.tls = None
        if context:
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=domain)
            self.is_ready = False
            self.shake()

    def shake(self):
        if not self.is_ready:
            try:
                self.tls.do_handshake()
                self.is_ready = True
            except ssl.SSLWantReadError:
                pass
        self.flush()

    def flush(self):
        data = self.outgoing.read()
        if data:
            try:
                self.socket.sendall(data)
            except BlockingIOError:
                self.pending = data

    def readable(self):
        """False when the server has ended the connection."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        if self.tls:
            self.incoming.write(data)
            if not self.is_ready:
                self.shake()
            else:
                try:
                    self.answered = bool(self.tls.read(65536)) or self.answered
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError:
                    return False
        return True

    def trickle(self):
        byte = (self.head[self.sent:self.sent + 1] or b"a") if self.tls else HELLO[self.sent:self.sent + 1]
        if not byte or self.tls and not self.is_ready:
            return
        self.sent += 1
        try:
            if self.tls:
                self.tls.write(byte)
                self.flush()
            else:
                self.socket.send(byte)
        except (OSError, ssl.SSLError):
            pass


HELLO = client_hello()


def main(port, domain, authority, count, tls, pace, seconds):
    count, tls, pace = int(count), int(tls), float(pace)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    context = ssl.create_default_context(cafile=authority)
    poll = select.epoll()
    clients, refused, longest, ended, answered, opened = {}, 0, 0.0, 0, 0, 0
    start = time.monotonic()
    turn = start + pace
    announced = False
    while (opened + refused < count or clients) and time.monotonic() < start + float(seconds):
        for _ in range(100):
            if opened + refused < count:
                try:
                    client = Client(opened + refused, context if opened < tls else None, domain, int(port))
                except OSError:
                    refused += 1
                    continue
                clients[client.socket.fileno()] = client
                poll.register(client.socket, select.EPOLLIN | select.EPOLLHUP)
                opened += 1
        if opened + refused == count and not announced:
            announced = True
            print("open", len(clients), flush=True)
        for number, _ in poll.poll(0.01):
            client = clients[number]
            if not client.readable():
                longest = max(longest, time.monotonic() - client.since)
                answered += client.answered
                ended += 1
                poll.unregister(number)
                client.socket.close()
                del clients[number]
        if time.monotonic() > turn:
            turn = time.monotonic() + pace
            for client in list(clients.values()):
                client.trickle()
    print(json.dumps({"opened": opened, "refused": refused, "ended": ended, "longest": longest, "answered": answered}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
