"""Sends WebSocket messages through the tunnel and expects each of them back: demo-websocket.py DOMAIN PORT CA-FILE"""

import asyncio
import os
import ssl
import sys

import websockets


async def converse(domain, port, authority):
    trust = ssl.create_default_context(cafile=authority)
    async with websockets.connect(
        f"wss://{domain}:{port}/echo", host="127.0.0.1", port=int(port), ssl=trust, server_hostname=domain, open_timeout=10, max_size=None
    ) as connection:
        for message in ["hello", "one kilobyte of ä " * 50, os.urandom(1_000_000)]:
            await connection.send(message)
            answer = await asyncio.wait_for(connection.recv(), 20)
            if answer != message:
                sys.exit(f"the echo of a message of {len(message)} differs")
            print(f"   {type(message).__name__} of {len(message)} came back unchanged")


asyncio.run(converse(*sys.argv[1:]))
