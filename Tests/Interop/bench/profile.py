"""Runs one workload under perf and prints where the CPU time of our processes goes: profile.py [--seconds N] [--tool BENCH] [--keep FILE] WORKLOAD PROGRAM"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import closing

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.bulk import PORT  # noqa: E402
from bench.https import TLS_THREADS  # noqa: E402
from bench.processes import run  # noqa: E402
from bench.report import table  # noqa: E402
from bench.service import DOMAIN, Service  # noqa: E402
from bench.sides import FAULTS, Ours, make_tunnel, wait_until_answered  # noqa: E402
from bench.stages import STAGES, by_stage, samples  # noqa: E402
from interop.product import Program  # noqa: E402
from interop.system import Lab, check, is_root, wait_until  # noqa: E402

WORKLOADS = ("bulk-down-1", "bulk-up-1", "https-64", "https-1", "h2-16x16", "tls-new")
# Of one data segment: 1,420 bytes without IPv4, TCP and timestamps.
TEXT = 1420 - 52
# A transfer lasts so much longer than perf looks, in seconds: perf takes its time to begin.
MARGIN = 3


class Profile:
    def __init__(self, program, tool, lab, seconds):
        self.program, self.tool, self.lab, self.seconds = program, tool, lab, seconds
        self.data = os.path.join(lab.directory, "perf.data")

    def record(self, processes):
        command = ["perf", "record", "--quiet", "-e", "cpu-clock", "-F", "999", "-g", "-o", self.data, "-p",
                   ",".join(str(pid) for pid in processes.values()), "--", "sleep", str(self.seconds)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=self.seconds + 30)
        check(os.path.exists(self.data), f"perf record: {(result.stdout + result.stderr).strip()[-300:]}")

    def bulk(self, direction):
        """Processes, what a unit is, and units a second."""
        directory, _ = make_tunnel(self.program, self.lab, "bulk")
        server = self.tool.start(self.lab, "bulk-server", ["serve", os.path.join(directory, "gateway.conf"), PORT])
        wait_until(lambda: "serving" in server.output(), 10, "the server listens in the tunnel")

        def transfer(size):
            return self.tool.start(self.lab, "bulk-transfer", [
                "transfer", os.path.join(directory, "agent.conf"), f"10.1.0.254:{PORT}", direction, 1, size])

        rate = self.rate(transfer(200_000_000))
        asking = transfer(int(rate * (self.seconds + MARGIN)))
        wait_until(lambda: asking.processor_time() > 0.1, 10, "the transfer runs")
        names = ("sender", "receiver") if direction == "down" else ("receiver", "sender")
        processes = dict(zip(names, (server.pid, asking.pid)))
        self.record(processes)
        return processes, f"packet of {TEXT} bytes of data", self.rate(asking) / TEXT

    @staticmethod
    def rate(asking):
        """Bytes a second of a transfer."""
        asking.wait(90)
        match = re.search(r"bytes (\d+) seconds (\S+)", asking.output())
        check(match, f"the transfer failed: {asking.last_lines()}")
        return int(match[1]) / float(match[2])

    def https(self, connections):
        ours = Ours(self.program, self.lab, Service(self.lab))
        wait_until_answered(ours)
        wrk = self.lab.start("wrk", [
            "wrk", "--threads", "1", "--connections", str(connections), "--duration", "600s",
            f"https://{DOMAIN}:{ours.port}/small"])
        wait_until(lambda: wrk.processor_time() > 0.1, 10, "requests come")
        self.record(ours.path())
        # Then it says what it has done.
        wrk.stop(signal.SIGINT)
        match = re.search(r"Requests/sec:\s+([\d.]+)", wrk.output())
        check(match, f"wrk: {wrk.output()[-300:]}")
        return ours.path(), "request", float(match[1])

    def h2(self):
        ours = Ours(self.program, self.lab, Service(self.lab))
        wait_until_answered(ours)
        duration = int(self.seconds) + MARGIN
        h2load = self.lab.start("h2load", [
            "h2load", "--threads=1", "--clients=16", "--max-concurrent-streams=16", f"--duration={duration}",
            f"https://{DOMAIN}:{ours.port}/small"])
        wait_until(lambda: h2load.processor_time() > 0.1, 10, "requests come")
        self.record(ours.path())
        h2load.wait(30)
        match = re.search(r"(\d+) succeeded", h2load.output())
        check(match, f"h2load: {h2load.output()[-300:]}")
        return ours.path(), "request", int(match[1]) / duration

    def new_connections(self):
        ours = Ours(self.program, self.lab, Service(self.lab))
        wait_until_answered(ours)
        client = self.tool.start(self.lab, "tls", [
            "tls", "127.0.0.1", ours.port, DOMAIN, "/small", TLS_THREADS, int(self.seconds) + MARGIN])
        wait_until(lambda: client.processor_time() > 0.1, 10, "connections come")
        self.record(ours.path())
        client.wait(30)
        match = re.search(r"connections (\d+) failed \d+ seconds (\S+)", client.output())
        check(match, f"tls: {client.output()[-300:]}")
        return ours.path(), "connection with a request", int(match[1]) / float(match[2])

    def run(self, workload):
        kind, *rest = workload.split("-")
        work = {"bulk": lambda: self.bulk(rest[0]), "https": lambda: self.https(int(rest[0])), "h2": self.h2,
            "tls": self.new_connections}
        processes, unit, rate = work[kind]()
        text, _ = run(["perf", "script", "-i", self.data, "-F", "pid,time,period,ip,sym,dso"], 120)
        spent, seconds = by_stage(samples(text))
        check(seconds > self.seconds / 2, f"perf took samples for {seconds:.1f} s only")
        self.show(workload, processes, unit, rate * seconds, spent, seconds)

    @staticmethod
    def show(workload, processes, unit, units, spent, seconds):
        print(f"\n{workload}: {units / seconds:,.0f} a second under perf; a unit is a {unit}\n")
        rows = [["stage", *(cell for name in processes for cell in (f"{name} %", "us / unit"))]]
        found = [spent.get(pid, dict.fromkeys(STAGES, 0)) for pid in processes.values()]
        for stage in STAGES:
            if any(stages[stage] for stages in found):
                rows.append([stage, *(cell for stages in found for cell in (
                    f"{100 * stages[stage] / max(1, sum(stages.values())):.1f}", f"{stages[stage] / 1e3 / units:.2f}"))])
        rows.append(["all", *(cell for stages in found for cell in (
            f"{sum(stages.values()) / seconds / 1e7:.0f} of a core", f"{sum(stages.values()) / 1e3 / units:.2f}"))])
        table(rows)


def main():
    parser = argparse.ArgumentParser(prog="scripts/profile")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--keep", help="where the file of perf is kept")
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("program")
    arguments = parser.parse_args()
    if shutil.which("perf") is None:
        print("no profile: perf is missing (Debian: linux-perf)")
        return 0
    if not is_root():
        print("without root perf may see nothing of the kernel: its share then counts as 'other'")
    with closing(Program(arguments.program)) as program, closing(Program(arguments.tool)) as tool, closing(Lab("profile")) as lab:
        profile = Profile(program, tool, lab, arguments.seconds)
        try:
            profile.run(arguments.workload)
            if arguments.keep:
                shutil.copy(profile.data, arguments.keep)
        except FAULTS as error:
            print(f"no profile: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
