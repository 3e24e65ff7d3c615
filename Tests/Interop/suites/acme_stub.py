"""Certificates from a CA of the tests' own: what it suggests, limits, forgets and gets wrong. 100 s."""

import email.utils
import os
import re
import threading
import time

from interop import acme_cases
from interop.acme_ca import AcmeCA
from interop.acme_gateway import EMAIL, AcmeGateway, Visitor
from interop.acme_http import STALL, Answer, problem
from interop.acme_keys import certificate_id, end_of, key_of
from interop.chain import Holdings
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until

APP, SHOP, API = "app.example.test", "shop.example.test", "api.example.test"
DAY = 86_400
NOWHERE = ("127.0.0.1", 1)


class SUITE(Suite):
    tools = ["setpriv"]
    modules = ["cryptography"]
    timeout = 120

    def set_up(self):
        """What takes a minute by itself begins here and is looked at by the last tests."""
        self.count = 0
        self.ca, self.gateway = self.pair([APP, SHOP, API, "www.example.test"])
        self.begin_rehearsal()
        self.begin_moving_window()
        self.begin_short_lifetimes()
        self.begin_with_one_down()
        self.begin_stall()
        self.gateway.wait_until_valid()

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

    @test
    def a_limit_is_obeyed_over_a_restart(self):
        def prepare(ca):
            def limit(request):
                after = {APP: "5000", SHOP: email.utils.formatdate(time.time() + 6000, usegmt=True)}[request.name]
                return problem(429, "rateLimited", "too many of these", Retry_After=after)
            ca.instead["newOrder"] = limit

        ca, gateway = self.pair([APP, SHOP], prepare)
        now = time.time()
        for name, seconds in ((APP, 5000), (SHOP, 6000)):
            entry = gateway.wait_for_failure(name)
            check(abs(entry["due"] - now - seconds) < 15, f"due in {entry['due'] - now} s")
            check("rateLimited (too many of these)" in entry["reason"], entry["reason"])
            text = gateway.certs("show", name).stdout
            check("rateLimited" in text and re.search(r"next order .* in 1 h", text), text)
        orders = len(ca.requests("newOrder"))
        ca.instead.clear()
        gateway.restart()
        time.sleep(1.5)
        check_equal((len(ca.requests("newOrder")), orders), (2, 2), "orders after a restart, and before")
        check(abs(gateway.entry(APP)["due"] - now - 5000) < 15, "due after the restart")
        self.limited = ca, gateway

    @test
    def a_limit_is_obeyed_when_the_operator_wants_a_renewal(self):
        """As `certs renew --help` says."""
        ca, gateway = self.limited
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
        self.spent = gateway

    @test
    def a_name_whose_validations_are_spent_is_shown_as_due_in_an_hour(self):
        due = self.spent.entry(APP)["due"] - time.time()
        text = self.spent.certs("show", APP).stdout
        self.spent.stop()
        check(3_000 < due < 3_700, f"due in {due:.0f} s\n{text}")

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
        self.wrong = ca, gateway

    @test
    def the_command_waits_for_the_end_and_tells_the_reason(self):
        ca, gateway = self.wrong
        name = gateway.names[0]
        ca.instead["newOrder"] = lambda _: problem(403, "rejectedIdentifier", "policy")
        result = gateway.certs("renew", name, "--wait")
        check(result.returncode == 1 and "rejectedIdentifier (policy)" in result.stderr, f"{result}")
        text = gateway.certs("show", name).stdout
        check("1 in a row" in text and "rejectedIdentifier" in text, text)
        ca.instead.clear()
        result = gateway.certs("renew", name, "--wait")
        check(result.returncode == 0 and "renewed" in result.stdout, f"{result}")
        gateway.stop()

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

    # What takes a minute

    def begin_rehearsal(self):
        self.production, self.staging = self.make_ca("Production"), self.make_ca("Staging")
        self.rehearsing = self.make_gateway(
            ["comes.example.test", "fails.example.test"], [self.production], acme={"staging-directory": self.staging.directory}, start=False)
        place = self.rehearsing.place
        self.production.perspectives = lambda _: [NOWHERE]
        self.staging.perspectives = lambda name: [place] if name.startswith("comes") else [NOWHERE]
        self.rehearsing.start()
        self.rehearsing_since = time.monotonic()
        for name in self.rehearsing.names:
            self.rehearsing.wait_for_failure(name)
        self.orders_before = {name: len(self.production.requests("newOrder", name)) for name in self.rehearsing.names}
        check_equal(self.staging.requests("newOrder"), [], "orders at the staging directory before")
        self.production.perspectives = lambda _: [place]

    def begin_moving_window(self):
        def prepare(ca):
            def window(*_):
                is_past = ca.requests("renewalInfo") and len(ca.leaves(APP)) == 1
                start = time.time() + (-2 if is_past else 30) * DAY
                return start, start + DAY
            ca.has_renewal_info, ca.renewal_retry_after, ca.window = True, 1, window

        self.moving_ca, self.moving = self.pair([APP], prepare, name="moving")

    def begin_short_lifetimes(self):
        """20 s: each name may have four of them in a week."""
        self.short_dues = []
        self.short_ca, self.short = self.pair(["one.example.test", "two.example.test"], lambda ca: setattr(ca, "lifetime", 20), name="short")
        self.visitors = [Visitor(self.short, name) for name in self.short.names]
        threading.Thread(target=self.renew_short_ones, daemon=True).start()

    def renew_short_ones(self):
        """The limit of the week holds behind the fourth, unless the operator says otherwise."""
        while not self.visitors[0].is_stopped:
            time.sleep(0.5)
            for visitor in self.visitors:
                if len(visitor.leaves) >= 4 and end_of(visitor.leaves[-1]) < time.time() + 10:
                    self.short_dues.append((visitor.name, self.short.entry(visitor.name)["due"] - time.time()))
                    self.short.renew(visitor.name)
                    time.sleep(1)

    def begin_with_one_down(self):
        """Its port refuses connections."""
        self.down, self.up = self.make_ca("First CA"), self.make_ca("Second CA")
        self.down.stop()
        self.halved = self.make_gateway([APP], [self.down, self.up])
        self.halved_since = time.monotonic()

    def begin_stall(self):
        self.stalled_ca, self.stalled = self.pair([APP], name="stalled")
        self.stalled.wait_until_valid()
        self.stalled_leaf = self.stalled.leaf(APP)
        self.stalled_ca.instead["newOrder"] = lambda _: Answer(200, b"", None, STALL)
        self.stalled.renew(APP)
        self.stalled_since = time.time()

    @test
    def certificates_of_20_seconds_never_lapse(self):
        """Renewal is at the half; nobody who comes every 0.2 s notices."""
        wait_until(lambda: all(len(visitor.leaves) >= 5 for visitor in self.visitors), 60, "five certificates of each")
        check({name for name, due in self.short_dues if due > 6 * DAY} == set(self.short.names), f"due without an operator: {self.short_dues}")
        for visitor in self.visitors:
            visitor.stop()
            check_equal(visitor.faults, [], "handshakes that failed")
            check(visitor.count > 100, f"{visitor.count} handshakes")
            ends = [end_of(leaf) for leaf in visitor.leaves]
            gaps = [round(after - before) for before, after in zip(ends, ends[1:4])]
            check(all(8 <= gap <= 13 for gap in gaps), f"seconds between renewals: {gaps}")
        check_equal(self.short_ca.violations, [], "violations")
        self.short.stop()

    @test
    def the_second_ca_issues_while_the_first_is_down(self):
        self.halved.wait_until_valid(timeout=100)
        check_equal(self.halved.entry(APP)["issuer"], "Second CA R1", "issuer")
        self.down.start()
        self.renewed(APP, self.halved)
        check_equal(self.halved.entry(APP)["issuer"], "First CA R1", "issuer")
        self.halved.stop()

    @test
    def a_handshake_lives_to_see_the_second_ca_while_the_first_is_down(self):
        """It waits for 30 s."""
        seconds = self.up.requests("newOrder", APP)[0].time - self.halved_since
        check(seconds < 25, f"the second CA is asked after {seconds:.0f} s")

    @test
    def a_window_that_moves_is_noticed_at_the_next_question(self):
        """The CA wants it after a second: a minute is the least."""
        wait_until(lambda: len(self.moving_ca.leaves(APP)) == 2, 75, "it is renewed")
        first, second, *_ = self.moving_ca.requests("renewalInfo")
        check(59.5 <= second.time - first.time < 70, f"{second.time - first.time:.1f} s between questions")
        check_equal(self.moving_ca.requests("newOrder")[1].payload.get("replaces"), self.moving_ca.leaves(APP)[0], "replaces")
        self.moving.stop()

    @test
    def a_failed_validation_is_rehearsed_at_the_staging_directory(self):
        comes, fails = self.rehearsing.names
        wait_until(lambda: self.staging.requests("newOrder", comes) and self.staging.requests("newOrder", fails), 75, "rehearsals")
        check(self.staging.requests("newOrder")[0].time - self.rehearsing_since > 55, "it did not wait a minute")
        self.rehearsing.wait_until_valid(comes)
        check_equal(self.rehearsing.entry(comes)["issuer"], "Production R1", "issuer")
        times = {ca: ca.requests("newOrder", comes)[-1].time for ca in (self.staging, self.production)}
        finished = self.staging.requests("certificate", comes)[0].time
        check(finished < times[self.production], "production was asked before the rehearsal was over")
        # What fails there is not tried in production.
        self.rehearsing.wait_for(fails, lambda entry: entry["failures"] >= 2, 10, "a second failure")
        check_equal(len(self.production.requests("newOrder", fails)), self.orders_before[fails], "orders in production")
        check_equal(len(self.production.requests("newOrder", comes)), self.orders_before[comes] + 1, "orders in production")
        self.rehearsing.stop()

    @test
    def a_ca_that_never_answers_is_given_up(self):
        """Four times 20 s and what is between: the longest of all."""
        entry = self.stalled.wait_for(APP, lambda entry: entry["failures"] > 0, 110, "a failure")
        check(re.search("ACME, order: no answer", entry["reason"]), entry["reason"])
        check(entry["due"] > self.stalled_since + 80 + 50, "due")
        check_equal((self.stalled.leaf(APP), self.stalled.stored_leaf(APP)), (self.stalled_leaf, self.stalled_leaf), "what is served and stored")
        asked = [one for one in self.stalled_ca.requests("newOrder") if one.time < self.stalled_ca.journal[0].time + 110]
        check_equal(len(asked), 5, "requests")
        self.stalled_ca.instead.clear()
        result = self.stalled.certs("renew", APP, "--wait")
        check_equal(result.returncode, 0, f"exit code ({result.stderr})")
        self.stalled.stop()
