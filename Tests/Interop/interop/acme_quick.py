"""The tests of `acme_stub` that take seconds: accounts, renewal information, orders of every form, limits, wrong answers."""

import email.utils
import os
import re
import time

from . import acme_cases
from .acme_ca import AcmeCA
from .acme_gateway import EMAIL, AcmeGateway
from .acme_http import Answer, problem
from .acme_keys import certificate_id, key_of
from .chain import Holdings
from .runner import Suite, test
from .system import check, check_equal, wait_until

APP, SHOP, API = "app.example.test", "shop.example.test", "api.example.test"
DAY = 86_400
NOWHERE = ("127.0.0.1", 1)


class Quick(Suite):
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
        check_equal(self.ca.violations, [], "violations")

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

    # Orders

    @test
    def a_profile_is_ordered_if_it_is_offered(self):
        def prepare(ca):
            ca.profiles = {"classic": "for all", "shortlived": "for the quick"}

        ca, gateway = self.pair([APP], prepare, acme={"profile": "shortlived"})
        gateway.wait_until_valid()
        check_equal(ca.requests("newOrder")[0].payload["profile"], "shortlived", "profile")
        gateway.stop()
        ca, gateway = self.pair([APP], prepare, acme={"profile": "golden"})
        check("no profile golden; it has: classic, shortlived" in gateway.wait_for_failure(APP)["reason"], gateway.entry(APP)["reason"])
        check("golden" in gateway.certs("show", APP).stdout, "certs show")
        check_equal(ca.requests("newOrder"), [], "orders")
        gateway.stop()

    @test
    def orders_of_every_form_are_followed(self):
        times, now = {}, time.time()

        def seen(request):
            times.setdefault(request.name, []).append(request.time)
            return len(times[request.name])

        def orders(request, answer):
            fields = {"date": {"Retry-After": email.utils.formatdate(time.time() + 4, usegmt=True)}, "seconds": {"Retry-After": "3"}}.get(
                request.name.partition(".")[0])
            if fields and seen(request) == 2:
                return Answer(200, {**answer.json, "status": "processing", "certificate": None}, fields)
            return None

        def finalized(request, answer):
            form = request.name.partition(".")[0]
            if form == "unplaced":
                return acme_cases.without_location(request, answer)
            if form in ("date", "seconds", "slow"):
                request.order.polls = 3
                return answer.with_json(status="processing", certificate=None)
            return None

        def prepare(ca):
            ca.alter = {"order": orders, "finalize": finalized}
            # The directory may be anywhere, and has members of all kinds.
            ca.alter["directory"] = lambda _, answer: answer.with_json(unknown={"a": [1]}, Xq3="https://example.com/")

        ca, gateway = self.pair(["date.example.test", "seconds.example.test", "slow.example.test", "unplaced.example.test"], prepare)
        gateway.wait_until_valid(timeout=30)
        for name, least in (("date.example.test", 2), ("seconds.example.test", 2.9)):
            gap = times[name][2] - times[name][1]
            check(least <= gap < 6, f"{name}: {gap:.1f} s between questions")
        check(time.time() - now < 25, "it took too long")
        check_equal(ca.violations, [], "violations")
        ca.is_ready_at_once = True
        challenges = len(ca.requests("challenge"))
        self.renewed("slow.example.test", gateway)
        ca.is_ready_at_once, ca.is_authorized_at_once = False, True
        self.renewed("unplaced.example.test", gateway)
        check_equal(len(ca.requests("challenge")), challenges, "challenges of what is authorized already")
        gateway.stop()

    def limited(self):
        """A CA that has limited both names of a gateway, and when."""
        if not hasattr(self, "limits"):
            def prepare(ca):
                def limit(request):
                    after = {APP: "5000", SHOP: email.utils.formatdate(time.time() + 6000, usegmt=True)}[request.name]
                    return problem(429, "rateLimited", "too many of these", Retry_After=after)
                ca.instead["newOrder"] = limit

            now = time.time()
            ca, gateway = self.pair([APP, SHOP], prepare)
            for name in gateway.names:
                gateway.wait_for_failure(name)
            check_equal(len(ca.requests("newOrder")), 2, "orders")
            ca.instead.clear()
            self.limits = ca, gateway, now
        return self.limits

    @test
    def a_limit_is_obeyed_over_a_restart(self):
        ca, gateway, now = self.limited()
        for _ in range(2):
            for name, seconds in ((APP, 5000), (SHOP, 6000)):
                entry = gateway.entry(name)
                check(abs(entry["due"] - now - seconds) < 15, f"due in {entry['due'] - now} s")
                check("rateLimited (too many of these)" in entry["reason"], entry["reason"])
                text = gateway.certs("show", name).stdout
                check("rateLimited" in text and re.search(r"next order .* in 1 h", text), text)
            gateway.restart()
            time.sleep(1)
        check_equal(len(ca.requests("newOrder")), 2, "orders")

    @test
    def a_limit_is_obeyed_when_the_operator_wants_a_renewal(self):
        """As `certs renew --help` says."""
        ca, gateway, _ = self.limited()
        said = gateway.renew(APP)
        time.sleep(1)
        check_equal(len(ca.requests("newOrder")), 2, f"orders (it said {said.strip()!r})")
        check("a limit holds" in said, said)
        gateway.stop()

    @test
    def limits_without_sense_end(self):
        after = {APP: "99999999999999999999999", SHOP: "soon", API: "-5", "www.example.test": "Fri, 01 Jan 1999 00:00:00 GMT"}

        def prepare(ca):
            ca.instead["newOrder"] = lambda request: problem(429, "rateLimited", Retry_After=after[request.name])

        _, gateway = self.pair(after, prepare)
        for name, value in after.items():
            wait = gateway.wait_for_failure(name)["due"] - time.time()
            check(50 < wait < 8 * DAY + 60, f"Retry-After: {value} is taken for {wait:.0f} s")
        gateway.stop()

    @test
    def four_failed_validations_of_a_name_in_an_hour_are_the_most(self):
        """Whatever the operator does, and over restarts."""
        ca, gateway = self.pair([APP, SHOP], lambda ca: setattr(ca, "perspectives", lambda name: [NOWHERE] if name == APP else []))
        gateway.wait_for_failure(APP)
        for number in range(6):
            said = gateway.renew(APP)
            if number == 3:
                gateway.restart()
            wait_until(lambda: gateway.entry(APP)["failures"] > 0 or "a limit holds" in said, 10, "the end of an attempt")
        check_equal(len(ca.failed_validations()), 4, "failed validations")
        check("a limit holds" in said, said)
        # That name alone.
        ca.perspectives = [gateway.place]
        self.renewed(SHOP, gateway)
        due, text = gateway.entry(APP)["due"] - time.time(), gateway.certs("show", APP).stdout
        gateway.stop()
        check(3_000 < due < 3_700, f"it is shown as due in {due:.0f} s:\n{text}")

    # Several authorities

    @test
    def the_second_ca_issues_while_the_first_does_not(self):
        first, second = self.make_ca("First CA"), self.make_ca("Second CA")
        refusals = {APP: problem(403, "rejectedIdentifier"), SHOP: problem(429, "rateLimited", Retry_After="3600")}
        first.instead["newOrder"] = lambda request: refusals.get(request.name)
        gateway = self.make_gateway([APP, SHOP, API], [first, second])
        gateway.wait_until_valid()
        issuers = {name: gateway.entry(name)["issuer"] for name in gateway.names}
        check_equal(issuers, {APP: "Second CA R1", SHOP: "Second CA R1", API: "First CA R1"}, "issuers")
        # Asked first again as soon as it is due.
        first.instead.clear()
        self.renewed(APP, gateway)
        check_equal(gateway.entry(APP)["issuer"], "First CA R1", "issuer")
        check_equal([one.payload.get("replaces") for one in first.requests("newOrder", APP)], [None, None], "replaces, of another CA's")
        gateway.stop()

    # What is wrong

    @test
    def wrong_answers_are_refused_and_change_nothing(self):
        names = {f"case{number}.example.test": what for number, what in enumerate(acme_cases.ORDER)}
        ca, gateway = self.pair(names)
        gateway.wait_until_valid(timeout=40)
        before = {name: gateway.leaf(name) for name in names}
        holdings = Holdings(gateway.process)
        stamps = {name: os.stat(gateway.file(name)).st_mtime_ns for name in names}
        acme_cases.install(ca, names)
        files = set(os.listdir(gateway.certificates))
        begin = time.time()
        for name in names:
            gateway.renew(name)
        entries = {}

        def all_failed():
            entries.update({one["name"]: one for one in gateway.json("list")["certificates"]})
            return all(entries[name]["failures"] > 0 for name in names)

        try:
            wait_until(all_failed, 75, "", interval=0.5)
        except AssertionError:
            check_equal([what for name, what in names.items() if entries[name]["failures"] == 0], [], "what does not fail")
        faults = []
        for name, what in names.items():
            entry, reason = entries[name], acme_cases.ORDER[what][2]
            if not re.search(f"ACME, {reason}", entry["reason"]):
                faults.append(f"{what}: {entry['reason'][:200]!r} does not match {reason!r}")
            if len(entry["reason"]) > 2_000 or not entry["reason"].isprintable():
                faults.append(f"{what}: the reason has {len(entry['reason'])} characters, or such as cannot be printed")
            if not entry["due"] > begin + 55:
                faults.append(f"{what}: due in {entry['due'] - begin:.0f} s")
            if gateway.leaf(name) != before[name] or os.stat(gateway.file(name)).st_mtime_ns != stamps[name]:
                faults.append(f"{what}: another certificate is served or stored")
        check_equal(faults, [], "faults")
        check_equal(set(os.listdir(gateway.certificates)), files, "files")
        check(not os.path.exists("/tmp/kakuremichi-token") and not os.path.exists("/tmp/kakuremichi-token+http-01"), "a file elsewhere")
        check("\x1b" not in self.log(gateway), "a control character in the log")
        holdings.check_memory(30, "after wrong answers")
        # It recovers.
        ca.alter = {}
        for name in names:
            gateway.renew(name)
        gateway.wait_until_valid(timeout=40)
        wait_until(lambda: all(gateway.leaf(name) != before[name] for name in names), 10, "new certificates are served")
        check_equal(ca.violations, [], "violations")
        gateway.stop()

    @test
    def the_command_waits_for_the_end_and_tells_the_reason(self):
        name = "www.example.test"
        self.ca.instead["newOrder"] = lambda _: problem(403, "rejectedIdentifier", "policy")
        result = self.gateway.certs("renew", name, "--wait")
        check(result.returncode == 1 and "rejectedIdentifier (policy)" in result.stderr, f"{result}")
        text = self.gateway.certs("show", name).stdout
        check("1 in a row" in text and "rejectedIdentifier" in text, text)
        self.ca.instead.clear()
        result = self.gateway.certs("renew", name, "--wait")
        check(result.returncode == 0 and "renewed" in result.stdout, f"{result}")

    @test
    def a_wrong_directory_is_refused(self):
        ca, gateway = self.pair([APP])
        gateway.wait_until_valid()
        before = gateway.leaf(APP)
        faults = []
        for what, (change, reason) in acme_cases.DIRECTORY.items():
            gateway.stop()
            ca.alter["directory"] = change
            gateway.start()
            gateway.renew(APP)
            entry = gateway.wait_for_failure(APP)
            if not re.search(f"ACME, {reason}", entry["reason"]):
                faults.append(f"{what}: {entry['reason']!r} does not match {reason!r}")
            if gateway.leaf(APP) != before or gateway.stored_leaf(APP) != before or entry["due"] < time.time() + 50:
                faults.append(f"{what}: {entry}")
        check_equal(faults, [], "faults")
        ca.alter.clear()
        result = gateway.certs("renew", APP, "--wait")
        check_equal(result.returncode, 0, f"exit code ({result.stderr})")
        check(gateway.leaf(APP) != before, "what is served")
        gateway.stop()
