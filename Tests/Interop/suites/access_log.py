"""The gateway's access log and HTTP metrics, as who reads them meets them: logrotate, a full disk, a reader that hangs."""

import json
import os
import re
import signal

from interop.chain import AGENT, APP, Chain
from interop.client import curl
from interop.h2raw import DATA, END_HEADERS, END_STREAM, H2, HEADERS, block, frame, request
from interop.http1_cases import get, post
from interop.metrics import metrics
from interop.nodes import Origin, wait_until_served
from interop.runner import Suite, test
from interop.settings import ACCESS_LOG
from interop.system import check, check_equal, free_port, wait_until
from interop.websocket import echo_messages
from interop.wire import Wire

DEAD, OFF, NOBODY = "dead.example.com", "off.example.com", "nobody.example.com"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# More than its queue takes.
MANY = 6000


def host(domain):
    return f"Host: {domain}\r\n".encode()


class SUITE(Suite):
    tools = ["curl", "setpriv"]
    timeout = 120

    def set_up(self):
        self.origin = Origin(self.lab)
        self.log = os.path.join(self.lab.private_directory("log"), "access.log")
        self.routes = [{"domain": APP}, {"domain": DEAD}, {"domain": OFF, "enabled": False}]
        self.targets = {APP: self.origin.target, DEAD: f"127.0.0.1:{free_port()}"}
        self.chain = self.make_chain(self.log)
        self.edge, self.gateway = self.chain.edge, self.chain.gateway
        wait_until_served(self.edge, APP, 20)
        self.known = set()

    def make_chain(self, log, **options):
        return Chain(self.program, self.lab, self.targets, self.routes, limits={"header": 3}, options=[ACCESS_LOG, log], **options)

    def lines(self, path=None):
        with open(path or self.log) as file:
            return [json.loads(line) for line in file.read().splitlines()]

    def line(self, **wanted):
        """The line with these values that no test has seen before."""
        def find():
            for one in self.lines():
                if one["id"] not in self.known and all(one.get(name) == value for name, value in wanted.items()):
                    return one
            return None

        found = wait_until(find, 5, f"a line with {wanted}")
        self.known.add(found["id"])
        return found

    # Lines

    @test
    def a_line_tells_of_a_request(self):
        for option, version in (("--http1.1", "http/1.1"), ("--http2", "h2")):
            curl([*self.edge.curl_options(APP), option, "--fail", "--data", "x" * 1000, self.edge.url(APP, "/upload?token=secret")])
            line = self.line(path="/upload", protocol=version)
            check_equal(
                {name: line[name] for name in ("client", "host", "method", "status", "bytesIn", "route", "agent", "tls")},
                {"client": "127.0.0.1", "host": f"{APP}:{self.edge.https_port}", "method": "POST", "status": 200, "bytesIn": 1000,
                 "route": APP, "agent": AGENT, "tls": "1.3"}, f"line of {version}")
            check(0 <= line["connectMs"] <= line["headMs"] <= line["totalMs"] < 5000, f"durations {line}")
            check(line["bytesOut"] > 0 and "error" not in line and TIME.fullmatch(line["time"]), f"{line}")
        with open(self.log) as file:
            check("secret" not in file.read(), "the query is in the log")
        check_equal(os.stat(self.log).st_mode & 0o777, 0o640, "mode of the file")

    @test
    def an_answer_without_a_body_is_one_request(self):
        """Over HTTP/2 its only frame ends the stream."""
        name = "kakuremichi_http_requests_total"
        label = f'route="{APP}",code="2xx"'
        before = self.metrics(self.gateway)
        for number in range(3):
            curl([*self.edge.curl_options(APP), "--http2", "--head", self.edge.url(APP, f"/?head{number}")])
            self.line(method="HEAD", protocol="h2")
        wait_until(lambda: self.metrics(self.gateway)[(name, label)] - before.get((name, label), 0) == 3, 5, "three requests")
        after = self.metrics(self.gateway)
        check_equal(after[(name, label)] - before.get((name, label), 0), 3, "requests")
        connections = "kakuremichi_upstream_connections_total", ""
        check(after[connections] - before[connections] <= 1, "a connection to the agent is not used again")

    @test
    def a_request_that_ends_behind_its_answer_is_one_request(self):
        name = "kakuremichi_http_requests_total", 'route="-",code="4xx"'
        before = self.metrics(self.gateway).get(name, 0)
        with H2(self.edge, APP) as h2:
            h2.send(frame(HEADERS, END_HEADERS, 1, block(request(NOBODY, "/early", "POST"))) + frame(DATA, END_STREAM, 1, b"x"))
            check_equal(h2.response(1).status, 404, "status")
        self.line(path="/early", status=404)
        check_equal(self.metrics(self.gateway)[name] - before, 1, "requests")

    @test
    def what_is_not_served_has_a_line_too(self):
        for domain, status in ((DEAD, 502), (OFF, 503), (NOBODY, 404)):
            with Wire(self.edge, APP if domain == NOBODY else domain) as wire:
                wire.send(get(host=host(domain)))
                check_equal(wire.answer().status, status, f"status of {domain}")
            line = self.line(host=domain)
            check_equal((line["status"], line.get("route")), (status, DEAD if domain == DEAD else None), f"{line}")
            # Of the 502 the gateway knows only that the agent has answered it.
            check_equal("error" in line, domain != DEAD, f"error: {line}")
        with Wire(self.edge, APP) as wire:
            wire.send(b"GET / HTTP/1.1\r\nHost: " + APP.encode() + b"\r\nBad Name: 1\r\n\r\n")
            answer = wire.answer()
            check_equal(answer.status, 400, "status of a malformed request")
        line = self.line(status=400)
        check_equal((line["id"], line["method"], line["path"]), (answer.get("x-request-id"), "GET", "/"), "malformed")
        check(line["error"].startswith("Bad Request: "), f"{line}")

    @test
    def what_is_refused_is_known_and_answered_in_the_form_that_is_wanted(self):
        wants = b"Accept: application/json\r\n"
        cases = [
            (get(wants, b"/trace?secret", b"TRACE"), 405, "TRACE", APP, "/trace"),
            (b"CONNECT b.example.com:443 HTTP/1.1\r\n" + host(APP) + wants + b"\r\n", 405, "CONNECT", "b.example.com:443", ""),
            (post(b"Transfer-Encoding: gzip, chunked\r\n" + wants, b"0\r\n\r\n", b"/coded"), 501, "POST", APP, "/coded"),
            (get(host(APP) + wants, b"/two-hosts"), 400, "GET", "", "/two-hosts"),
        ]
        for head, status, *known in cases:
            with Wire(self.edge, APP) as wire:
                wire.send(head)
                answer = wire.answer()
            check_equal((answer.status, answer.get("content-type")), (status, "application/json"), f"answer to {head[:20]}")
            line = self.line(id=answer.get("x-request-id"))
            check_equal([line[name] for name in ("method", "host", "path")], known, f"line of {head[:20]}")
        with H2(self.edge, APP) as h2:
            response = h2.response(h2.request("/trace2", "TRACE", more=[("accept", "application/json")]))
            check_equal((response.status, response.get("content-type")), (405, "application/json"), "answer over HTTP/2")
        check_equal(self.line(path="/trace2")["method"], "TRACE", "method over HTTP/2")

    @test
    def behind_a_trusted_proxy_lines_and_error_pages_have_its_visitor_and_its_name_of_the_request(self):
        log = os.path.join(self.lab.directory, "log/trusting.log")
        chain = self.make_chain(log, trusted=["127.0.0.2/32"], name="trusting-")
        wait_until_served(chain.edge, APP, 20)

        def line(path):
            return wait_until(lambda: next((one for one in self.lines(log) if one["path"] == path), None), 5, f"the line of {path}")

        for number, (domain, method, status) in enumerate(
                ((APP, b"GET", 200), (DEAD, b"GET", 502), (OFF, b"GET", 503), (NOBODY, b"GET", 404), (APP, b"TRACE", 405))):
            path = f"/headers/told-{number}"
            fields = f"X-Forwarded-For: 203.0.113.7:4711\r\nX-Request-Id: given-{number}\r\n".encode()
            with Wire(chain.edge, APP if domain == NOBODY else domain, source="127.0.0.2") as wire:
                wire.send(get(fields, path.encode(), method, host=host(domain)))
                answer = wire.answer()
            check_equal(answer.status, status, f"status of {path}")
            check_equal((line(path)["client"], line(path)["id"]), ("203.0.113.7", f"given-{number}"), f"line of {path}")
            if status != 200:
                check_equal(answer.get("x-request-id"), f"given-{number}", f"name on the page of {path}")
        check("given-1" in chain.agent.process.output(), "the agent's Proxy error does not name the request")

    @test
    def the_page_of_an_agent_has_the_gateways_name_of_the_request(self):
        with Wire(self.edge, DEAD) as wire:
            wire.send(get(target=b"/agents-page", host=host(DEAD)))
            answer = wire.answer()
        check_equal(answer.get("x-request-id"), self.line(path="/agents-page")["id"], "name on the page")

    @test
    def a_client_that_goes_away_and_a_websocket_have_a_line(self):
        with Wire(self.edge, APP) as wire:
            wire.send(b"GET /endless/gone HTTP/1.1\r\nHost: " + APP.encode() + b"\r\n\r\n")
            check_equal(wire.head().status, 200, "status")
            wire.exactly(1000)
        line = self.line(path="/endless/gone")
        check(line["status"] == 200 and line["bytesOut"] > 0, f"{line}")
        echo_messages(self.edge, APP)
        line = self.line(status=101)
        check(line["bytesIn"] > 3_000_000 and line["bytesOut"] > 3_000_000, f"{line}")

    @test
    def values_are_escaped(self):
        with Wire(self.edge, APP) as wire:
            wire.send(b'GET /a"b\\c\x1b[31m HTTP/1.1\r\nHost: ' + APP.encode() + b"\r\n\r\n")
            refused = wire.answer().status
        with Wire(self.edge, APP) as wire:
            wire.send(b'GET /a"b\\c HTTP/1.1\r\nHost: ' + APP.encode() + b"\r\nConnection: close\r\n\r\n")
            wire.answer()
        check_equal(refused, 400, "status of a control character")
        with open(self.log, "rb") as file:
            check(b"\x1b" not in file.read(), "a control character in the log")
        self.line(path='/a"b\\c')

    # The file

    @test
    def a_file_that_was_moved_away_is_made_anew_at_sighup(self):
        old = self.log + ".1"
        os.rename(self.log, old)
        check_equal(self.edge.status_of(APP, "/to-the-old-one"), 404, "status")
        wait_until(lambda: any(one["path"] == "/to-the-old-one" for one in self.lines(old)), 5, "the line in the old file")
        self.gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: os.path.exists(self.log), 5, "the new file")
        self.edge.status_of(APP, "/to-the-new-one")
        self.line(path="/to-the-new-one")

    @test
    def a_full_disk_holds_nobody_up(self):
        chain = self.make_chain("/dev/full", name="full")
        wait_until_served(chain.edge, APP, 20)
        for _ in range(20):
            check_equal(chain.edge.status_of(APP), 200, "status")

        def dropped():
            return self.metrics(chain.gateway)[("kakuremichi_access_log_dropped_total", "")] >= 20

        wait_until(dropped, 5, "the dropped lines are counted")
        check_equal(chain.gateway.process.output().count("The access log cannot be written"), 1, "lines about it")
        check_equal(chain.gateway.process.stop(), 0, "exit code")

    @test
    def a_reader_that_hangs_holds_nobody_up(self):
        pipe = os.path.join(self.lab.directory, "log/pipe")
        os.mkfifo(pipe)
        self.lab.own(pipe, 0o600)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            chain = self.make_chain(pipe, name="hung")
            wait_until_served(chain.edge, APP, 20)
            with Wire(chain.edge, APP) as wire:
                for _ in range(MANY // 100):
                    wire.send(get() * 100)
                    for _ in range(100):
                        check_equal(wire.answer().status, 200, "status")
            dropped = self.metrics(chain.gateway)[("kakuremichi_access_log_dropped_total", "")]
            check(0 < dropped < MANY, f"{dropped} of {MANY} lines dropped")
            # It ends in time all the same.
            check_equal(chain.gateway.process.stop(timeout=20), 0, "exit code")
        finally:
            os.close(reader)

    @test
    def a_path_that_cannot_be_written_is_said_at_the_start(self):
        result = self.program.run(
            self.lab, ["gateway", "--config", self.chain.config, "--state", self.lab.private_directory("other"), ACCESS_LOG,
                       "/nowhere/access.log", "--https", f"127.0.0.1:{free_port()}", "--http", "off"])
        check(result.returncode > 0, "exit code 0")
        check("the access log /nowhere/access.log: cannot be written: No such file or directory; make its directory" in result.stderr, result.stderr)

    # Metrics

    def metrics(self, node):
        return metrics(self.program, self.lab, node)

    @test
    def metrics_count_what_was_done(self):
        before = self.metrics(self.gateway)

        def grown(name, labels="", node=None):
            return self.metrics(node or self.gateway).get((name, labels), 0) - before.get((name, labels), 0)

        with Wire(self.edge, APP) as wire, Wire(self.edge, APP, alpn=["http/1.1"]) as other:
            wire.send(get() * 3)
            for _ in range(3):
                wire.answer()
            other.send(post(b"Content-Length: 500\r\n", b"x" * 500, b"/upload"))
            check_equal(other.answer().status, 200, "status")
            connections = self.metrics(self.gateway)
            check(connections[("kakuremichi_http_connections", 'protocol="http1"')] >= 2, "open connections")
            check(connections[("kakuremichi_upstream_connections", "")] >= 1, "open connections to the agent")
            check(connections[("kakuremichi_upstream_idle_connections", "")] >= 1, "idle connections to the agent")
        route = f'route="{APP}"'
        wait_until(lambda: grown("kakuremichi_http_requests_total", f'{route},code="2xx"') == 4, 5, "requests are counted")
        check_equal(grown("kakuremichi_http_request_duration_seconds_count", route), 4, "durations")
        check_equal(grown("kakuremichi_http_request_duration_seconds_bucket", f'{route},le="+Inf"'), 4, "the last bucket")
        check(0 < grown("kakuremichi_http_request_duration_seconds_sum", route) < 20, "sum of durations")
        check_equal(grown("kakuremichi_http_request_bytes_total", route), 500, "bytes of requests")
        check(grown("kakuremichi_http_response_bytes_total", route) > 0, "bytes of responses")
        check_equal(grown("kakuremichi_tls_handshakes_total"), 2, "handshakes")
        check(self.metrics(self.chain.agent)[("kakuremichi_upstream_connections_total", "")] >= 1, "the agent's connections")

    @test
    def metrics_count_why_clients_and_agents_failed(self):
        before = self.metrics(self.gateway)
        cases = [
            (APP, get(host=host(NOBODY)), 404, "kakuremichi_http_refusals_total", 'reason="unknown_host"'),
            (APP, get(host=host(DEAD)), 421, "kakuremichi_http_refusals_total", 'reason="misdirected"'),
            (OFF, get(host=host(OFF)), 503, "kakuremichi_http_refusals_total", 'reason="disabled"'),
            (APP, b"GET / HTTP/1.1\r\n\r\n", 400, "kakuremichi_http_refusals_total", 'reason="bad_request"'),
            (APP, b"TRACE / HTTP/1.1\r\nHost: " + APP.encode() + b"\r\n\r\n", 405, "kakuremichi_http_refusals_total", 'reason="method_not_allowed"'),
            (APP, b"GET / HTTP/1.1\r\nHost: " + APP.encode() + b"\r\nX: " + b"x" * 70_000, 431, "kakuremichi_http_refusals_total",
             'reason="header_too_large"'),
            (APP, b"GET / HTTP/1.1\r\n", 408, "kakuremichi_http_refusals_total", 'reason="header_timeout"'),
            (DEAD, get(host=host(DEAD)), 502, "kakuremichi_http_requests_total", f'route="{DEAD}",code="5xx"'),
        ]
        for domain, request, status, _, _ in cases:
            with Wire(self.edge, domain) as wire:
                wire.send(request)
                check_equal(wire.answer().status, status, f"status of {request[:40]!r}")
        for _, _, _, name, labels in cases:
            wait_until(
                lambda name=name, labels=labels: self.metrics(self.gateway).get((name, labels), 0) == before.get((name, labels), 0) + 1, 5,
                f"{name} {labels} has grown by 1")
        agent = self.metrics(self.chain.agent)
        check(agent[("kakuremichi_upstream_failures_total", 'reason="refused"')] >= 1, "the agent counts the refused target")

    @test
    def open_websockets_and_streams_are_counted_until_they_end(self):
        with Wire(self.edge, APP) as wire:
            wire.send(
                b"GET /websocket HTTP/1.1\r\nHost: " + APP.encode() + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            check_equal(wire.head().status, 101, "status")
            check_equal(self.metrics(self.gateway)[("kakuremichi_http_connections", 'protocol="websocket"')], 1, "open WebSockets")
        wait_until(
            lambda: self.metrics(self.gateway)[("kakuremichi_http_connections", 'protocol="websocket"')] == 0, 5, "the WebSocket is gone")
        check_equal(self.metrics(self.gateway)[("kakuremichi_http_streams", "")], 0, "open streams")
