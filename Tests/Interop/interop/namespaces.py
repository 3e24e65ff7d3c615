"""Network namespaces of the tests' own, and a stock WireGuard peer (wireguard-go, kernel TCP) in one of them."""

import itertools
import os
import random
import subprocess

from .system import wait_until


def ip(*arguments, check=True):
    result = subprocess.run(["ip"] + [str(argument) for argument in arguments], capture_output=True, text=True)
    if check and result.returncode != 0:
        raise RuntimeError(f"ip {' '.join(str(a) for a in arguments)}: {result.stderr.strip()}")
    return result


class Namespace:
    numbers = itertools.count(1)

    def __init__(self, lab, name):
        self.name = f"kakure-{os.getpid()}-{next(Namespace.numbers)}-{name}"
        ip("netns", "add", self.name)
        lab.on_close(lambda: ip("netns", "del", self.name, check=False))
        ip("-n", self.name, "link", "set", "lo", "up")

    def run(self, *arguments, timeout=30, **options):
        command = ["ip", "netns", "exec", self.name] + [str(argument) for argument in arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)


class Pair:
    """Two namespaces joined by a virtual cable: ours (10.77.0.1, fd77::1) and the stock peer's (10.77.0.2, fd77::2)."""

    OURS, STOCK = "10.77.0.1", "10.77.0.2"
    OURS_IPV6, STOCK_IPV6 = "fd77::1", "fd77::2"

    def __init__(self, lab):
        self.ours = Namespace(lab, "ours")
        self.stock = Namespace(lab, "stock")
        tag = random.randrange(1 << 16)
        first, second = f"km{tag:x}a", f"km{tag:x}b"
        ip("link", "add", first, "type", "veth", "peer", "name", second)
        for device, space, address, address6 in (
            (first, self.ours, self.OURS, self.OURS_IPV6), (second, self.stock, self.STOCK, self.STOCK_IPV6)
        ):
            ip("link", "set", device, "netns", space.name)
            ip("-n", space.name, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", space.name, "addr", "add", f"{address6}/64", "dev", device, "nodad")
            ip("-n", space.name, "link", "set", device, "up")


class StockPeer:
    """wireguard-go on a TUN device in its namespace, with addresses and routes as wg-quick would set them."""

    def __init__(self, lab, space, private_key, addresses, peers, listen_port=None, mtu=1420):
        self.lab, self.space = lab, space
        self.interface = f"kmwg{random.randrange(1 << 24):x}"
        self.key_file = lab.write(f"{self.interface}.key", private_key + "\n")
        self.addresses, self.peers, self.listen_port, self.mtu = addresses, peers, listen_port, mtu
        self.socket = f"/var/run/wireguard/{self.interface}.sock"
        lab.on_close(self.remove_socket)
        self.start()

    def start(self):
        self.process = self.lab.start(
            "wireguard-go", ["wireguard-go", "-f", self.interface], unprivileged=False, namespace=self.space.name)
        wait_until(lambda: os.path.exists(self.socket), 10, "wireguard-go makes its control socket")
        self.configure()
        for address in self.addresses:
            family = ["nodad"] if ":" in address else []
            ip("-n", self.space.name, "addr", "add", address, "dev", self.interface, *family)
        ip("-n", self.space.name, "link", "set", self.interface, "mtu", self.mtu, "up")

    def configure(self):
        command = ["wg", "set", self.interface, "private-key", self.key_file]
        if self.listen_port:
            command += ["listen-port", self.listen_port]
        for peer in self.peers:
            command += ["peer", peer["key"], "allowed-ips", ",".join(peer["allowed"])]
            for option in ("preshared-key", "endpoint", "persistent-keepalive"):
                if option in peer:
                    command += [option, peer[option]]
        result = self.space.run(*command)
        if result.returncode != 0:
            raise RuntimeError(f"wg set: {result.stderr.strip()}")

    def last_handshake(self):
        """Unix time of the last handshake with the first peer, 0 before it."""
        fields = self.space.run("wg", "show", self.interface, "latest-handshakes").stdout.split()
        return int(fields[1]) if len(fields) > 1 else 0

    def stop(self):
        self.process.stop()
        wait_until(lambda: not os.path.exists(self.socket), 5, "wireguard-go removes its control socket")

    def remove_socket(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
