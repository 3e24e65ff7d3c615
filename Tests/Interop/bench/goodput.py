"""What one connection moves at some loss and round-trip time, simulated and over real sockets, beside what the response functions say."""

import math
import os
import re
import socket
import statistics
import subprocess
import time

from bench.report import number, table
from bench.sides import make_tunnel
from interop.product import bound_udp_ports
from interop.system import Failure, free_port, wait_until

GOODPUT = {
    "stack": "two stacks without crypto in one process, on one core (CPU time); memory; two simulated paths with a goal",
    "goodput": "one connection at some loss and round-trip time in Mbit/s: simulated on 1 Gbit/s with a queue of 2 BDP, and between two "
    "processes through a relay on loopback, beside the response functions of Mathis and CUBIC",
}
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
    """Cells by loss, round-trip time in ms, and where they were measured."""

    def __init__(self, program, tool, lab, service, note):
        self.program, self.tool, self.lab, self.service, self.note = program, tool, lab, service, note
        self.cells = {}
        self.tunnels = 0

    def round(self):
        self.simulated()
        for loss in LOSSES:
            for milliseconds in ROUND_TRIPS:
                try:
                    self.add(loss, milliseconds, "loopback", self.through_relay(loss, milliseconds))
                except (Failure, OSError, RuntimeError, subprocess.SubprocessError) as error:
                    self.note(f"goodput at {loss:.1%} and {milliseconds} ms: {error}")

    def add(self, loss, milliseconds, where, value):
        self.cells.setdefault((loss, milliseconds, where), []).append(value)

    def simulated(self):
        output = subprocess.run([self.tool, "goodput"], capture_output=True, text=True, timeout=900, check=True).stdout
        for line in output.splitlines():
            match = re.fullmatch(r"goodput (\S+) (\d+) (\S+) mathis \S+ cubic \S+", line)
            if not match:
                raise RuntimeError(f"unknown line: {line}")
            self.add(float(match[1]), int(match[2]), "simulated", float(match[3]))

    def through_relay(self, loss, milliseconds):
        """Mbit/s from an agent to `dial`, which talks to the relay; the first two seconds do not count."""
        self.tunnels += 1
        directory, port = make_tunnel(self.program, self.lab, f"goodput{self.tunnels}")
        agent = self.program.start(self.lab, "goodput-agent", [
            "agent", "--wg", os.path.join(directory, "gateway.conf"), "--target", f"127.0.0.1:{self.service.port}",
            "--state", self.lab.private_directory(f"goodput-state{self.tunnels}")])
        wait_until(lambda: port in bound_udp_ports(agent.pid), 10, "the agent has its UDP socket")
        front = free_port(socket.SOCK_DGRAM)
        with open(os.path.join(directory, "agent.conf")) as file:
            configuration = self.lab.write(f"goodput{self.tunnels}.conf", file.read().replace(f"127.0.0.1:{port}", f"127.0.0.1:{front}"))
        relay = self.lab.start("relay", [self.tool, "relay", str(front), str(port), str(loss), str(milliseconds / 2), str(SECONDS + 20)],
                               unprivileged=False)
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
            if not piece:
                raise RuntimeError("the transfer broke off")
            if start is not None:
                counted += len(piece)
            elif now > begin + 2:
                start = now
        return counted * 8 / 1e6 / (now - (start or begin))

    def results(self):
        return [
            {"name": f"goodput-{where}-{loss}-{milliseconds}ms", "unit": "Mbit/s",
             "ours": {"median": statistics.median(values), "min": min(values), "max": max(values)},
             "mathis": mathis(loss, milliseconds / 1000) if loss else None, "cubic": cubic(loss, milliseconds / 1000) if loss else None}
            for (loss, milliseconds, where), values in sorted(self.cells.items(), key=lambda cell: (cell[0][2], cell[0]))]

    def show(self):
        if not self.cells:
            return
        rows = [["goodput, Mbit/s", "loss", "RTT ms", "kakuremichi", "Mathis", "CUBIC", "of CUBIC"]]
        for (loss, milliseconds, where), values in sorted(self.cells.items(), key=lambda cell: (cell[0][2], cell[0])):
            ours, functions = statistics.median(values), [f(loss, milliseconds / 1000) for f in (mathis, cubic)]
            if where == "simulated":
                functions = [min(value, 1000) for value in functions]
            shown = [number(value) if value < math.inf else "-" for value in functions]
            ratio = f"{ours / functions[1]:.2f}" if functions[1] < math.inf else "-"
            rows.append([where, f"{loss:.1%}", str(milliseconds), number(ours), *shown, ratio])
        print()
        table(rows)
        print()
