"""Takes the body of each request without looking at it and answers 204: sink.py PORT"""

import re
import socket
import sys
import threading


def serve(connection):
    buffer = bytearray(1 << 20)
    with connection:
        head = b""
        while True:
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            fields, _, rest = head.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", fields)
            remaining = int(length[1]) - len(rest) if length else 0
            while remaining > 0:
                count = connection.recv_into(buffer, min(remaining, len(buffer)))
                if count == 0:
                    return
                remaining -= count
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            head = b""


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
