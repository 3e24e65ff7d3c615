"""An agent whose gateway has a host name: several addresses, and an address that changes."""

import os

from interop.namespaces import Pair, StockPeer, ip
from interop.nodes import Agent, Origin
from interop.client import curl
from interop.origin import PAGE
from interop.product import key_pair, wg_quick
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

NAME, UDP_PORT = "gateway.test", 51821
# The agent's own address comes first in what the resolver answers, as it is the nearest; nobody is there.
SILENT, SECOND = Pair.OURS, "10.77.0.3"


class SUITE(Suite):
    needs_root = True
    tools = ["ip", "wg", "wireguard-go", "curl", "setpriv"]

    def set_up(self):
        lab = self.lab
        self.pair = Pair(lab)
        # `ip netns exec` shows this file as /etc/hosts.
        self.directory = f"/etc/netns/{self.pair.ours.name}"
        os.makedirs(self.directory)
        lab.on_close(lambda: os.rmdir(self.directory))
        lab.on_close(lambda: os.unlink(self.hosts))
        self.hosts = os.path.join(self.directory, "hosts")
        self.name_is(SILENT, Pair.STOCK)
        self.origin = Origin(lab, self.pair.ours.name, port=8080)
        agent_key, agent_public = key_pair()
        stock_key, stock_public = key_pair()
        self.stock = StockPeer(
            lab, self.pair.stock, stock_key, ["10.1.0.1/24"], [{"key": agent_public, "allowed": ["10.1.0.2/32"]}], UDP_PORT)
        self.agent = Agent(
            self.program, lab, lab.write("agent.conf", wg_quick(agent_key, ["10.1.0.2/32"], [{
                "PublicKey": stock_public, "AllowedIPs": "10.1.0.1/32", "Endpoint": f"{NAME}:{UDP_PORT}", "PersistentKeepalive": 1}])),
            self.origin.target, self.pair.ours.name)

    def name_is(self, *addresses):
        """In place: the file is mounted elsewhere."""
        with open(self.hosts, "w") as file:
            file.write("".join(f"{address} {NAME}\n" for address in addresses))
        os.chmod(self.hosts, 0o644)

    def endpoint(self):
        return self.agent.status()["peers"][0].get("endpoint")

    def is_served(self):
        try:
            return curl(["http://10.1.0.2/"], self.pair.stock.name, 2) == PAGE
        except AssertionError:
            return False

    @test
    def the_next_address_is_tried_when_the_first_does_not_answer(self):
        wait_until(self.is_served, 20, "the agent is reached", interval=0.1)
        check_equal(self.endpoint(), f"{Pair.STOCK}:{UDP_PORT}", "endpoint")
        check(self.agent.status()["counters"].get("handshakes: retried", 0) > 0, "the first address answered: the test shows nothing")

    @test
    def a_gateway_that_moves_is_found_by_its_name(self):
        before = self.stock.last_handshake()
        self.name_is(SECOND)
        device = next(line.split(":")[1].split("@")[0].strip() for line in ip(
            "-n", self.pair.stock.name, "-o", "link", "show", "type", "veth").stdout.splitlines())
        ip("-n", self.pair.stock.name, "addr", "del", f"{Pair.STOCK}/24", "dev", device)
        ip("-n", self.pair.stock.name, "addr", "add", f"{SECOND}/24", "dev", device)
        # The agent misses an answer for 15 s, asks for the name, and begins anew at once.
        wait_until(lambda: self.endpoint() == f"{SECOND}:{UDP_PORT}", 40, "the agent goes to the new address", interval=0.2)
        wait_until(lambda: self.stock.last_handshake() > before, 10, "a new handshake")
        check(self.is_served(), "the agent is not reached")
