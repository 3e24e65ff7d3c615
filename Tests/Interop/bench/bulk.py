"""Bytes through the tunnel alone, between two processes that only produce and count them."""

import os
import re

from bench.catalogue import FIGURES
from bench.figures import OURS
from bench.processes import Meter
from bench.sides import make_tunnel
from bench.stock import StockTunnel
from bench.task import Task
from interop.system import check, wait_until

# So that each takes about a second.
BYTES, STOCK_BYTES = 200_000_000, 100_000_000
PORT = 9
LIMITED = [name for name in FIGURES if name.startswith(("bulk-", "dial-"))]


class Ends:
    """A side's two ends: one that serves for as long as the lab lives, and a command that asks it for a transfer."""

    def __init__(self, name, server, command, total, tunnel=(), **options):
        """`total`: bytes of a transfer; `tunnel`: processes between the ends; `options`: of the command's process."""
        self.name, self.server, self.command, self.total, self.tunnel, self.options = name, server, command, total, dict(tunnel), options

    def processes(self):
        return {"serving end": self.server.pid, **self.tunnel}


class Bulk:
    def __init__(self, program, tool, lab, sides, figures):
        self.program, self.tool, self.lab, self.sides, self.figures = program, tool, lab, sides, figures
        self.ends = None

    def tasks(self):
        return [
            Task(f"bulk-{direction}-{streams}", (), 2.5, lambda side, direction=direction, streams=streams: self.move(side, direction, streams),
                 self.all_ends)
            for streams in (1, 10) for direction in ("down", "up")]

    def all_ends(self):
        if self.ends is None:
            self.ends = [self.our_ends()]
            if self.sides.stock_tunnel:
                self.ends.append(self.stock_ends(self.sides.stock_tunnel))
        return self.ends

    def our_ends(self):
        directory, _ = make_tunnel(self.program, self.lab, "bulk")
        server = self.tool.start(self.lab, "bulk-server", ["serve", os.path.join(directory, "gateway.conf"), PORT])
        wait_until(lambda: "serving" in server.output(), 10, "the bulk server listens in the tunnel")
        return Ends(OURS, server, ["transfer", os.path.join(directory, "agent.conf"), f"10.1.0.254:{PORT}"], BYTES)

    def stock_ends(self, tunnel):
        server = self.tool.start(self.lab, "bulk-server", ["kernel-serve", tunnel.FAR, PORT], namespace=tunnel.far_namespace, unprivileged=False)
        # Until it listens, there is nobody to ask; the connect of a transfer fails at once.
        probe = ["kernel-transfer", tunnel.FAR, PORT, "down", 1, 1]
        wait_until(lambda: self.ask(probe, namespace=tunnel.namespace, unprivileged=False), 10, "the bulk server listens behind wireguard-go")
        return Ends(
            StockTunnel.name, server, ["kernel-transfer", tunnel.FAR, PORT], STOCK_BYTES, tunnel.processes(), namespace=tunnel.namespace,
            unprivileged=False)

    def ask(self, arguments, **options):
        """Seconds, CPU seconds and peak MB of a transfer; None if it failed."""
        asking = self.tool.start(self.lab, "bulk-transfer", arguments, **options)
        try:
            asking.wait(60)
        finally:
            asking.stop()
        match = re.search(r"bytes (\d+) seconds (\S+) cpu (\S+) peak (\S+)", asking.output())
        self.last_words = asking.last_lines()
        return tuple(float(match[group]) for group in (1, 2, 3, 4)) if match else None

    def move(self, ends, direction, streams):
        name = f"bulk-{direction}-{streams}"
        meter = Meter(ends.processes())
        result = self.ask([*ends.command, direction, streams, ends.total // streams], **ends.options)
        check(result, f"the transfer failed: {result or self.last_words}")
        count, seconds, cpu, peak = result
        self.figures.add_usage(name, ends.name, {**meter.read(), "asking end": (cpu, peak)})
        self.figures.add(name, ends.name, count / 1e6 / seconds)
