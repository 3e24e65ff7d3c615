"""What WireGuard costs by itself: floods of handshakes, many peers, handshakes a second, single operations."""

import base64
import os
import re
import shutil
import socket
import statistics
import subprocess
import time

from bench.report import number, table
from bench.sides import make_tunnel, tree
from interop.namespaces import Pair, StockPeer
from interop.product import bound_udp_ports, key_pair, listens
from interop.system import Failure, free_port, is_root, wait_until

# name: what it is
PROTOCOL = {
    "flood-junk": "bulk transfer from an agent beside 50,000 initiations a second with a wrong mac1 to its port; beside it, the same flood to a "
    "socket that nobody reads",
    "flood-valid": "an agent gets 20,000 initiations a second with a right mac1 from 4,000 addresses: seconds until another peer's connection "
    "stands, and what its memory grows by",
    "peers-10000": "a gateway with 10,000 silent peers, beside one with a single peer",
    "handshakes": "handshakes that a responder with 1,000 peers completes in a second of its CPU time, system calls included",
    "micro": "single operations on one core, beside the same calls from C in the same run",
}
FLOOD_SECONDS = 8
BULK_SECONDS = 4
IDLE_SECONDS = 10
HANDSHAKE_PEERS, HANDSHAKE_RATE, HANDSHAKE_COUNT = 1000, 400, 2000
# name of a figure: what is asked for it, and whether a value (and its ratio to the one beside it) meets that.
WANTED = {
    "flood-junk": ("ratio >= 0.85", lambda value, ratio: ratio >= 0.85),
    "flood-valid-connect": ("<= 5", lambda value, ratio: value <= 5),
    "flood-valid-memory": ("< 1", lambda value, ratio: value < 1),
    "peers-10000-memory": ("< 25", lambda value, ratio: value < 25),
    "peers-10000-start": ("< 1000", lambda value, ratio: value < 1000),
    "peers-10000-idle": ("< 1", lambda value, ratio: value < 1),
    "seal-1420": ("ratio <= 1.05", lambda value, ratio: ratio <= 1.05),
    "open-1420": ("ratio <= 1.05", lambda value, ratio: ratio <= 1.05),
    "seal-1420-allocations": ("0", lambda value, ratio: value == 0),
    "open-1420-allocations": ("0", lambda value, ratio: value == 0),
    "device-out-allocations": ("0", lambda value, ratio: value == 0),
    "device-in-allocations": ("0", lambda value, ratio: value == 0),
    "handshakes-responder": ("ratio >= 0.85", lambda value, ratio: ratio >= 0.85),
    "stack-bulk": (">= 10", lambda value, ratio: value >= 10),
    "stack-bulk-allocations": ("0", lambda value, ratio: value == 0),
    "stack-rr": (">= 1,000,000", lambda value, ratio: value >= 1_000_000),
    "stack-rr-allocations": ("0", lambda value, ratio: value == 0),
    "stack-idle-10000": ("<= 25", lambda value, ratio: value <= 25),
    "stack-time-wait-100000": ("<= 10", lambda value, ratio: value <= 10),
    "stack-long-fat": (">= 0.8", lambda value, ratio: value >= 0.8),
    "stack-lossy-50ms": ("ratio >= 1", lambda value, ratio: ratio >= 1),
}


def processor_seconds(pid):
    """CPU time of a process, to the nanosecond, and of its children: Linux' clock of another process (clock_getcpuclockid(3))."""
    total = 0
    for member in tree(pid):
        try:
            total += time.clock_gettime_ns((~member << 3) | 2)
        except OSError:
            pass
    return total / 1e9


def status_field(pid, field):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{field}:")) / 1024


