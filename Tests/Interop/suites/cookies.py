"""Cookies between our agent and a stock peer, forced on either side by a flood of initiations with a valid mac1."""

import os
import sys

from interop.namespaces import Pair, StockPeer
from interop.nodes import Agent
from interop.product import key_pair, wg_quick
from interop.runner import Suite, test
from interop.system import check, wait_until

UDP_PORT, OUR_PORT = 51821, 51822
FLOOD_SECONDS = 14


class SUITE(Suite):
    needs_root = True
    tools = ["ip", "wg", "wireguard-go", "setpriv"]

    def set_up(self):
        lab = self.lab
        self.pair = Pair(lab)
        self.agent_key, self.agent_public = key_pair()
        self.stock_key, self.stock_public = key_pair()
        with open(os.path.join(os.path.dirname(__file__), "..", "interop", "initiations.py")) as file:
            self.flooder = lab.write("initiations.py", file.read(), 0o644)

    def flood(self, public_key, address, port, rate, namespace):
        """A flood beside the test, which ends by itself; started with some of its time to take effect."""
        return self.lab.start(
            "flood", [sys.executable, "-B", self.flooder, public_key, address, str(port), str(rate), str(FLOOD_SECONDS)],
            namespace=namespace.name)

    def start_stock(self, **peer):
        return StockPeer(
            self.lab, self.pair.stock, self.stock_key, ["10.1.0.1/24"],
            [{"key": self.agent_public, "allowed": ["10.1.0.2/32"], **peer}], UDP_PORT)

    def start_agent(self, **peer):
        configuration = wg_quick(
            self.agent_key, ["10.1.0.2/32"], [{"PublicKey": self.stock_public, "AllowedIPs": "10.1.0.1/32", **peer}], OUR_PORT)
        return Agent(
            self.program, self.lab, self.lab.write("agent.conf", configuration), "127.0.0.1:8080", self.pair.ours.name)

    def handshakes(self, agent, outcome):
        return (agent.status() or {}).get("handshakes", {}).get(outcome, 0)

    def finish(self, stock, agent, flood):
        flood.stop()
        agent.process.stop()
        stock.stop()

    @test
    def a_stock_peer_under_load_gets_its_cookie_back(self):
        stock = self.start_stock()
        flood = self.flood(self.stock_public, Pair.STOCK, UDP_PORT, 60_000, self.pair.ours)
        wait_until(lambda: flood.processor_time() > 0.3, 5, "the flood runs")
        agent = self.start_agent(Endpoint=f"{Pair.STOCK}:{UDP_PORT}", PersistentKeepalive=1)
        wait_until(lambda: stock.last_handshake() > 0, 12, "a handshake with a stock peer under load")
        check(self.handshakes(agent, "cookiesReceived") > 0, "the stock peer asked for no cookie: the test shows nothing")
        check(flood.is_running, "the flood ended first: the test shows nothing")
        self.finish(stock, agent, flood)

    @test
    def we_ask_a_stock_peer_for_a_cookie_under_load(self):
        agent = self.start_agent()
        wait_until(lambda: agent.status() is not None, 10, "the agent answers")
        flood = self.flood(self.agent_public, Pair.OURS, OUR_PORT, 30_000, self.pair.stock)
        wait_until(lambda: self.handshakes(agent, "cookieRepliesSent") > 0, 5, "we ask for cookies under load")
        stock = self.start_stock(endpoint=f"{Pair.OURS}:{OUR_PORT}", **{"persistent-keepalive": "1"})
        wait_until(lambda: stock.last_handshake() > 0, 12, "a stock peer's handshake with us under load")
        check(flood.is_running, "the flood ended first: the test shows nothing")
        self.finish(stock, agent, flood)
