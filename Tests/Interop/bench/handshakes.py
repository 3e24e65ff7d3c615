"""Handshakes: how many a responder completes, and what small requests notice of them."""

import os
import re

from bench.catalogue import WITHOUT_HANDSHAKES
from bench.figures import OURS
from bench.processes import memory, processor_seconds, run
from bench.service import DOMAIN
from bench.sides import Ours, make_tunnel, wait_until_answered
from bench.stock import StockTunnel
from bench.task import Task
from interop.namespaces import Pair, StockPeer
from interop.product import bound_udp_ports, key_pair
from interop.system import wait_until

PEERS, RATE, COUNT = 1000, 400, 2000
# Beside requests: from several processes, because each waits for its answers.
DRIVERS, STORM_RATE, STORM_SECONDS = 4, 1000, 3


def address(index):
    return f"10.2.{index >> 8}.{index & 255}"


class Handshakes:
    def __init__(self, program, tool, lab, sides, figures, note):
        self.program, self.tool, self.lab, self.sides, self.figures, self.note = program, tool, lab, sides, figures, note

    def tasks(self):
        return [
            Task("handshakes", (), 12, self.count),
            Task("small-under-handshakes", ("small-under-handshakes-p50", "small-under-handshakes-p99"), 2 * STORM_SECONDS + 2, self.storm),
        ]

    def keys(self, seed, count):
        """The public keys of the initiators that `bench handshakes` makes of this seed."""
        return run([self.tool.path, "handshake-peers", str(seed), str(count)], 60, env=self.tool.environment())[0].split()

    @staticmethod
    def sections(keys):
        return "".join(f"\n[Peer]\nPublicKey = {key}\nAllowedIPs = {address(index)}/32\n" for index, key in enumerate(keys))

    def drive(self, seed, peers, key, where, rate, count, namespace=None):
        return self.tool.start(
            self.lab, "handshakes", ["handshakes", seed, peers, key, *where, rate, count], namespace=namespace, unprivileged=namespace is None)

    @staticmethod
    def completed(driver):
        match = re.search(r"completed (\d+)", driver.output())
        return int(match[1]) if match else 0

    # How many

    def count(self):
        seed = int.from_bytes(os.urandom(4), "big")
        keys = self.keys(seed, PEERS)
        if self.sides.stock_tunnel:
            self.count_stock(seed, keys)
        directory, port = make_tunnel(self.program, self.lab, f"handshakes{seed}")
        with open(os.path.join(directory, "gateway.conf")) as file:
            configuration = self.lab.write(f"handshakes{seed}.conf", file.read() + self.sections(keys))
        with open(os.path.join(directory, "agent.conf")) as file:
            key = re.search(r"PublicKey\s*=\s*(\S+)", file.read())[1]
        responder = self.program.start(self.lab, "responder", [
            "agent", "--wg", configuration, "--target", "127.0.0.1:9", "--state", self.lab.private_directory(f"handshakes-state{seed}")])
        wait_until(lambda: port in bound_udp_ports(responder.pid), 10, "the responder has its UDP socket")
        self.shake_hands(OURS, seed, key, ("127.0.0.1", port), responder.pid)
        responder.stop()

    def count_stock(self, seed, keys):
        pair = Pair(self.lab)
        private, public = key_pair()
        peers = [{"key": key, "allowed": [f"{address(index)}/32"]} for index, key in enumerate(keys)]
        stock = StockPeer(self.lab, pair.stock, private, ["10.1.0.1/24"], peers, 51820)
        try:
            self.shake_hands(StockTunnel.name, seed, public, (Pair.STOCK, 51820), stock.process.pid, pair.ours.name)
        finally:
            stock.stop()

    def shake_hands(self, side, seed, key, where, pid, namespace=None):
        before = processor_seconds(pid)
        driver = self.drive(seed, PEERS, key, where, RATE, COUNT, namespace)
        driver.wait(COUNT / RATE + 20)
        used, completed = processor_seconds(pid) - before, self.completed(driver)
        if completed < 0.99 * COUNT:
            raise RuntimeError(f"only {completed} of {COUNT} handshakes were completed: {driver.last_lines()}")
        self.figures.add("handshakes", side, completed / used)
        self.figures.add_usage("handshakes", side, {"responder": (used, memory(pid, "VmHWM"))})

    # Beside small requests

    def storm(self):
        """The same requests to the same gateway, with and without handshakes of its other peers."""
        seeds = [int.from_bytes(os.urandom(4), "big") for _ in range(DRIVERS)]
        each = PEERS // DRIVERS
        keys = [key for seed in seeds for key in self.keys(seed, each)]
        ours = Ours(self.program, self.lab, self.sides.service, f"storm{seeds[0]}", self.sections(keys))
        try:
            wait_until_answered(ours)
            self.latencies(ours, WITHOUT_HANDSHAKES)
            rate = STORM_RATE // DRIVERS
            drivers = [
                self.drive(seed, each, ours.public_key, ("127.0.0.1", ours.udp_port), rate, rate * (STORM_SECONDS + 1)) for seed in seeds]
            wait_until(lambda: all(driver.processor_time() > 0.05 for driver in drivers), 5, "handshakes come")
            self.latencies(ours, OURS)
            for driver in drivers:
                driver.wait(30)
            completed = sum(map(self.completed, drivers))
            if completed < 0.9 * rate * DRIVERS * (STORM_SECONDS + 1):
                self.note(f"small-under-handshakes: {completed} of {rate * DRIVERS * (STORM_SECONDS + 1)} handshakes were completed")
        finally:
            ours.stop()

    def latencies(self, ours, column):
        output, _ = run([
            "wrk", "--threads", "1", "--connections", "1", "--duration", f"{STORM_SECONDS}s", "--latency",
            f"https://{DOMAIN}:{ours.port}/small"], STORM_SECONDS + 30)
        for percentile in (50, 99):
            latency = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)\b", output)
            if not latency:
                raise RuntimeError(f"wrk: {output.strip()[-300:]}")
            value = float(latency[1]) * {"us": 0.001, "ms": 1, "s": 1000}[latency[2]]
            self.figures.add(f"small-under-handshakes-p{percentile}", column, value)
