"""What many peers and many connections cost: memory, start, CPU at rest."""

import base64
import os
import time

from bench.catalogue import ONE_PEER
from bench.figures import OURS
from bench.processes import memory, processor_seconds, settled_memory
from bench.sides import make_tunnel
from bench.stock import StockTunnel
from bench.task import ONCE, Task
from interop.namespaces import Pair, StockPeer
from interop.product import bound_udp_ports, key_pair, listens
from interop.system import check, free_port, wait_until

IDLE_SECONDS = 4
CONNECTIONS = 10_000


def random_peers(count):
    for index in range(count):
        yield base64.b64encode(os.urandom(32)).decode(), f"10.{2 + (index >> 16)}.{index >> 8 & 255}.{index & 255}/32"


class Peers:
    def __init__(self, program, tool, lab, sides, figures):
        self.program, self.tool, self.lab, self.sides, self.figures = program, tool, lab, sides, figures
        self.number = 0

    def tasks(self):
        return [
            Task("rss-1000-peers", (), 4, self.thousand),
            Task("peers-10000", ("peers-10000-memory", "peers-10000-start", "peers-10000-idle", "rss-10000-peers"), 16, self.ten_thousand,
                 when=ONCE),
            Task("rss-10000-idle", (), 8, self.connections, when=ONCE),
        ]

    def thousand(self):
        gateway, _ = self.gateway_with(1000)
        self.figures.add("rss-1000-peers", OURS, settled_memory(gateway.pid))
        gateway.stop()
        if self.sides.stock_tunnel:
            stock = self.stock_with(1000)
            self.figures.add("rss-1000-peers", StockTunnel.name, settled_memory(stock.process.pid))
            stock.stop()

    def ten_thousand(self):
        values = {}
        for count in (0, 10_000):
            gateway, start = self.gateway_with(count)
            used = settled_memory(gateway.pid)
            before, began = processor_seconds(gateway.pid), time.monotonic()
            # Nothing to wait for: it is rest that is measured.
            time.sleep(IDLE_SECONDS)
            idle = (processor_seconds(gateway.pid) - before) / (time.monotonic() - began) * 100
            gateway.stop()
            values[count] = used, start, idle
        (few, few_start, few_idle), (many, start, idle) = values.values()
        self.figures.add("rss-10000-peers", OURS, many)
        self.figures.add("peers-10000-memory", OURS, many - few)
        for name, value, beside in (("peers-10000-start", start, few_start), ("peers-10000-idle", idle, few_idle)):
            self.figures.add(name, OURS, value)
            self.figures.add(name, ONE_PEER, beside)

    def gateway_with(self, count):
        """A gateway with so many more peers that listens, and the milliseconds until it did."""
        self.number += 1
        directory, port = make_tunnel(self.program, self.lab, f"peers{self.number}")
        with open(os.path.join(directory, "gateway.conf")) as file:
            text = file.read()
        text += "".join(f"\n[Peer]\nPublicKey = {key}\nAllowedIPs = {allowed}\n" for key, allowed in random_peers(count))
        configuration = self.lab.write(f"peers{self.number}.conf", text)
        https = free_port()
        start = time.monotonic()
        gateway = self.program.start(self.lab, "gateway-of-many", [
            "gateway", "--wg", configuration, "--route", "app.example.com=10.1.0.2", "--https", f"127.0.0.1:{https}", "--http", "off",
            "--state", self.lab.private_directory(f"peers-state{self.number}")])
        wait_until(
            lambda: listens(gateway.pid, https) and port in bound_udp_ports(gateway.pid), 20, "the gateway listens", interval=0.002)
        return gateway, (time.monotonic() - start) * 1000

    def stock_with(self, count):
        peers = [{"key": key, "allowed": [allowed]} for key, allowed in random_peers(count)]
        return StockPeer(self.lab, Pair(self.lab).stock, key_pair()[0], ["10.1.0.1/24"], peers, 51820)

    def connections(self):
        """Each has carried a byte there and back."""
        directory, port = make_tunnel(self.program, self.lab, "resting")
        echo = self.program.start(self.lab, "resting-echo", ["echo", "--wg", os.path.join(directory, "gateway.conf"), "--listen-port", "7"])
        wait_until(lambda: port in bound_udp_ports(echo.pid), 10, "`echo` has its UDP socket")
        holder = self.tool.start(
            self.lab, "holder", ["hold", os.path.join(directory, "agent.conf"), "10.1.0.254:7", CONNECTIONS])
        wait_until(lambda: "holding" in holder.output() or not holder.is_running, 60, f"{CONNECTIONS} connections stand")
        check(holder.is_running, f"the connections did not come about:\n{holder.last_lines()}")
        settled_memory(echo.pid)
        self.figures.add("rss-10000-idle", OURS, memory(echo.pid))
        holder.stop()
        echo.stop()
