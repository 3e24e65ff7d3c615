"""Debian's knot: a primary server of test zones that takes dynamic updates signed with TSIG."""

import base64
import os
import random
import socket
import subprocess

from .system import check, free_port, is_root, wait_until

TOOLS = ["knotd", "kdig", "knsupdate"]
KEY = "acme"


class Knot:
    """`records`: zone to lines of its file, beside SOA and NS. Root lets it have port 53, where servers of a zone are asked, at an
    address of loopback that nobody has; `can_be_asked` says whether it is so."""

    def __init__(self, lab, records, name="knot"):
        self.lab, self.name = lab, name
        self.can_be_asked = is_root()
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.{random.randrange(2, 255)}" if is_root() else "127.0.0.1"
        self.port = 53 if is_root() else free_port(socket.SOCK_DGRAM)
        self.secret = base64.b64encode(os.urandom(32)).decode()
        # Of the user that knot runs as: it gives up root's right to write everywhere.
        self.directory = os.path.join(lab.directory, name)
        for directory in ("", "zones", "db"):
            os.mkdir(os.path.join(self.directory, directory), 0o700)
        for zone, lines in records.items():
            text = ["@ 60 IN SOA ns hostmaster 1 60 60 60 5", "@ 60 IN NS ns", f"ns 60 IN A {self.address}", *lines]
            self.write(f"zones/{zone}", "\n".join(text) + "\n")
        self.write("knot.conf", self.configuration(records))
        # What knsupdate -k takes.
        self.key_file = lab.write(f"{name}-update.key", f"hmac-sha256:{KEY}:{self.secret}\n")
        self.process = lab.start(name, ["knotd", "-c", os.path.join(self.directory, "knot.conf")], unprivileged=not is_root())
        wait_until(lambda: self.ask(next(iter(records)), "SOA"), 10, "knot answers", interval=0.1)

    def write(self, name, text):
        with open(os.path.join(self.directory, name), "w") as file:
            file.write(text)

    @property
    def endpoint(self):
        return f"{self.address}:{self.port}"

    def configuration(self, zones):
        return f"""server:
    listen: {self.address}@{self.port}
    rundir: {self.directory}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {self.directory}/db
key:
  - id: {KEY}
    algorithm: hmac-sha256
    secret: {self.secret}
acl:
  - id: update
    key: {KEY}
    action: update
    update-type: TXT
template:
  - id: default
    storage: {self.directory}/zones
    file: "%s"
    acl: update
    zonefile-sync: -1
zone:
""" + "".join(f"  - domain: {zone}\n" for zone in zones) + """log:
  - target: stderr
    any: debug
"""

    def ask(self, name, type="TXT"):
        """The values."""
        command = ["kdig", "+short", "+timeout=1", "+retry=0", f"@{self.address}", "-p", str(self.port), name, type]
        return subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[:-1]

    def update(self, action, zone, name, value):
        """As a provider is told to, by knsupdate."""
        result = subprocess.run(
            ["knsupdate", "-k", self.key_file], input=self.commands(action, zone, name, value), capture_output=True, text=True, timeout=20)
        check(result.returncode == 0, f"knsupdate: {result.stdout} {result.stderr}")

    def commands(self, action, zone, name, value):
        change = f'update add {name} 60 TXT "{value}"' if action == "present" else f'update del {name} TXT "{value}"'
        return f"server {self.address} {self.port}\nzone {zone}.\n{change}\nsend\n"

    @property
    def log(self):
        return self.process.output() + self.process.errors()
