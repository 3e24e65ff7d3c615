"""Bytes that no well-behaved peer sends."""

import os
import random
import socket
import struct

# Message type and exact length of WireGuard's four messages; data has any length from 32.
HANDSHAKE_SIZES = {1: 148, 2: 92, 3: 64}


def datagrams(count, seed):
    """Random bytes, messages of the right shape with random contents, truncated and oversized ones."""
    source = random.Random(seed)
    for number in range(count):
        kind = number % 8
        if kind < 3:
            message_type = kind + 1
            yield struct.pack("<I", message_type) + source.randbytes(HANDSHAKE_SIZES[message_type] - 4)
        elif kind == 3:
            yield struct.pack("<IIQ", 4, source.getrandbits(32), source.choice([0, 1, 2**60, 2**64 - 1])) + source.randbytes(
                16 * source.randrange(1, 90))
        elif kind == 4:
            yield struct.pack("<I", source.randrange(1, 5)) + source.randbytes(source.randrange(0, 200))
        elif kind == 5:
            yield source.randbytes(source.randrange(0, 33))
        elif kind == 6:
            yield struct.pack("<I", source.getrandbits(32)) + source.randbytes(144)
        else:
            yield source.randbytes(source.randrange(0, 1500))


def flood_udp(port, count, seed, address="127.0.0.1"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams(count, seed):
            try:
                sender.sendto(datagram, (address, port))
            except OSError:
                continue


def client_hello(name=b"app.example.com"):
    """A ClientHello as OpenSSL writes it, from a handshake that goes nowhere."""
    import ssl

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name.decode())
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def tcp_inputs(seed):
    """Things to send to a TCP listener, each on its own connection."""
    source = random.Random(seed)
    hello = client_hello()
    yield b""
    yield b"\r\n\r\n"
    yield b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n"
    yield b"\x16\x03\x01\xff\xff" + source.randbytes(200)
    yield b"\x16\x03\x01\x00\x00"
    yield b"\x80\x2e\x01\x03\x01" + source.randbytes(40)
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + source.randbytes(100)
    yield b"\x00" * 20_000
    yield source.randbytes(100_000)
    for _ in range(20):
        yield source.randbytes(source.randrange(1, 2000))
    for length in range(1, len(hello), 29):
        yield hello[:length]
    for _ in range(60):
        damaged = bytearray(hello)
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        yield bytes(damaged)


def send_and_close(port, data, address="127.0.0.1"):
    """Sends, reads what comes at once, and leaves. What the other side makes of it is not looked at."""
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.settimeout(0.02)
        try:
            connection.sendall(data)
            connection.recv(4096)
        except OSError:
            pass


def seed():
    """The seed of this run: from the environment to repeat one, else drawn."""
    return int(os.environ.get("INTEROP_SEED") or random.randrange(1 << 32))
