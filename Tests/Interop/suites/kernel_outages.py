"""Kernel TCP behind wireguard-go against our stack: a cable that is out for long, a peer that vanishes. Takes five minutes."""

import signal
import time

from interop.kernel import FAMILIES, KernelTunnel, Together, receive_pattern, say, send_pattern
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

ECHO, UPLOADS, DOWNLOADS = 2, (3, 4), (5, 6)
# docs/operations.md: a tunnel connection that gets no answer for so long is broken.
USER_TIMEOUT = 60
SLACK = 10


class Connections:
    """In each address family: a `dial` that sends for long, one that receives, an echo in use and an idle one."""

    def __init__(self, tunnel, limit):
        self.tunnel, self.limit = tunnel, limit
        self.dials, self.ends, self.echoes, self.idle = {}, {}, {}, {}
        for index, family in enumerate(FAMILIES):
            for name, number in (("upload", UPLOADS[index]), ("download", DOWNLOADS[index])):
                listener, port = tunnel.listen(family)
                self.dials[name, family] = tunnel.dial(number, family, port)
                self.ends[name, family] = listener.accept()[0]
                self.ends[name, family].settimeout(limit)
                tunnel.sockets.append(self.ends[name, family])
            self.echoes[family] = tunnel.connect(family, ECHO, timeout=limit)
            self.idle[family] = tunnel.connect(family, ECHO, timeout=limit)
            self.idle[family].sendall(b"before")
            check_equal(self.idle[family].recv(6), b"before", "the answer on a connection that is idle later")

    def close(self):
        for dial in self.dials.values():
            dial.close()
        for opened in [*self.ends.values(), *self.echoes.values(), *self.idle.values()]:
            opened.close()


class SUITE(Suite):
    needs_root = True
    timeout = 420
    tools = ["ip", "wg", "wireguard-go", "setpriv"]

    def set_up(self):
        self.tunnel = KernelTunnel(self, [ECHO, *UPLOADS, *DOWNLOADS])
        self.echo = self.tunnel.start_echo(ECHO)

    def start_transfers(self, connections, count, echoes=None):
        """By name, so that each can be asked how it ended. `echoes` bytes come back as fast as they can."""
        limit, transfers = connections.limit, {}

        def add(name, sender, receiver, count=count, pace=0.015):
            transfers[name] = Together()
            transfers[name].start(send_pattern, sender, count, 0, pace)
            transfers[name].start(receive_pattern, receiver, count)

        for family in FAMILIES:
            dial = {name: connections.dials[name, family] for name in ("upload", "download")}
            for one in dial.values():
                one.limit = limit
            echo = connections.echoes[family]
            add(f"upload over {family}", dial["upload"], connections.ends["upload", family])
            add(f"download over {family}", connections.ends["download", family], dial["download"])
            add(f"echo over {family}", echo, echo, *((echoes, None) if echoes else ()))
        return transfers

    def survives(self, outage):
        connections = Connections(self.tunnel, 80)
        try:
            transfers = self.start_transfers(connections, 10_000_000)
            time.sleep(1)
            self.tunnel.plug(self.tunnel.kernel, False)
            time.sleep(outage)
            self.tunnel.plug(self.tunnel.kernel, True)
            start, problems = time.monotonic(), []
            for name, transfer in transfers.items():
                try:
                    transfer.finish(90)
                    say(f"{name}: complete {time.monotonic() - start:.1f} s after an outage of {outage} s")
                except AssertionError as error:
                    problems.append(f"{name}: {error}")
            check(not problems, "\n".join(problems))
            for family, opened in connections.idle.items():
                opened.sendall(b"after")
                check_equal(opened.recv(5), b"after", f"the answer on the idle connection over {family}")
        finally:
            connections.close()
        self.echo.wait_until_empty(15)

    @test
    def an_outage_of_12_s_is_survived(self):
        self.survives(12)

    @test
    def an_outage_of_30_s_is_survived(self):
        self.survives(30)

    @test
    def an_outage_of_45_s_is_survived(self):
        self.survives(45)

    @test
    def an_outage_of_75_s_ends_connections(self):
        """Ours give up while the cable is out, and say so. The kernel's ends learn it when it is back, from who is still there."""
        connections = Connections(self.tunnel, 120)
        try:
            transfers = self.start_transfers(connections, 20_000_000, 4_000_000_000)
            time.sleep(1)
            self.tunnel.plug(self.tunnel.kernel, False)
            start = time.monotonic()
            for (name, family), dial in sorted(connections.dials.items()):
                process = dial.process
                wait_until(
                    lambda: not process.is_running, start + USER_TIMEOUT + SLACK - time.monotonic(), f"the {name} over {family} is given up")
                seconds = time.monotonic() - start
                say(f"{name} over {family}: given up {seconds:.0f} s after the cable was out")
                check(seconds >= USER_TIMEOUT - 3, f"the {name} is given up after {seconds:.0f} s")
                check(process.child.returncode > 0, "exit code of a `dial` that got no answer")
                check("no answer" in process.errors(), f"`dial` does not say that it got no answer: {process.errors()[-300:]}")
            wait_until(
                lambda: self.echo.connections() <= len(connections.idle), USER_TIMEOUT + SLACK - seconds, "the echoes are given up",
                interval=0.5)
            time.sleep(max(0, start + 75 - time.monotonic()))
            self.tunnel.plug(self.tunnel.kernel, True)
            for family in FAMILIES:
                # The kernel sends again, to somebody who does not know it any more.
                self.is_reset(transfers[f"echo over {family}"], 100)
        finally:
            self.tunnel.plug(self.tunnel.kernel, True)
            connections.close()
        self.echo.wait_until_empty(15)

    def is_reset(self, transfer, timeout):
        try:
            transfer.finish(timeout)
            problem = "none"
        except AssertionError as error:
            problem = str(error)
        check("ConnectionReset" in problem, f"the kernel's end of a connection that we gave up: {problem}")

    @test
    def a_kernel_that_vanishes_is_noticed(self):
        """wireguard-go is killed: nobody answers any more."""
        connections = Connections(self.tunnel, 120)
        try:
            self.start_transfers(connections, 20_000_000)
            time.sleep(1)
            self.tunnel.stock.process.stop(signal.SIGKILL)
            start = time.monotonic()
            dials = connections.dials
            for (name, family), dial in sorted(dials.items(), reverse=True):
                # One that receives still waits for its input.
                wait_until(
                    lambda: not dial.process.is_running or dial.connections() == 0, USER_TIMEOUT + SLACK, f"the {name} over {family} is given up",
                    interval=0.5)
                say(f"{name} over {family}: given up after {time.monotonic() - start:.0f} s")
            self.echo.wait_until_empty(max(1, start + USER_TIMEOUT + SLACK - time.monotonic()))
            say(f"idle connections: given up after {time.monotonic() - start:.0f} s")
        finally:
            connections.close()
        self.tunnel.stock.remove_socket()
        self.tunnel.stock.start()
        wait_until(lambda: self.tunnel.answers("IPv4", ECHO, 7), 60, "`echo` answers the next kernel")
