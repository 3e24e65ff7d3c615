"""What a flood of WireGuard initiations does to an agent at a known port."""

import os
import re
import socket
import statistics
import subprocess
import time

from bench.catalogue import WITHOUT_FLOOD
from bench.figures import OURS
from bench.processes import memory
from bench.sides import make_tunnel
from bench.task import ONCE, Task
from interop.product import bound_udp_ports
from interop.system import check, wait_until

FLOOD_SECONDS, BULK_SECONDS = 6, 3


class Floods:
    def __init__(self, program, tool, lab, sides, figures, note):
        self.program, self.tool, self.lab, self.sides, self.figures, self.note = program, tool, lab, sides, figures, note
        self.number = 0

    def tasks(self):
        return [
            Task("flood-junk", (), 30, self.junk, when=ONCE),
            Task("flood-valid", ("flood-valid-connect", "flood-valid-memory"), 9, self.valid, when=ONCE),
        ]

    def start_listening_agent(self):
        """An agent at a known UDP port, with the public key that it answers to."""
        self.number += 1
        directory, port = make_tunnel(self.program, self.lab, f"flooded{self.number}")
        with open(os.path.join(directory, "agent.conf")) as file:
            key = re.search(r"PublicKey\s*=\s*(\S+)", file.read())[1]
        state = self.lab.private_directory(f"flooded-state{self.number}")
        agent = self.program.start(self.lab, "flooded", [
            "agent", "--wg", os.path.join(directory, "gateway.conf"), "--target", self.sides.service.address, "--state", state])
        wait_until(lambda: port in bound_udp_ports(agent.pid), 10, "the agent has its UDP socket")
        return agent, state, directory, port, key

    def dial(self, directory):
        return self.program.start(
            self.lab, "dial", ["dial", "--wg", os.path.join(directory, "agent.conf"), "10.1.0.254:80"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)

    @staticmethod
    def ask(dial, path, count=1):
        dial.child.stdin.write(f"GET {path} HTTP/1.1\r\nHost: bulk\r\n\r\n".encode() * count)
        dial.child.stdin.flush()

    @staticmethod
    def hang_up(dial):
        dial.stop(timeout=3)
        dial.child.stdin.close()
        dial.child.stdout.close()

    def flood(self, kind, key, port, rate):
        flood = self.tool.start(self.lab, "flood", ["flood", kind, key, "127.0.0.1", port, rate, FLOOD_SECONDS])
        wait_until(lambda: flood.is_running and flood.processor_time() > 0.03, 3, "the flood runs")
        return flood

    def sent(self, flood, rate):
        """How many were sent; said if those are fewer than there should be."""
        flood.wait(FLOOD_SECONDS + 5)
        match = re.search(r"sent (\d+)", flood.output())
        sent = int(match[1]) if match else 0
        if sent < 0.9 * rate * FLOOD_SECONDS:
            self.note(f"a flood of {rate} a second had only {sent / FLOOD_SECONDS:.0f} a second")
        return sent

    def junk(self):
        """The flood to a socket that nobody reads takes as much of the machine as the one to the agent, but for the agent's part."""
        agent, state, directory, port, key = self.start_listening_agent()
        dial = self.dial(directory)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 0))
            self.ask(dial, "/large", 500)
            self.transfer(dial, 1)
            rates = {}
            # Twice each, back to back, so that a machine that slows down does not judge.
            for target in (sink.getsockname()[1], port, port, sink.getsockname()[1]):
                before = self.drops(state)
                flood = self.flood("junk", key, target, 50_000)
                rates.setdefault(target == port, []).append(self.transfer(dial, BULK_SECONDS))
                check(flood.is_running, "the flood ended before the transfer")
                sent = self.sent(flood, 50_000)
                if target == port and self.drops(state) - before < 0.9 * sent:
                    self.note(f"of {sent} junk initiations the agent saw {self.drops(state) - before}; the others were lost in the kernel")
        self.hang_up(dial)
        agent.stop()
        self.figures.add("flood-junk", OURS, statistics.mean(rates[True]))
        self.figures.add("flood-junk", WITHOUT_FLOOD, statistics.mean(rates[False]))

    def drops(self, state):
        status = self.program.status(self.lab, state) or {}
        return sum(count for name, count in status.get("counters", {}).items() if name.startswith("dropped: wireguard"))

    @staticmethod
    def transfer(dial, seconds):
        """MB/s of what comes in so many seconds."""
        start, received = time.monotonic(), 0
        descriptor = dial.child.stdout.fileno()
        while (now := time.monotonic()) < start + seconds:
            piece = os.read(descriptor, 1 << 20)
            check(piece, "the transfer broke off")
            received += len(piece)
        return received / 1e6 / (now - start)

    def valid(self):
        agent, state, directory, port, key = self.start_listening_agent()
        # Once without a flood, so that what any first connection needs is not counted.
        quiet = self.connect(directory)
        before = memory(agent.pid, "RssAnon")
        flood = self.flood("valid", key, port, 20_000)
        wait_until(lambda: self.cookies(state) > 0, 5, "the agent asks for cookies")
        seconds = self.connect(directory)
        peak = before
        while flood.is_running:
            peak = max(peak, memory(agent.pid, "RssAnon"))
            time.sleep(0.05)
        self.sent(flood, 20_000)
        replies = self.cookies(state)
        if replies < 1000:
            self.note(f"flood-valid: the agent asked for only {replies} cookies")
        agent.stop()
        self.figures.add("flood-valid-connect", OURS, seconds)
        self.figures.add("flood-valid-connect", "without a flood", quiet)
        self.figures.add("flood-valid-memory", OURS, peak - before)

    def cookies(self, state):
        return (self.program.status(self.lab, state) or {}).get("counters", {}).get("handshakes: cookie_reply_sent", 0)

    def connect(self, directory):
        """Seconds from the start of a program that knows no session to the first byte that comes through the tunnel."""
        start = time.monotonic()
        dial = self.dial(directory)
        self.ask(dial, "/small")
        answer = os.read(dial.child.stdout.fileno(), 100)
        seconds = time.monotonic() - start
        self.hang_up(dial)
        check(answer.startswith(b"HTTP/1.1 200"), f"answer {answer!r}: {dial.last_lines()}")
        return seconds
