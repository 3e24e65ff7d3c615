"""The tests of `acme_stub` that take seconds: orders of every form, limits, two CAs, wrong answers."""

import email.utils
import os
import re
import time

from . import acme_cases
from .acme_accounts import API, APP, DAY, NOWHERE, SHOP, Accounts
from .acme_http import Answer, problem
from .chain import Holdings
from .runner import test
from .system import check, check_equal, wait_until


class Quick(Accounts):
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
