"""Certificates by records in a zone of knot, from pebble that looks there; what is told when a certificate ends. 90 s."""

import base64
import datetime
import http.server
import json
import os
import re
import threading
import time
import urllib.request

from interop.autocert import Issuer
from interop.certified import SECRETS, Certified
from interop.chain import AGENT, quoted
from interop.knot import KEY, TOOLS as KNOT_TOOLS, Knot
from interop.metrics import parse
from interop.nodes import Origin
from interop.pebble import TOOLS, Pebble
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until

ZONE = "example.test"
# Where a CNAME leads; in the same zone, as knot follows no other and pebble asks nobody else.
ELSEWHERE = f"alias.records.{ZONE}"
BY_FILE, WATCHED = "file.example.test", "watched.example.test"
DNS_TOKEN, ALERT_TOKEN, ALERT_PATH = "dns-token-0123456789abcdefghij", "alert-token-0123456789abcdefghij", "services/T0/secret-0123456789"
WRONG_SECRET = "d3JvbmdzZWNyZXR3cm9uZ3NlY3JldHdyb25nc2VjcmV0"
# The gateway looks at its certificates 5 s after the start and then each minute.
FIRST_LOOK, SECOND_LOOK = 8, 68

HOOK = """#!/bin/sh
echo "$1 $2 $3" >>{directory}/calls
env >{directory}/environment
case $1 in
present) change="update add $2 60 TXT \\"$3\\"" ;;
cleanup) change="update del $2 TXT \\"$3\\"" ;;
esac
printf 'server {address} {port}\\nzone {zone}.\\n%s\\nsend\\n' "$change" | knsupdate -k {key}
"""
FAILING_HOOK = """#!/bin/sh
case $2 in
*.bad.example.test.) printf '\\033[31mno such\\007 zone\\nhere\\n' >&2; exit 3 ;;
esac
exec {hook} "$@"
"""
ALERT_HOOK = """#!/bin/sh
{{ tr -d '\\n'; echo; }} >>{directory}/told
env | sort >{directory}/environment
"""


class Stub:
    """A local web service that keeps what is posted; `answer(request)` gives the status. It tells everybody what it was told in secret."""

    def __init__(self, answer):
        self.requests = []
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = {"path": self.path, "authorization": self.headers["Authorization"], "type": self.headers["Content-Type"], "json": json.loads(body)}
                stub.requests.append(request)
                try:
                    status = answer(request)
                except Exception as error:
                    status = 500
                    stub.requests.append({"error": repr(error)})
                body = f"you said {self.headers['Authorization']}".encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0" if status == 204 else str(len(body)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def table(name, **keys):
    return f"[{name}]\n" + "".join(f"{key.replace('_', '-')} = {quoted(value)}\n" for key, value in keys.items())


