"""Gateway and agent from TOML files that a test can write anew, and what both processes hold."""

import os
import re
import socket

from .nodes import Agent, Gateway
from .settings import PROTOCOL, TRUSTED_PROXIES, limits_table
from .system import check, check_equal, free_port, wait_until

AGENT = "10.1.0.2"
APP = "app.example.com"


class Chain:
    """A client's way: gateway, tunnel, agent. `routes` are the gateway's tunnels, dictionaries with `domain` and more keys.
    `more`: targets of further agents, each with one, at the addresses behind `AGENT`."""

    def __init__(self, program, lab, target, routes=None, limits=None, trusted=(), protocol=None, agent_limits=None, options=(), name="", more=()):
        self.program, self.lab, self.name = program, lab, name
        self.directory = lab.private_directory(f"{name}conf")
        udp = free_port(socket.SOCK_DGRAM)
        result = program.run(lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{udp}", "--out", self.directory])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        others = [self.init_agent(f"10.1.0.{3 + number}", udp) for number in range(len(more))]
        self.routes = routes or [{"domain": APP}]
        self.limits, self.trusted, self.protocol = limits or {}, trusted, protocol
        self.config = self.write_gateway()
        agent = self.write("agent.toml", self.agent_text(target, agent_limits))
        self.gateway = Gateway(program, lab, None, options=["--config", self.config, *options], name=f"{name}gateway")
        self.agent = Agent(program, lab, None, options=["--config", agent], name=f"{name}agent")
        for conf, target in zip(others, more):
            Agent(program, lab, conf, target, name=os.path.basename(os.path.dirname(conf)))
        self.edge = self.gateway.edge

    def init_agent(self, address, udp):
        """Keys of another agent, which the gateway then knows; the path of its file."""
        name = f"{self.name}agent-{address}"
        directory = self.lab.private_directory(name)
        result = self.program.run(self.lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{udp}", "--out", directory])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")

        def read(*path):
            with open(os.path.join(*path)) as file:
                return file.read()

        key = re.search(r"PublicKey = (.*)", read(self.directory, "agent.conf"))[1]
        peer = read(directory, "gateway.conf").partition("[Peer]")[2].replace(AGENT + "/", address + "/")
        self.lab.write(f"{self.name}conf/gateway.conf", read(self.directory, "gateway.conf") + "\n[Peer]" + peer)
        self.lab.write(f"{name}/agent.conf", re.sub(r"PublicKey = .*", f"PublicKey = {key}", read(directory, "agent.conf").replace(AGENT + "/", address + "/")))
        return os.path.join(directory, "agent.conf")

    def write(self, name, text):
        """In one step, as an operator's editor does: whoever reads the file sees the old text or the new one."""
        path = os.path.join(f"{self.name}conf", name)
        self.lab.write(path + ".new", text)
        path = os.path.join(self.lab.directory, path)
        os.rename(path + ".new", path)
        return path

    def gateway_text(self):
        lines = [f"{TRUSTED_PROXIES} = [{', '.join(map(quoted, self.trusted))}]"] if self.trusted else []
        lines += ["[wireguard]", 'config = "gateway.conf"']
        for route in self.routes:
            lines += ["[[tunnel]]"] + [f"{key} = {quoted(value)}" for key, value in {"agent": AGENT, **route}.items()]
            if self.protocol and PROTOCOL not in route:
                lines.append(f"{PROTOCOL} = {quoted(self.protocol)}")
        return "\n".join(lines) + "\n" + limits_table(self.limits)

    def write_gateway(self):
        return self.write("gateway.toml", self.gateway_text())

    def agent_text(self, target, limits):
        if isinstance(target, dict):
            lines = []
            for domain, where in target.items():
                where = where if isinstance(where, dict) else {"target": where}
                lines += ["[[tunnel]]", f"domain = {quoted(domain)}"] + [f"{key} = {quoted(value)}" for key, value in where.items()]
            head = ""
        else:
            head, lines = f"target = {quoted(target)}\n", []
        return head + '[wireguard]\nconfig = "agent.conf"\n' + "\n".join(lines) + "\n" + limits_table(limits)


def quoted(value):
    return "true" if value is True else "false" if value is False else str(value) if isinstance(value, int) else f'"{value}"'


class Holdings:
    """Descriptors and memory of a process at rest, to be compared with what it holds later."""

    def __init__(self, process):
        self.process = process
        self.descriptors, self.memory = process.descriptors(), process.memory()

    def growth(self):
        return self.process.memory() - self.memory

    def check_memory(self, most, when):
        growth = self.growth()
        check(growth < most, f"the {self.process.name} has {growth:.1f} MB more {when}: {self.memory:.1f} MB before")

    def wait_for_return(self, timeout=10, more=0):
        """Until it has no more descriptors open than at rest."""
        def returned():
            self.last = self.process.descriptors()
            return self.last <= self.descriptors + more

        try:
            wait_until(returned, timeout, "")
        except AssertionError:
            check(False, f"the {self.process.name} still has {self.last} descriptors after {timeout} s: {self.descriptors} at rest")
