"""Our gateway with two loops, unprivileged, in front of two stock WireGuard peers (wireguard-go, kernel TCP): one for each loop."""

import copy
import re
import threading
import time

from interop.client import curl, download
from interop.namespaces import Pair, StockPeer
from interop.nodes import Gateway, Origin
from interop.origin import PAGE
from interop.product import key_pair, key_pair_of_loop, wg_quick
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

LARGE = 50_000_000
UDP_PORT = 51823
LOOPS = 2
# By loop: the first peer comes over IPv4, the second over IPv6.
DOMAINS = ["first.example.com", "second.example.com"]


class SUITE(Suite):
    needs_root = True
    tools = ["ip", "wg", "wireguard-go", "curl", "setpriv"]

    def set_up(self):
        lab = self.lab
        # The program may not write to /var/run/wireguard and takes this.
        runtime, shared = lab.private_directory("runtime"), self.program
        self.program = copy.copy(shared)
        self.program.environment = lambda **more: shared.environment(**{"XDG_RUNTIME_DIR": runtime, **more})
        self.pair = Pair(lab)
        gateway_key, self.gateway_public = key_pair()
        self.stocks, peers, routes = [], [], []
        for loop, endpoint in enumerate((Pair.OURS, f"[{Pair.OURS_IPV6}]")):
            private, public = key_pair_of_loop(loop, LOOPS)
            address = f"10.{loop + 1}.0.2"
            self.stocks.append(StockPeer(
                lab, self.pair.stock, private, [f"{address}/24"],
                [{
                    "key": self.gateway_public, "allowed": [f"10.{loop + 1}.0.1/32"], "endpoint": f"{endpoint}:{UDP_PORT}",
                    "persistent-keepalive": "25",
                }]))
            origin = Origin(lab, namespace=self.pair.stock.name, address=address, name=f"origin{loop}")
            peers.append({"PublicKey": public, "AllowedIPs": f"{address}/32"})
            routes.append(f"{DOMAINS[loop]}={address}:{origin.port}")
        configuration = wg_quick(gateway_key, ["10.1.0.1/24", "10.2.0.1/24"], peers, UDP_PORT)
        self.gateway = Gateway(
            self.program, lab, lab.write("gateway.conf", configuration), routes, namespace=self.pair.ours.name,
            options=["--loops", str(LOOPS)])
        self.edge = self.gateway.edge

    def is_served(self, domain):
        try:
            return curl(self.edge.curl_options(domain) + [self.edge.url(domain, "/")], self.pair.ours.name, 5) == PAGE
        except AssertionError:
            return False

    def metrics(self):
        text = self.program.run(self.lab, ["status", "--metrics", "--state", self.gateway.state]).stdout
        return {match[1]: int(match[2]) for match in re.finditer(r"^(kakuremichi_loop_\S+) (\d+)$", text, re.MULTILINE)}

    def datagrams(self, loop, direction):
        return self.metrics()[f'kakuremichi_loop_udp_datagrams_total{{loop="{loop}",direction="{direction}"}}']

    def handed_over(self, kind):
        return self.metrics()[f'kakuremichi_loop_handed_over_total{{kind="{kind}"}}']

    @test
    def both_peers_are_served_after_handshakes_of_theirs(self):
        for domain in DOMAINS:
            wait_until(lambda: self.is_served(domain), 20, f"{domain} is served", interval=0.2)
        check_equal([self.metrics()[f'kakuremichi_loop_peers{{loop="{loop}"}}'] for loop in range(LOOPS)], [1, 1], "peers of the loops")
        check(self.handed_over("initiation") > 0, "no initiation was handed to the second loop")

    @test
    def both_loops_carry_downloads_at_the_same_time(self):
        before = [[self.datagrams(loop, way) for way in ("receive", "send")] for loop in range(LOOPS)]
        faults = []

        def fetch(domain):
            try:
                download(self.edge.curl_options(domain), self.edge.url(domain, f"/bytes/{LARGE}"), LARGE, self.pair.ours.name)
            except AssertionError as fault:
                faults.append(str(fault))

        threads = [threading.Thread(target=fetch, args=(domain,)) for domain in DOMAINS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_equal(faults, [], "faults of the downloads")
        for loop in range(LOOPS):
            received, sent = (self.datagrams(loop, way) - before[loop][number] for number, way in enumerate(("receive", "send")))
            check(received > LARGE // 1500, f"loop {loop} has received {received} datagrams")
            # ACKs: how many depends on how many datagrams a turn brings.
            check(sent > 100, f"loop {loop} has sent {sent} datagrams")
        check_equal(self.handed_over("misdirected"), 0, "datagrams that came to the wrong loop")

    @test
    def a_restarted_gateway_begins_handshakes_with_the_peers_of_both_loops(self):
        """The peers send nothing of their own now; the gateway has to know their endpoints from the state directory."""
        for stock in self.stocks:
            self.pair.stock.run("wg", "set", stock.interface, "peer", self.gateway_public, "persistent-keepalive", "0")
        before = max(stock.last_handshake() for stock in self.stocks)
        wait_until(lambda: int(time.time()) > before, 3, "a new handshake shows a later second")
        check_equal(self.gateway.process.stop(), 0, "exit code of the gateway")
        self.gateway.start()
        for domain in DOMAINS:
            wait_until(lambda: self.is_served(domain), 35, f"{domain} is served again", interval=0.2)
        for stock in self.stocks:
            check(stock.last_handshake() > before, "there was no new handshake")
        status = self.gateway.status()
        for peer in status["peers"]:
            check(peer["handshakes"]["initiation_sent"] > 0, f"ours has not begun: {peer}")
        check_equal(self.handed_over("misdirected"), 0, "datagrams that came to the wrong loop")

    @test
    def another_port_for_both_loops_is_followed(self):
        """The gateway is told by `wg`; its peers follow it, and every datagram still finds its loop."""
        self.gateway.process.stop()
        for stock in self.stocks:
            self.pair.stock.run("wg", "set", stock.interface, "peer", self.gateway_public, "persistent-keepalive", "25")
        self.gateway.arguments += ["--interface", "kloops"]
        self.gateway.start()
        for domain in DOMAINS:
            wait_until(lambda: self.is_served(domain), 35, f"{domain} is served again", interval=0.2)
        result = self.program.run(self.lab, ["wg", "set", "kloops", "listen-port", str(UDP_PORT + 1)])
        check_equal(result.returncode, 0, f"exit code of wg set ({result.stderr.strip()})")
        for domain in DOMAINS:
            download(self.edge.curl_options(domain), self.edge.url(domain, "/bytes/5000000"), 5_000_000, self.pair.ours.name)
        handed = self.handed_over("misdirected")
        for domain in DOMAINS:
            download(self.edge.curl_options(domain), self.edge.url(domain, "/bytes/5000000"), 5_000_000, self.pair.ours.name)
        check_equal(self.handed_over("misdirected"), handed, "datagrams that came to the wrong loop")
        check_equal(self.gateway.status()["interface"]["listenPort"], UDP_PORT + 1, "port")
