"""Handshake initiations that anybody can make who knows a public key: mac1 is right, the rest is random.

Run as a program it sends them until the receiver asks for cookies: the rate grows from `A-SECOND` as long as no cookie reply comes, and
stays while they come. It prints `cookies` with the first one, and ends by itself:
    initiations.py PUBLIC-KEY ADDRESS PORT A-SECOND SECONDS
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
MAXIMUM_RATE = 200_000
# Seconds without a cookie reply until the rate grows.
PATIENCE = 0.3


def initiation(public_key, source):
    """148 bytes: type, sender index, random fields, the mac1 that the owner of `public_key` expects, a zero mac2."""
    body = struct.pack("<II", 1, source.getrandbits(32)) + source.randbytes(32 + 48 + 28)
    mac_key = hashlib.blake2s(b"mac1----" + public_key).digest()
    return body + hashlib.blake2s(body, key=mac_key, digest_size=16).digest() + bytes(16)


def flood(public_key, address, port, rate, seconds):
    """Returns how many were sent."""
    source = random.Random(int.from_bytes(os.urandom(4), "big"))
    messages = [initiation(public_key, source) for _ in range(POOL)]
    end = time.monotonic() + min(seconds, MAXIMUM_SECONDS)
    patience = time.monotonic() + PATIENCE
    credit, sent, asked, last = 0.0, 0, False, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((address, port))
        opened.setblocking(False)
        while (now := time.monotonic()) < end:
            # What could not be sent in time is not made up for.
            credit, last = min(credit + (now - last) * rate, rate / 20), now
            while credit >= 1:
                credit -= 1
                sent += 1
                try:
                    opened.send(messages[sent % POOL])
                except OSError:
                    pass
            if replies(opened):
                patience = time.monotonic() + PATIENCE
                if not asked:
                    asked = True
                    print("cookies", flush=True)
            elif now > patience:
                rate, patience = min(rate * 1.5, MAXIMUM_RATE), now + PATIENCE
            time.sleep(0.001)
    return sent


def replies(opened):
    """How many cookie replies have come."""
    count = 0
    try:
        while True:
            answer = opened.recv(2048)
            count += len(answer) == 64 and answer[0] == 3
    except OSError:
        return count


if __name__ == "__main__":
    key, address, port, rate, seconds = sys.argv[1:6]
    print(flood(base64.b64decode(key), address, int(port), float(rate), float(seconds)))
