"""Requests over HTTPS at every side: keep-alive connections, new connections, large bodies, start."""

import os
import re
import shutil
import time

from bench.figures import OURS
from bench.processes import Meter, memory, run
from bench.service import DOMAIN, LARGE
from bench.sides import inside, protocols, wait_until_answered
from bench.stock import Stock
from bench.task import Task

# Whole ones: wrk takes no others.
SECONDS = {1: 2, 16: 2, 64: 3, 256: 2}
H2_SECONDS = 2
TLS_SECONDS, TLS_THREADS = 2, 16


class HTTPS:
    def __init__(self, tool, lab, sides, figures, note):
        self.tool, self.lab, self.sides, self.figures, self.note = tool, lab, sides, figures, note

    def tasks(self):
        def web():
            return self.sides.web

        def restarted():
            return [side for side in self.sides.web if not isinstance(side, Stock)]

        return [
            *(self.keep_alive_task(connections, more, web) for connections, more in (
                (1, ()), (16, ()), (64, ("https-64-cpu",)), (256, ("rss-256-busy",)))),
            Task("h2-16x16", ("h2-16x16-p50", "h2-16x16-p99"), H2_SECONDS + 0.4, self.h2, web),
            Task("tls-new", ("tls-new-cpu",), 2.2, self.new_connections, web),
            Task("download-100mb", (), 0.8, self.download, web),
            Task("upload-100mb", (), 0.8, self.upload, web),
            Task("startup", ("rss-idle",), 0.6, self.startup, restarted),
        ]

    def keep_alive_task(self, connections, more, sides):
        name = f"https-{connections}"
        return Task(
            name, (f"{name}-p50", f"{name}-p99", *more), SECONDS[connections] + 0.2, lambda side: self.keep_alive(side, connections), sides)

    def client(self, side, command, timeout):
        if shutil.which(command[0]) is None:
            raise RuntimeError(f"{command[0]} is not installed")
        return run(inside(side) + command, timeout)

    def used(self, name, side, meter, client, seconds):
        """Notes what the processes used since the meter was made, and returns their CPU seconds."""
        used = meter.read()
        self.figures.add_usage(name, side.name, {**used, client: (seconds, None)})
        return {process: cpu for process, (cpu, _) in used.items()}

    # Keep-alive

    def keep_alive(self, side, connections):
        name, seconds = f"https-{connections}", SECONDS[connections]
        meter = Meter(side.processes())
        output, client = self.client(side, [
            "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--latency",
            f"https://{DOMAIN}:{side.port}/small"], seconds + 30)
        peak = sum(memory(pid, "VmHWM") for pid in side.front().values())
        cpu = self.used(name, side, meter, "wrk", client)
        requests = re.search(r"(\d+) requests in", output)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
        if not requests or not rate or int(requests[1]) == 0:
            raise RuntimeError(f"wrk: {output.strip()[-300:]}")
        faults = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", output)
        if faults:
            self.note(f"wrk with {connections} connections on {side.name}: {faults[0]}")
        self.figures.add(name, side.name, float(rate[1]))
        for percentile in (50, 99):
            latency = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)\b", output)
            if latency:
                milliseconds = float(latency[1]) * {"us": 0.001, "ms": 1, "s": 1000}[latency[2]]
                self.figures.add(f"{name}-p{percentile}", side.name, milliseconds)
        if connections == 256:
            self.figures.add("rss-256-busy", side.name, peak)
        # Sides without a tunnel do less work for a request: nothing to compare with.
        if connections == 64 and side.name in (OURS, Stock.name):
            self.figures.add("https-64-cpu", side.name, sum(cpu[process] for process in side.path()) / int(requests[1]) * 1e6)

    def h2(self, side):
        if side.namespace is None and protocols(side) != "h2":
            self.note(f"h2-16x16: {side.name} does not speak HTTP/2")
            return
        meter, log = Meter(side.processes()), os.path.join(self.lab.directory, "h2load.log")
        output, client = self.client(side, [
            "h2load", "--threads=1", "--clients=16", "--max-concurrent-streams=16", f"--duration={H2_SECONDS}", f"--log-file={log}",
            f"https://{DOMAIN}:{side.port}/small"], H2_SECONDS + 30)
        self.used("h2-16x16", side, meter, "h2load", client)
        counts = re.search(r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored", output)
        if not counts or int(counts[1]) == 0:
            raise RuntimeError(f"h2load: {output.strip()[-300:]}")
        if int(counts[2]) + int(counts[3]) > 0:
            self.note(f"h2load on {side.name}: {counts[0]}")
        self.figures.add("h2-16x16", side.name, int(counts[1]) / H2_SECONDS)
        # A line a request: when it began, its status, its microseconds.
        with open(log) as file:
            latencies = sorted(int(line.split("\t")[2]) for line in file)
        os.remove(log)
        for percentile in (50, 99):
            self.figures.add(f"h2-16x16-p{percentile}", side.name, latencies[len(latencies) * percentile // 100] / 1000)

    # New connections

    def new_connections(self, side):
        meter = Meter(side.processes())
        output, client = run(
            inside(side) + [self.tool.path, "tls", "127.0.0.1", str(side.port), DOMAIN, "/small", str(TLS_THREADS), str(TLS_SECONDS)],
            TLS_SECONDS + 30, env=self.tool.environment())
        cpu = self.used("tls-new", side, meter, "client", client)
        match = re.search(r"connections (\d+) failed (\d+) seconds (\S+)", output)
        if not match or int(match[1]) == 0:
            raise RuntimeError(f"tls: {output.strip()[-300:]}")
        if int(match[2]):
            self.note(f"tls-new on {side.name}: {match[2]} connections failed")
        self.figures.add("tls-new", side.name, int(match[1]) / float(match[3]))
        self.figures.add("tls-new-cpu", side.name, sum(cpu[process] for process in side.front()) / int(match[1]) * 1e6)

    # Large bodies

    def curl(self, name, side, *arguments):
        """MB/s of 100 MB, from the first byte on."""
        meter = Meter(side.processes())
        output, client = self.client(side, [
            "curl", "--silent", "--show-error", "--fail", "--http1.1", "--noproxy", "*", "--max-time", "60", "--cacert",
            self.sides.service.certificate, "--output", "/dev/null", "--write-out", "%{time_total} %{time_pretransfer}", *arguments], 90)
        self.used(name, side, meter, "curl", client)
        total, before = map(float, output.split())
        self.figures.add(name, side.name, LARGE / 1e6 / (total - before))

    def download(self, side):
        self.curl("download-100mb", side, f"https://{DOMAIN}:{side.port}/large")

    def upload(self, side):
        self.curl("upload-100mb", side, "--upload-file", self.sides.service.large, f"https://{DOMAIN}:{side.port}/sink")

    # Start

    def startup(self, side):
        side.stop_front()
        start = time.monotonic()
        side.start_front()
        wait_until_answered(side, interval=0.002)
        self.figures.add("startup", side.name, (time.monotonic() - start) * 1000)
        self.add_idle(side)

    def add_idle(self, side):
        """Of a front that has answered once."""
        self.figures.add("rss-idle", side.name, sum(memory(pid) for pid in side.front().values()))
