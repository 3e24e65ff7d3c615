"""A small reader of pcapng files, written from the specification alone (draft-ietf-opsawg-pcapng)."""

import struct

from .system import check, check_equal


class Packet:
    def __init__(self, time, data, length, options):
        self.time, self.data, self.length = time, data, length
        self.comment = options.get(1, b"").decode()
        self.direction = {1: "in", 2: "out"}.get(struct.unpack("<I", options[2])[0] & 3) if 2 in options else None


class Capture:
    """Everything in a file; a Failure if it is not whole or not as the specification has it."""

    def __init__(self, content):
        self.packets, self.statistics = [], []
        self.application = self.link_type = self.snap_length = None
        self.filter = None
        offset = 0
        while offset < len(content):
            check(len(content) - offset >= 12, f"{len(content) - offset} bytes behind the last block")
            kind, length = struct.unpack_from("<II", content, offset)
            check(length % 4 == 0 and 12 <= length <= len(content) - offset, f"a block of {length} bytes at {offset} of {len(content)}")
            check_equal(struct.unpack_from("<I", content, offset + length - 4)[0], length, "length behind the block")
            self.block(kind, content[offset + 8:offset + length - 4])
            offset += length
        check(self.link_type is not None, "no interface description")

    def block(self, kind, body):
        if kind == 0x0A0D0D0A:
            check_equal(struct.unpack_from("<IHHq", body), (0x1A2B3C4D, 1, 0, -1), "section header")
            self.application = options(body[16:]).get(4, b"").decode()
        elif kind == 1:
            self.link_type, _, self.snap_length = struct.unpack_from("<HHI", body)
            found = options(body[8:])
            check_equal(found.get(9), b"\x09", "if_tsresol")
            self.filter = found.get(11, b"\0")[1:].decode()
        elif kind == 6:
            interface, high, low, captured, length = struct.unpack_from("<IIIII", body)
            check_equal(interface, 0, "interface of a packet")
            padded = (captured + 3) // 4 * 4
            check(20 + padded <= len(body) and captured <= length, "a packet is longer than its block")
            self.packets.append(
                Packet((high << 32 | low) / 1e9, body[20:20 + captured], length, options(body[20 + padded:])))
        elif kind == 5:
            found = options(body[12:])
            self.statistics.append({
                "received": struct.unpack("<Q", found[4])[0], "dropped": struct.unpack("<Q", found[5])[0],
                "delivered": struct.unpack("<Q", found[8])[0], "comment": found.get(1, b"").decode()})
        else:
            check(False, f"a block of type {kind:#x}")


def options(data):
    found, offset = {}, 0
    while offset + 4 <= len(data):
        code, length = struct.unpack_from("<HH", data, offset)
        if code == 0:
            check_equal(offset + 4, len(data), "bytes up to the end of the options")
            return found
        found[code] = data[offset + 4:offset + 4 + length]
        check_equal(len(found[code]), length, "length of an option")
        offset += 4 + (length + 3) // 4 * 4
    check(not data, "options without an end")
    return found


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def tcp(data):
    """Addresses, ports, flags and payload of an IPv4 TCP packet, with both checksums verified; None for others."""
    if not data or data[0] >> 4 != 4 or data[9] != 6:
        return None
    header = (data[0] & 15) * 4
    total = struct.unpack_from("!H", data, 2)[0]
    check_equal(total, len(data), "length in the IP header")
    check_equal(checksum(data[:header]), 0, "checksum of the IP header")
    segment = data[header:total]
    check_equal(checksum(data[12:20] + struct.pack("!HH", 6, len(segment)) + segment), 0, "checksum of the segment")
    source, destination = struct.unpack_from("!HH", segment)
    return {
        "source": ".".join(map(str, data[12:16])), "destination": ".".join(map(str, data[16:20])), "ports": (source, destination),
        "flags": segment[13], "payload": segment[(segment[12] >> 4) * 4:]}
