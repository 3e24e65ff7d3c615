"""The privileged alternative: wireguard-go with TUN and kernel TCP on both ends, nginx for TLS, the web service straight behind it."""

from interop.namespaces import Pair, StockPeer
from interop.product import key_pair, wait_for_port
from interop.system import wait_until

PORT = 443
UDP_PORT = 51820


class StockTunnel:
    """Two namespaces with a wireguard-go each; the far one is reached at 10.1.0.2 from the near one."""

    name = "wireguard-go"
    FAR = "10.1.0.2"

    def __init__(self, lab):
        pair = Pair(lab)
        self.namespace, self.far_namespace = pair.ours.name, pair.stock.name
        near_key, near_public = key_pair()
        far_key, far_public = key_pair()
        self.near = StockPeer(lab, pair.ours, near_key, ["10.1.0.1/24"], [{"key": far_public, "allowed": ["10.1.0.2/32"]}], UDP_PORT)
        self.far = StockPeer(
            lab, pair.stock, far_key, ["10.1.0.2/24"],
            [{"key": near_public, "allowed": ["10.1.0.1/32"], "endpoint": f"{Pair.OURS}:{UDP_PORT}", "persistent-keepalive": "25"}])
        wait_until(lambda: self.near.last_handshake() > 0, 15, "the stock peers' handshake")

    def processes(self):
        return {"wireguard-go": self.near.process.pid, "far wireguard-go": self.far.process.pid}


class Stock:
    name = "wireguard-go + nginx"

    def __init__(self, tunnel, service):
        self.service, self.port, self.tunnel, self.namespace = service, PORT, tunnel, tunnel.namespace
        self.origin = service.start_origin("stock-origin", StockTunnel.FAR, 80, tunnel.far_namespace)
        self.process = service.start_nginx("stock-nginx", PORT, f"{StockTunnel.FAR}:80", tunnel.namespace)
        wait_for_port(self.process, PORT)

    def front(self):
        return {"nginx": self.process.pid, "wireguard-go": self.tunnel.near.process.pid}

    def path(self):
        return {"nginx": self.process.pid, **self.tunnel.processes()}

    def processes(self):
        return {**self.path(), "origin": self.origin.pid}

    # Plain HTTP through the tunnel.
    plain_url = f"http://{StockTunnel.FAR}"
