"""Certificates from a CA of the tests' own: what it suggests, limits, forgets and gets wrong. 100 s.

What takes a minute by itself begins with the suite and is looked at by the last tests, which are here.
"""

import re
import threading
import time

from interop.acme_accounts import APP, DAY, NOWHERE
from interop.acme_gateway import Visitor
from interop.acme_http import STALL, Answer
from interop.acme_keys import end_of
from interop.acme_quick import Quick
from interop.runner import test
from interop.system import check, check_equal, wait_until


class SUITE(Quick):
    def begin(self):
        self.begin_rehearsal()
        self.begin_moving_window()
        self.begin_short_lifetimes()
        self.begin_with_one_down()
        self.begin_stall()

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