class Protocol:
    """All figures: by name the unit, our values, and those beside them."""

    def __init__(self, program, tool, lab, service, note):
        self.program, self.tool, self.lab, self.service, self.note = program, tool, lab, service, note
        self.figures = {}
        self.number = 0

    def round(self, only):
        for name, action in (
            ("flood-junk", self.flood_junk), ("flood-valid", self.flood_valid), ("peers-10000", self.many_peers),
            ("handshakes", self.handshakes), ("micro", self.micro), ("stack", self.stack),
        ):
            if only and name not in only:
                continue
            try:
                action()
            except (Failure, OSError, RuntimeError, subprocess.SubprocessError, ValueError) as error:
                self.note(f"{name}: {error}")

    def add(self, name, unit, value, beside=None):
        figure = self.figures.setdefault(name, {"unit": unit, "ours": [], "beside": []})
        figure["ours"].append(value)
        if beside is not None:
            figure["beside"].append(beside)

    def start_listening_agent(self, peers=""):
        """An agent at a known UDP port, with the public key that it answers to."""
        self.number += 1
        directory, port = make_tunnel(self.program, self.lab, f"protocol{self.number}")
        with open(os.path.join(directory, "gateway.conf")) as file:
            configuration = self.lab.write(f"listening{self.number}.conf", file.read() + peers)
        with open(os.path.join(directory, "agent.conf")) as file:
            key = re.search(r"PublicKey\s*=\s*(\S+)", file.read())[1]
        state = self.lab.private_directory(f"listening-state{self.number}")
        agent = self.program.start(self.lab, "listening", [
            "agent", "--wg", configuration, "--target", f"127.0.0.1:{self.service.port}", "--state", state])
        wait_until(lambda: port in bound_udp_ports(agent.pid), 10, "the agent has its UDP socket")
        return agent, state, directory, port, key

    def run_tool(self, *arguments, namespace=None):
        return self.lab.start("bench-tool", [self.tool, *map(str, arguments)], unprivileged=False, namespace=namespace)

    def dial(self, directory):
        return self.program.start(
            self.lab, "dial", ["dial", "--wg", os.path.join(directory, "agent.conf"), "10.1.0.254:80"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)

    @staticmethod
    def ask(dial, path, count=1):
        dial.child.stdin.write(f"GET {path} HTTP/1.1\r\nHost: bulk\r\n\r\n".encode() * count)
        dial.child.stdin.flush()

    def hang_up(self, dial):
        dial.stop(timeout=3)
        dial.child.stdin.close()
        dial.child.stdout.close()

    # Floods

    def flood(self, kind, key, port, rate):
        flood = self.run_tool("flood", kind, key, "127.0.0.1", port, rate, FLOOD_SECONDS)
        wait_until(lambda: flood.is_running and flood.processor_time() > 0.03, 3, "the flood runs")
        return flood

    def sent(self, flood, rate):
        """How many were sent; said if those are fewer than there should be."""
        flood.wait(FLOOD_SECONDS + 5)
        match = re.search(r"sent (\d+)", flood.output())
        sent = int(match[1]) if match else 0
        if sent < 0.9 * rate * FLOOD_SECONDS:
            self.note(f"a flood of {rate} a second had only {sent / FLOOD_SECONDS:.0f} a second")
        return sent

    def flood_junk(self):
        """The flood to a socket that nobody reads takes as much of the machine as the one to the agent, but for the agent's part."""
        agent, state, directory, port, key = self.start_listening_agent()
        dial = self.dial(directory)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 0))
            self.ask(dial, "/large", 500)
            self.transfer(dial, 1)
            rates = {}
            # Twice each, back to back, so that a machine that slows down does not judge.
            for target in (sink.getsockname()[1], port, port, sink.getsockname()[1]):
                before = self.drops(state)
                flood = self.flood("junk", key, target, 50_000)
                rates.setdefault(target == port, []).append(self.transfer(dial, BULK_SECONDS))
                if not flood.is_running:
                    raise RuntimeError("the flood ended before the transfer")
                sent = self.sent(flood, 50_000)
                if target == port and self.drops(state) - before < 0.9 * sent:
                    self.note(f"of {sent} junk initiations the agent saw {self.drops(state) - before}; the others were lost in the kernel")
        self.hang_up(dial)
        agent.stop()
        self.add("flood-junk", "MB/s", statistics.mean(rates[True]), statistics.mean(rates[False]))

    def drops(self, state):
        status = self.program.status(self.lab, state) or {}
        return sum(count for name, count in status.get("counters", {}).items() if name.startswith("dropped: wireguard"))

    @staticmethod
    def transfer(dial, seconds):
        """MB/s of what comes in so many seconds."""
        start, received = time.monotonic(), 0
        descriptor = dial.child.stdout.fileno()
        while (now := time.monotonic()) < start + seconds:
            piece = os.read(descriptor, 1 << 20)
            if not piece:
                raise RuntimeError("the transfer broke off")
            received += len(piece)
        return received / 1e6 / (now - start)

    def flood_valid(self):
        agent, state, directory, port, key = self.start_listening_agent()
        # Once without a flood, so that what any first connection needs is not counted.
        quiet = self.connect(directory)
        before = status_field(agent.pid, "RssAnon")
        flood = self.flood("valid", key, port, 20_000)
        wait_until(lambda: self.cookies(state) > 0, 5, "the agent asks for cookies")
        seconds = self.connect(directory)
        peak = before
        while flood.is_running:
            peak = max(peak, status_field(agent.pid, "RssAnon"))
            time.sleep(0.05)
        self.sent(flood, 20_000)
        replies = self.cookies(state)
        if replies < 1000:
            self.note(f"flood-valid: the agent asked for only {replies} cookies")
        agent.stop()
        self.add("flood-valid-connect", "s", seconds, quiet)
        self.add("flood-valid-memory", "MB", peak - before)

    def cookies(self, state):
        return (self.program.status(self.lab, state) or {}).get("counters", {}).get("handshakes: cookie_reply_sent", 0)

    def connect(self, directory):
        """Seconds from the start of a program that knows no session to the first byte that comes through the tunnel."""
        start = time.monotonic()
        dial = self.dial(directory)
        self.ask(dial, "/small")
        answer = os.read(dial.child.stdout.fileno(), 100)
        seconds = time.monotonic() - start
        self.hang_up(dial)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answer {answer!r}: {dial.last_lines()}")
        return seconds

    # Many peers

    def many_peers(self):
        few, many = self.gateway_with(0), self.gateway_with(10_000)
        self.add("peers-10000-memory", "MB", many["memory"] - few["memory"])
        self.add("peers-10000-start", "ms", many["start"], few["start"])
        self.add("peers-10000-idle", "% of a core", many["idle"], few["idle"])

    def gateway_with(self, count):
        self.number += 1
        directory, port = make_tunnel(self.program, self.lab, f"protocol{self.number}")
        with open(os.path.join(directory, "gateway.conf")) as file:
            text = file.read()
        for index in range(count):
            key = base64.b64encode(os.urandom(32)).decode()
            text += f"\n[Peer]\nPublicKey = {key}\nAllowedIPs = 10.{2 + (index >> 16)}.{index >> 8 & 255}.{index & 255}/32\n"
        configuration = self.lab.write(f"peers{self.number}.conf", text)
        https = free_port()
        start = time.monotonic()
        gateway = self.program.start(self.lab, "gateway-of-many", [
            "gateway", "--wg", configuration, "--route", "app.example.com=10.1.0.2", "--https", f"127.0.0.1:{https}", "--http", "off",
            "--state", self.lab.private_directory(f"peers-state{self.number}")])
        wait_until(
            lambda: listens(gateway.pid, https) and port in bound_udp_ports(gateway.pid), 20, "the gateway listens", interval=0.002)
        seconds = time.monotonic() - start
        time.sleep(1)
        before, began = processor_seconds(gateway.pid), time.monotonic()
        time.sleep(IDLE_SECONDS)
        idle = (processor_seconds(gateway.pid) - before) / (time.monotonic() - began)
        memory = status_field(gateway.pid, "VmRSS")
        gateway.stop()
        return {"start": seconds * 1000, "idle": idle * 100, "memory": memory}

    # Handshakes

    def handshakes(self):
        seed = int.from_bytes(os.urandom(4), "big")
        listing = subprocess.run([self.tool, "handshake-peers", str(seed), str(HANDSHAKE_PEERS)], capture_output=True, text=True, check=True)
        keys = listing.stdout.split()
        stock = self.stock_handshakes(seed, keys)
        sections = "".join(f"\n[Peer]\nPublicKey = {key}\nAllowedIPs = {self.address(index)}/32\n" for index, key in enumerate(keys))
        agent, _, _, port, key = self.start_listening_agent(sections)
        ours = self.shake_hands(seed, key, "127.0.0.1", port, agent.pid)
        agent.stop()
        self.add("handshakes", "a second and core", ours, stock)

    @staticmethod
    def address(index):
        return f"10.2.{index >> 8}.{index & 255}"

    def shake_hands(self, seed, key, address, port, pid, namespace=None):
        before = processor_seconds(pid)
        driver = self.run_tool("handshakes", seed, HANDSHAKE_PEERS, key, address, port, HANDSHAKE_RATE, HANDSHAKE_COUNT, namespace=namespace)
        driver.wait(HANDSHAKE_COUNT / HANDSHAKE_RATE + 20)
        used = processor_seconds(pid) - before
        match = re.search(r"completed (\d+)", driver.output())
        completed = int(match[1]) if match else 0
        if completed < 0.99 * HANDSHAKE_COUNT:
            raise RuntimeError(f"only {completed} of {HANDSHAKE_COUNT} handshakes were completed: {driver.last_lines()}")
        return completed / used

    def stock_handshakes(self, seed, keys):
        missing = [tool for tool in ("ip", "wg", "wireguard-go") if shutil.which(tool) is None]
        if not is_root() or missing or not os.path.exists("/dev/net/tun"):
            self.note("handshakes: wireguard-go is left out: it needs root, Debian's wireguard-go and wireguard-tools, and /dev/net/tun")
            return None
        pair = Pair(self.lab)
        private, public = key_pair()
        peers = [{"key": key, "allowed": [f"{self.address(index)}/32"]} for index, key in enumerate(keys)]
        stock = StockPeer(self.lab, pair.stock, private, ["10.1.0.1/24"], peers, 51820)
        try:
            return self.shake_hands(seed, public, Pair.STOCK, 51820, stock.process.pid, pair.ours.name)
        finally:
            stock.stop()

    # Single operations

    def micro(self):
        self.run_lines("micro")

    def stack(self):
        self.run_lines("stack")

    def run_lines(self, command):
        output = subprocess.run([self.tool, command], capture_output=True, text=True, timeout=300, check=True).stdout
        for line in output.splitlines():
            match = re.fullmatch(r"(\S+) ([\d.e+-]+) (.*?)(?: baseline ([\d.e+-]+) ratio \S+)?", line)
            if not match:
                raise RuntimeError(f"unknown line: {line}")
            self.add(match[1], match[3], float(match[2]), float(match[4]) if match[4] else None)

    # Report

    def results(self):
        listed = []
        for name, figure in self.figures.items():
            ours = statistics.median(figure["ours"])
            beside = statistics.median(figure["beside"]) if figure["beside"] else None
            ratios = [own / other for own, other in zip(figure["ours"], figure["beside"]) if other]
            ratio = statistics.median(ratios) if ratios else None
            wanted = WANTED.get(name)
            met = None if not wanted or (ratio is None and "ratio" in wanted[0]) else wanted[1](ours, ratio)
            listed.append({
                "name": name, "unit": figure["unit"], "ours": {"median": ours, "min": min(figure["ours"]), "max": max(figure["ours"])},
                "beside": beside, "ratio": ratio, "wanted": wanted[0] if wanted else None, "met": met})
        return listed

    @staticmethod
    def show(listed):
        if not listed:
            return
        rows = [["figure", "unit", "kakuremichi", "(min - max)", "beside", "ratio", "wanted", "met"]]
        for item in listed:
            ours = item["ours"]
            rows.append([
                item["name"], item["unit"], number(ours["median"]), f"({number(ours['min'])} - {number(ours['max'])})", number(item["beside"]),
                f"{item['ratio']:.3f}" if item["ratio"] is not None else "-", item["wanted"] or "-",
                {True: "yes", False: "NO", None: "-"}[item["met"]]])
        print()
        table(rows)
        print()
