"""A web service in the tests' own process, in a namespace, that checks every byte of what it gets."""

import re
import socket
import threading
import time

from .kernel import PROGRESS, inside, receive_pattern


class SlowReader:
    """Reads 1 KB each 50 ms for 2 s, then nothing for 10 s, then the rest."""

    def __init__(self, source, count):
        self.source, self.count = source, count
        self.has_stopped = threading.Event()

    def run(self):
        received = 0
        for _ in range(40):
            receive_pattern(self.source, 1024, received)
            received += 1024
            time.sleep(0.05)
        self.has_stopped.set()
        time.sleep(10)
        receive_pattern(self.source, self.count - received, received)


class Target:
    """Reads a request's body, as a slow reader if the path is /slow, and answers when every byte was right."""

    def __init__(self, tunnel, namespace):
        with inside(namespace):
            self.listener = socket.create_server(("127.0.0.1", 0))
        tunnel.sockets.append(self.listener)
        self.port = self.listener.getsockname()[1]
        self.has_stopped = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        with connection:
            connection.settimeout(PROGRESS)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (piece := connection.recv(1)):
                    return
                head += piece
            count = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            if b" /slow " in head:
                reader = SlowReader(connection, count)
                self.has_stopped.append(reader.has_stopped)
                reader.run()
            else:
                receive_pattern(connection, count)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nright")
