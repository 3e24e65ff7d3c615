"""Kernel TCP behind wireguard-go against our stack: what gets lost or stands still at the ends of connections."""

import signal
import socket
import time

from interop.kernel import (
    FAMILIES, PROGRESS, KernelTunnel, Together, echoed, expect_end, inside, kernel_address, receive_pattern, reset, send_pattern)
from interop.namespaces import Namespace, ip
from interop.nodes import Origin
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

TRANSFER = 5_000_000
ECHO, AGENT, DIAL = 2, 3, 4


class SUITE(Suite):
    needs_root = True
    timeout = 120
    tools = ["ip", "wg", "wireguard-go", "setpriv"]

    def set_up(self):
        self.tunnel = KernelTunnel(self, [ECHO, AGENT, DIAL], reaches=["10.2.0.2/32", "fd02::2/128"])
        self.echo = self.tunnel.start_echo(ECHO)

    @test
    def what_dial_sends_last_arrives_though_the_kernel_ended_first(self):
        with self.tunnel.dialed(DIAL, "IPv4") as (dial, connection):
            connection.shutdown(socket.SHUT_WR)
            together = Together()
            together.start(receive_pattern, connection, TRANSFER)
            send_pattern(dial, TRANSFER)
            dial.end_input()
            together.finish(60)
            expect_end(connection)
            check_equal(dial.wait(), 0, "exit code of `dial`")

    @test
    def what_an_agent_has_taken_arrives_though_it_is_told_to_end(self):
        """The whole answer is in its send buffer; the kernel reads it slowly."""
        origin = Origin(self.lab, self.tunnel.pair.ours.name, port=8080)
        agent = self.tunnel.start_agent(AGENT, origin.target)
        agent.process.expected_to_run = False
        with self.tunnel.socket("IPv4") as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.connect((kernel_address("IPv4", AGENT), 80))
            connection.sendall(b"GET /bytes/250000 HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n")
            wait_until(lambda: agent.metrics()["kakuremichi_tcp_buffered_bytes"] > 100_000, 10, "the answer is in the send buffer")
            agent.process.send_signal(signal.SIGTERM)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            for received in range(0, 250_000, 10_000):
                receive_pattern(connection, 10_000, received)
                time.sleep(0.1)
            expect_end(connection)

    @test
    def a_reset_ends_a_dial_that_waits_for_its_input(self):
        with self.tunnel.dialed(DIAL, "IPv4") as (dial, connection):
            reset(connection)
            check(dial.wait(5) > 0, "`dial` took a reset for a good end")

    @test
    def a_dial_whose_output_is_closed_tells_the_kernel(self):
        with self.tunnel.dialed(DIAL, "IPv4") as (dial, connection):
            dial.outcome.close()
            try:
                while True:
                    send_pattern(connection, 100_000)
            except (ConnectionResetError, BrokenPipeError):
                pass
            check(dial.wait() > 0, "`dial` could not write and says nothing")

    @test
    def a_path_that_swallows_large_packets_in_mid_transfer(self):
        """The far end of a cable behind the kernel drops what is longer than its own MTU, and nobody says so."""
        behind, kernel = Namespace(self.lab, "behind"), self.tunnel.kernel.name
        near, far = f"kmr{self.tunnel.stock.interface[4:]}a", f"kmr{self.tunnel.stock.interface[4:]}b"
        ip("link", "add", near, "type", "veth", "peer", "name", far)
        for device, space, number in ((near, kernel, 1), (far, behind.name, 2)):
            ip("link", "set", device, "netns", space)
            ip("-n", space, "addr", "add", f"10.2.0.{number}/24", "dev", device)
            ip("-n", space, "addr", "add", f"fd02::{number}/64", "dev", device, "nodad")
            ip("-n", space, "link", "set", device, "up")
        ip("-n", behind.name, "route", "add", "default", "via", "10.2.0.1")
        ip("-n", behind.name, "-6", "route", "add", "default", "via", "fd02::1")
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            check(self.tunnel.set_sysctl(name, 1), f"sysctl {name}")
        together = Together()

        def transfer(family):
            with inside(behind):
                connection = socket.socket(socket.AF_INET if family == "IPv4" else socket.AF_INET6)
            with connection:
                connection.settimeout(PROGRESS)
                connection.connect((kernel_address(family, ECHO), 7))
                echoed(connection, 20_000_000, 100, pace=0.003)

        for family in FAMILIES:
            together.start(transfer, family, name=family)
        time.sleep(0.5)
        ip("-n", behind.name, "link", "set", far, "mtu", 1280)
        check(together.are_running, "the transfers were over too soon: the test shows nothing")
        together.finish(100)
