"""Gateway and agent from their TOML files: several targets, a disabled tunnel, PEM certificates, several listeners."""

import json
import os
import socket
import subprocess

from interop.client import Edge
from interop.nodes import Origin, wait_until_served
from interop.origin import PAGE
from interop.product import wait_for_port
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port

APP, SECOND, OFF = "app.example.com", "second.example.com", "off.example.com"


class SUITE(Suite):
    tools = ["setpriv", "openssl"]

    def set_up(self):
        lab = self.lab
        udp = free_port(socket.SOCK_DGRAM)
        self.out = lab.private_directory("conf")
        result = self.program.run(lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{udp}", "--out", self.out])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        self.origin, self.second = Origin(lab), Origin(lab, name="second-origin")
        self.make_certificate([APP, SECOND, OFF])
        self.https, self.http = free_port(), free_port()
        self.https6, self.dual = free_port(address="::1"), free_port(address="::")
        gateway = lab.write("conf/gateway.toml", f"""
https = ["127.0.0.1:{self.https}", "[::1]:{self.https6}", "[::]:{self.dual}"]
http = "127.0.0.1:{self.http}"
public-https-port = 443
state = "{lab.private_directory('gateway-state')}"

[wireguard]
config = "gateway.conf"

[[tunnel]]
domain = "{APP}"
agent = "10.1.0.2"

[[tunnel]]
domain = "{SECOND}"
agent = "10.1.0.2"
port = 80

[[tunnel]]
domain = "{OFF}"
agent = "10.1.0.2"
enabled = false

[[certificate]]
cert = "site.pem"
key = "site.key"
default = true
""")
        agent = lab.write("conf/agent.toml", f"""
state = "{lab.private_directory('agent-state')}"

[wireguard]
config = "agent.conf"

[[tunnel]]
domain = "{APP}"
target = "{self.origin.target}"

[[tunnel]]
domain = "{SECOND}"
target = "localhost:{self.second.port}"
host = "target"
""")
        for role, path in (("gateway", gateway), ("agent", agent)):
            result = self.program.run(lab, [role, "--config", path, "--check"])
            check_equal(result.returncode, 0, f"exit code of {role} --check ({result.stdout}{result.stderr})")
        self.gateway = self.program.start(lab, "gateway", ["gateway", "--config", gateway])
        self.agent = self.program.start(lab, "agent", ["agent", "--config", agent])
        for port in (self.https, self.http, self.https6, self.dual):
            wait_for_port(self.gateway, port)
        self.edge = Edge(self.https, self.http, self.certificate)

    def make_certificate(self, domains):
        self.certificate = os.path.join(self.out, "site.pem")
        key = os.path.join(self.out, "site.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=test",
             "-addext", "subjectAltName=" + ",".join(f"DNS:{domain}" for domain in domains),
             "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-keyout", key, "-out", self.certificate],
            check=True, capture_output=True)
        self.lab.own(key, 0o600)
        self.lab.own(self.certificate, 0o644)

    @test
    def each_domain_has_its_own_target(self):
        for domain, origin, host in ((APP, self.origin, APP), (SECOND, self.second, f"localhost:{self.second.port}")):
            wait_until_served(self.edge, domain, 20)
            status, _, body = self.edge.request(domain, path="/headers")
            fields = {name.lower(): value for name, value in json.loads(body)["fields"]}
            check_equal((status, fields["host"]), (200, host), f"status, and Host at the target of {domain}")
            self.edge.request(domain, "POST", f"/upload/{domain}", body=b"x")
            check(origin.seen(domain), f"the target of {domain} has not seen its request")

    @test
    def the_configured_certificate_is_shown_and_no_other_is_made(self):
        check(not os.path.exists(os.path.join(self.lab.directory, "gateway-state", "internal-ca.pem")), "an internal CA was made")

    @test
    def a_disabled_tunnel_is_a_503(self):
        status, _, body = self.edge.request(OFF)
        check_equal(status, 503, "status")
        check(b"Tunnel disabled" in body, f"body: {body[:200]!r}")

    @test
    def a_certificate_that_covers_both_serves_both_hosts(self):
        status, _, body = self.edge.request(APP, headers={"Host": SECOND})
        check_equal((status, body), (200, PAGE), "status and page")

    @test
    def a_client_without_a_server_name_gets_the_default_certificate_and_an_answer_by_host(self):
        wait_until_served(self.edge, APP, 20)
        context = self.edge.tls_context()
        context.check_hostname = False
        for host, status in ((APP, 200), (OFF, 503), ("nobody.example", 404)):
            raw = socket.create_connection((self.edge.address, self.https), timeout=15)
            with context.wrap_socket(raw) as connection:
                names = [value for kind, value in connection.getpeercert()["subjectAltName"] if kind == "DNS"]
                check_equal(names, [APP, SECOND, OFF], "names of the certificate")
                connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                check_equal(connection.recv(12), f"HTTP/1.1 {status}".encode(), f"answer for {host}")

    @test
    def the_second_listener_serves_too(self):
        edge = Edge(self.https6, self.http, self.certificate, "::1")
        check_equal(edge.request(APP)[0], 200, "status over IPv6 outside")

    @test
    def a_dual_stack_listener_names_clients_by_their_own_family(self):
        for address in ("127.0.0.1", "::1"):
            status, _, body = Edge(self.dual, self.http, self.certificate, address).request(APP, path="/headers")
            fields = {name.lower(): value for name, value in json.loads(body)["fields"]}
            check_equal((status, fields["x-real-ip"], fields["x-forwarded-for"]), (200, address, address), f"status and client from {address}")

    @test
    def redirects_name_the_public_port(self):
        answer = self.edge.raw(f"GET /x HTTP/1.1\r\nHost: {APP}\r\nConnection: close\r\n\r\n".encode())
        check(f"https://{APP}/x\r\n".encode() in answer, f"answer: {answer[:300]}")
