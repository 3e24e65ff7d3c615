"""Debian's pebble, the test CA of Let's Encrypt, and its pebble-challtestsrv, which resolves every name to 127.0.0.1."""

import json
import os
import re
import socket
import ssl
import subprocess
import urllib.request

from .product import wait_for_port
from .system import check, free_port, wait_until

EAB_ID, EAB_KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
TOOLS = ["setpriv", "openssl", "pebble", "pebble-challtestsrv"]
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*arguments, cwd=None, input=None):
    result = subprocess.run(["openssl", *map(str, arguments)], cwd=cwd, capture_output=True, input=input)
    check(result.returncode == 0, f"openssl {arguments[0]}: {result.stderr.decode(errors='replace')}")
    return result.stdout


class Pebble:
    """A CA that validates at two ports of loopback, `http` and `tls`: whoever listens there is whom it believes."""

    def __init__(self, lab, name="pebble", http=None, tls=None, nonce_reject=0, reuse=0, alternates=0, chain=1, eab=False, validity=90 * 86400, dns=None, start=True):
        """`dns` is another resolver than its own, ADDRESS:PORT."""
        self.lab, self.name = lab, name
        self.http, self.tls = http or free_port(), tls or free_port()
        self.port, self.management = free_port(), free_port()
        self.directory = lab.private_directory(name)
        self.ca_file = self.path("ca.pem")
        self.root_file = self.path("root.pem")
        self.url = f"https://127.0.0.1:{self.port}/dir"
        self.make_certificates()
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}", "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": self.path("pebble.crt"), "privateKey": self.path("pebble.key"), "httpPort": self.http, "tlsPort": self.tls,
            "externalAccountBindingRequired": eab,
            "certificateValidityPeriod": validity}
        if eab:
            settings["externalAccountMACKeys"] = {EAB_ID: EAB_KEY}
        lab.write(self.path("pebble.json"), json.dumps({"pebble": settings}))
        self.environment = {
            "PATH": "/usr/bin:/bin", "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(nonce_reject), "PEBBLE_AUTHZREUSE": str(reuse),
            "PEBBLE_ALTERNATE_ROOTS": str(alternates), "PEBBLE_CHAIN_LENGTH": str(chain)}
        self.resolver = None
        self.dns = dns or self.start_resolver()
        if start:
            self.start()

    def path(self, name):
        return os.path.join(self.directory, name)

    def start_resolver(self):
        dns, management = f"127.0.0.1:{free_port()}", free_port()
        self.resolver = self.lab.start(
            f"{self.name}-dns",
            ["pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "",
             "-dns01", dns, "-management", f"127.0.0.1:{management}"])
        wait_for_port(self.resolver, management)
        return dns

    def make_certificates(self):
        """Of the directory's own HTTPS."""
        def run(*arguments):
            openssl(*arguments, cwd=self.directory)

        run("req", "-x509", *CURVE, "-days", 30, "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem")
        run("req", *CURVE, "-subj", "/CN=localhost", "-keyout", "pebble.key", "-out", "pebble.csr")
        self.lab.write(self.path("extensions"), "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        run("x509", "-req", "-in", "pebble.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", 30, "-out", "pebble.crt",
            "-extfile", "extensions")
        for name in os.listdir(self.directory):
            self.lab.own(self.path(name), 0o600)

    def start(self):
        """A new one knows nothing of what there was, and has a new root."""
        self.process = self.lab.start(
            self.name, ["pebble", "-config", self.path("pebble.json"), "-dnsserver", self.dns, "-strict"], environment=self.environment)
        wait_for_port(self.process, self.port)
        wait_for_port(self.process, self.management)
        self.lab.write(self.root_file, self.root(), 0o644)

    def stop(self):
        self.process.stop()

    def restart(self):
        self.stop()
        self.start()

    def close(self):
        self.stop()
        if self.resolver:
            self.resolver.stop()

    # What it knows

    def manage(self, path):
        context = ssl.create_default_context(cafile=self.ca_file)
        with urllib.request.urlopen(f"https://127.0.0.1:{self.management}{path}", context=context, timeout=10) as answer:
            return answer.read().decode()

    def root(self, number=0):
        return self.manage(f"/roots/{number}")

    def common_name(self, number=0):
        text = openssl("x509", "-noout", "-subject", input=self.root(number).encode()).decode()
        return re.search(r"CN\s*=\s*(.*)", text)[1].strip()

    def status_of(self, serial):
        """Of a certificate, by its serial number: Valid or Revoked."""
        return json.loads(self.manage(f"/cert-status-by-serial/{serial:x}"))["Status"]

    @property
    def log(self):
        """Of the process that runs now."""
        return self.process.output() + self.process.errors()

    @property
    def orders(self):
        return self.log.count('Added order "')

    @property
    def requests(self):
        return len(re.findall(r"(?:GET|HEAD|POST) /\S+ -> calling handler", self.log))

    def wait_for_orders(self, count, timeout=10):
        wait_until(lambda: self.orders >= count, timeout, f"{self.name} has {count} orders")


def alert_number(port, domain, protocols):
    """The TLS alert by which a handshake with these protocols is refused; None if it is not."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", protocols]
    command += ["-servername", domain] if domain else ["-noservername"]
    result = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=40)
    match = re.search(rb"SSL alert number (\d+)", result.stderr)
    return int(match[1]) if match else None


class Silence:
    """A port at which connections are taken by the kernel and nothing is said."""

    def __init__(self, port):
        self.socket = socket.create_server(("127.0.0.1", port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
