"""The sides that are compared: ours through its tunnel, proxies without any tunnel, and stock WireGuard with nginx."""

import http.client
import os
import shutil
import socket
import ssl
import subprocess
from functools import cached_property

from bench.service import DOMAIN, Service
from bench.stock import Stock, StockTunnel
from interop.nodes import Agent, Gateway
from interop.product import wait_for_port
from interop.system import Failure, free_port, is_root, wait_until

FAULTS = (Failure, OSError, RuntimeError, subprocess.SubprocessError, ValueError)


def make_tunnel(program, lab, name):
    """A directory with the configurations of a gateway and an agent, and the gateway's UDP port."""
    directory = lab.private_directory(name)
    port = free_port(socket.SOCK_DGRAM)
    result = program.run(lab, ["init", "--domain", "app.example.com", "--endpoint", f"127.0.0.1:{port}", "--out", directory])
    if result.returncode != 0:
        raise RuntimeError(f"kakuremichi init: {result.stderr.strip()}")
    return directory, port


class Ours:
    """kakuremichi: TLS at the gateway, WireGuard to the agent, the web service behind it."""

    name = "kakuremichi"
    namespace = None

    def __init__(self, program, lab, service, name="tunnel", peers="", target=None, options=()):
        """`peers`: more of them for the gateway's configuration. `target`: of the agent, the web service if there is none. `options`: of
        the gateway."""
        self.program, self.lab, self.service = program, lab, service
        directory, self.udp_port = make_tunnel(program, lab, name)
        configuration = os.path.join(directory, "gateway.conf")
        with open(configuration) as file:
            text = file.read()
        with open(os.path.join(directory, "agent.conf")) as file:
            self.public_key = next(line.split("=", 1)[1].strip() for line in file if line.startswith("PublicKey"))
        if peers:
            configuration = lab.write(f"{name}.conf", text + peers)
        self.agent = Agent(program, lab, os.path.join(directory, "agent.conf"), target or service.address, name=f"{name}-agent")
        self.gateway = Gateway(
            program, lab, configuration, [f"{DOMAIN}=10.1.0.2"], name=f"{name}-gateway",
            options=["--cert", service.certificate, "--key", service.key, *options])
        self.port = self.gateway.https

    def front(self):
        return {"gateway": self.gateway.process.pid}

    def path(self):
        return {**self.front(), "agent": self.agent.process.pid}

    def processes(self):
        return {**self.path(), "origin": self.service.process.pid}

    def stop_front(self):
        self.gateway.process.stop()

    def start_front(self):
        """Without waiting for anything."""
        self.gateway.process = self.program.start(self.lab, self.gateway.name, self.gateway.arguments)

    def stop(self):
        self.gateway.process.stop()
        self.agent.process.stop()


class Plain:
    """A proxy that ends TLS and hands requests straight to the web service, without a tunnel."""

    namespace = None

    def __init__(self, name, service, start):
        """`start`: makes the process for a port."""
        self.name, self.service, self.start = name, service, start
        self.port = free_port()
        self.start_front()
        wait_for_port(self.process, self.port)

    def start_front(self):
        self.process = self.start(self.port)

    def stop_front(self):
        self.process.stop()

    def stop(self):
        self.process.stop()

    def front(self):
        return {self.name: self.process.pid}

    path = front

    def processes(self):
        return {**self.front(), "origin": self.service.process.pid}


class Sides:
    """All sides that this machine has; what is missing is said once. Each starts when it is first asked for."""

    def __init__(self, program, lab, note):
        self.program, self.lab, self.note = program, lab, note

    @cached_property
    def service(self):
        return Service(self.lab)

    @cached_property
    def ours(self):
        return self.ready(Ours(self.program, self.lab, self.service))

    @cached_property
    def web(self):
        """Everything that serves HTTPS."""
        service = self.service
        makers = {
            "nginx": lambda: Plain("nginx", service, lambda port: service.start_nginx("nginx", port, service.address)),
            "haproxy": lambda: Plain("haproxy", service, service.start_haproxy),
            "caddy": lambda: Plain("caddy", service, service.start_caddy),
        }
        result = [self.ours]
        for name, make in makers.items():
            if shutil.which(name) is None:
                self.note(f"{name} is left out: it is not installed")
            else:
                self.try_to_add(result, name, make)
        if self.stock_tunnel:
            self.try_to_add(result, Stock.name, lambda: Stock(self.stock_tunnel, service))
        return result

    def try_to_add(self, sides, name, make):
        try:
            sides.append(self.ready(make()))
        except FAULTS as error:
            self.note(f"{name} is left out: {error}")

    @cached_property
    def stock_tunnel(self):
        """wireguard-go and kernel TCP on both ends; None where that cannot be."""
        missing = [tool for tool in ("ip", "wg", "wireguard-go") if shutil.which(tool) is None]
        if not is_root():
            self.note("wireguard-go with TUN is left out: it needs root")
        elif missing or not os.path.exists("/dev/net/tun"):
            self.note(f"wireguard-go with TUN is left out: {', '.join(missing) or '/dev/net/tun'} is missing")
        else:
            try:
                return StockTunnel(self.lab)
            except FAULTS as error:
                self.note(f"wireguard-go with TUN is left out: {error}")
        return None

    @staticmethod
    def ready(side):
        wait_until_answered(side)
        return side


def inside(side):
    """What a client's command begins with, so that it runs where the side is reached."""
    return ["ip", "netns", "exec", side.namespace] if side.namespace else []


def wait_until_answered(side, timeout=30, interval=0.2):
    """Until the small page comes over HTTPS."""
    context = ssl.create_default_context(cafile=side.service.certificate)

    def answered():
        if side.namespace:
            command = inside(side) + [
                "curl", "--silent", "--fail", "--noproxy", "*", "--max-time", "5", "--cacert", side.service.certificate, "--output",
                "/dev/null", f"https://{DOMAIN}:{side.port}/small"]
            return subprocess.run(command, timeout=10).returncode == 0
        connection = http.client.HTTPSConnection(DOMAIN, side.port, timeout=5, context=context)
        try:
            connection.request("GET", "/small")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    wait_until(answered, timeout, f"{side.name} answers", interval=interval)


def protocols(side):
    """What ALPN chooses of h2 and http/1.1; only for sides outside of namespaces."""
    context = ssl.create_default_context(cafile=side.service.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", side.port), timeout=5) as connection:
        with context.wrap_socket(connection, server_hostname=DOMAIN) as tls:
            return tls.selected_alpn_protocol()
