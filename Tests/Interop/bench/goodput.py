"""What one connection moves at some loss and round-trip time, simulated and over real sockets, beside what the response functions say."""

import math
import os
import re
import socket
import subprocess
import time

from bench.figures import OURS
from bench.processes import run
from bench.sides import FAULTS, make_tunnel
from bench.task import ASKED, Task
from interop.product import bound_udp_ports
from interop.system import check, free_port, wait_until

LOSSES, ROUND_TRIPS = (0, 0.001, 0.01), (1, 20)
SECONDS = 8
# Of one segment: 1,420 bytes without IPv4, TCP and timestamps.
TEXT = 1420 - 52


def mathis(loss, seconds):
    """MSS / RTT * sqrt(3/2) / sqrt(p), in Mbit/s."""
    return TEXT * 8 / seconds * math.sqrt(1.5 / loss) / 1e6 if loss else math.inf


def cubic(loss, seconds):
    """RFC 9438, 5.1, and no less than Reno."""
    if not loss:
        return math.inf
    return max(mathis(loss, seconds), TEXT * 8 / seconds * (0.4 * 3.7 / 1.2) ** 0.25 * seconds ** 0.75 / loss ** 0.75 / 1e6)


class Goodput:
    """In Mbit/s: simulated on 1 Gbit/s with a queue of twice the bandwidth-delay product, and through a relay on loopback."""

    def __init__(self, program, tool, lab, sides, figures, note):
        self.program, self.tool, self.lab, self.sides, self.figures, self.note = program, tool, lab, sides, figures, note
        self.tunnels = 0

    def tasks(self):
        return [Task("goodput", (), 160, self.measure, when=ASKED)]

    def measure(self):
        self.simulated()
        for loss in LOSSES:
            for milliseconds in ROUND_TRIPS:
                try:
                    self.add(loss, milliseconds, "loopback", self.through_relay(loss, milliseconds))
                except FAULTS as error:
                    self.note(f"goodput at {loss:.1%} and {milliseconds} ms: {error}")

    def add(self, loss, milliseconds, where, value):
        name = f"goodput-{where}-{loss:g}-{milliseconds}ms"
        self.figures.add(name, OURS, value, "Mbit/s")
        for side, function in (("Mathis' formula", mathis), ("CUBIC's formula", cubic)):
            promised = function(loss, milliseconds / 1000)
            if promised < math.inf:
                self.figures.add(name, side, min(promised, 1000) if where == "simulated" else promised, "Mbit/s")

    def simulated(self):
        output, _ = run([self.tool.path, "goodput"], 900, env=self.tool.environment())
        for line in output.splitlines():
            match = re.fullmatch(r"goodput (\S+) (\d+) (\S+) mathis \S+ cubic \S+", line)
            check(match, f"unknown line: {line}")
            self.add(float(match[1]), int(match[2]), "simulated", float(match[3]))

    def through_relay(self, loss, milliseconds):
        """Mbit/s from an agent to `dial`, which talks to the relay; the first two seconds do not count."""
        self.tunnels += 1
        directory, port = make_tunnel(self.program, self.lab, f"goodput{self.tunnels}")
        agent = self.program.start(self.lab, "goodput-agent", [
            "agent", "--wg", os.path.join(directory, "gateway.conf"), "--target", self.sides.service.address,
            "--state", self.lab.private_directory(f"goodput-state{self.tunnels}")])
        wait_until(lambda: port in bound_udp_ports(agent.pid), 10, "the agent has its UDP socket")
        front = free_port(socket.SOCK_DGRAM)
        with open(os.path.join(directory, "agent.conf")) as file:
            configuration = self.lab.write(f"goodput{self.tunnels}.conf", file.read().replace(f"127.0.0.1:{port}", f"127.0.0.1:{front}"))
        relay = self.tool.start(self.lab, "relay", ["relay", front, port, loss, milliseconds / 2, SECONDS + 20])
        dial = None
        try:
            wait_until(lambda: front in bound_udp_ports(relay.pid), 5, "the relay has its UDP socket")
            dial = self.program.start(
                self.lab, "dial", ["dial", "--wg", configuration, "10.1.0.254:80"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            dial.child.stdin.write(b"GET /large HTTP/1.1\r\nHost: bulk\r\n\r\n" * 200)
            dial.child.stdin.flush()
            return self.rate(dial)
        finally:
            if dial:
                dial.stop(timeout=3)
                dial.child.stdin.close()
                dial.child.stdout.close()
            relay.stop()
            agent.stop()

    @staticmethod
    def rate(dial):
        begin, counted, start = time.monotonic(), 0, None
        while (now := time.monotonic()) < begin + SECONDS:
            piece = os.read(dial.child.stdout.fileno(), 1 << 20)
            check(piece, "the transfer broke off")
            if start is not None:
                counted += len(piece)
            elif now > begin + 2:
                start = now
        return counted * 8 / 1e6 / (now - (start or begin))
