"""The privileged alternative: nginx for TLS, wireguard-go with TUN and kernel TCP on both ends, the web service straight behind it."""

from interop.namespaces import Pair, StockPeer
from interop.product import key_pair, wait_for_port
from interop.system import wait_until

PORT = 443
UDP_PORT = 51820


class Stock:
    name = "wireguard-go + nginx"

    def __init__(self, lab, service):
        self.service, self.port = service, PORT
        pair = Pair(lab)
        self.namespace = pair.ours.name
        near_key, near_public = key_pair()
        far_key, far_public = key_pair()
        self.near = StockPeer(lab, pair.ours, near_key, ["10.1.0.1/24"], [{"key": far_public, "allowed": ["10.1.0.2/32"]}], UDP_PORT)
        self.far = StockPeer(
            lab, pair.stock, far_key, ["10.1.0.2/24"],
            [{"key": near_public, "allowed": ["10.1.0.1/32"], "endpoint": f"{Pair.OURS}:{UDP_PORT}", "persistent-keepalive": "25"}])
        wait_until(lambda: self.near.last_handshake() > 0, 15, "the stock peers' handshake")
        self.origin = service.start_origin("stock-origin", "10.1.0.2", 80, pair.stock.name)
        self.process = service.start_peer("stock-peer", PORT, "10.1.0.2:80", self.namespace)
        wait_for_port(self.process, PORT)

    def processes(self):
        return {
            "nginx": self.process.pid, "wireguard-go": self.near.process.pid, "far wireguard-go": self.far.process.pid, "origin": self.origin.pid,
        }

    # Plain HTTP through the tunnel, for the bulk measurements.
    plain_url = "http://10.1.0.2"
