"""A stock WireGuard peer with kernel TCP in a namespace, and several of our programs as its peers in another."""

import contextlib
import ctypes
import os
import re
import select
import socket
import struct
import subprocess
import threading
import time

from .namespaces import Pair, StockPeer, ip
from .nodes import Agent, Gateway
from .origin import PATTERN
from .product import bound_udp_ports, key_pair, wg_quick
from .system import Failure, check, wait_until

UDP_PORT = 51830
FAMILIES = ("IPv4", "IPv6")
# No byte for so long is a stall. Far above any retransmission timeout without an outage.
PROGRESS = 25
CLONE_NEWNET = 0x40000000
# Bits of tcpi_options in struct tcp_info.
TIMESTAMPS, SACK, WINDOW_SCALING = 1, 2, 4
LIBC = ctypes.CDLL(None, use_errno=True)
# A long text to compare with at any offset.
DOUBLE_PATTERN = memoryview(PATTERN + PATTERN)


def kernel_address(family, number=1):
    """Of the kernel: 10.1.0.1, fd00::1."""
    return f"10.1.0.{number}" if family == "IPv4" else f"fd00::{number}"


@contextlib.contextmanager
def inside(namespace):
    """This thread's new sockets belong to the namespace."""

    def enter(descriptor):
        if LIBC.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{namespace.name}", os.O_RDONLY)
    try:
        enter(there)
        yield
    finally:
        enter(home)
        os.close(there)
        os.close(home)


def sysctl_path(name):
    return "/proc/sys/" + name.replace(".", "/")


class Together:
    """Actions in threads; their failures are collected, and each has to end in time."""

    def __init__(self):
        self.problems, self.threads = [], []

    def start(self, action, *arguments, name=None):
        def run():
            try:
                action(*arguments)
            except Exception as error:
                self.problems.append(f"{name or action.__name__}: {error if isinstance(error, Failure) else repr(error)}")

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()

    @property
    def are_running(self):
        return any(thread.is_alive() for thread in self.threads)

    def finish(self, timeout):
        deadline = time.monotonic() + timeout
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
        running = sum(thread.is_alive() for thread in self.threads)
        check(not self.problems and not running, "\n".join(self.problems + ([f"{running} do not end"] if running else [])))


