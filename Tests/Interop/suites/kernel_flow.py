"""Kernel TCP behind wireguard-go against our stack: readers that are slow or stop, MTUs that change, a cable that is pulled out."""

import contextlib
import re
import socket
import statistics
import time

from interop.kernel import (
    FAMILIES, PROGRESS, KernelTunnel, Together, echoed, exchange, inside, kernel_address, receive_pattern, say, send_pattern)
from interop.kernel_target import SlowReader, Target
from interop.namespaces import Namespace, ip
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

ECHO, AGENT, DIALS = 2, 3, (4, 5)
# What one connection may hold, in MB: its send and receive buffer as docs/operations.md has them, and what goes through.
BUFFERS = 8
SLOW_COUNT = 40_000_000


class SUITE(Suite):
    needs_root = True
    timeout = 180
    tools = ["ip", "wg", "wireguard-go", "setpriv"]

    def set_up(self):
        self.tunnel = KernelTunnel(self, [ECHO, AGENT, *DIALS], reaches=["10.2.0.2/32", "fd02::2/128"])
        self.echo = self.tunnel.start_echo(ECHO)
        self.target = Target(self.tunnel, self.tunnel.pair.ours)
        self.agent = self.tunnel.start_agent(AGENT, f"127.0.0.1:{self.target.port}")

    def dialed(self, family):
        return self.tunnel.dialed(DIALS[FAMILIES.index(family)], family)

    def upload(self, family, path, count):
        """From the kernel through the agent to its target."""
        with self.tunnel.connect(family, AGENT, 80) as connection:
            connection.sendall(b"PUT %s HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: %d\r\n\r\n" % (path.encode(), count))
            send_pattern(connection, count)
            connection.settimeout(PROGRESS + 12)
            answer = connection.recv(65536)
            check(answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"right"), f"upload: {answer[:300]!r}")

    @test
    def slow_readers_lose_nothing_and_hinder_nobody(self):
        """All at the same time: each of them needs 13 s."""
        together = Together()
        for action in (self.slow_readers_behind_the_kernel, self.slow_targets_behind_the_agent):
            together.start(action)
        for family in FAMILIES:
            together.start(self.slow_reader_behind_dial, family)
        together.finish(150)

    def slow_readers_behind_the_kernel(self):
        before = self.echo.memory()
        together, readers, connections = Together(), [], []
        for family in FAMILIES:
            for _ in range(2):
                connection = self.tunnel.socket(family)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                connection.connect((kernel_address(family, ECHO), 7))
                connections.append(connection)
                readers.append(SlowReader(connection, SLOW_COUNT))
                together.start(readers[-1].run, name=f"slow reader over {family}")
                together.start(send_pattern, connection, SLOW_COUNT, name=f"sender over {family}")
        for reader in readers:
            check(reader.has_stopped.wait(20), "the slow reader got nothing to read")
        self.others_go_on("echo", lambda family: self.ask(family), lambda family: self.echo_once(family))
        check(together.are_running, "nobody had to wait: the test shows nothing")
        self.memory_is_bounded(self.echo, before, len(readers))
        together.finish(60)
        for connection in connections:
            connection.close()
        self.echo.wait_until_empty(10)

    def slow_targets_behind_the_agent(self):
        before = self.agent.memory()
        together = Together()
        for family in FAMILIES:
            for _ in range(2):
                together.start(self.upload, family, "/slow", SLOW_COUNT, name=f"slow upload over {family}")
        wait_until(lambda: len(self.target.has_stopped) == 4, 20, "the slow uploads are there")
        for has_stopped in self.target.has_stopped:
            check(has_stopped.wait(20), "the slow target got nothing to read")
        self.others_go_on("agent", lambda family: self.upload(family, "/fast", 100), lambda family: self.upload(family, "/fast", 5_000_000))
        check(together.are_running, "nobody had to wait: the test shows nothing")
        self.memory_is_bounded(self.agent, before, 4)
        together.finish(90)
        self.agent.wait_until_empty(10)

    def slow_reader_behind_dial(self, family):
        with self.dialed(family) as (dial, connection):
            before = dial.memory()
            reader = SlowReader(dial, SLOW_COUNT)
            together = Together()
            together.start(reader.run)
            together.start(send_pattern, connection, SLOW_COUNT)
            check(reader.has_stopped.wait(20), "the slow reader got nothing to read")
            time.sleep(5)
            check(together.are_running, "the kernel had not to wait: the test shows nothing")
            self.memory_is_bounded(dial, before, 1)
            together.finish(60)
            connection.shutdown(socket.SHUT_WR)
            dial.end_input()
            check_equal(dial.wait(), 0, "exit code of `dial`")

    def ask(self, family):
        with self.tunnel.connect(family, ECHO) as connection:
            connection.sendall(b"?")
            check_equal(connection.recv(1), b"?", "the answer")

    def echo_once(self, family):
        with self.tunnel.connect(family, ECHO) as connection:
            echoed(connection, 5_000_000)

    def others_go_on(self, name, ask, transfer):
        """Connections beside the ones that stand."""
        times = []
        for _ in range(50):
            for family in FAMILIES:
                start = time.monotonic()
                ask(family)
                times.append(time.monotonic() - start)
        median = statistics.median(times)
        say(f"{name}: beside slow readers a connection with one question takes {median * 1000:.1f} ms, at most {max(times) * 1000:.0f} ms")
        check(median < 0.25, f"{name}: beside slow readers a question takes {median:.2f} s")
        for family in FAMILIES:
            transfer(family)

    def memory_is_bounded(self, node, before, connections):
        grown = node.memory() - before
        say(f"{node.process.name}: {grown:.1f} MB more for {connections} slow connections with {SLOW_COUNT // 1_000_000} MB each")
        check(grown < BUFFERS * connections + 16, f"{node.process.name} takes {grown:.1f} MB more for {connections} connections")

    def in_mid_transfer(self, changes, count=30_000_000):
        """Calls the changes one after another while transfers go both ways in both families."""
        together = Together()

        def dial(family):
            with self.dialed(family) as (dial, connection):
                exchange(dial, connection, count, 120, pace=0.003)

        def echo(family):
            with self.tunnel.connect(family, ECHO) as connection:
                echoed(connection, count, 120, pace=0.003)

        for family in FAMILIES:
            together.start(dial, family, name=f"dial over {family}")
            together.start(echo, family, name=f"echo over {family}")
        for change in changes:
            time.sleep(0.6)
            check(together.are_running, "the transfers were over too soon: the test shows nothing")
            change()
        together.finish(120)

    def set_mtu(self, mtu):
        ip("-n", self.tunnel.kernel.name, "link", "set", self.tunnel.stock.interface, "mtu", mtu)

    @test
    def a_kernel_whose_mtu_changes_in_mid_transfer(self):
        self.in_mid_transfer([lambda mtu=mtu: self.set_mtu(mtu) for mtu in (1280, 1420, 1300)])
        self.set_mtu(1420)

    @test
    def a_kernel_with_a_very_small_mtu(self):
        """Below 1280 there is no IPv6."""
        for mtu in (1000, 576):
            self.set_mtu(mtu)
            with self.tunnel.connect("IPv4", ECHO) as connection:
                echoed(connection, 2_000_000)
            with self.dialed("IPv4") as (dial, connection):
                exchange(dial, connection, 2_000_000)
        self.set_mtu(1420)
        ip("-n", self.tunnel.kernel.name, "addr", "add", "fd00::1/64", "dev", self.tunnel.stock.interface, "nodad")
        wait_until(lambda: self.tunnel.answers("IPv6", ECHO, 7), 10, "IPv6 is back")

    def put_a_network_behind(self, mtu):
        """10.2.0.2 and fd02::2, to which the kernel with the tunnel is the router."""
        self.behind = Namespace(self.lab, "behind")
        kernel = self.tunnel.kernel.name
        self.near, self.far = f"kmr{self.tunnel.stock.interface[4:]}a", f"kmr{self.tunnel.stock.interface[4:]}b"
        ip("link", "add", self.near, "type", "veth", "peer", "name", self.far)
        for device, space, number in ((self.near, kernel, 1), (self.far, self.behind.name, 2)):
            ip("link", "set", device, "netns", space)
            ip("-n", space, "addr", "add", f"10.2.0.{number}/24", "dev", device)
            ip("-n", space, "addr", "add", f"fd02::{number}/64", "dev", device, "nodad")
            ip("-n", space, "link", "set", device, "mtu", mtu, "up")
        ip("-n", self.behind.name, "route", "add", "default", "via", "10.2.0.1")
        ip("-n", self.behind.name, "-6", "route", "add", "default", "via", "fd02::1")
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            check(self.tunnel.set_sysctl(name, 1), f"sysctl {name}")

    def too_bigs(self):
        """ICMP messages of the router that a packet was too big, for each family."""
        ipv4 = self.tunnel.kernel.run("cat", "/proc/net/snmp").stdout
        names, values = [line.split() for line in ipv4.splitlines() if line.startswith("Icmp:")]
        ipv6 = self.tunnel.kernel.run("cat", "/proc/net/snmp6").stdout
        return [int(values[names.index("OutDestUnreachs")]), int(re.search(r"Icmp6OutPktTooBigs\s+(\d+)", ipv6)[1])]

    def connect_from_behind(self, family):
        with inside(self.behind):
            opened = socket.socket(socket.AF_INET if family == "IPv4" else socket.AF_INET6)
        opened.settimeout(PROGRESS)
        opened.connect((kernel_address(family, ECHO), 7))
        return opened

    def change_path_in_mid_transfer(self, change):
        together = Together()

        def transfer(family):
            with self.connect_from_behind(family) as connection:
                echoed(connection, 20_000_000, 100, pace=0.003)

        for family in FAMILIES:
            together.start(transfer, family, name=family)
        time.sleep(0.5)
        change()
        check(together.are_running, "the transfers were over too soon: the test shows nothing")
        together.finish(100)

    @test
    def a_path_that_becomes_narrower_in_mid_transfer(self):
        """The router says so by ICMP, to us and to the kernel behind it."""
        self.put_a_network_behind(1500)
        for mtu in (1380, 1280):
            before = self.too_bigs()

            def change():
                ip("-n", self.tunnel.kernel.name, "link", "set", self.near, "mtu", mtu)
                ip("-n", self.behind.name, "link", "set", self.far, "mtu", mtu)

            ip("-n", self.tunnel.kernel.name, "link", "set", self.near, "mtu", 1500)
            ip("-n", self.behind.name, "link", "set", self.far, "mtu", 1500)
            self.change_path_in_mid_transfer(change)
            for family, first, last in zip(FAMILIES, before, self.too_bigs()):
                check(last > first, f"{family}: the router never said that a packet is too big: the test shows nothing")

    @contextlib.contextmanager
    def paced_transfers(self, count, pace, timeout):
        """Through `echo`, from `dial` and to it, in both families; all have to be there at the end."""
        together = Together()

        def dial(family, from_us):
            number = DIALS[FAMILIES.index(family)]
            with self.tunnel.dialed(number, family) as (dial, connection):
                ends = (dial, connection) if from_us else (connection, dial)
                inner = Together()
                inner.start(send_pattern, ends[0], count, 0, pace)
                inner.start(receive_pattern, ends[1], count)
                inner.finish(timeout)

        def echo(family):
            with self.tunnel.connect(family, ECHO) as connection:
                echoed(connection, count, timeout, pace)

        for number, family in enumerate(FAMILIES):
            together.start(echo, family, name=f"echo over {family}")
            together.start(dial, family, number == 0, name=f"dial over {family}")
        yield together
        together.finish(timeout)

    @test
    def a_cable_that_is_out_for_a_few_seconds(self):
        """At the kernel's end, where we send into nothing, and at ours, where sending fails."""
        for space in (self.tunnel.kernel, self.tunnel.pair.ours):
            with self.paced_transfers(8_000_000, 0.015, 60) as together:
                time.sleep(0.7)
                self.tunnel.plug(space, False)
                time.sleep(3)
                self.tunnel.plug(space, True)
                check(together.are_running, "the transfers were over too soon: the test shows nothing")
        self.echo.wait_until_empty(10)