class SUITE(Suite):
    tools = [*TOOLS, *KNOT_TOOLS]
    modules = ["cryptography"]

    def set_up(self):
        self.origin = Origin(self.lab)
        self.knot = Knot(self.lab, {ZONE: ["@ 60 IN A 127.0.0.1", "* 60 IN A 127.0.0.1", f"_acme-challenge.alias 60 IN CNAME {ELSEWHERE}."]})
        self.pebble = Pebble(self.lab, dns=self.knot.endpoint)
        SECRETS.texts.update({self.knot.secret, base64.b64decode(self.knot.secret).hex(), WRONG_SECRET, DNS_TOKEN, ALERT_TOKEN, ALERT_PATH})
        self.key_file = self.lab.write("tsig.key", self.knot.secret + "\n")
        self.hook = self.write_hook("hook")
        # What takes a minute begins here and is looked at in the end.
        self.start_alerts()

    def write_hook(self, name, text=HOOK, **more):
        directory = self.lab.private_directory(f"{name}-seen")
        text = text.format(directory=directory, address=self.knot.address, port=self.knot.port, zone=ZONE, key=self.knot.key_file, **more)
        return self.lab.write(name, text, 0o755)

    def seen_by(self, hook, what):
        path = os.path.join(self.lab.directory, f"{hook}-seen", what)
        if not os.path.exists(path):
            return []
        with open(path) as file:
            return file.read().splitlines()

    def provider(self, name, limit="20s", **keys):
        wait = {} if self.knot.can_be_asked else {"propagation_wait": "0s"}
        return table("acme.dns", provider=name, resolver=self.knot.endpoint, propagation_limit=limit, **wait, **keys)

    def rfc2136(self, **keys):
        return self.provider("rfc2136", **{"server": self.knot.endpoint, "key_name": KEY, "key_secret_file": self.key_file, **keys})

    def site(self, name, domains, dns, challenges=("dns-01",), more="", **options):
        """Where the CA validates by other ways nobody listens."""
        return Certified(
            self.program, self.lab, self.pebble, name, domains, settings={"challenges": list(challenges)}, more=dns + more, https=free_port(),
            http=free_port(), **options)

    def wait_until_nothing_is_left(self, *names):
        for name in names:
            wait_until(lambda: not self.knot.ask(f"_acme-challenge.{name}"), 10, f"no TXT record is left for {name}")

    def check_both(self, site, name, is_alone=True):
        """Apex and wildcard have certificates of their own, and a host below is served with the wildcard's."""
        for domain in (name, f"*.{name}"):
            check_equal(site.wait_for_certificate(domain)["names"], [domain], "names of the certificate")
            check_equal([line["type"] for line in site.said("Challenge presented", domain=domain)], ["dns-01"], f"challenges for {domain}")
        from cryptography import x509

        for host, names in ((name, [name]), (f"shop.{name}", [f"*.{name}"])):
            site.wait_until_served(host)
            extension = site.shown(host).extensions.get_extension_for_class(x509.SubjectAlternativeName)
            check_equal(extension.value.get_values_for_type(x509.DNSName), names, f"names of the certificate of {host}")
        if is_alone:
            self.wait_until_nothing_is_left(name)
        check_equal(site.said("A record for DNS-01 was not removed"), [], "complaints")

    # Providers

    @test
    def dynamic_updates_certify_an_apex_and_its_wildcard(self):
        self.lab.private_directory("main-conf")
        self.lab.write("main-conf/relative.key", self.knot.secret)
        with self.site("main", [ZONE, f"*.{ZONE}"], self.rfc2136(key_secret_file="relative.key"), target=self.origin.target) as site:
            self.check_both(site, ZONE)
            added = site.said("A record for DNS-01 was added", record=f"_acme-challenge.{ZONE}", provider="rfc2136")
            check_equal(len(added), 2, "records at the one name")

    @test
    def a_cname_is_followed_to_where_the_record_stands(self):
        name = f"alias.{ZONE}"
        with self.site("alias", [name], self.rfc2136()) as site:
            site.wait_for_certificate(name)
            site.shown(name)
            (line,) = site.said("A record for DNS-01 was added")
            check_equal(line["record"], ELSEWHERE, "where the record was written")
            wait_until(lambda: not self.knot.ask(ELSEWHERE), 10, "no record is left behind the CNAME")

    @test
    def a_program_certifies_an_apex_and_its_wildcard(self):
        name = f"exec.{ZONE}"
        with self.site("exec", [name, f"*.{name}"], self.provider("exec", command=self.hook), target=self.origin.target) as site:
            self.check_both(site, name)
        calls = [line.split(" ") for line in self.seen_by("hook", "calls")]
        for action in ("present", "cleanup"):
            values = {value for verb, place, value in calls if (verb, place) == (action, f"_acme-challenge.{name}.")}
            check_equal(len(values), 2, f"values of {action} in {calls}")
        # A shell adds these two.
        known = {line.partition("=")[0] for line in self.seen_by("hook", "environment")} - {"PWD", "OLDPWD", "_", "SHLVL"}
        check_equal(known, {"PATH", "HOME", "LANG"}, "environment of the program")

    @test
    def a_webhook_that_publishes_late_leaves_the_values_of_others(self):
        """Another gateway's value stands at the name; ours comes 3 s after it was asked for, and until then nobody may tell the CA."""
        name = f"hook.{ZONE}"
        place, foreign, together, timers = f"_acme-challenge.{name}.", "of-another-gateway", [], []
        self.knot.update("present", ZONE, place, foreign)

        def publish(value):
            self.knot.update("present", ZONE, place, value)
            together.append(self.knot.ask(place))

        def answer(request):
            body = request["json"]
            if request["authorization"] != f"Bearer {DNS_TOKEN}":
                return 401
            if body["action"] == "cleanup":
                self.knot.update("cleanup", ZONE, body["name"], body["value"])
            else:
                timers.append(threading.Timer(3, publish, [body["value"]]))
                timers[-1].start()
            return 204

        stub = Stub(answer)
        try:
            with self.site("webhook", [name, f"*.{name}"], self.webhook(stub), target=self.origin.target) as site:
                self.check_both(site, name, is_alone=False)
                wait_until(lambda: self.knot.ask(place) == [f'"{foreign}"'], 10, "only the other gateway's value is left")
        finally:
            for timer in timers:
                timer.join()
            stub.close()
        check(len(together) == 2 and all(len(values) == 2 for values in together), f"values at one name: {together}")
        check_equal({(r.get("path"), r.get("type"), r["json"]["name"]) for r in stub.requests if "json" in r}, {("/dns", "application/json", place)}, "requests")
        check_equal([r for r in stub.requests if "error" in r], [], "errors of the stub")
        check_equal(sorted(r["json"]["action"] for r in stub.requests), ["cleanup"] * 2 + ["present"] * 2, "actions")
        self.knot.update("cleanup", ZONE, place, foreign)

    @test
    def a_wrong_key_is_named_and_a_right_one_heals(self):
        name, unknown = f"key.{ZONE}", f"unknown.{ZONE}"
        path = self.lab.write("changing.key", WRONG_SECRET)
        with self.site("key", [name], self.rfc2136(key_secret_file=path, zone=ZONE)) as site, \
                self.site("unknown", [unknown], self.rfc2136(key_name="nobody")) as other:
            for one, domain, word in ((site, name, "BADSIG"), (other, unknown, "BADKEY")):
                one.wait_for_state(domain, "failed")
                shown = one.certs("show", domain)
                check(word in shown and self.knot.endpoint in shown, f"certs show: {shown}")
                check_equal(one.said("Certificate issued"), [], "certificates that were issued")
            other.stop()
            site.stop()
            self.lab.write("changing.key", self.knot.secret)
            site.start()
            check_equal(site.entry(name)["state"], "failed", "state after the restart")
            check("renewed" in site.certs("renew", name, "--wait"), "certs renew")
            site.shown(name)
            self.wait_until_nothing_is_left(name, unknown)

    @test
    def http_01_that_is_not_reached_is_followed_by_dns_01(self):
        name = f"fallback.{ZONE}"
        with self.site("fallback", [name], self.rfc2136(), challenges=["http-01", "dns-01"]) as site:
            site.shown(name)
            check_equal([line["type"] for line in site.said("Challenge presented")], ["http-01", "dns-01"], "challenges")
            (line,) = site.said("A challenge failed", domain=name)
            check("http-01" in line["reason"] and "connection" in line["reason"], f"reason: {line['reason']}")
            check_equal(site.entry(name)["failures"], 0, "failures in a row")
            self.wait_until_nothing_is_left(name)

    @test
    def a_provider_that_fails_is_quoted_escaped_and_holds_up_nobody(self):
        bad, good = f"bad.{ZONE}", f"good.{ZONE}"
        hook = self.write_hook("failing-hook", FAILING_HOOK, hook=self.hook)
        with self.site("failing", [bad, good], self.provider("exec", command=hook)) as site:
            site.wait_for_certificate(good)
            site.shown(good)
            entry = site.wait_for_state(bad, "failed")
            for what, text in (("certs show", site.certs("show", bad)), ("certs list", site.certs("list")), ("the log", site.log), ("JSON", entry["reason"])):
                check(re.search(r"status 3\b", text) and "no such" in text and "zone" in text, f"{what} does not tell it: {text[-2000:]}")
                check(not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), f"control characters in {what}: {text[-2000:]!r}")
            check_equal(self.pebble_validations(bad), 0, "validations of what was not presented")
            self.wait_until_nothing_is_left(good, bad)

    def pebble_validations(self, name):
        return len([line for line in self.pebble.log.splitlines() if "Pulled a task" in line and f'"{name}"' in line])

    def webhook(self, stub, **keys):
        token = self.lab.write("dns.token", DNS_TOKEN + "\n")
        return self.provider("webhook", url=f"http://127.0.0.1:{stub.port}/dns", token_file=token, **keys)

    @test
    def a_webhook_that_refuses_or_publishes_nothing_is_told_of(self):
        cases = {"refused": (403, "403: you said"), "moved": (302, "302.*redirects are not followed"), "silent": (204, rf"not everywhere after.*ns\.{ZONE}")}
        if not self.knot.can_be_asked:
            cases["silent"] = (204, "not everywhere after")
        sites = []
        try:
            for name, (status, words) in cases.items():
                stub = Stub(lambda request, status=status: status)
                sites.append((stub, self.site(name, [f"{name}.{ZONE}"], self.webhook(stub, limit="3s")), f"{name}.{ZONE}", words))
            for stub, site, domain, words in sites:
                site.wait_for_state(domain, "failed")
                shown = site.certs("show", domain)
                check(re.search(words, shown), f"certs show {domain}: {shown}")
                check_equal({r["path"] for r in stub.requests}, {"/dns"}, f"paths for {domain}")
                check_equal(self.pebble_validations(domain), 0, f"validations of {domain}")
                wait_until(lambda: stub.requests[-1]["json"]["action"] == "cleanup", 5, f"the record of {domain} is taken away")
        finally:
            for stub, site, *_ in sites:
                site.close()
                stub.close()

    @test
    def a_gateway_that_stops_takes_its_records_away(self):
        name, stub = f"stopped.{ZONE}", Stub(lambda request: 204)
        try:
            with self.site("stopped", [name], self.webhook(stub)) as site:
                site.wait_for_line("A record for DNS-01 was added")
                site.stop()
                check_equal([r["json"]["action"] for r in stub.requests], ["present", "cleanup"], "what the webhook was told")
        finally:
            stub.close()

    @test
    def settings_are_checked_before_the_start(self):
        open_key = self.lab.write("open.key", self.knot.secret, 0o644)
        two_lines = self.lab.write("two.key", f"{self.knot.secret}\n{self.knot.secret}\n")
        server = {"server": self.knot.endpoint, "key_name": KEY}
        # Text, exit code, words.
        cases = {
            "what is right": (self.rfc2136(), 0, None),
            "an inline secret": (table("acme.dns", provider="rfc2136", **server, key_secret=self.knot.secret), 1, "error: .*key-secret: secrets do not stand"),
            "an inline token": (table("acme.dns", provider="webhook", url="https://dns.example.com/", token=DNS_TOKEN), 1, "error: .*token: secrets do not stand"),
            "an unknown provider": (table("acme.dns", provider="route54"), 1, 'error: .*provider: "route54" is not known.*cloudflare'),
            "no provider": (table("acme.dns", server=self.knot.endpoint), 1, "error: .*provider: is missing"),
            "no key": (table("acme.dns", provider="rfc2136", **server), 1, "error: .*key-secret-file: .*missing"),
            "a missing file": (self.rfc2136(key_secret_file="/nonexistent/key"), 1, "error: .*key-secret-file: /nonexistent/key"),
            "a file of two lines": (self.rfc2136(key_secret_file=two_lines), 1, "error: .*key-secret-file: "),
            "a key of another provider": (self.rfc2136(command="/bin/true"), 1, "error: .*command: the provider rfc2136 has no such key"),
            "a file that everybody reads": (self.rfc2136(key_secret_file=open_key), 0, "warning: .*open.key: every user.*chmod 600"),
            "a webhook in clear": (self.provider("webhook", url="http://dns.example.com/"), 1, "error: .*url: "),
            "alerts in clear": (self.rfc2136() + table("alerts", webhook=f"http://example.com/{ALERT_PATH}"), 1, "error: .*webhook: not a URL"),
            "a relative program for alerts": (self.rfc2136() + table("alerts", exec="bin/tell"), 1, "error: .*exec: .*absolute path"),
            "an alert token that everybody reads": (
                self.rfc2136() + table("alerts", webhook="https://example.com/", webhook_token_file=open_key), 0, "warning: .*open.key.*chmod 600"),
        }
        state = self.lab.private_directory("unused-state")
        head = table("wireguard", config="gateway.conf") + table("[tunnel]", domain=ZONE, agent=AGENT) + table("acme", email="me@example.org")
        for what, (text, code, words) in cases.items():
            path = self.lab.write("alerts-conf/checked.toml", head + text)
            result = self.run(["gateway", "--config", path, "--state", state, "--check"])
            check_equal(result.returncode, code, f"{what}: exit code ({result.stdout} {result.stderr})")
            if words:
                check(re.search(words, result.stderr), f"{what}: {result.stderr}")
            else:
                check_equal(result.stderr, "", what)

    def run(self, arguments):
        result = self.program.run(self.lab, arguments)
        SECRETS.printed.append(result.stdout + result.stderr)
        return result

    # Alerts

    def start_alerts(self):
        """A configured certificate that has an eighth of its life left at most; the first attempt of the webhook is in vain."""
        self.alerted = Stub(lambda request: 503 if len(self.alerted.requests) == 1 else 200)
        self.issuer = Issuer()
        paths = self.write_certificate(begin=-90, end=10)
        self.tell = self.write_hook("tell", ALERT_HOOK)
        self.alert_token = self.lab.write("alert.token", ALERT_TOKEN + "\n")
        more = table("[certificate]", cert=paths[0], key=paths[1]) + self.alert_table(self.alerted.port, self.tell)
        self.metrics_port = free_port()
        self.alerts_begin = time.monotonic()
        self.watched = self.site(
            "alerts", [BY_FILE, WATCHED], self.rfc2136(), more=more, options=["--metrics-listen", f"127.0.0.1:{self.metrics_port}"])

    def write_certificate(self, **lifetime):
        key, chain = self.issuer.leaf(BY_FILE, **lifetime)
        return self.lab.write("file.pem", chain.decode()), self.lab.write("file.key", key.decode())

    def alert_table(self, port, program):
        return table("alerts", webhook=f"http://127.0.0.1:{port}/{ALERT_PATH}", webhook_token_file=self.alert_token, exec=program)

    def told(self):
        return [json.loads(line) for line in self.seen_by("tell", "told")]

    @test
    def a_test_alert_says_how_each_channel_went(self):
        answers = [200]
        stub = Stub(lambda request: answers[0])
        failing = self.lab.write("failing-tell", "#!/bin/sh\ncat >/dev/null\nprintf 'cannot\\033 tell\\n'\nexit 7\n", 0o755)
        working = self.write_hook("other-tell", ALERT_HOOK)
        try:
            for program, status, code, lines in (
                    (working, 200, 0, ["webhook: sent", "exec: sent"]), (failing, 200, 1, ["webhook: sent", "exec: failed: .*status 7.*cannot.* tell"]),
                    (working, 500, 1, ["webhook: failed: .*127.0.0.1.*500", "exec: sent"])):
                answers[0] = status
                path = self.lab.write("alerts-conf/tested.toml", self.alert_table(stub.port, program))
                result = self.run(["certs", "test-alert", "--config", path])
                check_equal(result.returncode, code, f"exit code ({result.stdout} {result.stderr})")
                printed = result.stdout.splitlines()
                check(len(printed) == 2 and all(re.fullmatch(line, got) for line, got in zip(lines, printed)), f"{lines}: {result.stdout!r}")
            path = self.lab.write("alerts-conf/tested.toml", "")
            result = self.run(["certs", "test-alert", "--config", path])
            check(result.returncode != 0 and "[alerts]" in result.stderr, f"without [alerts]: {result.stderr}")
        finally:
            stub.close()
        check_equal([r["json"]["event"] for r in stub.requests], ["test"] * 3, "events")
        check_equal({(r["path"], r["authorization"]) for r in stub.requests}, {(f"/{ALERT_PATH}", f"Bearer {ALERT_TOKEN}")}, "paths and tokens")
        check_equal([json.loads(line)["event"] for line in self.seen_by("other-tell", "told")], ["test"] * 2, "events of the program")

    @test
    def status_and_metrics_show_certificates(self):
        self.watched.wait_for_certificate(WATCHED)
        text = self.run(["status", "--state", self.watched.state]).stdout
        for name in (BY_FILE, WATCHED):
            check(name in text, f"status lacks {name}: {text}")
        check(re.search(rf"{re.escape(WATCHED)} +valid ", text) and re.search(r"file\.pem|" + re.escape(BY_FILE) + " +file ", text), f"status: {text}")
        entries = {entry["name"]: entry for entry in self.program.status(self.lab, self.watched.state)["certificates"]}
        check_equal(entries[WATCHED]["state"], "valid", f"state in JSON: {entries}")
        check("file" in [entry["state"] for entry in entries.values()], f"the configured file is not in JSON: {entries}")
        samples = self.metrics()
        for name, labels, value in (
                ("acme_certificates", 'state="valid"', 1), ("acme_certificates", 'state="failed"', 0), ("acme_issued_total", "", 1),
                ("acme_failures_total", "", 0), ("acme_overdue", f'domain="{WATCHED}"', 0), ("acme_waiting_handshakes", "", 0),
                ("acme_challenges_answered_total", 'of="this_gateway"', 0), ("acme_relays_refused_total", "", 0)):
            check_equal(samples.get((f"kakuremichi_{name}", labels)), value, f"{name} {labels}")
        due = samples[("kakuremichi_acme_due_timestamp_seconds", f'domain="{WATCHED}"')]
        check_equal(due, entries[WATCHED]["due"], "when the next order is due")
        ends = {labels: value for (name, labels), value in samples.items() if name == "kakuremichi_certificate_expiry_timestamp_seconds"}
        check_equal(len(ends), 2, f"ends of certificates: {ends}")
        check_equal(ends[f'source="{WATCHED}"'], entries[WATCHED]["notAfter"], "end of the certificate")
        check(any("file.pem" in labels and abs(value - time.time() - 10 * 86400) < 300 for labels, value in ends.items()), f"ends: {ends}")

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            return parse(answer.read().decode())

    def counted(self):
        """Channel, outcome: count; of what is not 0."""
        return {tuple(re.findall('"([^"]*)"', labels)): value for (name, labels), value in self.metrics().items() if name == "kakuremichi_alerts_total" and value}

    @test
    def a_certificate_that_ends_is_told_of_once_by_every_channel(self):
        wait_until(self.told, 15, "the program is told")
        wait_until(lambda: len(self.alerted.requests) > 1, 60, "the webhook is told after a first attempt in vain")
        time.sleep(max(0, self.alerts_begin + SECOND_LOOK - time.monotonic()))
        posted, told = [request["json"] for request in self.alerted.requests], self.told()
        check_equal((len(posted), len(told)), (2, 1), f"alerts by webhook, one of them in vain, and by program: {posted} {told}")
        check_equal((posted[0], posted[1]), (told[0], told[0]), "what the channels were told")
        self.check_alert(told[0])
        check_equal({(r["path"], r["authorization"]) for r in self.alerted.requests}, {(f"/{ALERT_PATH}", f"Bearer {ALERT_TOKEN}")}, "paths and tokens")
        check_equal(self.counted(), {("webhook", "sent"): 1, ("webhook", "retried"): 1, ("exec", "sent"): 1}, "counts")
        check_equal(len(self.watched.said("Certificate of ", event="expiring")), 1, "lines of the log")
        (line,) = self.watched.said("Alert not sent; it is tried again")
        check("503" in json.dumps(line), f"line: {line}")
        self.watched.stop()
        self.watched.start()
        time.sleep(FIRST_LOOK)
        check_equal((len(self.alerted.requests), len(self.told())), (2, 1), "alerts after a restart")
        check_equal(self.counted(), {}, "counts after a restart")
        check_equal(self.watched.said("Certificate of ", event="expiring"), [], "lines of the log after a restart")

    @test
    def a_good_certificate_in_its_place_is_told_of_too(self):
        self.write_certificate(begin=-1, end=60)
        self.watched.stop()
        self.watched.start()
        wait_until(lambda: len(self.told()) > 1 and len(self.alerted.requests) > 2, FIRST_LOOK + 5, "the recovery is told")
        first, second = self.told()
        check_equal((second["event"], second["name"], self.alerted.requests[-1]["json"]), ("recovered", first["name"], second), "the second alert")
        check(second["id"] != first["id"] and second["notAfter"] > first["notAfter"], f"alerts: {first} {second}")
        # The program is counted when it has ended, and nothing comes twice.
        wait_until(lambda: self.counted() == {("webhook", "sent"): 1, ("exec", "sent"): 1}, 3, "one alert is counted for each channel")

    def check_alert(self, alert):
        check_equal((alert["event"], alert["level"], alert["lastFailure"]), ("expiring", "1/8", None), "event, level, last failure")
        check("file.pem" in alert["name"] or alert["name"] == BY_FILE, f"name: {alert['name']}")
        check(0 <= 10 * 86400 - alert["remainingSeconds"] < 120, f"remaining: {alert['remainingSeconds']}")
        end = datetime.datetime.fromisoformat(alert["notAfter"].replace("Z", "+00:00")).timestamp()
        told = datetime.datetime.fromisoformat(alert["time"].replace("Z", "+00:00")).timestamp()
        check(abs(end - told - alert["remainingSeconds"]) <= 2, f"end {alert['notAfter']} and time {alert['time']}")
        environment = dict(line.split("=", 1) for line in self.seen_by("tell", "environment") if line.startswith("KAKUREMICHI_"))
        expected = {
            "EVENT": "expiring", "NAME": alert["name"], "LEVEL": "1/8", "NOT_AFTER": alert["notAfter"], "REMAINING_SECONDS": str(alert["remainingSeconds"]),
            "MESSAGE": alert["message"], "LAST_FAILURE": "", "HOST": alert["host"], "ID": alert["id"]}
        check_equal(environment, {f"KAKUREMICHI_{key}": value for key, value in expected.items()}, "environment of the program")

    @test
    def no_secret_is_told_anywhere(self):
        """At level trace, by certs, status and --check, and in what the record of orders and alerts keeps."""
        SECRETS.check_untold(self.lab)
        with open(os.path.join(self.watched.state, "alerts.json")) as file:
            check_equal(SECRETS.found(file.read()), [], "secrets in alerts.json")
        self.watched.close()
        self.alerted.close()
        self.pebble.close()

