"""Our gateway, unprivileged, in front of nginx behind a stock WireGuard peer (wireguard-go, kernel TCP)."""

import hashlib
import os
import socket
import threading
import time

from interop.client import curl, download, pattern_file
from interop.namespaces import Pair, StockPeer
from interop.nodes import Gateway
from interop.origin import PAGE, pattern_digest
from interop.product import key_pair, wait_for_port, wg_quick
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until

LARGE = 100_000_000
UDP_PORT = 51820
DOMAINS = {"app.example.com": "IPv4", "six.example.com": "IPv6"}

NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log warn; user root;
events {{ worker_connections 512; }}
http {{
    access_log off; client_max_body_size 0; sendfile on; keepalive_requests 100000;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    server {{
        listen 10.1.0.2:80; listen [fd00::2]:80;
        root {directory}/www;
        location /put/ {{ dav_methods PUT; }}
        location /seen {{ return 200 "$remote_addr $host $http_x_forwarded_proto"; }}
    }}
}}
"""


class SUITE(Suite):
    needs_root = True
    tools = ["ip", "wg", "wireguard-go", "nginx", "curl", "setpriv"]

    def set_up(self):
        lab = self.lab
        self.pair = Pair(lab)
        gateway_key, gateway_public = key_pair()
        stock_key, stock_public = key_pair()
        _, preshared_source = key_pair()
        self.gateway_key, self.gateway_public, self.preshared = gateway_key, gateway_public, preshared_source
        self.stock = StockPeer(
            lab, self.pair.stock, stock_key, ["10.1.0.2/24", "fd00::2/64"],
            [{
                "key": gateway_public, "allowed": ["10.1.0.1/32", "fd00::1/128"], "endpoint": f"{Pair.OURS}:{UDP_PORT}",
                "persistent-keepalive": "25", "preshared-key": lab.write("psk", preshared_source + "\n"),
            }])
        self.start_nginx()
        configuration = wg_quick(
            gateway_key, ["10.1.0.1/24", "fd00::1/64"],
            [{"PublicKey": stock_public, "PresharedKey": preshared_source, "AllowedIPs": "10.1.0.2/32, fd00::2/128"}], UDP_PORT)
        self.gateway = Gateway(
            self.program, lab, lab.write("gateway.conf", configuration),
            ["app.example.com=10.1.0.2", "six.example.com=[fd00::2]:80"], namespace=self.pair.ours.name)
        self.edge = self.gateway.edge

    def start_nginx(self):
        directory = os.path.join(self.lab.directory, "nginx")
        self.web_root = os.path.join(directory, "www")
        os.makedirs(os.path.join(self.web_root, "put"))
        with open(os.path.join(self.web_root, "index.html"), "wb") as file:
            file.write(PAGE)
        os.rename(pattern_file(self.web_root, LARGE), os.path.join(self.web_root, "large"))
        configuration = os.path.join(directory, "nginx.conf")
        with open(configuration, "w") as file:
            file.write(NGINX.format(directory=directory))
        nginx = self.lab.start(
            "nginx", ["nginx", "-p", directory, "-e", f"{directory}/start.log", "-c", configuration], unprivileged=False,
            namespace=self.pair.stock.name)
        wait_for_port(nginx, 80)

    def fetch(self, domain, path="/", timeout=15):
        return curl(self.edge.curl_options(domain) + [self.edge.url(domain, path)], self.pair.ours.name, timeout)

    def is_served(self, domain, path="/"):
        try:
            return self.fetch(domain, path, timeout=5) == PAGE
        except AssertionError:
            return False

    @test
    def the_first_page_comes_through_a_stock_handshake(self):
        wait_until(lambda: self.is_served("app.example.com"), 20, "nginx's page comes through the tunnel", interval=0.2)
        check(self.stock.last_handshake() > 0, "the stock peer shows no handshake")

    @test
    def the_page_comes_over_ipv6_inside(self):
        check_equal(self.fetch("six.example.com"), PAGE, "page over IPv6 inside")

    @test
    def the_source_address_is_the_gateways_own(self):
        check_equal(self.fetch("app.example.com", "/seen").decode().split(), ["10.1.0.1", "app.example.com", "https"], "seen by nginx")
        check_equal(self.fetch("six.example.com", "/seen").decode().split()[0], "fd00::1", "source address over IPv6")

    @test
    def the_gateways_own_addresses_answer_probes(self):
        """Agents open a TCP connection to port 80 to see whether the gateway lives: an answer or a reset, never silence."""
        for url in ("http://10.1.0.1/", "http://[fd00::1]/"):
            result = self.stock.space.run("curl", "--silent", "--noproxy", "*", "--max-time", "3", "--output", "/dev/null", url)
            check(result.returncode in (0, 7, 52, 56), f"curl {url} from inside the tunnel: exit code {result.returncode}")

    @test
    def download_100_mb_over_ipv4(self):
        self.download("app.example.com")

    @test
    def download_100_mb_over_ipv6(self):
        self.download("six.example.com")

    @test
    def upload_100_mb_over_ipv4(self):
        self.upload("app.example.com")

    @test
    def upload_100_mb_over_ipv6(self):
        self.upload("six.example.com")

    def download(self, domain):
        download(self.edge.curl_options(domain), self.edge.url(domain, "/large"), LARGE, self.pair.ours.name)

    def upload(self, domain):
        curl(
            self.edge.curl_options(domain) + ["--upload-file", os.path.join(self.web_root, "large"), self.edge.url(domain, "/put/file")],
            self.pair.ours.name, 80)
        path = os.path.join(self.web_root, "put", "file")
        with open(path, "rb") as file:
            check_equal(hashlib.file_digest(file, "sha256").hexdigest(), pattern_digest(LARGE), "SHA-256 of what nginx stored")
        os.unlink(path)

    @test
    def a_stock_peer_that_changes_its_port_in_mid_download_is_followed(self):
        ports = []

        def move():
            ports.append(free_port(socket.SOCK_DGRAM))
            self.stock.space.run("wg", "set", self.stock.interface, "listen-port", str(ports[-1]))

        for _ in range(3):
            mover = threading.Timer(0.1, move)
            mover.start()
            self.download("app.example.com")
            mover.join()
            wait_until(lambda: self.endpoint_port() == ports[-1], 5, "the gateway knows the new port of its peer")

    def endpoint_port(self):
        endpoint = self.gateway.status()["peers"][0].get("endpoint") or ":0"
        return int(endpoint.rsplit(":", 1)[1])

    @test
    def a_restarted_gateway_reaches_a_silent_stock_peer_by_itself(self):
        """The stock peer sends nothing of its own now; the gateway has to know its endpoint from the state directory."""
        self.stock.space.run("wg", "set", self.stock.interface, "peer", self.gateway_public, "persistent-keepalive", "0")
        before = self.stock.last_handshake()
        wait_until(lambda: int(time.time()) > before, 3, "a new handshake shows a later second")
        check_equal(self.gateway.process.stop(), 0, "exit code of the gateway")
        self.gateway.start()
        wait_until(lambda: self.is_served("app.example.com"), 35, "the restarted gateway serves again", interval=0.2)
        check(self.stock.last_handshake() > before, "there was no new handshake")

    @test
    def a_restarted_stock_peer_is_reached_again(self):
        self.stock.peers[0]["endpoint"] = f"[{Pair.OURS_IPV6}]:{UDP_PORT}"
        self.stock.stop()
        self.stock.start()
        wait_until(lambda: self.is_served("app.example.com"), 20, "served again, over IPv6 outside", interval=0.2)
        check(self.stock.last_handshake() > 0, "the stock peer shows no handshake")
