"""The tests of `acme_stub` that take seconds: accounts, revocation, renewal information."""

import os
import time

from .acme_ca import AcmeCA
from .acme_gateway import EMAIL, AcmeGateway
from .acme_http import Answer, problem
from .acme_keys import certificate_id, key_of
from .runner import Suite, test
from .system import check, check_equal, wait_until

APP, SHOP, API = "app.example.test", "shop.example.test", "api.example.test"
DAY = 86_400
NOWHERE = ("127.0.0.1", 1)


class Accounts(Suite):
    tools = ["setpriv"]
    modules = ["cryptography"]
    timeout = 120

    def set_up(self):
        self.count = 0
        self.ca, self.gateway = self.pair([APP, SHOP, API, "www.example.test"])
        self.begin()
        self.gateway.wait_until_valid()

    def begin(self):
        """What takes a minute by itself, for the last tests."""

    def make_ca(self, name="Stub CA"):
        ca = AcmeCA(name)
        self.lab.on_close(ca.stop)
        return ca

    def pair(self, names, prepare=None, name=None, **options):
        """A CA and a gateway of its own."""
        ca = self.make_ca()
        if prepare:
            prepare(ca)
        return ca, self.make_gateway(names, [ca], name=name, **options)

    def make_gateway(self, names, cas, name=None, start=True, **options):
        self.count += 1
        gateway = AcmeGateway(self.program, self.lab, name or f"gateway{self.count}", names, cas, start=False, **options)
        for ca in cas:
            ca.perspectives = ca.perspectives or [gateway.place]
        if start:
            gateway.start()
        return gateway

    def log(self, gateway):
        return gateway.process.output() + gateway.process.errors()

    # Accounts

    @test
    def an_account_has_the_address_of_the_operator(self):
        (url, account), = self.ca.accounts.items()
        check_equal((account["contact"], account["thumbprint"]), ([f"mailto:{EMAIL}"], self.gateway.thumbprint), "account")
        shown = self.gateway.json("account")
        check_equal((shown["thumbprint"], shown["email"]), (self.gateway.thumbprint, EMAIL), "certs account")
        check_equal(shown["registrations"], [{"directory": self.ca.directory, "url": url}], "certs account")
        check_equal(len(self.ca.requests("newAccount")), 1, "registrations, with several orders at once")
        check(all(one.user_agent and "kakuremichi" in one.user_agent for one in self.ca.journal), "User-Agent")
        for name in self.gateway.names:
            check_equal(certificate_id(self.gateway.leaf(name)), self.ca.leaves(name)[0], "what is served")
        check_equal(self.ca.violations, [], "violations")

    @test
    def every_certificate_has_a_key_of_its_own(self):
        before = self.gateway.leaf(APP)
        self.renewed(APP)
        check(key_of(before) != key_of(self.gateway.leaf(APP)), "the key is used again")
        check_equal(self.gateway.stored_leaf(APP), self.gateway.leaf(APP), "what is stored")

    def renewed(self, name, gateway=None, timeout=15):
        """Has a name renewed, and waits for that."""
        gateway = gateway or self.gateway
        before = gateway.leaf(name)
        gateway.renew(name)
        return wait_until(lambda: (leaf := gateway.leaf(name)) != before and leaf, timeout, f"{name} is renewed")

    @test
    def a_key_change_that_fails_leaves_the_old_key(self):
        old = self.gateway.thumbprint
        self.ca.instead["keyChange"] = lambda _: problem(403, "unauthorized", "not today")
        result = self.gateway.certs("rollover")
        check(result.returncode == 1 and "the old one stays in use" in result.stderr, f"{result}")
        del self.ca.instead["keyChange"]
        check_equal((self.gateway.thumbprint, self.gateway.json("account")["thumbprint"]), (old, old), "thumbprint")
        self.renewed(APP)
        check_equal(self.ca.requests("newOrder")[-1].thumbprint, old, "who has signed the next order")
        check(not os.path.exists(self.gateway.file("acme_account+key.next")), "the new key is left")

    @test
    def a_key_change_that_works_is_used_from_the_next_order_on(self):
        old, orders = self.gateway.thumbprint, len(self.ca.requests("newOrder"))
        result = self.gateway.certs("rollover")
        check_equal(result.returncode, 0, f"exit code ({result.stderr})")
        new = self.gateway.thumbprint
        check(new != old and new in result.stdout, result.stdout)
        check_equal(self.gateway.json("account")["thumbprint"], new, "certs account")
        self.renewed(APP)
        self.gateway.restart()
        self.renewed(SHOP)
        check_equal({one.thumbprint for one in self.ca.requests("newOrder")[orders:]}, {new}, "who has signed the next orders")
        check_equal(len(self.ca.accounts), 1, "accounts")
        # A change that failed is followed by the question which key the CA has, signed by the new one.
        check_equal(set(self.ca.violations) - {"a wrong signature of account"}, set(), "violations")

    @test
    def a_revoked_certificate_is_replaced(self):
        before = self.gateway.leaf(API)
        result = self.gateway.certs("revoke", API, "--reason", "keyCompromise")
        check_equal(result.returncode, 0, f"exit code ({result.stderr})")
        check_equal((self.ca.revoked, self.ca.requests("revokeCert")[-1].payload.get("reason")), ([before], 1), "revoked")
        self.gateway.wait_until_valid(API)
        check(key_of(self.gateway.leaf(API)) != key_of(before), "the key is used again")

    @test
    def a_revocation_that_is_refused_changes_nothing(self):
        before = self.gateway.leaf(API)
        self.ca.instead["revokeCert"] = lambda _: problem(403, "unauthorized", "not yours")
        result = self.gateway.certs("revoke", API)
        del self.ca.instead["revokeCert"]
        check(result.returncode == 1 and "unauthorized (not yours)" in result.stderr, f"{result}")
        check_equal((self.gateway.leaf(API), self.gateway.stored_leaf(API)), (before, before), "what is served and stored")

    @test
    def a_certificate_of_another_account_is_revoked_by_its_own_key(self):
        before = self.gateway.leaf(API)
        self.ca.instead["revokeCert"] = lambda request: problem(403, "unauthorized", "not yours") if request.account else None
        result = self.gateway.certs("revoke", API)
        del self.ca.instead["revokeCert"]
        check_equal(result.returncode, 0, f"exit code ({result.stderr.strip()})")
        check(before in self.ca.revoked, "it is not revoked")

    @test
    def a_key_change_that_one_of_two_cas_refuses_makes_a_new_account_there(self):
        first, second = self.make_ca("First CA"), self.make_ca("Second CA")
        first.instead["newOrder"] = lambda _: problem(403, "rejectedIdentifier")
        gateway = self.make_gateway([APP], [first, second])
        gateway.wait_until_valid()
        old = gateway.thumbprint
        first.instead["keyChange"] = lambda _: problem(403, "unauthorized")
        result = gateway.certs("rollover")
        check(result.returncode == 0 and f"not changed at {first.directory}" in result.stderr, f"{result}")
        check(gateway.thumbprint != old, "the old key")
        first.instead.clear()
        self.renewed(APP, gateway)
        check_equal([one["thumbprint"] for one in first.accounts.values()], [old, gateway.thumbprint], "accounts at the first CA")
        check_equal([one["thumbprint"] for one in second.accounts.values()], [gateway.thumbprint], "accounts at the second CA")
        check_equal(gateway.entry(APP)["issuer"], "First CA R1", "issuer")
        gateway.stop()

    @test
    def a_deactivated_account_is_a_clear_error(self):
        ca, gateway = self.pair([APP])
        gateway.wait_until_valid()
        before = gateway.leaf(APP)
        ca.accounts[next(iter(ca.accounts))]["status"] = "deactivated"
        gateway.renew(APP)
        check("the account is deactivated" in gateway.wait_for_failure(APP)["reason"], gateway.entry(APP)["reason"])
        # Registered anew the account is found, and is no better.
        gateway.stop()
        os.remove(os.path.join(gateway.state, "acme.json"))
        gateway.start()
        gateway.renew(APP)
        check("the account is deactivated" in gateway.wait_for_failure(APP)["reason"], gateway.entry(APP)["reason"])
        check_equal(gateway.leaf(APP), before, "what is served")
        # The CA has forgotten it: a new one is made.
        ca.accounts.clear()
        self.renewed(APP, gateway)
        gateway.stop()

    # Renewal information

    @test
    def the_ca_suggests_when(self):
        now = time.time()
        windows = {SHOP: (now + 10 * DAY, now + 11 * DAY), API: (now - 2 * DAY, now - DAY)}
        first = {}

        def window(name, identifier):
            first.setdefault(name, identifier)
            if name == APP:
                return (now - 2 * DAY, now - DAY) if first[name] == identifier else (now + 20 * DAY, now + 21 * DAY)
            return windows[name]

        def prepare(ca):
            ca.has_renewal_info, ca.window = True, window

        ca, gateway = self.pair([APP, SHOP, API], prepare)
        # In the past: at once, and once.
        wait_until(lambda: len(ca.leaves(APP)) == 2 and len(ca.leaves(API)) == 4, 15, "renewals at once")
        entry = gateway.wait_for(APP, lambda entry: entry["state"] == "valid" and entry["due"] > now + DAY, 10, "due in the new window")
        check(now + 20 * DAY - 2 <= entry["due"] <= now + 21 * DAY + 2, f"due in {(entry['due'] - now) / DAY} days")
        orders = ca.requests("newOrder", APP)
        check_equal([one.payload.get("replaces") for one in orders], [None, ca.leaves(APP)[0]], "replaces")
        check_equal(certificate_id(gateway.leaf(APP)), ca.leaves(APP)[1], "what is served")
        # Later: at a moment in the window.
        entry = gateway.entry(SHOP)
        check(now + 10 * DAY - 2 <= entry["due"] <= now + 11 * DAY + 2, f"due in {(entry['due'] - now) / DAY} days")
        check_equal(len(ca.leaves(SHOP)), 1, "certificates")
        # Always in the past: the limit of equal certificates is not run into.
        time.sleep(1)
        check_equal(len(ca.leaves(API)), 4, "certificates")
        check(gateway.entry(API)["due"] > now + 6 * DAY, "due")
        check_equal(
            [one.payload.get("replaces") for one in ca.requests("newOrder", API)], [None, *ca.leaves(API)[:3]], "replaces")
        # It is not asked again before its time, not after a restart either.
        asked = len(ca.requests("renewalInfo", SHOP))
        gateway.restart()
        time.sleep(1)
        check_equal(len(ca.requests("renewalInfo", SHOP)), asked, "questions after a restart")
        check_equal((len(ca.leaves(APP)), len(ca.leaves(API))), (2, 4), "certificates after a restart")
        check_equal(ca.violations, [], "violations")
        gateway.stop()

    @test
    def what_is_replaced_already_is_ordered_without_that(self):
        refused = []

        def prepare(ca):
            ca.has_renewal_info = True
            ca.window = lambda name, identifier: (time.time() - 2 * DAY, time.time() - DAY) if len(ca.leaves(name)) == 1 else None

            def refuse(request):
                if request.payload.get("replaces"):
                    refused.append(request)
                    return problem(*{APP: (409, "alreadyReplaced"), SHOP: (400, "malformed"), API: (404, "malformed")}[request.name])
                return None
            ca.instead["newOrder"] = refuse

        ca, gateway = self.pair([APP, SHOP, API], prepare)
        wait_until(lambda: all(len(ca.leaves(name)) == 2 for name in gateway.names), 15, "renewals")
        for name in gateway.names:
            check_equal(
                [one.payload.get("replaces") for one in ca.requests("newOrder", name)], [None, ca.leaves(name)[0], None], f"replaces of {name}")
            check_equal(len([one for one in refused if one.name == name]), 1, "refusals")
            check_equal(gateway.entry(name)["failures"], 0, "failures")
        gateway.stop()

    @test
    def renewal_information_that_makes_no_sense_leaves_the_own_schedule(self):
        answers = {
            "missing": problem(404, "malformed"), "nonsense": Answer(200, b"<html>"), "list": Answer(200, []),
            "nulls": Answer(200, {"suggestedWindow": {"start": None, "end": None}}),
            "no-times": Answer(200, {"suggestedWindow": {"start": "soon", "end": "later"}}),
            "backwards": Answer(200, {"suggestedWindow": {"start": "2021-01-03T00:00:00Z", "end": "2021-01-02T00:00:00Z"}}),
            "empty": Answer(200, {"suggestedWindow": {"start": "2021-01-03T00:00:00Z", "end": "2021-01-03T00:00:00Z"}}),
            "redirect": Answer(302, b"", {"Location": "/renewalInfo/again"}), "busy": problem(503, "serverInternal"), "huge": Answer(200, b"[" * 200_000),
            "far": Answer(200, {"suggestedWindow": {"start": "9998-01-03T00:00:00Z", "end": "9999-01-03T00:00:00Z"}}),
        }

        def prepare(ca):
            ca.has_renewal_info = True
            ca.window = lambda *_: (1, 2)
            ca.alter["renewalInfo"] = lambda request, _: answers[request.name.partition(".")[0]]

        ca, gateway = self.pair([f"{name}.example.test" for name in answers], prepare)
        gateway.wait_until_valid(timeout=30)
        wait_until(lambda: {one.name for one in ca.requests("renewalInfo")} == set(gateway.names), 20, "questions")
        time.sleep(1)
        for name in gateway.names:
            entry = gateway.entry(name)
            share = (entry["due"] - entry["notBefore"]) / (entry["notAfter"] - entry["notBefore"])
            # Two thirds with jitter; a window that is too late is cut at three quarters.
            check(0.64 < share < 0.67 or name.startswith("far") and share < 0.751, f"{name}: due at {share:.3f} of the lifetime")
            check_equal(len(ca.leaves(name)), 1, f"certificates of {name}")
        gateway.stop()
