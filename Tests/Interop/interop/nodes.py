"""A running gateway, agent or origin, with what a test needs to talk to it."""

import json
import os
import socket
import sys

from .client import Edge
from .product import wait_for_port
from .system import free_port, wait_until


class Gateway:
    """`kakuremichi gateway` in its one-line form."""

    def __init__(self, program, lab, wg, routes=(), namespace=None, name="gateway", options=(), https=None, http=None):
        self.program, self.lab, self.name, self.namespace = program, lab, name, namespace
        self.state = lab.private_directory(f"{name}-state")
        self.https = https or free_port()
        self.http = http or free_port()
        self.arguments = ["gateway"]
        if wg:
            self.arguments += ["--wg", wg]
        for route in routes:
            self.arguments += ["--route", route]
        self.arguments += ["--https", f"127.0.0.1:{self.https}", "--http", f"127.0.0.1:{self.http}", "--state", self.state, *options]
        self.edge = Edge(self.https, self.http, os.path.join(self.state, "internal-ca.pem"))
        self.start()

    def start(self):
        self.process = self.program.start(self.lab, self.name, self.arguments, namespace=self.namespace)
        wait_for_port(self.process, self.https)
        wait_for_port(self.process, self.http)

    def status(self):
        return self.program.status(self.lab, self.state)


class Agent:
    """`kakuremichi agent` in its one-line form."""

    def __init__(self, program, lab, wg, target=None, namespace=None, name="agent", options=()):
        self.program, self.lab, self.name, self.namespace = program, lab, name, namespace
        self.state = lab.private_directory(f"{name}-state")
        self.arguments = ["agent"]
        if wg:
            self.arguments += ["--wg", wg]
        if target:
            self.arguments += ["--target", target]
        self.arguments += ["--state", self.state, *options]
        self.start()

    def start(self):
        self.process = self.program.start(self.lab, self.name, self.arguments, namespace=self.namespace)

    def status(self):
        return self.program.status(self.lab, self.state)


class Origin:
    """The tests' web service as a process of the unprivileged user."""

    def __init__(self, lab, namespace=None, address="127.0.0.1", port=None, name="origin"):
        self.address, self.port = address, port or free_port()
        script = os.path.join(lab.directory, "origin.py")
        if not os.path.exists(script):
            with open(os.path.join(os.path.dirname(__file__), "origin.py")) as source:
                lab.write("origin.py", source.read(), 0o644)
        self.lab, self.name, self.namespace = lab, name, namespace
        self.command = [sys.executable, "-B", script, address, str(self.port)]
        self.start()

    def start(self):
        self.process = self.lab.start(self.name, self.command, namespace=self.namespace)
        wait_for_port(self.process, self.port)

    @property
    def target(self):
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def get(self, path):
        """A request past the tunnel (from the root namespace's loopback only)."""
        with socket.create_connection((self.address, self.port), timeout=10) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return answer.partition(b"\r\n\r\n")[2]

    def seen(self, name):
        """What the origin recorded under a name."""
        return json.loads(self.get("/seen")).get(name, {})

    def wait_for(self, name, condition, timeout, what):
        return wait_until(lambda: (record := self.seen(name)) and condition(record) and record, timeout, what)


def wait_until_served(edge, domain, timeout, path="/", status=200):
    """Until the gateway answers for a domain with this status."""
    return wait_until(
        lambda: edge.status_of(domain, path, timeout=max(2, min(10, timeout))) == status, timeout,
        f"https://{domain}{path} is answered with {status}", interval=0.2)
