"""curl and kernel TCP behind a stock WireGuard peer, our agent in front of a web service."""

from interop.client import curl, download, pattern_file, upload
from interop.namespaces import Pair, StockPeer
from interop.nodes import Agent, Origin
from interop.origin import PAGE
from interop.product import key_pair, wg_quick
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

LARGE = 100_000_000
UDP_PORT = 51821
HOST = ["--header", "Host: app.example.com"]


class SUITE(Suite):
    needs_root = True
    tools = ["ip", "wg", "wireguard-go", "curl", "ping", "setpriv"]

    def set_up(self):
        lab = self.lab
        self.pair = Pair(lab)
        agent_key, agent_public = key_pair()
        stock_key, stock_public = key_pair()
        self.stock = StockPeer(
            lab, self.pair.stock, stock_key, ["10.1.0.1/24", "fd00::1/64"],
            [{"key": agent_public, "allowed": ["10.1.0.2/32", "fd00::2/128"]}], UDP_PORT)
        self.origin = Origin(lab, self.pair.ours.name, port=8080)
        configuration = wg_quick(
            agent_key, ["10.1.0.2/32", "fd00::2/128"],
            [{
                "PublicKey": stock_public, "AllowedIPs": "10.1.0.1/32, fd00::1/128",
                "Endpoint": f"{Pair.STOCK}:{UDP_PORT}", "PersistentKeepalive": 25,
            }])
        self.agent = Agent(self.program, lab, lab.write("agent.conf", configuration), self.origin.target, self.pair.ours.name)
        self.file = pattern_file(lab.directory, LARGE)

    def is_served(self, url="http://10.1.0.2/"):
        try:
            return curl(HOST + [url], self.stock.space.name, 5) == PAGE
        except AssertionError:
            return False

    @test
    def the_agent_starts_the_handshake(self):
        wait_until(lambda: self.stock.last_handshake() > 0, 15, "the stock peer shows a handshake")

    @test
    def the_page_comes_over_ipv4_and_ipv6(self):
        wait_until(self.is_served, 10, "the page over IPv4", interval=0.2)
        wait_until(lambda: self.is_served("http://[fd00::2]/"), 10, "the page over IPv6", interval=0.2)

    @test
    def download_100_mb_over_ipv4(self):
        download(HOST, f"http://10.1.0.2/bytes/{LARGE}", LARGE, self.stock.space.name)

    @test
    def download_100_mb_over_ipv6(self):
        download(HOST, f"http://[fd00::2]/bytes/{LARGE}", LARGE, self.stock.space.name)

    @test
    def upload_100_mb_over_ipv4(self):
        upload(HOST, "http://10.1.0.2/upload", self.file, self.stock.space.name)

    @test
    def upload_100_mb_over_ipv6(self):
        upload(HOST, "http://[fd00::2]/upload", self.file, self.stock.space.name)

    @test
    def echo_requests_are_answered(self):
        self.ping("56", "1300")

    def ping(self, *sizes):
        for address in ("10.1.0.2", "fd00::2"):
            for size in sizes:
                result = self.stock.space.run("ping", "-n", "-M", "dont", "-c", "3", "-i", "0.2", "-W", "2", "-s", size, address)
                check(result.returncode == 0 and "3 received" in result.stdout, f"ping -s {size} {address}: {result.stdout}{result.stderr}")

    @test
    def a_closed_port_is_refused_at_once(self):
        for url in ("http://10.1.0.2:81/", "http://[fd00::2]:81/"):
            result = self.stock.space.run("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "3", url)
            check_equal(result.returncode, 7, f"curl {url} (7 is a refused connection): {result.stderr.strip()}")

    @test
    def fifty_connections_at_once(self):
        options = ["--parallel", "--parallel-max", "50", "--parallel-immediate"]
        urls = [f"http://10.1.0.2/bytes/{100_000 + number}" for number in range(50)]
        outputs = [argument for url in urls for argument in (url, "--output", "/dev/null")]
        answer = curl(HOST + options + ["--write-out", "%{http_code} %{size_download}\\n"] + outputs, self.stock.space.name)
        sizes = sorted(line.split() for line in answer.decode().splitlines())
        check_equal(sizes, [["200", str(100_000 + number)] for number in range(50)], "status and length of each")

    @test
    def a_stock_peer_with_a_small_mtu_is_served(self):
        self.stock.stop()
        self.stock.mtu = 1280
        self.stock.start()
        wait_until(lambda: self.is_served("http://[fd00::2]/"), 35, "served again after the stock peer's restart", interval=0.2)
        download(HOST, "http://[fd00::2]/bytes/5000000", 5_000_000, self.stock.space.name)
        # The kernel cuts these in two; the answers fit our MTU.
        self.ping("1300", "1350")

    @test
    def a_moved_agent_is_back_with_its_first_packet(self):
        self.agent.process.stop()
        self.agent.start()
        wait_until(self.is_served, 10, "served again by the restarted agent on a new port", interval=0.2)
