#!/usr/bin/python3
"""Clients made of PyPI's packages, as programs: client_programs.py h2|websockets DOMAIN PORT AUTHORITY; each prints `good` in the end."""

import asyncio
import os
import socket
import ssl
import sys


def context(authority, *protocols):
    made = ssl.create_default_context(cafile=authority)
    if protocols:
        made.set_alpn_protocols(protocols)
    return made


def expect(condition, what):
    if not condition:
        raise SystemExit(what)


def h2_client(domain, port, authority):
    import h2.connection
    import h2.events

    with context(authority, "h2").wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20), server_hostname=domain) as opened:
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        body = os.urandom(3_000_000)
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", domain)]
        gets = [connection.get_next_available_stream_id() + 2 * index for index in range(20)]
        for stream in gets:
            connection.send_headers(stream, [*fields, (":path", "/chunked/100000")], end_stream=True)
        post = connection.get_next_available_stream_id()
        connection.send_headers(post, [(":method", "POST"), *fields[1:], (":path", "/echo")])
        received, ended, sent, finished = {}, set(), 0, False
        while len(ended) < 21:
            while sent < len(body) and (room := min(connection.local_flow_control_window(post), connection.max_outbound_frame_size, len(body) - sent)) > 0:
                connection.send_data(post, body[sent:sent + room])
                sent += room
            if sent == len(body) and not finished:
                connection.send_headers(post, [("x-sum", "1")], end_stream=True)
                finished = True
            opened.sendall(connection.data_to_send())
            data = opened.recv(65536)
            expect(data, "the connection ended")
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    received[event.stream_id] = received.get(event.stream_id, b"") + event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ended.add(event.stream_id)
                elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    expect(False, repr(event))
        expect(all(len(received[stream]) == 100_000 for stream in gets), "lengths")
        expect(received[post] == body, "the echo of a body differs")


def websockets_client(domain, port, authority):
    import websockets

    async def converse():
        async with websockets.connect(
                f"wss://{domain}:{port}/websocket?room=1", host="127.0.0.1", port=port, ssl=context(authority), server_hostname=domain, max_size=None) as connection:
            for message in ["", "hello", "\u00e4" * 1000, b"", os.urandom(125), os.urandom(126), os.urandom(70_000), os.urandom(3_000_000)]:
                await connection.send(message)
                expect(await asyncio.wait_for(connection.recv(), 15) == message, f"the echo of a message of {len(message)} differs")
            await asyncio.wait_for(await connection.ping(), 5)
        expect(connection.close_code == 1000, f"close code {connection.close_code}")

    asyncio.run(converse())


if __name__ == "__main__":
    {"h2": h2_client, "websockets": websockets_client}[sys.argv[1]](sys.argv[2], int(sys.argv[3]), sys.argv[4])
    print("good")
