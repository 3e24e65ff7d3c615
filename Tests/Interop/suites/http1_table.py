"""HTTP/1.1 byte by byte: what is refused, what is passed on and as what, and what becomes of a web service's faults. 15 s."""

import re
import time

from interop.chain import APP, Chain
from interop.http1_cases import (
    CHUNKS, CLOSED, FAULTS, FORWARDS, FRAMING, HEADS, HINT, HOST, NO_WEBSOCKETS, OPEN, ROUTING, TORN, WEBSOCKET, get, post)
from interop.nodes import wait_until_served
from interop.recorder import OK, RecordingOrigin
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until
from interop.wire import Ended, Wire

OTHER, OFF, AWAY, REFUSING = "other.example.com", "off.example.com", "away.example.com", "refusing.example.com"
# Names that the gateway may add to a request beyond what the table says.
FREE = {"x-request-id", "via", "te", "connection"}


class SUITE(Suite):
    tools = ["setpriv"]

    def set_up(self):
        self.origin = RecordingOrigin()
        self.lab.on_close(self.origin.close)
        self.origin.answers.update(FAULTS)
        self.origin.answers.update(TORN)
        self.chain = Chain(
            self.program, self.lab, {
                APP: self.origin.target, OTHER: self.origin.target, OFF: self.origin.target, REFUSING: f"127.0.0.1:{free_port()}"},
            [{"domain": APP}, {"domain": OTHER}, {"domain": OFF, "enabled": False}, {"domain": AWAY, "agent": "10.1.0.100"}, {"domain": REFUSING}])
        self.edge = self.chain.edge
        wait_until_served(self.edge, APP, 20)

    # The gateway's own answers

    def refusals(self, cases, may_begin=False):
        wrong, start = [], len(self.origin.requests)
        for case in cases:
            before = len(self.origin.requests)
            with Wire(self.edge, APP) as wire:
                wire.send(case.request)
                try:
                    answer = wire.answer()
                    said = [f"status {answer.status}"] * (answer.status not in case.statuses)
                    said += [f"body {answer.body[:100]!r}"] * (case.holds not in answer.body)
                    said += [f"no field {name}" for name in case.fields if not answer.get(name)]
                    said += ["the connection stays open"] * (case.fate is CLOSED and not wire.ends())
                except Ended as end:
                    said = [f"no answer: {end}"]
                except TimeoutError:
                    said = ["neither an answer nor an end"]
            seen = [request.line for request in self.origin.requests[before:] if request.complete or not may_begin]
            said += [f"the web service has {seen}"] * bool(seen)
            if said:
                wrong.append(f"{case.name}: {', '.join(said)}; not {case.statuses}, {case.fate}")
        # What may be under way is there before an answer to a later request.
        check_equal(self.edge.status_of(APP), 200, "status afterwards")
        wrong += ["a request that was hidden behind another is at the web service"] * any(
            request.target == b"/smuggled" for request in self.origin.requests[start:])
        check(not wrong, "\n".join(wrong))

    @test
    def ambiguous_framing_is_refused_and_the_connection_ends(self):
        self.refusals(FRAMING)

    @test
    def bad_chunks_are_refused_and_the_connection_ends(self):
        self.refusals(CHUNKS, may_begin=True)

    @test
    def malformed_heads_are_refused(self):
        self.refusals(HEADS)

    @test
    def heads_are_judged_alike_in_whatever_pieces_they_come(self):
        """Every place where a piece can end, for a request that passes and one that does not."""
        good = post(b"Transfer-Encoding: chunked\r\nX-A: b\r\n", b"5;a=b\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", b"/pieces")
        bad = get(b"X-A: a\rb\r\n")
        for request, status in ((good, 200), (bad, 400)):
            for cut in range(1, len(request)):
                with Wire(self.edge, APP) as wire:
                    wire.send(request[:cut])
                    wire.send(request[cut:])
                    check_equal(wire.answer().status, status, f"status of {request[:cut]!r} and {request[cut:]!r}")
        for seen in self.origin.seen(b"^/pieces"):
            check_equal((seen.body, seen.trailers), (b"hello", [("x-t", "1")]), "body and trailers")

    @test
    def hosts_and_methods_that_lead_nowhere(self):
        self.refusals(ROUTING)

    @test
    def a_disabled_tunnel_is_a_503(self):
        with Wire(self.edge, OFF) as wire:
            wire.send(get(host=b"Host: " + OFF.encode() + b"\r\n"))
            answer = wire.answer()
        check_equal(answer.status, 503, "status")
        check(b"Tunnel disabled" in answer.body, f"answer {answer}")

    @test
    def an_absent_agent_is_a_503_and_a_refusing_target_a_502(self):
        for domain, status in ((AWAY, 503), (REFUSING, 502)):
            with Wire(self.edge, domain) as wire:
                wire.send(get(host=b"Host: " + domain.encode() + b"\r\n"))
                answer = wire.answer()
            check_equal(answer.status, status, f"status of {domain}")
            if status == 503:
                check((answer.get("retry-after") or "").isdigit(), f"no Retry-After: {answer}")
            check(not re.search(rb"10\.1\.0\.|127\.0\.0\.1", answer.head + answer.body), f"an address of the inside: {answer}")

    @test
    def error_pages_follow_accept_and_have_the_requests_id(self):
        for accept, kind in (("application/json", "application/json"), ("text/html,*/*;q=0.8", "text/html")):
            with Wire(self.edge, APP) as wire:
                wire.send(get(f"Accept: {accept}\r\n".encode(), host=b"Host: nobody.example.net\r\n"))
                answer = wire.answer()
            check((answer.get("content-type") or "").startswith(kind), f"for {accept}: {answer}")
            identifier = answer.get("x-request-id")
            check(identifier and identifier.encode() in answer.body, f"no request id: {answer}")

    # What is passed on

    @test
    def requests_reach_the_web_service_exactly_so(self):
        wrong = []
        for case in FORWARDS:
            before = len(self.origin.requests)
            try:
                with Wire(self.edge, APP) as wire:
                    wire.send(case.request)
                    said = self.compare(case, wire.answer(case.method), self.origin.requests[before:])
                    if case.fate is OPEN:
                        wire.send(get())
                        said += ["no second answer"] * (wire.answer().status != 200)
                    elif case.fate is CLOSED:
                        said += ["the connection stays open"] * (not wire.ends())
            except (Ended, TimeoutError) as end:
                said = [f"no answer, or none to a second request: {end!r}"]
            wrong += [f"{case.name}: {', '.join(said)}"] * bool(said)
        check(not wrong, "\n".join(wrong))

    @staticmethod
    def compare(case, answer, requests):
        if answer.status != 200 or len(requests) != 1:
            return [f"status {answer.status}, {len(requests)} requests at the web service"]
        [seen] = requests
        free = FREE - {name for name, _ in case.fields}
        fields = sorted(((name.lower(), value) for name, value in seen.fields if name.lower() not in free), key=lambda field: field[0])
        said = [f"request line {seen.line!r}"] * (seen.line != case.line)
        said += [f"field {field} is missing" for field in case.fields if field not in fields]
        said += [f"field {field} is too much" for field in fields if field not in case.fields]
        if not said and fields != case.fields:
            said.append(f"fields {fields}")
        said += [f"body {seen.body!r}"] * (seen.body != case.body)
        said += [f"trailers {seen.trailers}"] * (seen.trailers != case.trailers)
        connection = {token.strip() for token in (seen.get("connection") or "").lower().split(",")} - {"", "keep-alive", "close", "te"}
        return said + [f"Connection names {connection}"] * bool(connection)

    @test
    def pipelined_requests_are_answered_in_their_order(self):
        with Wire(self.edge, APP) as wire:
            wire.send(b"".join(get(target=b"/pipe/%d" % number) for number in range(20)) + post(b"Content-Length: 5\r\n", b"hello") + get(target=b"/bad path"))
            for _ in range(21):
                check_equal(wire.answer().status, 200, "status")
            check_equal(wire.answer().status, 400, "status of the last")
            check(wire.ends(), "the connection stays open")
        targets = [request.target for request in self.origin.seen(b"^/pipe/")]
        check_equal(targets, [b"/pipe/%d" % number for number in range(20)], "requests at the web service")

    @test
    def an_expectation_is_the_web_services_to_fulfil(self):
        head = b"POST /%s HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nExpect: 100-Continue\r\n\r\n"
        with Wire(self.edge, APP) as wire:
            wire.send(head % b"expect")
            check_equal(wire.head().status, 100, "first status")
            wire.send(b"hello")
            check_equal(wire.answer().status, 200, "final status")
        with Wire(self.edge, APP) as wire:
            wire.send(head % b"refuse")
            check_equal(wire.answer().status, 417, "the refusal, without a 100 before")

    @test
    def informational_answers_pass_but_not_to_http_1_0(self):
        self.origin.answers["/hints"] = HINT * 15 + b"HTTP/1.1 102 Processing\r\n\r\n" + OK
        for version, expected in ((b"HTTP/1.1", [103] * 15 + [102]), (b"HTTP/1.0", [])):
            with Wire(self.edge, APP) as wire:
                wire.send(get(target=b"/hints", version=version))
                answer = wire.answer()
            check_equal((answer.status, [one.status for one in answer.informational]), (200, expected), f"statuses for {version}")
        check_equal(HINT.splitlines()[1], b"Link: </a.css>", "")
        with Wire(self.edge, APP) as wire:
            wire.send(get(target=b"/hints"))
            check_equal(wire.answer().informational[0].get("link"), "</a.css>", "Link of the first")

    @test
    def response_fields_of_one_hop_end_with_it(self):
        self.origin.answers["/hop"] = (
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n"
            b"Proxy-Connection: x\r\nSet-Cookie: a=1\r\nX-Kept: a  b\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok")
        with Wire(self.edge, APP) as wire:
            wire.send(get(target=b"/hop"))
            answer = wire.answer()
        for name in ("x-hop", "proxy-authenticate", "upgrade", "proxy-connection"):
            check(answer.get(name) is None, f"{name} has passed: {answer}")
        check("x-hop" not in (answer.get("connection") or "").lower(), f"Connection: {answer}")
        check_equal((answer.get("set-cookie"), answer.get("x-kept")), ("a=1, b=2", "a  b"), "fields that pass")

    @test
    def response_trailers_pass(self):
        self.origin.answers["/trailers"] = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2;a=b\r\nok\r\n0\r\nX-Sum: 42\r\nX-Sum: 43\r\n\r\n")
        with Wire(self.edge, APP) as wire:
            wire.send(get(b"TE: trailers\r\nConnection: TE\r\n", b"/trailers"))
            answer = wire.answer()
        check_equal((answer.body, answer.trailers, answer.get("trailer")), (b"ok", [("x-sum", "42"), ("x-sum", "43")], "X-Sum"), "body and trailers")

    @test
    def trailers_that_frame_never_pass(self):
        """They are dropped, or the message is refused."""
        for name in (b"Content-Length: 7", b"Transfer-Encoding: chunked", b"Host: evil", b"Connection: close"):
            before = len(self.origin.requests)
            self.origin.answers["/framing"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n" + name + b"\r\n\r\n"
            with Wire(self.edge, APP) as wire:
                wire.send(post(b"Transfer-Encoding: chunked\r\n", b"2\r\nok\r\n0\r\nX-Sum: 42\r\n" + name + b"\r\n\r\n"))
                check(wire.answer().status in (200, 400), "status")
            with Wire(self.edge, APP) as wire:
                wire.send(get(target=b"/framing"))
                try:
                    answer = wire.answer()
                    check(answer.status == 502 or answer.trailers == [("x-sum", "42")], f"trailers {answer.trailers}")
                except Ended:
                    pass
            for seen in self.origin.requests[before:]:
                check(not seen.complete or seen.trailers in ([], [("x-sum", "42")]), f"trailers at the web service: {seen.trailers}")

    @test
    def answers_that_end_with_their_connection_are_whole(self):
        self.origin.answers["/until-close"] = (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 100_000, True)
        for version in (b"HTTP/1.1", b"HTTP/1.0"):
            with Wire(self.edge, APP) as wire:
                wire.send(get(target=b"/until-close", version=version))
                check_equal(len(wire.answer().body), 100_000, f"length for {version}")

    # Upgrades

    @test
    def a_websocket_is_a_raw_relay_after_its_101(self):
        before = len(self.origin.requests)
        with Wire(self.edge, APP) as wire:
            wire.send(get(WEBSOCKET, b"/websocket") + b"\x81\x00early")
            answer = wire.answer()
            check_equal((answer.status, (answer.get("upgrade") or "").lower()), (101, "websocket"), "status and Upgrade")
            check_equal(answer.get("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Sec-WebSocket-Accept")
            wire.send(get(target=b"/smuggled"))
            check_equal(wire.exactly(7 + len(get(target=b"/smuggled"))), b"\x81\x00early" + get(target=b"/smuggled"), "what comes back")
        check_equal(len(self.origin.requests) - before, 1, "requests at the web service")

    @test
    def no_other_handshake_leads_to_a_raw_relay(self):
        wrong = []
        for name, request in NO_WEBSOCKETS:
            before = len(self.origin.requests)
            with Wire(self.edge, APP) as wire:
                wire.send(request)
                status = wire.answer().status
            seen = self.origin.requests[before:]
            if status != 200 or len(seen) != 1 or seen[0].get("upgrade") or "upgrade" in (seen[0].get("connection") or "").lower():
                wrong.append(f"{name}: status {status}, at the web service {[one.head for one in seen]}")
        check(not wrong, "\n".join(wrong))

    @test
    def a_list_with_h2c_never_carries_it_on(self):
        for value in (b"websocket, h2c", b"h2c, websocket", b"websocket\r\nUpgrade: h2c"):
            before = len(self.origin.requests)
            with Wire(self.edge, APP) as wire:
                wire.send(get(WEBSOCKET.replace(b"websocket\r\n", value + b"\r\n", 1), b"/websocket"))
                check(wire.answer().status in (101, 200, 400), "status")
            for seen in self.origin.requests[before:]:
                check("h2c" not in (seen.get("upgrade") or ""), f"at the web service: {seen.head}")

    @test
    def a_refused_websocket_is_an_ordinary_answer(self):
        with Wire(self.edge, APP) as wire:
            wire.send(get(WEBSOCKET, b"/no-such-room"))
            answer = wire.answer()
        check_equal((answer.status, answer.body), (200, b"ok"), "the web service's answer")

    @test
    def a_101_for_another_protocol_is_a_502(self):
        for path in (b"/unasked-101-h2c", b"/bare-101"):
            with Wire(self.edge, APP) as wire:
                wire.send(get(WEBSOCKET, path))
                check_equal(wire.answer().status, 502, f"status of {path}")

    # Faults of the web service

    @test
    def faulty_answers_are_a_502_and_their_connection_dies(self):
        wrong = []
        for path, (_, ends) in FAULTS.items():
            with Wire(self.edge, APP) as wire:
                wire.send(get(target=path.encode()))
                try:
                    answer = wire.answer()
                    if answer.status != 502 or b"ok" in answer.body:
                        wrong.append(f"{path}: {answer}")
                except (Ended, TimeoutError) as end:
                    wrong.append(f"{path}: {end!r}")
            if not ends and not self.origin.requests[-1].ended.wait(5):
                wrong.append(f"{path}: the web service's connection lives on")
        check(not wrong, "\n".join(wrong))

    @test
    def torn_answers_are_never_complete(self):
        wrong = []
        for path in TORN:
            for version in (b"HTTP/1.1", b"HTTP/1.0"):
                with Wire(self.edge, APP) as wire:
                    wire.send(get(target=path.encode(), version=version))
                    try:
                        answer = wire.answer()
                        # To HTTP/1.0 the end of the connection says that the answer is whole; a reset does not.
                        if answer.status != 502 and (version == b"HTTP/1.1" or not wire.broken):
                            wrong.append(f"{path} for {version}: {answer}")
                    except Ended:
                        pass
                    except TimeoutError:
                        wrong.append(f"{path}: neither an answer nor an end")
        check(not wrong, "\n".join(wrong))

    @test
    def a_connection_with_surplus_bytes_is_not_used_again(self):
        empty = b"HTTP/1.1 204 No Content\r\n"
        for path, answer in (
            ("/surplus", OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"), ("/surplus-crlf", OK + b"\r\n"),
            ("/surplus-204", empty + b"\r\nx"), ("/204-with-length", empty + b"Content-Length: 2\r\n\r\n"),
            ("/204-with-chunks", empty + b"Transfer-Encoding: chunked\r\n\r\n")):
            self.origin.answers[path] = answer
            for _ in range(20):
                with Wire(self.edge, APP) as wire:
                    wire.send(get(target=path.encode()))
                    wire.answer()
                    used = self.origin.seen(path.encode() + b"$")[-1]
                    wire.send(get(target=b"/after"))
                    answer = wire.answer()
                    check_equal((answer.status, answer.body), (200, b"ok"), f"the answer behind {path}")
                    check(self.origin.requests[-1].connection != used.connection, f"the connection of {path} was used again")

    @test
    def a_head_answer_with_a_body_is_not_used_again(self):
        self.origin.answers["/head-body"] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
        for _ in range(20):
            with Wire(self.edge, APP) as wire:
                wire.send(get(target=b"/head-body", method=b"HEAD"))
                answer = wire.answer("HEAD")
                check_equal((answer.status, answer.get("content-length")), (200, "6"), "status and length")
                wire.send(get(target=b"/after"))
                check_equal(wire.answer().body, b"ok", "the next answer")

    # Whom to believe

    @test
    def a_trusted_chain_is_walked_from_the_right(self):
        chain = Chain(self.program, self.lab, self.origin.target, trusted=["127.0.0.2/32", "10.9.0.0/16", "2001:db8::/32"], name="trusting-")
        wait_until_served(chain.edge, APP, 20)
        cases = [
            # peer, X-Forwarded-For, the client
            ("127.0.0.1", "6.6.6.6", "127.0.0.1"),
            ("127.0.0.3", "6.6.6.6, 127.0.0.2", "127.0.0.3"),
            ("127.0.0.2", "203.0.113.7", "203.0.113.7"),
            ("127.0.0.2", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
            ("127.0.0.2", "6.6.6.6, 203.0.113.7, 10.9.1.1", "203.0.113.7"),
            ("127.0.0.2", "6.6.6.6,203.0.113.7 ,10.9.1.1,10.9.2.2", "203.0.113.7"),
            ("127.0.0.2", "6.6.6.6\r\nX-Forwarded-For: 203.0.113.7, 10.9.1.1", "203.0.113.7"),
            ("127.0.0.2", "2001:db9::1, 2001:db8::5", "2001:db9::1"),
            ("127.0.0.2", "10.9.1.1, 10.9.2.2", "10.9.1.1"),
            ("127.0.0.2", "6.6.6.6, 203.0.113.7:4711", "203.0.113.7"),
            ("127.0.0.2", "[2001:db9::1]:4711, 10.9.1.1:1", "2001:db9::1"),
            ("127.0.0.2", '6.6.6.6, "[2001:db9::1]:4711"', "2001:db9::1"),
            ("127.0.0.2", None, "127.0.0.2"),
        ]
        wrong = []
        for peer, value, client in cases:
            with Wire(chain.edge, APP, source=peer) as wire:
                wire.send(get(b"" if value is None else f"X-Forwarded-For: {value}\r\nX-Real-IP: 6.6.6.6\r\n".encode()))
                check_equal(wire.answer().status, 200, f"status of {value}")
            seen = self.origin.requests[-1]
            hops = [hop.strip() for hop in (seen.get("x-forwarded-for") or "").split(",")]
            while len(hops) > 1 and (hops[-1] == "127.0.0.2" or hops[-1].startswith(("10.9.", "2001:db8:"))):
                hops.pop()
            forwarded = seen.get("forwarded") or ""
            quoted = f'"[{client}]"' if ":" in client else client
            # With the port that it came with, if any.
            if seen.get("x-real-ip") != client or client not in hops[-1] or f"for={quoted}" not in forwarded or (not value or peer != "127.0.0.2") and "6.6.6.6" in forwarded:
                wrong.append(f"{value} of {peer}: {seen.get('x-real-ip')}; {seen.get('x-forwarded-for')}; {forwarded}; not {client}")
        check(not wrong, "\n".join(wrong))

    @test
    def both_processes_are_as_they_were(self):
        for process in (self.chain.gateway.process, self.chain.agent.process):
            check(process.peak_memory() < 100, f"peak memory of the {process.name}: {process.peak_memory():.0f} MB")
        wait_until(lambda: self.chain.gateway.process.descriptors() < 60, 10, "the gateway's descriptors are closed")
