"""UDP of the kernel behind a stock WireGuard peer, the example `TunnelEchoUDP` at our side."""

import json
import sys

from interop.namespaces import Pair, StockPeer
from interop.product import key_pair, wg_quick
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

UDP_PORT = 51822

# Runs in the stock peer's namespace: sends to the echo and prints what came of it as JSON.
CLIENT = """
import json, os, socket, sys
mode, address, port, size, count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(2)
if mode == "leave":
    for _ in range(count):
        sock.sendto(b"x", (address, port))
    print(json.dumps(sock.getsockname()[1]))
    sys.exit(0)
if mode == "connect":
    sock.connect((address, port))
    ask, hear = sock.send, lambda: (sock.recv(65535), (address, port))
else:
    ask, hear = lambda data: sock.sendto(data, (address, port)), lambda: sock.recvfrom(65535)
good = lost = 0
window = {}
try:
    for number in range(count):
        data = number.to_bytes(4, "big")[-size:] + os.urandom(max(0, size - 4))
        ask(data)
        window[data] = window.get(data, 0) + 1
        if len(window) < 16 and number + 1 < count:
            continue
        while window:
            answer, source = hear()
            if source[:2] != (address, port) or answer not in window:
                raise SystemExit(f"{len(answer)} bytes from {source}")
            good += window.pop(answer)
    print(json.dumps({"good": good}))
except ConnectionRefusedError:
    print(json.dumps({"refused": True}))
except TimeoutError:
    print(json.dumps({"good": good, "missing": len(window)}))
"""


class SUITE(Suite):
    needs_root = True
    tools = ["ip", "wg", "wireguard-go", "setpriv"]

    def set_up(self):
        lab = self.lab
        self.pair = Pair(lab)
        our_key, our_public = key_pair()
        stock_key, stock_public = key_pair()
        self.stock = StockPeer(
            lab, self.pair.stock, stock_key, ["10.1.0.1/24", "fd00::1/64"],
            [{"key": our_public, "allowed": ["10.1.0.2/32", "10.1.0.3/32", "fd00::2/128"]}], UDP_PORT)
        configuration = wg_quick(
            our_key, ["10.1.0.2/32", "10.1.0.3/32", "fd00::2/128"],
            [{
                "PublicKey": stock_public, "AllowedIPs": "10.1.0.1/32, fd00::1/128",
                "Endpoint": f"{Pair.STOCK}:{UDP_PORT}", "PersistentKeepalive": 25,
            }])
        example = self.program.companion("TunnelEchoUDP")
        lab.on_close(example.close)
        self.echo = example.start(
            lab, "echo", [lab.write("echo.conf", configuration)], namespace=self.pair.ours.name)

    def client(self, mode, address, port=7, size=64, count=1):
        result = self.stock.space.run(sys.executable, "-c", CLIENT, mode, address, port, size, count)
        check(result.returncode == 0, f"the client at {address}: {result.stdout}{result.stderr}")
        return json.loads(result.stdout)

    @test
    def datagrams_come_back_over_ipv4_and_ipv6(self):
        for address in ("10.1.0.2", "fd00::2"):
            wait_until(lambda: self.client("ask", address) == {"good": 1}, 20, f"an echo from {address}", interval=0.2)

    @test
    def each_address_answers_as_itself(self):
        for address in ("10.1.0.2", "10.1.0.3"):
            check_equal(self.client("connect", address), {"good": 1}, f"echo from {address}")

    @test
    def thousands_come_back_whole(self):
        for address, size in (("10.1.0.2", 4), ("10.1.0.2", 1392), ("fd00::2", 1372)):
            check_equal(self.client("ask", address, size=size, count=2000), {"good": 2000}, f"{size} bytes, 2,000 times, from {address}")

    @test
    def an_empty_datagram_comes_back(self):
        for address in ("10.1.0.2", "fd00::2"):
            check_equal(self.client("ask", address, size=0), {"good": 1}, f"an empty datagram from {address}")

    @test
    def a_closed_port_is_refused_at_once(self):
        for address in ("10.1.0.2", "fd00::2"):
            check_equal(self.client("connect", address, port=8), {"refused": True}, f"port 8 of {address}")

    @test
    def the_kernels_port_unreachable_is_told(self):
        for address in ("10.1.0.2", "fd00::2"):
            def is_told():
                port = self.client("leave", address, count=20)
                return f"not delivered to port {port}: unreachable" in self.echo.output()

            wait_until(is_told, 10, f"the echo hears that nobody is there any more, from {address}", interval=0.2)
