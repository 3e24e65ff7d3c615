"""New keys every two minutes, with a stock peer, in both roles at once; requests go on all the time. Takes two and a half minutes."""

import time

from interop.client import curl
from interop.namespaces import Pair, StockPeer
from interop.nodes import Agent, Origin
from interop.origin import PAGE
from interop.product import key_pair, wg_quick
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

REKEY_AFTER_TIME = 120
STOCK_PORTS = (51821, 51831)
OUR_PORT = 51832
HOST = ["--header", "Host: app.example.com"]


class SUITE(Suite):
    needs_root = True
    timeout = 240
    tools = ["ip", "wg", "wireguard-go", "curl", "setpriv"]

    def set_up(self):
        lab = self.lab
        self.pair = Pair(lab)
        self.origin = Origin(lab, self.pair.ours.name, port=8080)
        # Tunnel 1: our agent begins. Tunnel 2: the stock peer begins, and we do not know where it is.
        self.tunnels = [self.tunnel(1, STOCK_PORTS[0], None), self.tunnel(2, STOCK_PORTS[1], OUR_PORT)]

    def tunnel(self, number, stock_port, our_port):
        agent_key, agent_public = key_pair()
        stock_key, stock_public = key_pair()
        ours, stock = f"10.{number}.0.2", f"10.{number}.0.1"
        peer = {"key": agent_public, "allowed": [f"{ours}/32"]}
        section = {"PublicKey": stock_public, "AllowedIPs": f"{stock}/32"}
        if our_port:
            peer["endpoint"] = f"{Pair.OURS}:{our_port}"
        else:
            section |= {"Endpoint": f"{Pair.STOCK}:{stock_port}", "PersistentKeepalive": 5}
        configuration = self.lab.write(f"agent{number}.conf", wg_quick(agent_key, [f"{ours}/32"], [section], our_port))
        agent = Agent(self.program, self.lab, configuration, self.origin.target, self.pair.ours.name, name=f"agent{number}")
        return StockPeer(self.lab, self.pair.stock, stock_key, [f"{stock}/24"], [peer], stock_port), agent, ours

    def fetch(self, address):
        return curl(HOST + [f"http://{address}/"], self.pair.stock.name, 3)

    def is_served(self, address):
        try:
            return self.fetch(address) == PAGE
        except AssertionError:
            return False

    @test
    def keys_are_renewed_after_120_s_and_no_request_fails(self):
        for _, _, address in self.tunnels:
            wait_until(lambda: self.is_served(address), 15, f"{address} is served", interval=0.2)
        first = [stock.last_handshake() for stock, _, _ in self.tunnels]
        check(all(first), f"a stock peer shows no handshake: {first}")
        end = time.monotonic() + REKEY_AFTER_TIME + 40
        later = first
        while time.monotonic() < end and not all(now > before for now, before in zip(later, first)):
            for _, _, address in self.tunnels:
                check_equal(self.fetch(address), PAGE, f"the page of {address}")
            later = [stock.last_handshake() for stock, _, _ in self.tunnels]
            time.sleep(0.5)
        spans = [now - before for now, before in zip(later, first)]
        for span, role in zip(spans, ("we began", "the stock peer began")):
            check(REKEY_AFTER_TIME - 2 <= span <= REKEY_AFTER_TIME + 30, f"new keys after {span} s where {role}")
        for _, _, address in self.tunnels:
            check_equal(self.fetch(address), PAGE, f"the page of {address} with new keys")
