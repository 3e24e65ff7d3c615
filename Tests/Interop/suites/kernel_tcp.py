"""Kernel TCP behind wireguard-go against our stack, both ways and in both address families: what a kernel may be set to, and
ends of connections."""

import contextlib
import signal
import socket

from interop.kernel import (
    FAMILIES, SACK, TIMESTAMPS, WINDOW_SCALING, KernelTunnel, Together, echoed, exchange, expect_end, in_both_families, netstat,
    receive_pattern, reset, say, send_pattern, tcp_options)
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

TRANSFER = 5_000_000
ECHO, DIALS = 2, (3, 4)
SETTINGS = {
    "as it is": {},
    "ECN": {"tcp_ecn": 1},
    "no timestamps": {"tcp_timestamps": 0},
    "no SACK": {"tcp_sack": 0},
    "no window scaling": {"tcp_window_scaling": 0},
    "none of the three": {"tcp_timestamps": 0, "tcp_sack": 0, "tcp_window_scaling": 0},
    "Reno": {"tcp_congestion_control": "reno"},
    "CUBIC": {"tcp_congestion_control": "cubic"},
    "SYN cookies": {"tcp_syncookies": 2},
}
OPTIONS = {"tcp_timestamps": TIMESTAMPS, "tcp_sack": SACK, "tcp_window_scaling": WINDOW_SCALING}


