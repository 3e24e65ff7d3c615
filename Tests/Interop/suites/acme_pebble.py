"""Certificates from a CA that validates as Let's Encrypt does: ordered, awaited, failed, renewed. 60 s."""

import concurrent.futures
import datetime
import glob
import http.server
import os
import re
import signal
import threading
import time

from interop.certified import SECRETS, Certified, at_once, count_handshakes, curl_version, unverified
from interop.nodes import Origin
from interop.pebble import EAB_ID, EAB_KEY, TOOLS, Pebble, Silence, alert_number
from interop.runner import Suite, test
from interop.settings import route_add, route_remove
from interop.system import check, check_equal, free_port, wait_until
from interop.wire import Wire

ALPN, PATIENT, FLEETING = "acme-tls/1", "patient.example.test", "fleeting.example.test"
NO_PROTOCOL, UNKNOWN_NAME = 120, "TLSV1_UNRECOGNIZED_NAME"


class Liar(http.server.BaseHTTPRequestHandler):
    """Answers every validation with something else."""

    def do_GET(self):
        body = b"this is not it"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class SUITE(Suite):
    tools = [*TOOLS, "curl"]
    modules = ["cryptography"]

    def set_up(self):
        self.origin = Origin(self.lab)
        self.pebble = Pebble(self.lab)
        # What takes half a minute begins here and is looked at in the end.
        self.absent = Pebble(self.lab, "absent", start=False)
        self.patient = self.site("patient", [PATIENT], self.absent)
        self.brief = Pebble(self.lab, "brief", validity=50)
        self.fleeting = self.site("fleeting", [FLEETING], self.brief)
        self.begin = time.monotonic()
        self.waiting = concurrent.futures.ThreadPoolExecutor(1).submit(self.wait_in_vain)

    def wait_in_vain(self):
        """Why a handshake without a CA fails, and after how many seconds."""
        return self.patient.alert(PATIENT, timeout=60), time.monotonic() - self.begin

    def site(self, name, domains, pebble=None, **options):
        return Certified(self.program, self.lab, pebble or self.pebble, name, domains, **options)

    # Issuance

    @test
    def a_handshake_that_arrives_before_the_certificate_waits_and_succeeds(self):
        name = "early.example.test"
        orders = self.pebble.orders
        with self.site("early", [name], target=self.origin.target, start=False) as site:
            # The CA stands still until all are there.
            self.pebble.process.send_signal(signal.SIGSTOP)
            try:
                site.start()
                timer = threading.Timer(1.5, self.pebble.process.send_signal, (signal.SIGCONT,))
                timer.start()
                results = at_once([lambda protocol=protocol: site.handshake(name, [protocol]) for protocol in ["h2", "http/1.1"] * 10])
                timer.join()
            finally:
                self.pebble.process.send_signal(signal.SIGCONT)
            failed = [result for result in results if isinstance(result, Exception)]
            check(not failed, f"{len(failed)} of 20 handshakes failed: {failed[:2]}")
            check_equal([protocol for _, protocol in results], ["h2", "http/1.1"] * 10, "protocols")
            check_equal(len({certificate for certificate, _ in results}), 1, "different certificates")
            check_equal(self.pebble.orders - orders, 1, "orders for 20 handshakes")
            site.wait_until_served(name)
            check_equal(curl_version(site.edge, name), ("200", "2"), "status and version by curl")

    @test
    def certificates_are_ordered_at_start_without_any_handshake(self):
        names = [f"eager{number}.example.test" for number in range(3)]
        orders = self.pebble.orders
        with self.site("eager", names) as site:
            for name in names:
                entry = site.wait_for_certificate(name)
                check_equal(entry["names"], [name], "names of the certificate")
            check_equal(self.pebble.orders - orders, 3, "orders")
            check_equal(site.said("Certificate not found"), [], "complaints")
            for name in names:
                check(os.stat(site.path(name)).st_mode & 0o777 == 0o600, f"mode of the file of {name}")
            check_equal(os.stat(site.cache).st_mode & 0o777, 0o700, "mode of the cache's directory")

    # Challenges

    def issue_by(self, name, challenges, type):
        domain = f"{name}.example.test"
        with self.site(name, [domain], settings={"challenges": challenges}) as site:
            site.shown(domain)
            check_equal([line["type"] for line in site.said("Challenge presented")], [type], "challenges")
            left = [path for path in os.listdir(site.cache) if path.endswith(("+http-01", "+token"))]
            check_equal(left, [], "files of challenges that are left")

    @test
    def http_01_alone_brings_a_certificate(self):
        self.issue_by("by-http", ["http-01"], "http-01")

    @test
    def tls_alpn_01_alone_brings_a_certificate(self):
        self.issue_by("by-alpn", ["tls-alpn-01"], "tls-alpn-01")

    @test
    def http_01_answered_wrongly_is_followed_by_the_next_type(self):
        name = "fallback.example.test"
        liar = http.server.ThreadingHTTPServer(("127.0.0.1", self.pebble.http), Liar)
        threading.Thread(target=liar.serve_forever, args=(0.05,), daemon=True).start()
        try:
            with self.site("fallback", [name], settings={"challenges": ["http-01", "tls-alpn-01"]}, http=free_port()) as site:
                site.shown(name)
                check_equal([line["type"] for line in site.said("Challenge presented")], ["http-01", "tls-alpn-01"], "challenges")
                (line,) = site.said("A challenge failed", domain=name)
                check("http-01" in line["reason"] and "unauthorized" in line["reason"], f"reason: {line['reason']}")
                check_equal(site.entry(name)["failures"], 0, "failures in a row")
        finally:
            liar.shutdown()
            liar.server_close()

    @test
    def a_validation_that_nobody_asked_for_is_refused_by_alert_120(self):
        name = "alpn.example.test"
        with Silence(self.pebble.tls), self.site("alpn", [name], settings={"challenges": ["tls-alpn-01"]}, https=free_port()) as site:
            site.wait_for_line("Challenge presented")
            certificate, protocol = site.handshake(name, [ALPN], verify=False)
            check_equal(protocol, ALPN, "protocol while the challenge is pending")
            self.check_validation_certificate(certificate, name)
            for domain in ("other.example.test", None):
                check_equal(alert_number(site.https, domain, ALPN), NO_PROTOCOL, f"alert for {domain}")
            # It may wait for the real one, and that is not what a validation is shown.
            connection = None
            try:
                connection = unverified(site.https, name, [ALPN, "h2"], timeout=2)
            except OSError:
                pass
            check(connection is None, "a hello with acme-tls/1 and h2 was answered with a certificate")
        with self.site("alpn-after", [name]) as site:
            site.shown(name)
            check_equal(alert_number(site.https, name, ALPN), NO_PROTOCOL, "alert without a challenge")
            certificate, protocol = site.handshake(name, [ALPN, "h2"])
            check_equal(protocol, "h2", "protocol of a hello with both")

    @staticmethod
    def check_validation_certificate(certificate, name):
        from cryptography import x509

        certificate = x509.load_der_x509_certificate(certificate)
        extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
        check(extension.critical and extension.value.value[:2] == b"\x04\x20" and len(extension.value.value) == 34, f"acmeIdentifier {extension}")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
        check_equal(names, [name], "names of the validation certificate")

    @test
    def an_unknown_name_is_refused_and_a_wildcard_without_dns_01_has_no_hope(self):
        good, wild = "good.example.test", "*.wild.example.test"
        with self.site("hopeless", [good, wild]) as site:
            site.wait_for_certificate(good)
            check_equal(site.alert("unknown.example.test", timeout=3), UNKNOWN_NAME, "alert for a name without a route")
            check(site.alert("a.wild.example.test", timeout=3), "a handshake without hope has succeeded")
            (line,) = site.said(f"Certificate not found {wild}")
            check("dns-01" in line["reason"], f"reason: {line['reason']}")
            check_equal(site.entry(wild)["state"], "blocked", "state of the wildcard")
            check("dns-01" in site.certs("show", wild), "certs show does not say what the wildcard needs")
            site.shown(good)
            internal = glob.glob(os.path.join(site.state, "internal*"))
            check_equal(internal, [], "files of the internal CA")

    # Kinds of CAs

    @test
    def half_of_the_nonces_are_rejected(self):
        pebble = Pebble(self.lab, "fickle", nonce_reject=50, reuse=100)
        names = [f"nonce{number}.example.test" for number in range(4)]
        with self.site("nonce", names, pebble) as site:
            for name in names:
                site.shown(name)
            # This CA remembers what it has validated.
            presented = len(site.said("Challenge presented"))
            site.certs("renew", names[0], "--wait")
            check_equal(len(site.said("Challenge presented")), presented, "challenges when an authorization is valid already")
        pebble.close()

    @test
    def an_alternate_chain_is_chosen_by_preferred_issuer(self):
        pebble = Pebble(self.lab, "several", alternates=1, chain=2)
        wanted, name = pebble.common_name(1), "alternate.example.test"
        with self.site("alternate", [name], pebble, settings={"preferred-issuer": wanted}) as site:
            site.wait_for_certificate(name)
            self.lab.write(pebble.root_file, pebble.root(1), 0o644)
            site.shown(name)
            check_equal(site.file(name).count(b"BEGIN CERTIFICATE"), 3, "certificates in the file: the leaf and two intermediate ones")
        with self.site("usual", ["usual.example.test"], pebble) as site:
            self.lab.write(pebble.root_file, pebble.root(0), 0o644)
            site.shown("usual.example.test")
        pebble.close()

    @test
    def an_external_account_is_bound_and_a_wrong_key_is_told(self):
        pebble = Pebble(self.lab, "external", eab=True)

        def bound(key):
            return {"eab-key-id": EAB_ID, "eab-key-file": self.lab.write(f"eab-{len(key)}-{key[0]}", key + "\n")}

        name = "bound.example.test"
        for what, settings, words in (("no key", {}, "externalAccountRequired|external account"), ("a wrong key", bound("A" * len(EAB_KEY)), "external account binding")):
            with self.site(f"unbound{len(settings)}", [name], pebble, settings=settings) as site:
                site.wait_for_state(name, "failed")
                shown = site.certs("show", name)
                check(re.search(words, shown, re.IGNORECASE), f"{what}: certs show says {shown}")
                check(not re.search("decode|internal error", shown), f"{what}: certs show says {shown}")
        with self.site("bound", [name], pebble, settings=bound(EAB_KEY)) as site:
            site.shown(name)
        pebble.close()

    # Failures

    @test
    def failed_challenges_are_told_and_the_back_off_outlives_a_restart(self):
        name = "failing.example.test"
        with self.site("failing", [name], https=free_port(), http=free_port()) as site:
            entry = site.wait_for_state(name, "failed", 25)
            check(entry["failures"] == 1 and "connection" in entry["reason"] and entry["due"] > 0, f"entry: {entry}")
            check("failed" in site.certs("list") and "connection" in site.certs("show", name), "certs list and show do not tell it")
            orders = self.pebble.orders
            site.stop()
            # Now it would work, and still is not tried before its time.
            site.https, site.http = self.pebble.tls, self.pebble.http
            site.start()
            check(site.alert(name, timeout=5), "a handshake without a certificate has succeeded")
            entry = site.entry(name)
            check_equal((entry["state"], entry["failures"]), ("failed", 1), "after the restart")
            check_equal(self.pebble.orders, orders, "orders after the restart")
            site.certs("renew", name, "--wait")
            site.shown(name)
            check_equal(site.entry(name)["failures"], 0, "failures after the recovery")

    @test
    def four_failed_validations_in_an_hour_are_the_limit(self):
        """Whoever asks, and over a restart: the CA's own limit is five."""
        name = "limit.example.test"
        with self.site("limit", [name], settings={"challenges": ["http-01"]}, https=free_port(), http=free_port()) as site:
            site.wait_for_state(name, "failed", 25)
            for _ in range(3):
                site.certs("renew", name, "--wait", code=None)
            orders = self.pebble.orders
            check("limit" in site.certs("renew", name, code=1), "certs renew says nothing of the limit")
            site.stop()
            site.start()
            message = site.certs("renew", name, code=1)
            check(re.search(r"limit.* in 5\d min", message), f"certs renew: {message}")
            check_equal(self.pebble.orders, orders, "orders after four failures")
            check_equal(len(self.failures_in(self.pebble.log, name)), 4, "validations")
            # Whoever waits for a certificate and gets none has to hear of it.
            site.certs("renew", name, "--wait", code=None)

    @staticmethod
    def failures_in(log, name):
        return [line for line in log.splitlines() if "Pulled a task" in line and f'"{name}"' in line]

    @test
    def a_ca_that_forgets_everything_is_registered_at_again(self):
        name = "forgotten.example.test"
        with self.site("forgotten", [name]) as site:
            before = site.shown(name)
            self.pebble.restart()
            site.certs("renew", name, "--wait")
            after = site.shown(name)
            check(before.serial_number != after.serial_number and before.issuer != after.issuer, "the certificate is the old one")

    # Change

    @test
    def routes_that_come_get_certificates_and_routes_that_go_are_refused(self):
        first, second, third = (f"{name}.routes.example.test" for name in ("first", "second", "third"))

        def run(command):
            result = self.program.run(self.lab, command)
            check_equal(result.returncode, 0, f"exit code of {command[:3]} ({result.stderr.strip()})")

        with self.site("routes", [first], target=self.origin.target) as site:
            site.wait_until_served(first)
            with Wire(site.edge, first) as kept:
                run(route_add(site.state, second, "10.1.0.2"))
                site.wait_until_served(second)
                site.reload([first, third])
                site.wait_for_certificate(third)
                site.shown(third)
                run(route_remove(site.state, second))
                check_equal(site.alert(second), UNKNOWN_NAME, "alert for the removed name")
                site.reload([first])
                wait_until(lambda: site.alert(third) == UNKNOWN_NAME, 10, "the name of a removed route is refused")
                kept.send(f"GET / HTTP/1.1\r\nHost: {first}\r\n\r\n".encode())
                check_equal(kept.answer().status, 200, "status on the connection from before")
            check_equal([entry for entry in (site.entry(second), site.entry(third)) if entry], [], "entries of routes that went")

    @test
    def no_handshake_fails_while_certificates_are_renewed(self):
        name = "busy.example.test"
        with self.site("busy", [name], target=self.origin.target) as site:
            site.wait_until_served(name)
            failures, serials, ended = [], set(), threading.Event()
            counted = []
            load = threading.Thread(target=lambda: counted.append(count_handshakes(site, name, ended, failures, serials)))
            load.start()
            try:
                seen = {site.shown(name).serial_number}
                for _ in range(3):
                    check("renewed" in site.certs("renew", name, "--wait"), "certs renew")
                    seen.add(site.shown(name).serial_number)
                check_equal(len(site.said("Challenge presented")), 4, "challenges at a CA that remembers no authorization")
            finally:
                ended.set()
                load.join()
            check_equal(failures, [], f"failed handshakes of {counted}")
            check_equal((len(seen), seen <= serials), (4, True), "serial numbers that were shown")
            check(counted[0] > 100, f"only {counted[0]} handshakes")

    @test
    def a_ca_that_is_down_at_start_does_not_keep_the_gateway_from_running(self):
        alert, seconds = self.waiting.result(40)
        check(alert and seconds < 31, f"a handshake without a CA ended by {alert} after {seconds:.1f} s")
        self.patient.wait_for_line("Certificate not issued", 60, domain=PATIENT)
        entry = self.patient.entry(PATIENT)
        check_equal(entry["state"], "failed", "state without a CA")
        check("refused" in entry["reason"] or "connect" in entry["reason"].lower(), f"reason: {entry['reason']}")
        self.absent.start()
        self.patient.certs("renew", PATIENT, "--wait")
        self.patient.shown(PATIENT)
        self.patient.close()
        self.absent.close()

    @test
    def a_certificate_that_lives_for_50_seconds_is_renewed_by_itself(self):
        """At half of its lifetime."""
        wait_until(lambda: len(self.fleeting.said("Certificate issued")) > 1, 40, "the certificate is renewed")
        first, second, *_ = (datetime.datetime.fromisoformat(line["time"]) for line in self.fleeting.said("Certificate issued"))
        seconds = (second - first).total_seconds()
        check(18 < seconds < 32, f"renewed after {seconds:.0f} s")
        entry = self.fleeting.entry(FLEETING)
        check_equal((entry["failures"], entry["isOverdue"]), (0, False), "failures, and whether renewal is overdue")
        self.fleeting.shown(FLEETING)
        self.fleeting.close()
        self.brief.close()

    @test
    def no_key_is_told_anywhere(self):
        SECRETS.check_untold(self.lab)
