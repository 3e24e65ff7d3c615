"""Every rule of HTTP/2 that a client can break, and what a server must bear, in the order of RFC 9113. 20 s."""

import re

from interop.chain import APP, Chain, Holdings
from interop.client import curl
from interop.h2_cases import CASES
from interop.h2_judge import judge
from interop.h2raw import CONTINUATION, END_HEADERS, END_STREAM, H2, HEADERS, block, frame, literal, request
from interop.nodes import Origin, wait_until_served
from interop.recorder import RecordingOrigin
from interop.runner import Suite, test
from interop.system import check, check_equal

SEEN = "seen.example.com"


class SUITE(Suite):
    tools = ["setpriv", "curl"]
    modules = ["hpack"]

    def set_up(self):
        self.origin = Origin(self.lab)
        self.recorder = RecordingOrigin()
        self.lab.on_close(self.recorder.close)
        self.chain = Chain(self.program, self.lab, {APP: self.origin.target, SEEN: self.recorder.target}, [{"domain": APP}, {"domain": SEEN}])
        self.edge = self.chain.edge
        wait_until_served(self.edge, APP, 20)
        self.before = Holdings(self.chain.gateway.process)

    def clauses(self, pattern):
        cases = [case for case in CASES if re.match(pattern, case.clause)]
        check(cases, f"no case of {pattern}")
        wrong = []
        for case in cases:
            problem = judge(self.edge, APP, case)
            if problem:
                wrong.append(f"{case.clause} {case.name}: {problem}")
        check(not wrong, f"{len(wrong)} of {len(cases)} cases:\n" + "\n".join(wrong))

    @test
    def alpn_chooses_h2_or_http_1_1(self):
        for offered, expected in ((["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
            with self.edge.open_tls(APP, alpn=offered) as connection:
                check_equal(connection.selected_alpn_protocol(), expected, f"ALPN for {offered}")

    @test
    def the_preface(self):
        self.clauses("3")

    @test
    def frames_and_their_sizes(self):
        self.clauses("4")

    @test
    def streams(self):
        self.clauses("5")

    @test
    def data_and_headers(self):
        self.clauses("6[.][12]$")

    @test
    def priority_and_reset(self):
        self.clauses("6[.][34]$")

    @test
    def settings(self):
        self.clauses("6[.]5")

    @test
    def push_ping_and_goaway(self):
        self.clauses("6[.][678]")

    @test
    def windows(self):
        self.clauses("6[.]9")

    @test
    def continuation(self):
        self.clauses("6[.]10")

    @test
    def messages(self):
        self.clauses("8[.]1")

    @test
    def fields(self):
        self.clauses("8[.]2")

    @test
    def pseudo_fields(self):
        self.clauses("8[.]3")

    @test
    def connect(self):
        self.clauses("8[.]5|RFC 8441")

    @test
    def field_compression(self):
        self.clauses("RFC 7541")

    # What becomes of a right request

    def recorded(self, fields, body=b"", trailers=()):
        """The request as the web service has it."""
        before = len(self.recorder.requests)
        with H2(self.edge, SEEN) as h2:
            stream = h2.next_stream
            h2.headers(stream, fields, END_HEADERS | (0 if body or trailers else END_STREAM))
            if body:
                h2.data(stream, body, end=not trailers)
            if trailers:
                h2.headers(stream, list(trailers))
            response = h2.response(stream)
        check_equal(response.status, 200, "status")
        check_equal(len(self.recorder.requests) - before, 1, "requests at the web service")
        return self.recorder.requests[-1]

    @test
    def cookie_crumbs_are_joined_for_http_1_1(self):
        seen = self.recorded(request(SEEN, more=[("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("cookie", "c=3")]))
        check_equal([value for name, value in seen.fields if name.lower() == "cookie"], ["a=1; b=2; c=3"], "Cookie fields")

    @test
    def a_request_is_the_same_as_by_http_1_1(self):
        path = "/a%2Fb/../c//d?x=1;y=%20&z"
        seen = self.recorded(request(SEEN.upper(), path, "PROPFIND", more=[
            ("x-forwarded-for", "6.6.6.6"), ("x_forwarded_for", "6.6.6.6"), ("forwarded", "for=6.6.6.6"), ("x-real-ip", "6.6.6.6"), ("proxy", "evil"),
            ("x-kept", "a  b"), ("x-kept", "c"), ("http2-settings", "AAMAAABk"), ("te", "trailers")]))
        check_equal(seen.line, f"PROPFIND {path} HTTP/1.1".encode(), "request line")
        expected = {
            "host": SEEN, "x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-host": SEEN,
            "forwarded": f"for=127.0.0.1;host={SEEN};proto=https", "x-kept": "a  b, c"}
        for name, value in expected.items():
            check_equal(seen.get(name), value, f"field {name} at the web service")
        for name in ("x_forwarded_for", "proxy", "http2-settings", "upgrade", "transfer-encoding", "content-length"):
            check(seen.get(name) is None, f"{name} is at the web service: {seen.head}")
        check(not re.search(rb"(?m)^:", seen.head), f"a pseudo-field is at the web service: {seen.head}")

    @test
    def a_body_and_trailers_arrive(self):
        seen = self.recorded(request(SEEN, "/post", "POST", more=[("trailer", "x-sum")]), b"hello", [("x-sum", "42")])
        check_equal((seen.body, seen.trailers, seen.get("transfer-encoding")), (b"hello", [("x-sum", "42")], "chunked"), "body and trailers")
        seen = self.recorded(request(SEEN, "/post", "POST", more=[("content-length", "5")]), b"hello")
        check_equal((seen.body, seen.get("content-length"), seen.get("transfer-encoding")), (b"hello", "5", None), "body and framing")

    @test
    def response_fields_trailers_and_informational_answers_arrive(self):
        self.recorder.answers["/rich"] = (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
            b"Set-Cookie: a=1\r\nX-Upper: Value\r\nSet-Cookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n")
        with H2(self.edge, SEEN) as h2:
            response = h2.get("/rich")
        check_equal([dict(one)[":status"] for one in response.informational], ["103"], "informational answers")
        check_equal((response.status, response.body, response.trailers), (200, b"ok", [("x-sum", "42")]), "status, body, trailers")
        check_equal((response.get("set-cookie"), response.get("x-upper")), ("a=1, b=2", "Value"), "fields")
        for name in ("connection", "keep-alive", "transfer-encoding", "x-hop"):
            check(response.get(name) is None, f"{name} in {response.fields}")

    @test
    def faults_of_the_web_service_are_a_502_or_a_reset(self):
        from interop.http1_cases import FAULTS, TORN

        self.recorder.answers.update(FAULTS)
        self.recorder.answers.update(TORN)
        wrong = []
        with H2(self.edge, SEEN) as h2:
            for path in [*FAULTS, *TORN]:
                response = h2.get(path)
                if response.status != 502 and not (path in TORN and response.reset is not None):
                    wrong.append(f"{path}: {response}")
            check_equal(h2.get("/plain").status, 200, "status on the same connection")
        check(not wrong, "\n".join(wrong))

    @test
    def hosts_are_judged_by_stream(self):
        with H2(self.edge, SEEN) as h2:
            for authority, status in (
                    (SEEN.upper(), 200), (f"{SEEN}.", 200), (f"{SEEN}:8443", 200), (APP, 421), ("nobody.example.net", 404)):
                stream = h2.next_stream
                h2.next_stream += 2
                h2.headers(stream, request(authority))
                response = h2.response(stream)
                check_equal(response.status, status, f"status for {authority}")
            check_equal(h2.get("/", "TRACE").status, 405, "status of TRACE")

    @test
    def two_hundred_streams_at_once_are_all_served(self):
        most = 200
        with H2(self.edge, APP) as h2:
            h2.ready()
            waiting = list(range(most))
            done = 0
            running = []
            while waiting or running:
                while waiting and len(running) < min(h2.settings.get(3, 100), 100):
                    waiting.pop()
                    running.append(h2.request("/bytes/20000"))
                response = h2.response(running.pop(0))
                check_equal((response.status, len(response.body)), (200, 20000), "status and length")
                done += 1
        check_equal(done, most, "answers")

    @test
    def a_header_block_beyond_the_limit_is_a_431_and_the_table_stays_in_step(self):
        with H2(self.edge, APP) as h2:
            h2.ready()
            fields = block(request(APP)) + literal("x-kept", "1", 0x40) + b"".join(literal("x-a", "a" * 4000) for _ in range(30))
            size = 16384
            parts = [fields[offset:offset + size] for offset in range(0, len(fields), size)]
            h2.send(frame(HEADERS, END_STREAM, 1, parts[0]) + b"".join(
                frame(9, END_HEADERS if part is parts[-1] else 0, 1, part) for part in parts[1:]))
            response = h2.response(1)
            check(response.status == 431 or response.reset is not None, f"{response}")
            # The entry that the refused block has added is used by the next one.
            h2.headers(3, block(request(APP)) + b"\xbe")
            check_equal(h2.response(3).status, 200, "status of the next request")

    def ask_at_once(self, fields, acknowledges):
        """A request right behind the preface, as most clients send it. What the server allows is not known yet."""
        with H2(self.edge, APP, automatic=acknowledges) as h2:
            parts = [fields[offset:offset + 16384] for offset in range(0, len(fields), 16384)]
            last, h2.next_stream = len(parts) - 1, 3
            for number, part in enumerate(parts):
                h2.frame(CONTINUATION if number else HEADERS, (0 if number else END_STREAM) | (END_HEADERS if number == last else 0), 1, part)
            status = h2.response(1).status
            again = h2.get().status if acknowledges else h2.response(h2.request()).status
            check(h2.goaway is None, f"GOAWAY with {h2.goaway}")
            return status, again

    @test
    def long_heads_right_behind_the_preface(self):
        for count, length, expected in ((15, 1000, 200), (40, 1000, 200), (5, 7000, 200), (60, 1000, 431), (1500, 5, 431), (1, 17_000, 431)):
            fields = block(request(APP)) + b"".join(literal(f"x-{number}", "a" * length) for number in range(count))
            for acknowledges in (True, False):
                check_equal(self.ask_at_once(fields, acknowledges), (expected, 200), f"statuses of {count} fields of {length} bytes and after")

    @test
    def long_heads_of_curl(self):
        for count, expected in ((20, b"200"), (45, b"200"), (60, b"431")):
            fields = [part for number in range(count) for part in ("--header", f"X-{number}: {'a' * 1000}")]
            status = curl([
                *self.edge.curl_options(APP), "--http2", "--no-fail", "--output", "/dev/null", "--write-out", "%{http_code}", *fields,
                self.edge.url(APP, "/")])
            check_equal(status, expected, f"status with {count} fields")

    @test
    def nothing_is_left_behind(self):
        self.before.wait_for_return(15)
        check_equal(self.edge.status_of(APP), 200, "status afterwards")
        check(self.chain.gateway.process.peak_memory() < 150, f"peak memory {self.chain.gateway.process.peak_memory():.0f} MB")
