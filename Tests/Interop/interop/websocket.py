"""A WebSocket client: Debian's python3-websockets."""

import asyncio
import os

from .system import check, check_equal


def echo_messages(edge, domain, path="/websocket?room=1"):
    """Opens a WebSocket over TLS, sends text and binary messages of many lengths, expects each back, and closes."""
    import websockets

    async def converse():
        async with websockets.connect(
            f"wss://{domain}:{edge.https_port}{path}", host=edge.address, port=edge.https_port, ssl=edge.tls_context(),
            server_hostname=domain, open_timeout=15, close_timeout=5, max_size=None
        ) as connection:
            for message in ["", "hello", "ä" * 1000, b"", os.urandom(125), os.urandom(70_000), os.urandom(3_000_000)]:
                await connection.send(message)
                answer = await asyncio.wait_for(connection.recv(), 15)
                check(answer == message, f"the echo of a message of {len(message)} differs")
            pong = await connection.ping()
            await asyncio.wait_for(pong, 5)
        check_equal(connection.close_code, 1000, "close code")

    asyncio.run(converse())


def echo_while(edge, domain, disturb, silence):
    """Keeps one WebSocket through steps 0 to 2 of a disturbance; a message sent in step 1 has to come back in the end."""
    import websockets

    async def converse():
        async with websockets.connect(
            f"wss://{domain}:{edge.https_port}/websocket", host=edge.address, port=edge.https_port, ssl=edge.tls_context(),
            server_hostname=domain, open_timeout=15, close_timeout=5, ping_interval=None
        ) as connection:
            disturb(0)
            await connection.send("before")
            check_equal(await asyncio.wait_for(connection.recv(), 10), "before", "echo before the silence")
            disturb(1)
            await connection.send("during")
            try:
                answer = await asyncio.wait_for(connection.recv(), silence)
                check(False, f"an answer through a dead link: {answer!r}")
            except asyncio.TimeoutError:
                pass
            disturb(2)
            check_equal(await asyncio.wait_for(connection.recv(), 30), "during", "echo after the silence")

    asyncio.run(converse())
