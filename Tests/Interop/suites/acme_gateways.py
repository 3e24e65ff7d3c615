"""Several gateways for the same names, which the CA cannot tell apart; kinds of certificates. 25 s."""

import http.server
import os
import signal
import threading

from interop.certified import SECRETS, Certified, at_once
from interop.client import first_status
from interop.pebble import TOOLS, Pebble
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until

PATH = "/.well-known/acme-challenge/"
NAME = "app.example.test"
BY_HTTP = {"challenges": ["http-01"]}


class Peer(http.server.ThreadingHTTPServer):
    """Stands at another gateway's plain port and answers each token with what it is told to."""

    daemon_threads = True

    def __init__(self):
        self.answer, self.asked = "", []
        super().__init__(("127.0.0.1", free_port()), PeerHandler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class PeerHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Host"), self.headers.get("Kakuremichi-Challenge-Relay")))
        body = self.server.answer.replace("TOKEN", self.path.removeprefix(PATH)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class SUITE(Suite):
    tools = TOOLS
    modules = ["cryptography"]

    def set_up(self):
        self.pebble = Pebble(self.lab)

    def site(self, name, domains, **options):
        return Certified(self.program, self.lab, self.pebble, name, domains, **options)

    def elsewhere(self, name, domains, **options):
        """A gateway that the CA does not see."""
        return self.site(name, domains, https=free_port(), http=free_port(), **options)

    @staticmethod
    def thumbprint(site):
        return next(line.split()[1] for line in site.certs("account").splitlines() if "thumbprint" in line)

    @staticmethod
    def cluster(*peers):
        return "[cluster]\npeers = [" + ", ".join(f'{{ address = "{address}", account_thumbprint = "{thumbprint}" }}' for address, thumbprint in peers) + "]\n"

    @test
    def two_gateways_share_a_cache(self):
        """The CA validates at the first one: it answers for the other from the file of the token."""
        cache = self.lab.private_directory("shared-cache")
        both, alone = "both.shared.example.test", "alone.shared.example.test"
        with self.site("one", [both], settings=BY_HTTP, cache=cache) as one:
            before = one.shown(both)
            orders = self.pebble.orders
            with self.site("other", [both], settings=BY_HTTP, cache=cache, https=free_port(), http=free_port()) as other:
                check_equal(other.shown(both).serial_number, before.serial_number, "serial number at the other")
                check_equal(self.pebble.orders, orders, "orders for what is in the cache")
                thumbprints = {next(line for line in site.certs("account").splitlines() if "thumbprint" in line) for site in (one, other)}
                check_equal(len(thumbprints), 1, "different accounts")
                one.reload([both, alone])
                one.wait_for_certificate(alone)
                other.reload([both, alone])
                other.wait_for_certificate(alone)
                at_once([lambda site=site: site.certs("renew", both, "--wait") for site in (one, other)])
                for site in (one, other):
                    for name in (both, alone):
                        site.shown(name)
        for name in (both, alone):
            with open(os.path.join(cache, name), "rb") as file:
                text = file.read()
            check(text.count(b"BEGIN CERTIFICATE") == 2 and text.count(b"PRIVATE KEY") == 2, f"the file of {name} is not whole")
        check_equal([entry for entry in os.listdir(cache) if ".new-" in entry or ".damaged" in entry or "+http" in entry], [], "files left behind")

    # Each with its own cache

    @test
    def a_gateway_answers_for_its_peer(self):
        """The CA validates at the first one only; both have a certificate of their own in the end."""
        with self.elsewhere("behind", [], settings=BY_HTTP) as behind:
            peers = self.cluster((f"127.0.0.1:{behind.http}", self.thumbprint(behind)))
            with self.site("front", [NAME], settings=BY_HTTP, more=peers) as front:
                first = front.shown(NAME)
                behind.reload([NAME])
                behind.wait_for_certificate(NAME)
                check(first.serial_number != behind.shown(NAME).serial_number, "both show the same certificate")

    @test
    def what_a_peer_makes_up_is_not_served(self):
        token, good, bad = "T" * 43, "A" * 43, "B" * 43
        with Peer() as peer, self.site("asking", [NAME], settings=BY_HTTP, more=self.cluster((peer.address, good))) as site:
            site.shown(NAME)

            def ask(token, more=""):
                return site.edge.raw(f"GET {PATH}{token} HTTP/1.1\r\nHost: {NAME}\r\n{more}Connection: close\r\n\r\n".encode())

            peer.asked.clear()
            for number, answer in enumerate((
                    f"TOKEN.{bad}", f"{token}.{good}", f"TOKEN.{good}.more", f"TOKEN{good}", f".{good}", "", f"TOKEN.{good}" + " " * 5000,
                    f"TOKEN.{good}\r\n\r\nTOKEN.{bad}")):
                peer.answer = answer
                got = ask(f"{number}" * 43)
                check(first_status(got) in (301, 308) and b"." + bad.encode() not in got, f"a peer's {answer[:60]!r} is answered by {got[:300]}")
            check_equal(len(peer.asked), 8, "questions to the peer")
            check_equal({host for _, host, _ in peer.asked}, {NAME}, "hosts in the questions")
            peer.answer = f"TOKEN.{good}"
            got = ask("Z" * 43)
            check_equal((first_status(got), got.endswith(f"{'Z' * 43}.{good}".encode())), (200, True), "a right answer")
            # Whoever is asked by a peer asks nobody.
            check(all(relay for _, _, relay in peer.asked), "a question lacks the loop guard")
            peer.asked.clear()
            check_equal(first_status(ask("Y" * 43, "Kakuremichi-Challenge-Relay: 1\r\n")), 404, "status of a relayed question")
            check_equal(first_status(site.edge.raw(f"GET {PATH}{'X' * 43} HTTP/1.1\r\nHost: other.example.test\r\nConnection: close\r\n\r\n".encode())), 404, "status for a host without a tunnel")
            check_equal(peer.asked, [], "questions to the peer")

    # Kinds of certificates

    @test
    def rsa_is_served_if_it_is_asked_for(self):
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

        with self.site("rsa", [NAME], settings={"key-type": "rsa2048"}) as site:
            check(isinstance(site.shown(NAME).public_key(), RSAPublicKey), "the key is of another kind")
            check(os.path.exists(site.path(f"{NAME}+rsa")) and not os.path.exists(site.path(NAME)), f"files: {os.listdir(site.cache)}")

    def issue_with_own_name(self, number, challenges):
        """Several orders at once validate the gateway's own name, each in its turn or all together."""
        own, names = "gw1.example.test", [f"route{route}.named{number}.example.test" for route in range(4)]
        with self.site(f"named{number}", names, settings={"gateway-name": own, "challenges": challenges}) as site:
            wait_until(lambda: len(site.said("Certificate issued")) + len(site.said("Certificate not issued")) >= 4, 20, "all orders have ended")
            check_equal([line["reason"] for line in site.said("A challenge failed")], [], "failed challenges")
            for name in names:
                check_equal(sorted(site.wait_for_certificate(name, 5)["names"]), sorted([name, own]), "names of the certificate")
                site.shown(name)
            check_equal(site.alert(own, timeout=5), "TLSV1_UNRECOGNIZED_NAME", "alert for the gateway's own name, which is no route")

    @test
    def a_name_of_the_gateway_is_in_each_certificate_by_http_01(self):
        self.issue_with_own_name(1, ["http-01"])

    @test
    def a_name_of_the_gateway_is_in_each_certificate_by_tls_alpn_01(self):
        self.issue_with_own_name(2, ["tls-alpn-01"])

    @test
    def a_name_of_the_gateway_is_in_each_certificate_by_either(self):
        self.issue_with_own_name(3, ["tls-alpn-01", "http-01"])

    # Crowds

    @test
    def a_hundred_handshakes_may_wait_for_a_name(self):
        """The rest fails at once; nobody waits for names that have their certificate."""
        ready, late = "ready.example.test", "late.example.test"
        with self.site("crowd", [ready]) as site:
            site.shown(ready)
            self.pebble.process.send_signal(signal.SIGSTOP)
            try:
                site.reload([ready, late])
                site.wait_for_line("Ordering a certificate", domain=late)
                timer = threading.Timer(2.5, self.pebble.process.send_signal, (signal.SIGCONT,))
                timer.start()
                results = at_once([lambda: site.handshake(late) for _ in range(110)] + [lambda: site.handshake(ready, timeout=5)])
                timer.join()
            finally:
                self.pebble.process.send_signal(signal.SIGCONT)
            failed = [result for result in results if isinstance(result, Exception)]
            check_equal(len(failed), 10, f"failed handshakes of 110 ({failed[:1]})")
            check(not isinstance(results[-1], Exception), f"the name with a certificate: {results[-1]}")

    @test
    def no_key_is_told_anywhere(self):
        SECRETS.check_untold(self.lab)
