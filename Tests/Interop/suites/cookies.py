"""Cookies between our agent and a stock peer, forced on either side by a flood of initiations with a valid mac1."""

import os
import sys

from interop.namespaces import Pair, StockPeer
from interop.nodes import Agent
from interop.product import key_pair, wg_quick
from interop.runner import Suite, test
from interop.system import check, wait_until

STOCK_PORT, OUR_PORT = 51821, 51822
FLOOD_SECONDS = 30


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

    def flood(self, public_key, address, port, namespace):
        """A flood beside the test, which ends by itself; it has been asked for cookies when this returns."""
        flood = self.lab.start(
            "flood", [sys.executable, "-B", self.flooder, public_key, address, str(port), "10000", str(FLOOD_SECONDS)],
            namespace=namespace.name)
        wait_until(lambda: "cookies" in flood.output(), 8, "the flooded side asks for cookies")
        return flood

    def start_stock(self, **peer):
        return StockPeer(
            self.lab, self.pair.stock, self.stock_key, ["10.1.0.1/24"],
            [{"key": self.agent_public, "allowed": ["10.1.0.2/32"], **peer}], STOCK_PORT)

    def start_agent(self, name, port=None, **peer):
        configuration = wg_quick(
            self.agent_key, ["10.1.0.2/32"], [{"PublicKey": self.stock_public, "AllowedIPs": "10.1.0.1/32", **peer}], port)
        return Agent(
            self.program, self.lab, self.lab.write(f"{name}.conf", configuration), "127.0.0.1:8080", self.pair.ours.name, name)

    def handshakes(self, agent, outcome):
        return (agent.status() or {}).get("counters", {}).get(f"handshakes: {outcome}", 0)

    @test
    def a_stock_peer_under_load_gets_its_cookie_back(self):
        stock = self.start_stock()
        flood = self.flood(self.stock_public, Pair.STOCK, STOCK_PORT, self.pair.ours)
        agent = self.start_agent("asking", Endpoint=f"{Pair.STOCK}:{STOCK_PORT}", PersistentKeepalive=1)
        wait_until(lambda: stock.last_handshake() > 0, 18, "a handshake with a stock peer under load")
        # Its load ends for a moment now and then, and a handshake of just then needs no cookie: the next one does.
        while self.handshakes(agent, "cookie_received") == 0:
            check(flood.is_running, "the flood ended first: the test shows nothing")
            agent.process.stop()
            agent.start()
            wait_until(lambda: self.handshakes(agent, "established_as_initiator") > 0, 12, "a handshake with a stock peer under load")
        flood.stop()
        agent.process.stop()
        stock.stop()

    @test
    def we_ask_a_stock_peer_for_a_cookie_under_load(self):
        agent = self.start_agent("asked", OUR_PORT)
        wait_until(lambda: agent.status() is not None, 10, "the agent answers")
        flood = self.flood(self.agent_public, Pair.OURS, OUR_PORT, self.pair.stock)
        check(self.handshakes(agent, "cookie_reply_sent") > 0, "the cookie replies that were sent are counted")
        stock = self.start_stock(endpoint=f"{Pair.OURS}:{OUR_PORT}", **{"persistent-keepalive": "1"})
        wait_until(lambda: stock.last_handshake() > 0, 18, "a stock peer's handshake with us under load")
        check(flood.is_running, "the flood ended first: the test shows nothing")
        flood.stop()
        agent.process.stop()
        stock.stop()
