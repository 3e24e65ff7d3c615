"""Kernel TCP behind wireguard-go against our stack: many short connections, many transfers at once.
INTEROP_RATE=N: connections a second."""

import json
import os
import sys

from interop.kernel import PROGRESS, KernelTunnel, inside, say
from interop.product import wait_for_port
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

RATE = int(os.environ.get("INTEROP_RATE", "1000"))
PROCESSES = 8
ECHO, AGENT, BULK_AGENT, GATEWAY = 2, 3, 4, 5
DOMAINS = {"IPv4": "app.example.com", "IPv6": "six.example.com"}
BULK_DOMAINS = ["app2.example.com", "six2.example.com"]
TRANSFERS = 100
# What a program may grow by, in MB: first use of its buffers, and what may be in use at once.
GROWTH = 48
# What one connection may hold, in MB: its send and receive buffer as docs/operations.md has them, and what goes through.
BUFFERS = 8


def script(name):
    return [sys.executable, "-B", os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "interop", name)]


class SUITE(Suite):
    needs_root = True
    timeout = 300
    tools = ["ip", "wg", "wireguard-go", "setpriv"]
    seconds, length = 8, 1_000_000

    def set_up(self):
        tunnel = self.tunnel = KernelTunnel(self, [ECHO, AGENT, BULK_AGENT, GATEWAY])
        for space in (tunnel.kernel, tunnel.pair.ours):
            # Connections that the kernel ends first keep their port for a minute.
            tunnel.set_sysctl("net.ipv4.ip_local_port_range", "1024 65535", space)
            tunnel.set_sysctl("net.core.somaxconn", 4096, space)
        self.echo = tunnel.start_echo(ECHO)
        # Port 8080 gives short answers, 8081 long ones.
        # An agent that relays leaves the end of a connection to its web server.
        for space, server, addresses in (
                (tunnel.pair.ours, "closing-server", ["127.0.0.1"]), (tunnel.kernel, "server", ["10.1.0.1", "[fd00::1]"])):
            self.start_server(space, ["churn.py", server, "4"], 8080, addresses)
            self.start_server(space, ["bulk.py", "server"], 8081, addresses)
        self.agent = tunnel.start_agent(AGENT, "127.0.0.1:8080")
        self.bulk_agent = tunnel.start_agent(BULK_AGENT, "127.0.0.1:8081")
        routes = [
            "app.example.com=10.1.0.1:8080", "six.example.com=[fd00::1]:8080", "app2.example.com=10.1.0.1:8081",
            "six2.example.com=[fd00::1]:8081",
        ]
        gateway, self.gateway = tunnel.start_gateway(GATEWAY, routes)
        self.authority = gateway.edge.authority
        with inside(tunnel.pair.ours):
            wait_until(
                lambda: all(gateway.edge.status_of(domain, "/0000000000000000") == 200 for domain in DOMAINS.values()), 20,
                "the gateway answers for both address families", interval=0.2)
        self.edge = gateway.edge

    def start_server(self, space, program, port, addresses):
        arguments = script(program[0]) + program[1:] + [f"{address}:{port}" for address in addresses]
        process = self.lab.start(program[0], arguments, namespace=space.name, unprivileged=False)
        wait_for_port(process, port)

    def churn(self, node, space, kind, *destinations):
        """Short connections at the wanted rate; every one has to succeed, and none may stay."""
        count = RATE * self.seconds
        programs = {node.process.name: node.process, "wireguard-go": self.tunnel.stock.process}
        memory, before = node.memory(), {name: process.processor_time() for name, process in programs.items()}
        machine = self.machine_time()
        # Twice the time, and what a slow machine may need: it is the number of connections that is asked for.
        result = space.run(
            *script("churn.py"), "clients", count, RATE, PROCESSES, kind, *destinations, timeout=self.seconds * 3 + 60)
        check(result.returncode == 0, f"the clients: {result.stderr[-2000:]}")
        answer = json.loads(result.stdout)
        seconds = answer["seconds"]
        machine = [now - then for now, then in zip(self.machine_time(), machine)]
        shares = [f"{name} {(process.processor_time() - before[name]) / seconds * 100:.0f} %" for name, process in programs.items()]
        say(f"{kind}: {count / seconds:.0f} connections/s for {seconds:.1f} s; of {os.cpu_count()} cores: {', '.join(shares)}, "
            f"everything {machine[0] / seconds * 100:.0f} %, of it the kernel {machine[1] / seconds * 100:.0f} %")
        check(not answer["problems"], "\n".join(answer["problems"]))
        check_equal(answer["done"], count, "connections that succeeded")
        node.wait_until_empty(15)
        say(f"{kind}: {node.memory() - memory:.1f} MB more, {node.connections('time_wait')} in TIME-WAIT")
        check(node.memory() - memory < GROWTH, f"{node.process.name} takes {node.memory() - memory:.0f} MB more")

    @staticmethod
    def machine_time():
        """Seconds in use, and of them the kernel's."""
        with open("/proc/stat") as file:
            user, nice, system, _, _, hard, soft = [int(field) / os.sysconf("SC_CLK_TCK") for field in file.readline().split()[1:8]]
        return user + nice + system + hard + soft, system + hard + soft

    @test
    def short_connections_that_the_kernel_begins_and_ends(self):
        self.churn(self.echo, self.tunnel.kernel, "echo", f"10.1.0.{ECHO}:7", f"[fd00::{ECHO}]:7")

    @test
    def short_connections_that_the_kernel_begins_and_we_end(self):
        self.churn(self.agent, self.tunnel.kernel, "http", f"10.1.0.{AGENT}:80", f"[fd00::{AGENT}]:80")

    @test
    def short_connections_that_we_begin_and_end(self):
        self.churn(self.gateway, self.tunnel.pair.ours, "tls", self.authority, self.edge.https_port, *DOMAINS.values())

    def transfers(self, node, space, kind, *where):
        """Many at once, and how evenly they share."""
        memory = node.memory()
        result = space.run(*script("bulk.py"), "clients", TRANSFERS, self.length, kind, PROGRESS * 2, *where, timeout=250)
        check(result.returncode == 0, f"the clients: {result.stderr[-2000:]}")
        answer = json.loads(result.stdout)
        seconds, rates = answer["seconds"], [self.length * 8 / seconds / 1e6 for seconds in answer["times"]]
        check(not answer["problems"], "\n".join(answer["problems"]))
        check_equal(len(rates), TRANSFERS, "transfers that are complete")
        jain = sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))
        say(f"{TRANSFERS} times {self.length:,} bytes in {seconds:.1f} s, {TRANSFERS * self.length * 8 / seconds / 1e6:.0f} Mbit/s: "
            f"each {min(rates):.1f} to {max(rates):.1f}, Jain index {jain:.2f}; {node.memory() - memory:.1f} MB more"
            + (f"; {answer['again']} times 503 and once more" if answer["again"] else ""))
        node.wait_until_empty(15)
        check(node.memory() - memory < TRANSFERS * BUFFERS, f"{node.process.name} takes {node.memory() - memory:.0f} MB more")

    @test
    def a_hundred_transfers_from_us_to_a_kernel_that_dials(self):
        self.transfers(self.bulk_agent, self.tunnel.kernel, "get", f"10.1.0.{BULK_AGENT}:80", f"[fd00::{BULK_AGENT}]:80")

    @test
    def a_hundred_transfers_to_us_from_a_kernel_that_dials(self):
        self.transfers(self.bulk_agent, self.tunnel.kernel, "put", f"10.1.0.{BULK_AGENT}:80", f"[fd00::{BULK_AGENT}]:80")

    @test
    def a_hundred_transfers_to_us_from_a_kernel_that_we_dial(self):
        self.transfers(self.gateway, self.tunnel.pair.ours, "get", "tls", self.authority, self.edge.https_port, *BULK_DOMAINS)

    @test
    def a_hundred_transfers_from_us_to_a_kernel_that_we_dial(self):
        self.transfers(self.gateway, self.tunnel.pair.ours, "put", "tls", self.authority, self.edge.https_port, *BULK_DOMAINS)
