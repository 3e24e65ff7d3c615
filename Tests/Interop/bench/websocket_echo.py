"""Sends short WebSocket messages back, and answers other requests with a word: websocket_echo.py PORT"""

import asyncio
import base64
import hashlib
import re
import resource
import sys


async def serve(reader, writer):
    try:
        while not (key := re.search(rb"(?i)\r\nsec-websocket-key: *(\S+)", await reader.readuntil(b"\r\n\r\n"))):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        while True:
            first, length = await reader.readexactly(2)
            mask = await reader.readexactly(4)
            data = await reader.readexactly(length & 127)
            writer.write(bytes([first, len(data)]) + bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main(port):
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
asyncio.run(main(int(sys.argv[1])))
