"""Interleaved rounds of every measurement on both sides, printed as tables:
measure.py [--rounds N] [--json FILE] [--only NAME,...] [--tool BENCH] PROGRAM"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.goodput import GOODPUT, Goodput  # noqa: E402
from bench.protocol import PROTOCOL, Protocol  # noqa: E402
from bench.report import BULK, MEASURES, aead_rate, results, show  # noqa: E402
from bench.sides import DOMAIN, LARGE, Nginx, Ours, Service, memory, processor_time, wait_until_answered  # noqa: E402
from bench.stock import Stock  # noqa: E402
from interop.product import Program, bound_udp_ports  # noqa: E402
from interop.system import Failure, Lab, is_root, wait_until  # noqa: E402

WRK_SECONDS = 3
ECHO_BYTES = 100_000_000
TRANSFER_TIMEOUT = 60


class Run:
    """All values of one run: by measurement and side, and CPU seconds by process."""

    def __init__(self, program, lab, service, only, note):
        self.only, self.note = only, note
        self.program, self.lab = program, lab
        self.values = {name: {} for name in MEASURES}
        self.processor = {name: {} for name in MEASURES}
        self.service = service
        self.sides = [Ours(program, lab, self.service), Nginx(lab, self.service)]
        for side in self.sides:
            wait_until_answered(side)
            # Processes that were asked once, as they stand before any load.
            self.add("rss-idle", side.name, memory(next(iter(side.processes().values())), "VmRSS"))
        self.bulk_tunnel = None
        self.add_stock_peer()

    def add_stock_peer(self):
        missing = [tool for tool in ("ip", "wg", "wireguard-go") if shutil.which(tool) is None]
        if not is_root():
            self.note("wireguard-go with TUN is left out: it needs root")
        elif missing or not os.path.exists("/dev/net/tun"):
            self.note(f"wireguard-go with TUN is left out: {', '.join(missing) or '/dev/net/tun'} is missing")
        else:
            try:
                stock = Stock(self.lab, self.service)
                self.curl(stock, f"https://{DOMAIN}:{stock.port}/large")
                self.sides.append(stock)
            except (Failure, OSError, RuntimeError, subprocess.SubprocessError) as error:
                self.note(f"wireguard-go with TUN is left out: {error}")

    def wants(self, *names):
        return not self.only or any(name in self.only for name in names)

    def add(self, name, side, value):
        self.values[name].setdefault(side, []).append(value)

    def round(self, number):
        order = self.sides if number % 2 == 0 else self.sides[::-1]
        for names, action in (
            (("download-100mb",), self.download), (("upload-100mb",), self.upload), (("https-64",), self.https_64),
            (("https-1", "https-1-p50"), self.https_1), (("startup",), self.startup),
        ):
            if self.wants(*names):
                for side in order:
                    self.guarded(names[0], side, action)
        for name, action in (("bulk-down-1", self.bulk_down), ("bulk-up-1", self.bulk_up), ("bulk-echo", self.bulk_echo)):
            if self.wants(name):
                for side in order:
                    self.guarded(name, side, action)

    def guarded(self, name, side, action):
        """One measurement with the CPU seconds of the processes that took part. A failure is a note."""
        count = len(self.values[name].get(side.name, []))
        before = {process: processor_time(pid) for process, pid in side.processes().items()}
        try:
            more = action(side) or {}
        except (Failure, OSError, RuntimeError, subprocess.SubprocessError, ValueError) as error:
            self.note(f"{name} on {side.name}: {error}")
            return
        if name == "startup":
            return
        used = {process: processor_time(pid) - before.get(process, 0) for process, pid in side.processes().items()}
        if name in BULK and isinstance(side, Ours):
            used = more
        if len(self.values[name].get(side.name, [])) == count:
            return
        for process, seconds in used.items():
            self.processor[name].setdefault(side.name, {}).setdefault(process, []).append(seconds)

    @staticmethod
    def inside(side):
        return ["ip", "netns", "exec", side.namespace] if side.namespace else []

    # Over HTTPS

    def curl(self, side, *arguments):
        command = [
            "curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "60", "--cacert", self.service.certificate,
            "--output", "/dev/null", "--write-out", "%{time_total} %{http_code}", *arguments]
        command = self.inside(side) + command
        result = subprocess.run(command, capture_output=True, text=True, timeout=90)
        if result.returncode != 0:
            raise RuntimeError(f"curl: {result.stderr.strip()}")
        return LARGE / 1e6 / float(result.stdout.split()[0])

    def download(self, side):
        self.add("download-100mb", side.name, self.curl(side, f"https://{DOMAIN}:{side.port}/large"))

    def upload(self, side):
        self.add("upload-100mb", side.name, self.curl(side, "--upload-file", self.service.large, f"https://{DOMAIN}:{side.port}/sink"))

    def wrk(self, side, connections):
        result = subprocess.run(
            self.inside(side) + ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{WRK_SECONDS}s", "--latency",
             f"https://{DOMAIN}:{side.port}/small"], capture_output=True, text=True, timeout=WRK_SECONDS + 30)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", result.stdout)
        median = re.search(r"50%\s+([\d.]+)(us|ms|s)", result.stdout)
        if not rate or not median:
            raise RuntimeError(f"wrk: {(result.stdout + result.stderr).strip()[-300:]}")
        faults = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", result.stdout)
        if faults:
            self.note(f"wrk with {connections} connections on {side.name}: {faults[0]}")
        return float(rate[1]), float(median[1]) * {"us": 0.001, "ms": 1, "s": 1000}[median[2]]

    def https_64(self, side):
        self.add("https-64", side.name, self.wrk(side, 64)[0])

    def https_1(self, side):
        rate, median = self.wrk(side, 1)
        self.add("https-1", side.name, rate)
        self.add("https-1-p50", side.name, median)

    def startup(self, side):
        if isinstance(side, Stock):
            return
        self.peaks(side)
        side.stop_front()
        start = time.monotonic()
        side.start_front()
        wait_until_answered(side, interval=0.002)
        self.add("startup", side.name, (time.monotonic() - start) * 1000)

    def peaks(self, side):
        for process, pid in side.processes().items():
            if process != "origin":
                self.values.setdefault(f"peak {process}", {}).setdefault(side.name, []).append(memory(pid, "VmHWM"))

    # Without TLS, straight through the tunnel: a second agent that is dialled to

    def bulk_address(self, ours):
        """The agent takes the gateway's file here, so that `dial`, which knows an endpoint, starts the handshake at once."""
        if self.bulk_tunnel is None:
            self.bulk_tunnel = ours.init("bulk")
            self.bulk_agent = self.program.start(self.lab, "bulk-agent", [
                "agent", "--wg", os.path.join(self.bulk_tunnel, "gateway.conf"), "--target", f"127.0.0.1:{self.service.port}",
                "--state", self.lab.private_directory("bulk-state")])
            wait_until(lambda: bound_udp_ports(self.bulk_agent.pid), 10, "the second agent has its UDP socket")
        return "10.1.0.254:80"

    def dial(self, directory, address):
        """`dial` with its ends in our hands; killed when a transfer stands still for too long."""
        dial = self.program.start(
            self.lab, "dial", ["dial", "--wg", os.path.join(directory, "agent.conf"), address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        dial.watchdog = threading.Timer(TRANSFER_TIMEOUT, dial.child.kill)
        dial.watchdog.daemon = True
        dial.watchdog.start()
        return dial

    def bulk_down(self, ours):
        if not isinstance(ours, Ours):
            return self.plain(ours, "bulk-down-1", "/large")
        address = self.bulk_address(ours)
        before = processor_time(self.bulk_agent.pid)
        dial = self.dial(self.bulk_tunnel, address)
        dial.child.stdin.write(b"GET /large HTTP/1.1\r\nHost: bulk\r\nConnection: close\r\n\r\n")
        dial.child.stdin.flush()
        received, start = len(os.read(dial.child.stdout.fileno(), 1 << 20)), time.monotonic()
        while received < LARGE and (piece := os.read(dial.child.stdout.fileno(), 1 << 20)):
            received += len(piece)
        seconds = time.monotonic() - start
        used = {"dial": processor_time(dial.pid), "agent": processor_time(self.bulk_agent.pid) - before}
        self.finish(dial)
        if received < LARGE:
            raise RuntimeError(f"only {received} bytes came")
        self.add("bulk-down-1", ours.name, LARGE / 1e6 / seconds)
        return used

    def plain(self, side, name, path, *options):
        """The same through the stock peers' tunnel; nginx without a tunnel has no part in it."""
        if isinstance(side, Stock):
            self.add(name, side.name, self.curl(side, *options, side.plain_url + path))

    def bulk_up(self, ours):
        if not isinstance(ours, Ours):
            return self.plain(ours, "bulk-up-1", "/sink", "--upload-file", self.service.large)
        address = self.bulk_address(ours)
        before = processor_time(self.bulk_agent.pid)
        dial = self.dial(self.bulk_tunnel, address)
        with open(self.service.large, "rb") as file:
            body = file.read()
        start = time.monotonic()
        dial.child.stdin.write(f"POST /sink HTTP/1.1\r\nHost: bulk\r\nContent-Length: {LARGE}\r\n\r\n".encode())
        dial.child.stdin.write(body)
        dial.child.stdin.flush()
        answer = os.read(dial.child.stdout.fileno(), 65536)
        seconds = time.monotonic() - start
        used = {"dial": processor_time(dial.pid), "agent": processor_time(self.bulk_agent.pid) - before}
        self.finish(dial)
        if not answer.startswith(b"HTTP/1.1 204"):
            raise RuntimeError(f"answer {answer[:100]!r}")
        self.add("bulk-up-1", ours.name, LARGE / 1e6 / seconds)
        return used

    def bulk_echo(self, ours):
        if not isinstance(ours, Ours):
            return None
        directory = getattr(self, "echo_tunnel", None)
        if directory is None:
            directory = self.echo_tunnel = ours.init("echo")
            self.echo = self.program.start(
                self.lab, "echo", ["echo", "--wg", os.path.join(directory, "gateway.conf"), "--listen-port", "7"])
            wait_until(lambda: bound_udp_ports(self.echo.pid), 10, "`echo` has its UDP socket")
        before = processor_time(self.echo.pid)
        dial = self.dial(directory, "10.1.0.254:7")

        def send():
            piece = bytes(1_000_000)
            try:
                for _ in range(ECHO_BYTES // len(piece)):
                    dial.child.stdin.write(piece)
                dial.child.stdin.flush()
            except OSError:
                pass

        sender = threading.Thread(target=send)
        sender.start()
        received, start = len(os.read(dial.child.stdout.fileno(), 1 << 20)), time.monotonic()
        while received < ECHO_BYTES and (piece := os.read(dial.child.stdout.fileno(), 1 << 20)):
            received += len(piece)
        seconds = time.monotonic() - start
        used = {"dial": processor_time(dial.pid), "echo": processor_time(self.echo.pid) - before}
        self.finish(dial)
        sender.join(10)
        if received < ECHO_BYTES:
            raise RuntimeError(f"only {received} bytes came back")
        self.add("bulk-echo", ours.name, ECHO_BYTES / 1e6 / seconds)
        return used

    @staticmethod
    def finish(dial):
        dial.watchdog.cancel()
        try:
            dial.child.stdin.close()
        except OSError:
            pass
        dial.child.stdout.close()
        dial.stop(timeout=3)

    def end(self):
        for side in self.sides:
            self.peaks(side)
            front = next(iter(side.processes()))
            self.add("rss-peak", side.name, max(self.values[f"peak {front}"][side.name]))


class Notes:
    """What has to be said beside the figures, each once."""

    def __init__(self):
        self.said = set()

    def __call__(self, text):
        if text not in self.said:
            self.said.add(text)
            print(f"note: {text}", flush=True)


def measure(program, lab, arguments, only):
    service, note = Service(lab), Notes()
    tunnel = Run(program, lab, service, only, note) if not only or any(name in MEASURES for name in only) else None
    protocol = goodput = None
    tools = {**PROTOCOL, **GOODPUT}
    if not only or any(name in tools for name in only):
        if arguments.tool and os.access(arguments.tool, os.X_OK):
            protocol = Protocol(program, arguments.tool, lab, service, note)
            goodput = Goodput(program, arguments.tool, lab, service, note) if not only or "goodput" in only else None
        else:
            note(f"{', '.join(tools)} are left out: the program `bench` is missing beside the one that is measured")
    for count in range(arguments.rounds):
        print(f"round {count + 1} of {arguments.rounds}", flush=True)
        if tunnel:
            tunnel.round(count)
        if protocol:
            protocol.round(only)
    # Its values are means already.
    if goodput:
        goodput.round()
    listed = []
    if tunnel:
        tunnel.end()
        limit = aead_rate()
        listed = results(tunnel, limit)
        show(listed, tunnel, limit, arguments.rounds)
    if protocol:
        figures = protocol.results()
        protocol.show(figures)
        listed += figures
        if goodput:
            goodput.show()
            listed += goodput.results()
        for name, meaning in tools.items():
            if not only or name in only:
                print(f"{name}: {meaning}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(listed, file, indent=2)
            file.write("\n")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--only", default="")
    parser.add_argument("--tool")
    parser.add_argument("--names", action="store_true")
    parser.add_argument("program", nargs="?")
    arguments = parser.parse_args()
    names = [*MEASURES, *PROTOCOL, *GOODPUT]
    if arguments.names:
        print(" ".join(names))
        return 0
    only = [name for name in arguments.only.split(",") if name]
    unknown = [name for name in only if name not in names]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; names: {' '.join(names)}")
        return 0
    program = Program(arguments.program)
    lab = Lab("bench")
    try:
        measure(program, lab, arguments, only)
    except (Failure, OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"no figures: {error}")
    finally:
        lab.close()
        program.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
