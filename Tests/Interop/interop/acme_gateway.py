"""A gateway that gets its certificates from the tests' CA, on a loopback address of its own, from a TOML file."""

import http.client
import json
import os
import socket
import ssl
import threading
import time

from .acme_keys import key_pem, new_key, thumbprint_of_file, to_der
from .chain import quoted
from .client import Edge
from .product import wait_for_port
from .system import check, check_equal, free_port, wait_until

AGENT = "10.1.0.2"
EMAIL = "operator@example.test"


class AcmeGateway:
    """`cas`: who is asked, in order; `acme`, `peers`: more of [acme], and [(address:port, thumbprint)] of [cluster]."""

    def __init__(self, program, lab, name, names, cas, address="127.0.0.1", acme=None, peers=(), start=True, authority=None):
        self.program, self.lab, self.name, self.names, self.cas, self.address = program, lab, name, list(names), list(cas), address
        self.acme, self.peers = dict(acme or {}), list(peers)
        self.https, self.http = free_port(address=address), free_port(address=address)
        self.state = lab.private_directory(f"{name}-state")
        self.directory = lab.private_directory(f"{name}-conf")
        self.certificates = lab.private_directory(f"{name}-state/certificates")
        udp = free_port(socket.SOCK_DGRAM)
        result = program.run(lab, ["init", "--domain", "unused.example.test", "--endpoint", f"127.0.0.1:{udp}", "--out", self.directory])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        # There before the first start, so that others can list its thumbprint.
        lab.write(f"{name}-state/certificates/acme_account+key", key_pem(new_key()))
        roots = "".join(ca.issuer.root_pem for ca in authority or cas)
        self.edge = Edge(self.https, self.http, lab.write(f"{name}.pem", roots, 0o644), address)
        self.process = None
        if start:
            self.start()

    @property
    def plain_address(self):
        return f"{self.address}:{self.http}"

    @property
    def place(self):
        """Where a validator that is sent here looks."""
        return self.address, self.http

    @property
    def thumbprint(self):
        return thumbprint_of_file(os.path.join(self.certificates, "acme_account+key"))

    def file(self, name):
        return os.path.join(self.certificates, name)

    def text(self):
        lines = ["[wireguard]", 'config = "gateway.conf"', "[acme]", f'email = "{EMAIL}"']
        lines += [f"{key} = {quoted(value)}" for key, value in self.acme.items()]
        if len(self.cas) == 1:
            lines.append(f"directory = {quoted(self.cas[0].directory)}")
        else:
            for ca in self.cas:
                lines += ["[[acme.ca]]", f"directory = {quoted(ca.directory)}"]
        if self.peers:
            peers = ", ".join(f'{{ address = "{address}", account_thumbprint = "{text}" }}' for address, text in self.peers)
            lines += ["[cluster]", f"peers = [{peers}]"]
        for name in self.names:
            lines += ["[[tunnel]]", f"domain = {quoted(name)}", f"agent = {quoted(AGENT)}"]
        return "\n".join(lines) + "\n"

    def command(self):
        config = self.lab.write(f"{self.name}-conf/gateway.toml", self.text())
        return ["gateway", "--config", config, "--state", self.state, "--https", f"{self.address}:{self.https}", "--http", self.plain_address]

    def check_configuration(self):
        """What `--check` prints."""
        result = self.program.run(self.lab, self.command() + ["--check"])
        check_equal(result.returncode, 0, f"exit code of --check ({result.stdout} {result.stderr})")
        return result.stdout + result.stderr

    def start(self):
        self.process = self.program.start(self.lab, self.name, self.command())
        wait_for_port(self.process, self.https)
        wait_for_port(self.process, self.http)

    def stop(self):
        check_equal(self.process.stop(), 0, f"exit code of {self.name}")

    def restart(self):
        self.stop()
        self.start()

    # Commands

    def certs(self, *arguments, timeout=30):
        return self.program.run(self.lab, ["certs", *arguments, "--state", self.state], timeout=timeout)

    def json(self, *arguments):
        result = self.certs(*arguments, "--json")
        check_equal(result.returncode, 0, f"exit code of certs {arguments[0]} ({result.stderr.strip()})")
        return json.loads(result.stdout)

    def entry(self, name):
        return next((one for one in self.json("list")["certificates"] if one["name"] == name), None)

    def renew(self, name):
        """Without waiting; what it prints. A limit is a failure."""
        result = self.certs("renew", name)
        is_limited = "a limit holds" in result.stderr
        check_equal(result.returncode, 1 if is_limited else 0, f"exit code of certs renew {name} ({result.stderr.strip()})")
        return result.stdout + result.stderr

    def wait_for(self, name, condition, timeout, what):
        return wait_until(lambda: (entry := self.entry(name)) and condition(entry) and entry, timeout, f"{name}: {what}", interval=0.1)

    def wait_until_valid(self, *names, timeout=20):
        for name in names or self.names:
            self.wait_for(name, lambda entry: entry["state"] == "valid", timeout, "a certificate that is valid")

    def wait_for_failure(self, name, timeout=20):
        """The entry of a name whose order has failed."""
        return self.wait_for(name, lambda entry: entry["failures"] > 0, timeout, "a failure")

    # Clients

    def leaf(self, name, timeout=10):
        """DER of what a client is shown, which it trusts."""
        with self.edge.open_tls(name, timeout) as connection:
            return connection.getpeercert(binary_form=True)

    def stored_leaf(self, name):
        with open(self.file(name), "rb") as file:
            text = file.read()
        return to_der(text[text.index(b"-----BEGIN CERTIFICATE"):])

    def plain(self, path, host, timeout=15, fields=None):
        """A request to the plain listener: status, body."""
        connection = http.client.HTTPConnection(self.address, self.http, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Host": host, **(fields or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def challenge(self, token, host, **options):
        return self.plain(f"/.well-known/acme-challenge/{token}", host, **options)


class Visitor:
    """Shakes hands again and again, and keeps what it was shown and what went wrong."""

    def __init__(self, gateway, name, interval=0.2):
        self.gateway, self.name, self.interval = gateway, name, interval
        self.leaves, self.faults, self.count = [], [], 0
        self.is_stopped = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.is_stopped:
            try:
                leaf = self.gateway.leaf(self.name)
                self.count += 1
                if leaf not in self.leaves:
                    self.leaves.append(leaf)
            except (OSError, ssl.SSLError) as error:
                self.faults.append(f"{time.strftime('%X')} after {self.count}: {error!r}")
            time.sleep(self.interval)

    def stop(self):
        self.is_stopped = True
        self.thread.join(15)
        check(not self.thread.is_alive(), "a handshake hangs")
