"""Writes noise-independent.json with dissononce, an implementation of Noise that is independent of this package.

    pip install dissononce==0.34.3
    python3 vectors/noise-independent.py > vectors/noise-independent.json

Every key is a hash of a label below, so that the same program always writes the same bytes. TEST ONLY: everybody knows them.
"""

import hashlib
import json

from dissononce.dh.x25519.private import PrivateKey
from dissononce.extras.dh.dangerous.dh_nogen import NoGenDH
from dissononce.extras.meta.protocol.factory import NoiseProtocolFactory
from dissononce.processing.handshakepatterns.handshakepattern import HandshakePattern
from dissononce.processing.modifiers.psk import PSKPatternModifier

WARNING = "TEST ONLY: every key in this file derives from a published label. Never configure any of them."
SOURCE = "vectors/noise-independent.py, which runs dissononce 0.34.3"

# All of Noise revision 34: one-way (section 7.4), interactive (7.5) and deferred (18.1).
NAMES = """
    N K X
    NN NK NX KN KK KX XN XK XX IN IK IX
    NK1 NX1 X1N X1K XK1 X1K1 X1X XX1 X1X1 K1N K1K KK1 K1K1 K1X KX1 K1X1 I1N I1K IK1 I1K1 I1X IX1 I1X1
""".split()

HASHES = ["BLAKE2s", "SHA512", "SHA256", "BLAKE2b"]
CIPHERS = ["ChaChaPoly", "AESGCM"]

# WireGuard's, and several keys at once. Both keys of psk0+psk1 belong to the first message, which dissononce's modifiers refuse: those
# tokens stand here, from section 9.4.
MORE = [
    "IKpsk2", "NNpsk0+psk2", "KKpsk0+psk2", "IKpsk1+psk2", "XXpsk0+psk3", "XKpsk1+psk2+psk3", "X1X1psk2+psk4",
    "NXpsk1+psk2", "I1X1psk0+psk2+psk3", "K1K1psk0+psk3", "IXpsk0+psk2",
]
BY_TOKENS = {
    "NNpsk0+psk1": ((), (), (("psk", "e", "psk"), ("e", "ee"))),
    "Kpsk0+psk1": (("s",), ("s",), (("psk", "e", "es", "ss", "psk"),)),
}


def secret(label):
    return hashlib.sha256(b"TEST ONLY " + label.encode()).digest()


def payload(label, length):
    return hashlib.shake_128(b"payload " + label.encode()).digest(length)


class Party:
    """One side: its keys, and the handshake that dissononce runs for it."""

    def __init__(self, protocol, pattern, is_initiator, prologue, psks):
        side = "initiator" if is_initiator else "responder"
        self.prefix = "init_" if is_initiator else "resp_"
        self.is_initiator = is_initiator
        own = pattern.initiator_pre_message_pattern if is_initiator else pattern.responder_pre_message_pattern
        sent = pattern.message_patterns[0 if is_initiator else 1 :: 2]
        self.static = None
        if own or any("s" in tokens for tokens in sent):
            self.static = protocol.dh.generate_keypair(PrivateKey(secret(side + " static")))
        self.ephemeral = PrivateKey(secret(side + " ephemeral")) if any("e" in tokens for tokens in sent) else None
        self.prologue = prologue
        self.psks = psks
        self.remote = None
        dh = NoGenDH(protocol.dh, self.ephemeral or PrivateKey(secret("nobody")))
        self.handshake = protocol.create_handshakestate(dh=dh)

    def begin(self, pattern, other):
        theirs = pattern.responder_pre_message_pattern if self.is_initiator else pattern.initiator_pre_message_pattern
        if theirs:
            self.remote = other.static.public
        self.handshake.initialize(pattern, self.is_initiator, self.prologue, s=self.static, rs=self.remote, psks=self.psks)

    def members(self):
        yield "prologue", self.prologue.hex()
        if self.static:
            yield "static", self.static.private.data.hex()
        if self.ephemeral:
            yield "ephemeral", self.ephemeral.data.hex()
        if self.remote:
            yield "remote_static", self.remote.data.hex()
        if self.psks:
            yield "psks", [key.hex() for key in self.psks]


def protocol_and_pattern(name, cipher, hash_name):
    base, *positions = name.replace("+", "").split("psk")
    protocol = NoiseProtocolFactory().get_noise_protocol(f"Noise_{base}_25519_{cipher}_{hash_name}")
    if name in BY_TOKENS:
        initiator, responder, messages = BY_TOKENS[name]
        return protocol, HandshakePattern(name, messages, initiator, responder)
    pattern = protocol.pattern
    for position in positions:
        pattern = PSKPatternModifier(int(position)).modify(pattern)
    return protocol, pattern


def case(number, name, cipher, hash_name):
    protocol, pattern = protocol_and_pattern(name, cipher, hash_name)
    protocol_name = f"Noise_{name}_25519_{cipher}_{hash_name}"
    psks = [secret(f"psk {index}") for index in range(name.count("psk"))]
    # Every fifth case has no prologue.
    prologue = b"" if number % 5 == 0 else b"TEST ONLY"
    sides = [Party(protocol, pattern, is_initiator, prologue, psks) for is_initiator in (True, False)]
    for side, other in (sides, sides[::-1]):
        side.begin(pattern, other)
        assert side.handshake.protocol_name == protocol_name

    messages, keys = [], {}
    is_one_way = len(pattern.message_patterns) == 1
    count = len(pattern.message_patterns)
    for index in range(count + (2 if is_one_way else 3)):
        # Empty ones too, and ones that end within a block of the cipher.
        text = payload(f"{protocol_name} {index}", (number * 7 + index * 5) % 23)
        writer, reader = sides if is_one_way or index % 2 == 0 else sides[::-1]
        if index < count:
            message, opened = bytearray(), bytearray()
            # The last message gives both sides the two keys of the transport.
            keys[writer] = writer.handshake.write_message(text, message)
            keys[reader] = reader.handshake.read_message(bytes(message), opened)
            assert opened == text
        else:
            direction = 0 if writer.is_initiator else 1
            message = keys[writer][direction].encrypt_with_ad(b"", text)
            assert keys[reader][direction].decrypt_with_ad(b"", message) == text
        messages.append({"payload": text.hex(), "ciphertext": bytes(message).hex()})

    hashes = {side.handshake.symmetricstate.get_handshake_hash() for side in sides}
    assert len(hashes) == 1
    result = {"protocol_name": protocol_name}
    for side in sides:
        result.update({side.prefix + field: value for field, value in side.members()})
    result["handshake_hash"] = hashes.pop().hex()
    result["messages"] = messages
    return result


def names():
    yield from NAMES
    for index, name in enumerate(NAMES):
        # psk0 to pskN in turns, N being the last message.
        count = len(protocol_and_pattern(name, "AESGCM", "SHA256")[1].message_patterns)
        yield f"{name}psk{index % (count + 1)}"
    yield from MORE
    yield from BY_TOKENS


def main():
    cases = []
    for number, name in enumerate(names()):
        # The shift gives a pattern with a modifier another pair than the same one without.
        shift = number + number // 8 + number // len(NAMES)
        cases.append(case(number, name, CIPHERS[shift % 2], HASHES[shift // 2 % 4]))
    lines = ",\n".join(json.dumps(one) for one in cases)
    print(f'{{"warning": {json.dumps(WARNING)},\n"source": {json.dumps(SOURCE)},\n"vectors": [\n{lines}\n]}}')


if __name__ == "__main__":
    main()
