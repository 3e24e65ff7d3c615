"""What several loops of one gateway cost: CPU seconds a GB with one loop and with two, with agents that move bytes at the same time.
loops.py [--rounds N] [--megabytes N] [--loops LIST] [--agents LIST] [--rate N] [--json FILE] PROGRAM

`--agents 2,2` (the default) is the same load on one loop and on two; `--agents 1,2` the same load on each loop. The agents' keys are chosen so
that with as many loops each has one of them. Where the machine has no more cores than that, the agents run
on the same ones: then the rate says nothing, and only the gateway's CPU time does."""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.service import LARGE, Service  # noqa: E402
from interop.nodes import Agent, Gateway  # noqa: E402
from interop.product import Program, key_pair, key_pair_of_loop, wg_quick  # noqa: E402
from interop.system import Lab, free_port, wait_until  # noqa: E402

TIMEOUT = 120


class Side:
    """A gateway with so many loops, and its agents."""

    def __init__(self, program, lab, service, loops, agents, rate):
        self.program, self.lab, self.loops, self.rate = program, lab, loops, rate
        self.domains = [f"agent{number}.example.com" for number in range(agents)]
        gateway_key, gateway_public = key_pair()
        port = free_port(socket.SOCK_DGRAM)
        peers, self.agents = [], []
        for number in range(agents):
            # With one loop it does not matter; the same rule for both sides.
            private, public = key_pair_of_loop(number, agents)
            address = f"10.1.0.{number + 2}"
            peers.append({"PublicKey": public, "AllowedIPs": f"{address}/32"})
            configuration = wg_quick(private, [f"{address}/24"], [{
                "PublicKey": gateway_public, "AllowedIPs": "10.1.0.1/32", "Endpoint": f"127.0.0.1:{port}", "PersistentKeepalive": "25"}])
            name = f"agent{number}-{loops}"
            self.agents.append(Agent(
                program, lab, lab.write(f"{name}.conf", configuration), f"127.0.0.1:{service.port}", name=name))
        name = f"gateway-{loops}"
        self.gateway = Gateway(
            program, lab, lab.write(f"{name}.conf", wg_quick(gateway_key, ["10.1.0.1/24"], peers, port)),
            [f"{domain}=10.1.0.{number + 2}" for number, domain in enumerate(self.domains)], name=name, 
            options=["--loops", str(loops)] if loops > 1 else [])
        for domain in self.domains:
            wait_until(lambda: self.gateway.edge.status_of(domain, "/small") == 200, 30, f"{domain} is served", interval=0.2)

    def curl(self, domain, *options):
        edge = self.gateway.edge
        command = ["curl", "-sS", "--fail", "--noproxy", "*", "--max-time", str(TIMEOUT), "--output", "/dev/null"]
        if self.rate:
            command += ["--limit-rate", str(self.rate * 1_000_000)]
        return subprocess.Popen(command + edge.curl_options(domain) + list(options))

    def move(self, direction, service, megabytes):
        """All agents at once; answers seconds, bytes, and the CPU seconds of the gateway's threads by name."""
        repeats = max(1, megabytes * 1_000_000 // LARGE)
        before, start = threads(self.gateway.process.pid), time.monotonic()
        for _ in range(repeats):
            if direction == "download":
                children = [self.curl(domain, self.gateway.edge.url(domain, "/large")) for domain in self.domains]
            else:
                children = [
                    self.curl(domain, "--upload-file", service.large, self.gateway.edge.url(domain, "/sink")) for domain in self.domains]
            for child in children:
                if child.wait() != 0:
                    raise RuntimeError(f"curl ended with {child.returncode}")
        seconds = time.monotonic() - start
        after = threads(self.gateway.process.pid)
        return seconds, repeats * LARGE * len(self.domains), {name: after[name] - before.get(name, 0) for name in after}

    def metrics(self):
        text = self.program.run(self.lab, ["status", "--metrics", "--state", self.gateway.state]).stdout
        return {match[1]: int(match[2]) for match in re.finditer(r"^(kakuremichi_loop_\S+) (\d+)$", text, re.MULTILINE)}


def threads(pid):
    """CPU seconds of each thread, the loops' by their number in the group: the tunnel's group is made first."""
    result = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/stat") as file:
                head, _, tail = file.read().rpartition(")")
        except OSError:
            continue
        name, fields = head.partition("(")[2], tail.split()
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        result[f"{name} {task}"] = used
    return result


def count_of(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=200, help="of each agent, direction and round")
    parser.add_argument("--loops", default="1,2", help="the sides, by their loops")
    parser.add_argument("--agents", default="2,2", help="the agents of each side")
    parser.add_argument("--rate", type=int, help="MB/s of each agent at most: below what fills one loop, batches are as small with one as with two")
    parser.add_argument("--json")
    parser.add_argument("program")
    options = parser.parse_args()
    program, lab = Program(options.program), Lab("loops")
    values = {}
    try:
        service = Service(lab)
        pairs = zip(options.loops.split(","), options.agents.split(","), strict=True)
        sides = [Side(program, lab, service, int(loops), int(agents), options.rate) for loops, agents in pairs]
        for number in range(options.rounds):
            for direction in ("download", "upload"):
                for side in sides if number % 2 == 0 else sides[::-1]:
                    seconds, count, used = side.move(direction, service, options.megabytes)
                    busy = sorted(((value, name) for name, value in used.items() if value > 0), reverse=True)
                    entry = values.setdefault(f"{direction}, {count_of(side.loops, 'loop')}, {count_of(len(side.domains), 'agent')}", [])
                    entry.append({
                        "rate": count / seconds / 1e6, "all": sum(used.values()) / count * 1e9,
                        "threads": [(name.rsplit(" ", 1)[0], value / count * 1e9) for value, name in busy[:4]]})
        spread = sides[-1].metrics()
    finally:
        lab.close()
        program.close()
    rows = []
    for name, entries in sorted(values.items()):
        middle = sorted(entries, key=lambda entry: entry["all"])[len(entries) // 2]
        rows.append([
            name, f"{statistics.median(entry['rate'] for entry in entries):.0f}",
            f"{statistics.median(entry['all'] for entry in entries):.2f}",
            f"{min(entry['all'] for entry in entries):.2f} - {max(entry['all'] for entry in entries):.2f}",
            ", ".join(f"{thread} {value:.2f}" for thread, value in middle["threads"])])
    header = ["agents at once", "MB/s", "CPU s/GB", "least - most", "of these, by thread (median round)"]
    widths = [max(len(row[column]) for row in [header] + rows) for column in range(len(header))]
    for row in [header] + rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(f"\n{sides[-1].loops} loops: " + ", ".join(f"{name[12:]} {value}" for name, value in sorted(spread.items())))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"values": values, "loops": spread}, file, indent=1)


if __name__ == "__main__":
    main()
