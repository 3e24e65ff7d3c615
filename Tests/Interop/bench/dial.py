"""Bytes through the programs: `dial` with files and pipes at its ends, an agent with the web service behind it, `echo`."""

import fcntl
import os
import subprocess
import termios
import threading
import time

from bench.figures import OURS
from bench.processes import Meter, memory, processor_seconds, run
from bench.service import LARGE
from bench.sides import inside, make_tunnel
from bench.stock import Stock
from bench.task import Task
from interop.product import bound_udp_ports
from interop.system import check, wait_until

ANSWER = 4096
PIECE = 1 << 20
TIMEOUT = 60


class DialProcess:
    """`dial` with pipes at both ends; killed when a transfer stands still for too long."""

    def __init__(self, program, lab, directory, address):
        self.process = program.start(
            lab, "dial", ["dial", "--wg", os.path.join(directory, "agent.conf"), address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.input, self.output = self.process.child.stdin.fileno(), self.process.child.stdout.fileno()
        for end in (self.input, self.output):
            fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PIECE)
        self.watchdog = threading.Timer(TIMEOUT, self.process.child.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def send(self, text):
        """Until `dial` has taken it: then it is connected."""
        os.write(self.input, text)
        waiting = bytearray(4)
        wait_until(
            lambda: not fcntl.ioctl(self.input, termios.FIONREAD, waiting) and not any(waiting), 20, "`dial` reads its input", interval=0.001)

    def send_file(self, path):
        """Without a copy: its pages go through the pipe."""
        with open(path, "rb") as file:
            left = LARGE
            while left > 0:
                left -= os.splice(file.fileno(), self.input, min(left, PIECE))

    def discard(self, count):
        """The cheapest reader: pages leave the pipe for /dev/null. Gives how many bytes came."""
        received = 0
        with open("/dev/null", "wb") as nothing:
            while received < count and (size := os.splice(self.output, nothing.fileno(), PIECE)):
                received += size
        return received

    def used(self):
        pid = self.process.pid
        return processor_seconds(pid), memory(pid, "VmHWM")

    def end(self):
        self.watchdog.cancel()
        self.process.child.stdin.close()
        self.process.child.stdout.close()
        self.process.stop(timeout=3)


class Dial:
    def __init__(self, program, lab, sides, figures):
        self.program, self.lab, self.sides, self.figures = program, lab, sides, figures
        self.tunnels = {}

    def tasks(self):
        def both():
            return [side for side in self.sides.web if side.name in (OURS, Stock.name)]

        return [
            Task("dial-down", (), 1.5, self.down, both), Task("dial-up", (), 1.5, self.up, both), Task("dial-echo", (), 3, self.echo),
        ]

    def tunnel(self, name, *arguments):
        """The listening program takes the gateway's file, so that `dial`, which knows an endpoint, starts the handshake at once."""
        if name not in self.tunnels:
            directory, port = make_tunnel(self.program, self.lab, f"dial-{name}")
            process = self.program.start(self.lab, f"dial-{name}", [
                name, "--wg", os.path.join(directory, "gateway.conf"), "--state", self.lab.private_directory(f"dial-{name}-state"), *arguments])
            wait_until(lambda: port in bound_udp_ports(process.pid), 10, f"the {name} has its UDP socket")
            self.tunnels[name] = directory, process
        return self.tunnels[name]

    def measure(self, name, listener, arguments, port, transfer):
        directory, process = self.tunnel(listener, *arguments)
        meter = Meter({listener: process.pid})
        dial = DialProcess(self.program, self.lab, directory, f"10.1.0.254:{port}")
        try:
            seconds = transfer(dial)
            self.figures.add_usage(name, OURS, {**meter.read(), "dial": dial.used()})
        finally:
            dial.end()
        self.figures.add(name, OURS, LARGE / 1e6 / seconds)

    def over_agent(self, name, transfer):
        self.measure(name, "agent", ["--target", self.sides.service.address], 80, transfer)

    def curl(self, name, side, *arguments):
        meter = Meter(side.tunnel.processes())
        output, client = run(inside(side) + [
            "curl", "--silent", "--show-error", "--fail", "--max-time", str(TIMEOUT), "--output", "/dev/null", "--write-out",
            "%{time_total} %{time_pretransfer}", *arguments], TIMEOUT + 10)
        self.figures.add_usage(name, side.name, {**meter.read(), "curl": (client, None)})
        total, before = map(float, output.split())
        self.figures.add(name, side.name, LARGE / 1e6 / (total - before))

    def down(self, side):
        if side.name != OURS:
            return self.curl("dial-down", side, f"{side.plain_url}/large")

        def transfer(dial):
            dial.send(b"GET /large HTTP/1.1\r\nHost: bulk\r\nConnection: close\r\n\r\n")
            start = time.monotonic()
            received = dial.discard(LARGE)
            check(received >= LARGE, f"only {received} bytes came")
            return time.monotonic() - start

        return self.over_agent("dial-down", transfer)

    def up(self, side):
        if side.name != OURS:
            return self.curl("dial-up", side, "--upload-file", self.sides.service.large, f"{side.plain_url}/sink")

        def transfer(dial):
            dial.send(f"POST /sink HTTP/1.1\r\nHost: bulk\r\nContent-Length: {LARGE}\r\n\r\n".encode())
            start = time.monotonic()
            dial.send_file(self.sides.service.large)
            answer = os.read(dial.output, ANSWER)
            check(answer.startswith(b"HTTP/1.1 204"), f"answer {answer[:100]!r}")
            return time.monotonic() - start

        return self.over_agent("dial-up", transfer)

    def echo(self):
        def transfer(dial):
            dial.send(b"x")
            start = time.monotonic()
            sender = threading.Thread(target=dial.send_file, args=(self.sides.service.large,))
            sender.start()
            received = dial.discard(LARGE + 1)
            sender.join(TIMEOUT)
            check(received > LARGE, f"only {received} bytes came back")
            return time.monotonic() - start

        self.measure("dial-echo", "echo", ["--listen-port", "7"], 7, transfer)
