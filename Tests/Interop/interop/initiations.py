"""Handshake initiations that anybody can make who knows a public key: mac1 is right, the rest is random.

Run as a program it sends them for some seconds, from many source addresses if it may, and ends by itself:
    initiations.py PUBLIC-KEY ADDRESS PORT A-SECOND SECONDS [SOURCE-NETWORK]
"""

import base64
import hashlib
import os
import random
import socket
import struct
import sys
import time

POOL = 2000
MAXIMUM_SECONDS = 30


def initiation(public_key, source):
    """148 bytes: type, sender index, random fields, the mac1 that the owner of `public_key` expects, a zero mac2."""
    body = struct.pack("<II", 1, source.getrandbits(32)) + source.randbytes(32 + 48 + 28)
    mac_key = hashlib.blake2s(b"mac1----" + public_key).digest()
    return body + hashlib.blake2s(body, key=mac_key, digest_size=16).digest() + bytes(16)


def senders(network, count):
    """Sockets on addresses of a /16 like 127.7.0.0; one on the kernel's choice without it."""
    sockets = []
    for number in range(count if network else 1):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if network:
            first, second = network.split(".")[:2]
            opened.bind((f"{first}.{second}.{number // 250}.{number % 250 + 1}", 0))
        opened.setblocking(False)
        sockets.append(opened)
    return sockets


def flood(public_key, address, port, rate, seconds, network=None):
    """Returns how many were sent."""
    source = random.Random(int.from_bytes(os.urandom(4), "big"))
    messages = [initiation(public_key, source) for _ in range(POOL)]
    sockets = senders(network, 500)
    start = time.monotonic()
    end = start + min(seconds, MAXIMUM_SECONDS)
    sent = 0
    while (now := time.monotonic()) < end:
        due = int((now - start) * rate)
        while sent < due:
            try:
                sockets[sent % len(sockets)].sendto(messages[sent % POOL], (address, port))
            except OSError:
                pass
            sent += 1
        time.sleep(0.001)
    return sent


if __name__ == "__main__":
    key, address, port, rate, seconds = sys.argv[1:6]
    print(flood(base64.b64decode(key), address, int(port), float(rate), float(seconds), *sys.argv[6:7]))