class KernelTunnel:
    """`start` gives each of our programs a key and the address 10.1.0.N, fd00::N; the kernel has number 1."""

    def __init__(self, suite, numbers, reaches=(), mtu=1420):
        self.program, self.lab = suite.program, suite.lab
        self.pair = Pair(self.lab)
        self.kernel = self.pair.stock
        self.keys = {number: key_pair() for number in numbers}
        key, self.public = key_pair()
        peers = [{"key": public, "allowed": self.addresses(number)} for number, (_, public) in self.keys.items()]
        self.stock = StockPeer(self.lab, self.kernel, key, ["10.1.0.1/24", "fd00::1/64"], peers, UDP_PORT, mtu)
        # Each test's connections start from nothing, not from what the kernel remembers of the last one.
        self.set_sysctl("net.ipv4.tcp_no_metrics_save", 1)
        self.sockets = []
        # What else the kernel passes on to us.
        self.reaches = reaches

    @staticmethod
    def addresses(number):
        return [f"10.1.0.{number}/32", f"fd00::{number}/128"]

    def sysctl(self, name):
        with inside(self.kernel), open(sysctl_path(name)) as file:
            return file.read().strip()

    def set_sysctl(self, name, value, space=None):
        """Whether it could be set."""
        try:
            with inside(space or self.kernel), open(sysctl_path(name), "w") as file:
                file.write(str(value))
            return True
        except OSError:
            return False

    def configuration(self, number):
        allowed = ", ".join(["10.1.0.1/32", "fd00::1/128", *self.reaches])
        peer = {
            "PublicKey": self.public, "AllowedIPs": allowed, "Endpoint": f"{Pair.STOCK}:{UDP_PORT}",
            "PersistentKeepalive": 25,
        }
        text = wg_quick(self.keys[number][0], self.addresses(number), [peer])
        return self.lab.write(f"node{number}.conf", text)

    def start_echo(self, number):
        state = self.lab.private_directory(f"echo{number}-state")
        arguments = ["echo", "--wg", self.configuration(number), "--listen-port", "7", "--state", state]
        echo = Node(self, self.program.start(self.lab, f"echo{number}", arguments, namespace=self.pair.ours.name), state)
        wait_until(lambda: bound_udp_ports(echo.pid), 15, "`echo` has its UDP socket")
        for family in FAMILIES:
            wait_until(lambda: self.answers(family, number, 7), 15, f"`echo` answers over {family}")
        return echo

    def start_agent(self, number, target):
        agent = Agent(
            self.program, self.lab, self.configuration(number), target, self.pair.ours.name, name=f"agent{number}")
        for family in FAMILIES:
            wait_until(lambda: self.answers(family, number, 80), 15, f"the agent answers over {family}")
        return Node(self, agent.process, agent.state)

    def start_gateway(self, number, routes):
        gateway = Gateway(
            self.program, self.lab, self.configuration(number), routes, self.pair.ours.name, name=f"gateway{number}")
        return gateway, Node(self, gateway.process, gateway.state)

    def dial(self, number, family, port):
        """`dial` to the kernel, joined to two pipes."""
        state = self.lab.private_directory(f"dial{number}-state")
        destination = f"10.1.0.1:{port}" if family == "IPv4" else f"[fd00::1]:{port}"
        process = self.program.start(
            self.lab, f"dial{number}", ["dial", "--wg", self.configuration(number), destination, "--state", state],
            namespace=self.pair.ours.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return Dial(self, process, state)

    @contextlib.contextmanager
    def dialed(self, number, family):
        """`dial`, and the kernel's end of its connection."""
        listener, port = self.listen(family)
        dial = self.dial(number, family, port)
        try:
            connection = listener.accept()[0]
            with connection:
                connection.settimeout(PROGRESS)
                yield dial, connection
        finally:
            listener.close()
            dial.close()

    def socket(self, family, timeout=PROGRESS):
        with inside(self.kernel):
            opened = socket.socket(socket.AF_INET if family == "IPv4" else socket.AF_INET6)
        opened.settimeout(timeout)
        self.sockets.append(opened)
        return opened

    def connect(self, family, number, port=7, timeout=PROGRESS):
        """The kernel's connection to one of ours."""
        opened = self.socket(family, timeout)
        opened.connect((kernel_address(family, number), port))
        return opened

    def listen(self, family, **options):
        """The kernel listens on a free port."""
        listener = self.socket(family)
        for option, value in options.items():
            listener.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
        listener.bind((kernel_address(family), 0))
        listener.listen(64)
        return listener, listener.getsockname()[1]

    def answers(self, family, number, port):
        try:
            self.connect(family, number, port, 2).close()
            return True
        except OSError:
            return False

    def plug(self, space, is_in):
        """One end of the cable between the namespaces."""
        device = ip("-n", space.name, "-o", "link", "show", "type", "veth").stdout.split()[1].partition("@")[0]
        ip("-n", space.name, "link", "set", device, "up" if is_in else "down")


class Node:
    """One of our programs, as its status, its memory and its processor time show it."""

    def __init__(self, tunnel, process, state):
        self.tunnel, self.process, self.state = tunnel, process, state
        self.pid = process.pid
        self.memory_at_start = self.memory()

    def metrics(self):
        result = self.tunnel.program.run(self.tunnel.lab, ["status", "--metrics", "--state", self.state])
        check(result.returncode == 0, f"`status --metrics`: {result.stderr.strip()}")
        return {name: float(value) for name, value in re.findall(r"^([a-z][^ ]*) (\S+)$", result.stdout, re.MULTILINE)}

    def connections(self, state="open"):
        """In one state, or in all but TIME-WAIT."""
        counts = {
            name.split('"')[1]: int(value) for name, value in self.metrics().items() if name.startswith("kakuremichi_tcp_connections{")}
        return sum(counts.values()) - counts["time_wait"] if state == "open" else counts[state]

    def wait_until_empty(self, timeout, states=("open",)):
        """The agent's own probe comes and goes."""
        for state in states:
            wait_until(
                lambda: self.connections(state) == 0, timeout, f"{self.process.name} has no connection in {state}", interval=0.25)
        buffered = self.metrics()["kakuremichi_tcp_buffered_bytes"]
        check(buffered == 0, f"{buffered:.0f} bytes in the buffers of no connection")

    def memory(self, field="VmRSS"):
        """In MB."""
        with open(f"/proc/{self.pid}/status") as file:
            return int(re.search(rf"{field}:\s*(\d+)", file.read())[1]) / 1024


class Dial(Node):
    """Reads and writes as a socket does, for the functions below."""

    def __init__(self, tunnel, process, state):
        super().__init__(tunnel, process, state)
        self.input, self.outcome = process.child.stdin, process.child.stdout
        self.limit = PROGRESS
        # Its end is a test's to expect.
        process.expected_to_run = False

    def sendall(self, piece):
        self.input.write(piece)
        self.input.flush()

    def recv(self, count):
        if not select.select([self.outcome], [], [], self.limit)[0]:
            raise TimeoutError
        return os.read(self.outcome.fileno(), count)

    def end_input(self):
        self.input.close()

    def wait(self, timeout=PROGRESS):
        return self.process.wait(timeout)

    def close(self):
        with contextlib.suppress(OSError):
            self.input.close()
        self.outcome.close()
        self.process.stop(timeout=5)


def send_pattern(to, count, offset=0, pace=None, chunk=65536):
    while count > 0:
        start = offset % len(PATTERN)
        piece = DOUBLE_PATTERN[start:start + min(count, chunk)]
        to.sendall(piece)
        offset += len(piece)
        count -= len(piece)
        if pace:
            time.sleep(pace)


def receive_pattern(source, count, offset=0, chunk=1 << 18):
    """Reads so many bytes and compares each."""
    remaining = count
    while remaining > 0:
        try:
            piece = source.recv(min(remaining, chunk))
        except TimeoutError:
            raise Failure(f"a stall behind {count - remaining} of {count} bytes") from None
        check(piece, f"the end after {count - remaining} of {count} bytes")
        start = offset % len(PATTERN)
        check(piece == DOUBLE_PATTERN[start:start + len(piece)], f"other bytes than sent, near {offset}")
        offset += len(piece)
        remaining -= len(piece)


def expect_end(source, what="the end of the stream"):
    piece = source.recv(1)
    check(piece == b"", f"{what}: got {piece!r}")


def exchange(near, far, count, timeout=60, pace=None):
    """So many bytes each way, at the same time."""
    together = Together()
    together.start(send_pattern, near, count, 0, pace, name="our sending")
    together.start(send_pattern, far, count, 0, pace, name="the kernel's sending")
    together.start(receive_pattern, near, count, name="our receiving")
    together.start(receive_pattern, far, count, name="the kernel's receiving")
    together.finish(timeout)


def echoed(connection, count, timeout=60, pace=None):
    together = Together()
    together.start(send_pattern, connection, count, 0, pace)
    together.start(receive_pattern, connection, count)
    together.finish(timeout)


def in_both_families(action, timeout=90):
    together = Together()
    for family in FAMILIES:
        together.start(action, family, name=family)
    together.finish(timeout)


def tcp_options(opened):
    """tcpi_options: what was agreed on in the handshake."""
    return opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[5]


def reset(opened):
    """Closes with a reset."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    opened.close()


def netstat(namespace, name):
    """A counter of TcpExt in the namespace."""
    lines = namespace.run("cat", "/proc/net/netstat").stdout.splitlines()
    table = dict(zip(lines[0].split(), lines[1].split()))
    return int(table.get(name, 0))


def say(text):
    """A figure beside a test's line."""
    print(f"    {text}", flush=True)