class SUITE(Suite):
    needs_root = True
    timeout = 180
    tools = ["ip", "wg", "wireguard-go", "setpriv"]

    def set_up(self):
        self.tunnel = KernelTunnel(self, [ECHO, *DIALS])
        self.echo = self.tunnel.start_echo(ECHO)

    def dialed(self, family):
        return self.tunnel.dialed(DIALS[FAMILIES.index(family)], family)

    @contextlib.contextmanager
    def kernel_set_to(self, values):
        """Yields whether this kernel can be."""
        before = {name: self.tunnel.sysctl(f"net.ipv4.{name}") for name in values}
        try:
            yield all([self.tunnel.set_sysctl(f"net.ipv4.{name}", value) for name, value in values.items()])
        finally:
            for name, value in before.items():
                self.tunnel.set_sysctl(f"net.ipv4.{name}", value)

    def transfers_with(self, name):
        values = SETTINGS[name]
        expected = sum(bit for option, bit in OPTIONS.items() if values.get(option, 1))

        def options_are_right(connection):
            agreed = tcp_options(connection) & sum(OPTIONS.values())
            check_equal(agreed, expected, f"{name}: options agreed on (1 timestamps, 2 SACK, 4 window scaling)")

        def transfer(family):
            with self.tunnel.connect(family, ECHO) as connection:
                options_are_right(connection)
                echoed(connection, TRANSFER)
                connection.shutdown(socket.SHUT_WR)
                expect_end(connection)
            with self.dialed(family) as (dial, connection):
                options_are_right(connection)
                exchange(dial, connection, TRANSFER)
                dial.end_input()
                expect_end(connection)
                connection.close()
                check_equal(dial.wait(), 0, f"{name}: exit code of `dial`")

        with self.kernel_set_to(values) as is_possible:
            if not is_possible:
                return say(f"{name}: this kernel does not let itself be set to {values}")
            in_both_families(transfer)

    @test
    def transfers_with_a_kernel_as_it_is(self):
        self.transfers_with("as it is")

    @test
    def transfers_with_a_kernel_that_wants_ecn(self):
        self.transfers_with("ECN")

    @test
    def transfers_with_a_kernel_without_timestamps(self):
        self.transfers_with("no timestamps")

    @test
    def transfers_with_a_kernel_without_sack(self):
        self.transfers_with("no SACK")

    @test
    def transfers_with_a_kernel_without_window_scaling(self):
        self.transfers_with("no window scaling")

    @test
    def transfers_with_a_kernel_without_options(self):
        self.transfers_with("none of the three")

    @test
    def transfers_with_a_kernel_that_uses_reno(self):
        self.transfers_with("Reno")

    @test
    def transfers_with_a_kernel_that_uses_cubic(self):
        self.transfers_with("CUBIC")

    @test
    def transfers_with_a_kernel_that_sends_syn_cookies(self):
        before = netstat(self.tunnel.kernel, "SyncookiesRecv")
        self.transfers_with("SYN cookies")
        check(netstat(self.tunnel.kernel, "SyncookiesRecv") >= before + 2, "the kernel got no cookie back: the test shows nothing")

    @test
    def the_kernel_ends_its_direction_first(self):
        def half_close(family):
            with self.tunnel.connect(family, ECHO) as connection:
                together = Together()
                together.start(receive_pattern, connection, TRANSFER)
                send_pattern(connection, TRANSFER)
                connection.shutdown(socket.SHUT_WR)
                together.finish(60)
                expect_end(connection)
            with self.dialed(family) as (dial, connection):
                send_pattern(connection, 100_000)
                connection.shutdown(socket.SHUT_WR)
                receive_pattern(dial, 100_000)
                # Ours has seen the kernel's FIN, and sends on.
                together = Together()
                together.start(receive_pattern, connection, TRANSFER)
                send_pattern(dial, TRANSFER)
                together.finish(60)
                dial.end_input()
                expect_end(connection)
                check_equal(dial.wait(), 0, "exit code of `dial`")

        in_both_families(half_close)
        self.echo.wait_until_empty(10)

    @test
    def we_end_our_direction_first(self):
        def half_close(family):
            with self.dialed(family) as (dial, connection):
                send_pattern(dial, 100_000)
                dial.end_input()
                receive_pattern(connection, 100_000)
                expect_end(connection)
                together = Together()
                together.start(receive_pattern, dial, TRANSFER)
                send_pattern(connection, TRANSFER)
                check(dial.process.is_running, "`dial` ended though the kernel had not")
                connection.shutdown(socket.SHUT_WR)
                together.finish(60)
                expect_end(dial, "the end of what `dial` wrote")
                check_equal(dial.wait(), 0, "exit code of `dial`")

        in_both_families(half_close)

    @test
    def both_sides_end_at_once(self):
        def end(family):
            for _ in range(3):
                with self.dialed(family) as (dial, connection):
                    together = Together()
                    together.start(dial.end_input)
                    connection.shutdown(socket.SHUT_WR)
                    together.finish(10)
                    expect_end(connection)
                    check_equal(dial.wait(), 0, "exit code of `dial`")

        in_both_families(end)

    @test
    def a_reset_of_the_kernel_ends_ours_at_once(self):
        for family in FAMILIES:
            for sent in (0, 300_000):
                connection = self.tunnel.connect(family, ECHO)
                send_pattern(connection, sent)
                wait_until(lambda: self.echo.connections() == 1, 10, "the connection is there")
                reset(connection)
                self.echo.wait_until_empty(5)
            with self.dialed(family) as (dial, connection):
                send_pattern(connection, 1000)
                receive_pattern(dial, 1000)
                reset(connection)
                dial.end_input()
                check(dial.wait(5) > 0, "`dial` took a reset for a good end")
                check("reset" in dial.process.errors().lower(), f"`dial` does not say that it was reset: {dial.process.errors()[-300:]}")

    @test
    def what_we_do_not_know_any_more_is_reset(self):
        """`echo` dies without a word; the next one knows nothing of its connections."""
        idle = {family: self.tunnel.connect(family, ECHO) for family in FAMILIES}
        for connection in idle.values():
            echoed(connection, 1000)
        self.echo.process.stop(signal.SIGKILL)
        self.echo = self.tunnel.start_echo(ECHO)
        for family, connection in idle.items():
            connection.sendall(b"x")
            try:
                check(False, f"{family}: no reset, but {connection.recv(1)!r}")
            except ConnectionResetError:
                connection.close()
