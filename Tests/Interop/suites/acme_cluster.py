"""Several gateways of the same names: each answers for the challenges of all, and for those of nobody else."""

import os
import socket
import threading
import time

from interop.acme_ca import AcmeCA
from interop.acme_gateway import AcmeGateway
from interop.acme_keys import jwk_of, names_of, new_key, thumbprint
from interop.acme_peer import Peer, forgeries, new_token, response, stall
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

APP, SHOP, API, OTHER = "app.example.test", "shop.example.test", "api.example.test", "other.example.test"
RELAY = "kakuremichi-challenge-relay"
# What a known name's plain port says to any path.
REDIRECT = 301


class SUITE(Suite):
    tools = ["setpriv"]
    modules = ["cryptography"]

    def set_up(self):
        self.ca = AcmeCA()
        self.lab.on_close(self.ca.stop)
        self.three = None

    def gateway(self, name, number, names, **options):
        return AcmeGateway(self.program, self.lab, name, names, [self.ca], address=f"127.0.0.{number}", **options)

    def peer(self, number):
        peer = Peer(f"127.0.0.{number}")
        self.lab.on_close(peer.close)
        return peer

    def cluster(self, prefix, numbers, names, **options):
        """Gateways that list each other, started together; the CA looks at all of them."""
        gateways = [self.gateway(f"{prefix}{number}", number, names, start=False, **options) for number in numbers]
        for one in gateways:
            one.peers = [(other.plain_address, other.thumbprint) for other in gateways if other is not one]
        places = [one.place for one in gateways]
        self.ca.perspectives = lambda name: places
        self.start(gateways)
        return gateways

    def start(self, gateways):
        """All before the CA looks at any of them."""
        self.ca.is_looking.clear()
        for one in gateways:
            one.start()
        self.ca.is_looking.set()

    def check_issued_at_once(self, gateways, names):
        """Each gateway has a certificate of its own for each name, and no look from anywhere has failed."""
        for one in gateways:
            one.wait_until_valid(*names)
        check_equal(self.ca.failed_validations(), [], "validations that failed")
        check_equal(self.ca.violations, [], "violations")
        for name in names:
            check_equal(len({one.leaf(name) for one in gateways}), len(gateways), f"different certificates of {name}")
            check_equal(len(self.ca.leaves(name)), len(gateways), f"certificates issued for {name}")
            looks = [one for one in self.ca.validations if one["name"] == name]
            check_equal(len(looks), len(gateways) ** 2, f"looks at {name}")

    # Each answers for all

    @test
    def two_gateways_get_every_certificate_at_the_first_attempt(self):
        gateways = self.cluster("two", (2, 3), [APP, OTHER])
        self.pair = gateways
        self.check_issued_at_once(gateways, [APP, OTHER])
        for one in gateways:
            check_equal(one.json("account")["thumbprint"], one.thumbprint, "what certs account prints")
            check_equal(sorted(os.listdir(one.certificates)), sorted([APP, OTHER, "acme_account+key"]), "files that are left")
            check_equal(oct(os.stat(one.file(APP)).st_mode & 0o777), "0o600", "mode of the file")

    @test
    def three_gateways_that_order_the_same_names_at_once_do(self):
        gateways = self.three = self.cluster("three", (4, 5, 6), [SHOP, API, "www." + SHOP])
        self.check_issued_at_once(gateways, [SHOP, API, "www." + SHOP])
        # All renew in the same moment.
        before = {one.name: one.leaf(SHOP) for one in gateways}
        for one in gateways:
            one.renew(SHOP)
        for one in gateways:
            wait_until(lambda one=one: one.leaf(SHOP) != before[one.name], 20, f"{one.name} has renewed")
        check_equal(self.ca.failed_validations(), [], "validations that failed")

    @test
    def a_gateway_is_not_held_up_by_peers_that_are_down(self):
        """Two of three are gone; the CA looks at what is left."""
        gateway, *others = self.three or self.cluster("three", (4, 5, 6), [API])
        for one in others:
            one.stop()
        self.ca.perspectives = [gateway.place]
        failed = len(self.ca.failed_validations())
        orders = len(self.ca.leaves(API))
        gateway.renew(API)
        wait_until(lambda: len(self.ca.leaves(API)) > orders, 10, "it has renewed")
        gateway.wait_until_valid(API)
        check_equal(self.ca.failed_validations()[failed:], [], "validations that failed")
        check_equal(gateway.challenge(new_token(), API, timeout=10)[0], REDIRECT, "status of an unknown token")
        gateway.stop()

    # Nobody else

    @test
    def an_answer_that_is_not_one_of_a_listed_gateway_is_never_served(self):
        peer, gateway = self.forged()
        good, elsewhere = peer.thumbprint, self.peer(9)

        results = {}

        def ask(what, token):
            begin = time.monotonic()
            try:
                status, body = gateway.challenge(token, APP, timeout=15)
                results[what] = status, body, time.monotonic() - begin
            except OSError as error:
                results[what] = None, repr(error).encode(), time.monotonic() - begin

        threads = []
        memory = gateway.process.memory()
        for what in forgeries(new_token(), good, gateway.thumbprint, ""):
            token = new_token()
            elsewhere.answers[token] = response(f"{token}.{good}".encode())
            peer.answers[token] = forgeries(token, good, gateway.thumbprint, elsewhere.plain_address)[what]
            threads.append(threading.Thread(target=ask, args=(what, token), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(20)
        faults = [
            f"{what}: {status} {body[:120]!r} after {seconds:.1f} s" for what, (status, body, seconds) in results.items()
            if status != REDIRECT or good.encode() in body or seconds > 10]
        check_equal(faults, [], "answers")
        check_equal(len(results), len(threads), "answers")
        check_equal(elsewhere.questions, [], "questions where the redirect points to")
        check(gateway.process.memory() - memory < 30, "the huge ones were read")

    def forged(self):
        """A gateway whose one peer is the test's."""
        if not hasattr(self, "forger"):
            self.forger = self.peer(8)
            self.listed = self.gateway("forged", 7, [APP], peers=[(self.forger.plain_address, self.forger.thumbprint)], start=False)
            self.ca.perspectives = [self.listed.place]
            self.listed.start()
            self.listed.wait_until_valid()
        return self.forger, self.listed

    @test
    def the_right_answer_is_served_byte_by_byte(self):
        peer, gateway = self.forged()
        token = new_token()
        right = f"{token}.{peer.thumbprint}".encode()
        peer.answers[token] = response(right)
        check_equal(gateway.challenge(token, APP), (200, right), "what is served")
        (_, path, fields), = peer.asked(token)
        check_equal((path, fields.get("host"), RELAY in fields), (f"/.well-known/acme-challenge/{token}", APP, True), "the question")

    @test
    def a_question_that_was_relayed_is_not_relayed_again(self):
        peer, gateway = self.forged()
        token = new_token()
        peer.answers[token] = response(f"{token}.{peer.thumbprint}".encode())
        status, body = gateway.challenge(token, APP, fields={RELAY: "1"})
        check(status != 200 and peer.thumbprint.encode() not in body, f"{status} {body}")
        check_equal(peer.asked(token), [], "questions")

    @test
    def a_relayed_question_that_finds_nothing_does_not_hide_the_token(self):
        """Of three gateways the second asks the third, too, while the CA asks that one."""
        peer, gateway = self.forged()
        token = new_token()
        text = f"{token}.{peer.thumbprint}".encode()
        peer.answers[token] = response(text)
        gateway.challenge(token, APP, fields={RELAY: "1"})
        check_equal(gateway.challenge(token, APP), (200, text), "what the CA gets")

    @test
    def a_host_without_a_tunnel_is_never_asked_about(self):
        peer, gateway = self.forged()
        token = new_token()
        peer.answers[token] = response(f"{token}.{peer.thumbprint}".encode())
        for host in ("unknown.example.test", "127.0.0.7", "sub." + APP, "example.test"):
            status, body = gateway.challenge(token, host)
            check_equal((status, peer.thumbprint.encode() in body), (404, False), f"answer for {host}")
        check_equal(peer.asked(token), [], "questions")

    @test
    def what_is_no_token_is_never_asked_about_and_no_file_is_read(self):
        peer, gateway = self.forged()
        questions = len(peer.questions)
        short, long = "a" * 21, "b" * 129
        for name in (short, long, "c" * 30 + ".c"):
            self.lab.write(f"forged-state/certificates/{name}+http-01", f"{name}.{gateway.thumbprint}")
        self.lab.write("forged-state/secret+http-01", "secret")
        forms = [
            short, long, "c" * 30 + ".c", "", ".", "..", "../secret", "%2e%2e%2fsecret", "..%2fsecret", "a" * 30 + "/..", "a" * 30 + "/../../secret",
            "a" * 30 + "%2e", "a" * 30 + "%00", "a" * 30 + "+http-01", "acme_account+key", "acme_account%2bkey", APP, "a" * 30 + "=", "a" * 30 + "/",
            "a" * 30 + "//", "a" * 30 + "%", "%61" * 30, "é" * 30, "a" * 5000, "\\" * 30, "~" * 30]
        for form in forms:
            status, body = self.raw(gateway, form)
            check(status in (REDIRECT, 400, 404, 414, 431), f"{form[:80]!r}: {status} {body[:100]!r}")
            for secret in (b"PRIVATE", b"CERTIFICATE", b"secret\n", gateway.thumbprint.encode()):
                check(secret not in body, f"{form[:80]!r}: {body[:200]!r}")
        check_equal(peer.questions[questions:], [], "questions")

    @staticmethod
    def raw(gateway, form):
        with socket.create_connection(gateway.place, timeout=10) as connection:
            connection.sendall(f"GET /.well-known/acme-challenge/{form} HTTP/1.1\r\nHost: {APP}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head[9:12]), body

    @test
    def a_file_of_the_shared_cache_is_served_only_if_it_is_a_key_authorization(self):
        _, gateway = self.forged()
        good, bad, other = new_token(), new_token(), new_token()
        text = f"{good}.{gateway.thumbprint}"
        self.lab.write(f"forged-state/certificates/{good}+http-01", text)
        self.lab.write(f"forged-state/certificates/{bad}+http-01", "-----BEGIN PRIVATE KEY-----")
        os.symlink("acme_account+key", gateway.file(f"{other}+http-01"))
        check_equal(gateway.challenge(good, APP), (200, text.encode()), "what another process has left")
        for token in (bad, other):
            status, body = gateway.challenge(token, APP)
            check_equal((status, b"PRIVATE" in body), (REDIRECT, False), "what is none")

    # No storm

    @test
    def gateways_that_list_each_other_ask_once(self):
        gateways, recorder = self.ring()
        token = new_token()
        check_equal(gateways[0].challenge(token, APP)[0], REDIRECT, "status")
        time.sleep(0.5)
        check_equal(len(recorder.asked(token)), 1, "questions after one request")
        for _ in range(20):
            check_equal(gateways[0].challenge(token, APP)[0], REDIRECT, "status")
        check_equal(len(recorder.asked(token)), 1, "questions within a second")

    def ring(self):
        """Three gateways that list each other, and a peer that has nothing of its own."""
        if hasattr(self, "members"):
            return self.members, self.recorder
        recorder = self.peer(10)
        gateways = [self.gateway(f"ring{number}", number, [APP], start=False) for number in (11, 12, 13)]
        for one in gateways:
            one.peers = [(other.plain_address, other.thumbprint) for other in gateways if other is not one]
            one.peers.append((recorder.plain_address, recorder.thumbprint))
        # Nothing is looked at.
        self.ca.perspectives = []
        self.start(gateways)
        for one in gateways:
            one.wait_until_valid()
        self.members, self.recorder = gateways, recorder
        return gateways, recorder

    @test
    def a_miss_is_forgotten_after_a_second(self):
        """The peer has the token then."""
        (_, gateway, _), peer = self.ring()
        token = new_token()
        check_equal(gateway.challenge(token, APP)[0], REDIRECT, "status")
        text = f"{token}.{peer.thumbprint}".encode()
        peer.answers[token] = response(text)
        wait_until(lambda: gateway.challenge(token, APP) == (200, text), 1.5, "the token is found")
        check(len(peer.asked(token)) == 2, f"{len(peer.asked(token))} questions")

    @test
    def many_requests_for_one_unknown_token_ask_each_peer_once(self):
        (_, _, gateway), peer = self.ring()
        token = new_token()
        peer.answers[token] = lambda connection: (time.sleep(0.5), connection.sendall(response(b"no", "404 Not Found")))
        statuses = []
        threads = [threading.Thread(target=lambda: statuses.append(gateway.challenge(token, APP)[0]), daemon=True) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        check_equal(statuses, [REDIRECT] * 20, "statuses")
        check_equal(len(peer.asked(token)), 1, "questions")

    def flood(self, gateway, peer, answer):
        """More unknown tokens at once than are asked about, and how the peer answers each of them."""
        connections, asked = [], len(peer.questions)
        for _ in range(150):
            token = new_token()
            peer.answers[token] = answer
            connection = socket.create_connection(gateway.place, timeout=10)
            self.lab.on_close(connection.close)
            connection.sendall(f"GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {APP}\r\n\r\n".encode())
            connections.append(connection)
        wait_until(lambda: len(peer.questions) - asked >= 32, 5, "the peer is asked")
        return connections

    @test
    def unknown_tokens_from_a_stranger_do_not_hinder_an_order(self):
        (gateway, *_), peer = self.ring()
        before, failed = gateway.leaf(APP), len(self.ca.failed_validations())
        connections = self.flood(gateway, peer, stall)
        self.ca.perspectives = [gateway.place]
        gateway.renew(APP)
        wait_until(lambda: gateway.leaf(APP) != before, 15, "it has renewed")
        check_equal(self.ca.failed_validations()[failed:], [], "validations that failed")
        for connection in connections:
            check(connection.recv(1000).startswith(b"HTTP/1.1 301 "), "a request without an answer")

    @test
    def unknown_tokens_from_a_stranger_do_not_hide_those_of_another_gateway(self):
        (gateway, other, _), peer = self.ring()
        token = new_token()
        text = f"{token}.{other.thumbprint}"
        # As if another process of that gateway had ordered.
        self.lab.write(f"{other.name}-state/certificates/{token}+http-01", text)
        self.flood(gateway, peer, stall)
        check_equal(gateway.challenge(token, APP), (200, text.encode()), "what the CA gets")

    @test
    def unknown_tokens_from_a_stranger_do_not_hide_those_of_a_peer_that_has_many_questions(self):
        (_, _, gateway), peer = self.ring()
        token = new_token()
        text = f"{token}.{peer.thumbprint}".encode()
        peer.answers[token] = response(text)
        self.flood(gateway, peer, lambda connection: (time.sleep(0.2), connection.sendall(response(b"no", "404 Not Found"))))
        check_equal(gateway.challenge(token, APP), (200, text), "what the CA gets")
        for one in self.members:
            one.stop()

    # Settings

    @test
    def tls_alpn_01_is_left_out_by_default(self):
        alone = self.gateway("alone", 14, [APP], start=False)
        check("tls-alpn-01" in alone.check_configuration(), "without a cluster it is there")
        alone.peers = [("127.0.0.15:80", thumbprint(jwk_of(new_key())))]
        text = alone.check_configuration()
        check("tls-alpn-01" not in text and "http-01" in text, text)
        self.ca.challenge_types = ["tls-alpn-01", "http-01"]
        pair = self.cluster("plain", (14, 15), ["plain.example.test"])
        for one in pair:
            one.wait_until_valid()
        check_equal([one for one in self.ca.failed_validations() if one["name"] == "plain.example.test"], [], "validations that failed")
        for one in pair:
            one.stop()

    @test
    def five_gateways_without_names_of_their_own_are_warned(self):
        gateway = self.gateway("five", 16, [APP], start=False)
        gateway.peers = [(f"127.0.0.{number}:80", thumbprint(jwk_of(new_key()))) for number in range(20, 23)]
        warning = "5 gateways order certificates for the same names"
        check(warning not in gateway.check_configuration(), "a warning with four gateways")
        gateway.peers.append(("127.0.0.24:80", thumbprint(jwk_of(new_key()))))
        check(warning in gateway.check_configuration(), "no warning with five")
        gateway.acme = {"gateway-name": "gw1.example.test"}
        check(warning not in gateway.check_configuration(), "a warning in spite of gateway-name")

    @test
    def a_name_of_its_own_is_the_second_in_every_certificate(self):
        pair = [self.gateway(f"named{number}", number, [APP, SHOP], start=False) for number in (17, 18)]
        own = {}
        for number, one in enumerate(pair):
            name = f"gw{number + 1}.example.test"
            own[name] = [one.place]
            one.acme = {"gateway-name": name}
            one.peers = [(other.plain_address, other.thumbprint) for other in pair if other is not one]
        places, failed = [one.place for one in pair], len(self.ca.failed_validations())
        # That name points to one gateway alone.
        self.ca.perspectives = lambda name: own.get(name, places)
        self.start(pair)
        for number, one in enumerate(pair):
            one.wait_until_valid()
            for name in (APP, SHOP):
                check_equal(names_of(one.leaf(name)), [name, f"gw{number + 1}.example.test"], "names")
        check_equal(self.ca.failed_validations()[failed:], [], "validations that failed")
        check_equal(self.ca.violations, [], "violations")
