"""What many visitors at rest cost the front in memory: keep-alive connections and WebSockets."""

import os
from typing import Callable, NamedTuple

from bench.figures import OURS
from bench.processes import memory, settled_memory
from bench.service import DOMAIN
from bench.sides import Ours, Plain, wait_until_answered
from bench.task import ONCE, Task
from interop.product import wait_for_port
from interop.system import check, free_port, wait_until


class Front(NamedTuple):
    """A side that is made for each measurement: nothing of an earlier one is in its memory."""

    name: str
    make: Callable


KEEP_ALIVE, WEBSOCKETS = 10_000, 1_000
# Nobody is to be sent away or closed while it is measured.
LIMITS = """
[limits]
connections = 15000
keep-alive-timeout = "1h"
"""
# For nginx the same.
NGINX_MORE = """
        keepalive_timeout 1h;
        location = /websocket {{
            proxy_pass http://{echo}; proxy_http_version 1.1; proxy_set_header Host $host; proxy_set_header Connection upgrade;
            proxy_set_header Upgrade $http_upgrade; proxy_read_timeout 1h; proxy_send_timeout 1h;
        }}
"""


class Crowds:
    def __init__(self, program, lab, sides, figures):
        self.program, self.lab, self.sides, self.figures = program, lab, sides, figures
        self.echo_port, self.made = None, 0

    def tasks(self):
        return [
            Task("rss-1000-websockets", ("websockets-1000-memory", "websockets-1000-agent"), 8, self.websockets, self.fronts, when=ONCE),
            Task("rss-10000-keepalive", ("keepalive-10000-memory",), 25, self.keep_alive, self.fronts, when=ONCE),
        ]

    def fronts(self):
        return [Front(OURS, self.ours), Front("nginx", self.nginx)]

    def websockets(self, front):
        def measured(side, before, after):
            self.figures.add("rss-1000-websockets", side.name, after["front"])
            self.figures.add("websockets-1000-memory", side.name, after["front"] - before["front"])
            if "agent" in before:
                self.figures.add("websockets-1000-agent", side.name, after["agent"] - before["agent"])

        self.rest(front, WEBSOCKETS, "websocket", measured)

    def keep_alive(self, front):
        def measured(side, before, after):
            self.figures.add("rss-10000-keepalive", side.name, after["front"])
            self.figures.add("keepalive-10000-memory", side.name, after["front"] - before["front"])

        self.rest(front, KEEP_ALIVE, "request", measured)

    def rest(self, front, count, kind, measured):
        side = front.make(kind)
        client = None
        try:
            wait_until_answered(side)
            before = self.used(side)
            client = self.client(side, count, kind)
            wait_until(lambda: "resting" in client.output() or not client.is_running, 120, f"{count} connections rest")
            check(client.is_running, f"the connections did not come about:\n{client.last_lines()}")
            measured(side, before, self.used(side))
        finally:
            if client:
                client.stop()
            side.stop()

    @staticmethod
    def used(side):
        values = {"front": sum(settled_memory(pid) for pid in side.front().values())}
        if "agent" in side.path():
            values["agent"] = memory(side.path()["agent"])
        return values

    def client(self, side, count, kind):
        script = self.script("crowd_client.py")
        return self.lab.start("crowd", ["/usr/bin/python3", "-B", script, str(side.port), DOMAIN, str(count), kind])

    def script(self, name):
        with open(os.path.join(os.path.dirname(__file__), name)) as file:
            return self.lab.write(name, file.read(), 0o644)

    def echo(self):
        """Where the WebSockets end."""
        if self.echo_port is None:
            port = free_port()
            process = self.lab.start("websocket-echo", ["/usr/bin/python3", "-B", self.script("websocket_echo.py"), str(port)])
            wait_for_port(process, port)
            self.echo_port = port
        return f"127.0.0.1:{self.echo_port}"

    def ours(self, kind):
        target = self.sides.service.address if kind == "request" else self.echo()
        self.made += 1
        return Ours(
            self.program, self.lab, self.sides.service, name=f"crowd-{self.made}", target=target,
            options=["--config", self.lab.write("crowd.toml", LIMITS)])

    def nginx(self, kind):
        service = self.sides.service
        return Plain("nginx", service, lambda port: service.start_nginx(
            f"crowd-{kind}-nginx", port, service.address, connections=15_000, more=NGINX_MORE.format(echo=self.echo())))
