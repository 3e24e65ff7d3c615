"""Many visitors and services on one connection between gateway and agent: what one of them does is nobody else's matter. 60 s."""

import struct
import time
from concurrent.futures import ThreadPoolExecutor

from interop.canned import CannedOrigin, EarlyOrigin
from interop.chain import APP, Chain, Holdings
from interop.client import curl, pattern_file
from interop.h2_service import H2Service
from interop.h2raw import (
    CANCEL, CONTINUATION, END_HEADERS, END_STREAM, H2, HEADER_TABLE_SIZE, HEADERS, INTERNAL_ERROR,
    MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE, REFUSED_STREAM, WINDOW_UPDATE, Response, block, frame, request, setting)
from interop.neighbour import Neighbour
from interop.nodes import wait_until_served
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until
from interop.wire import Ended, Wire

# A service of HTTP/2 is `NEAR` the misdeeds, which are done to or by `APP` and `LARGE`; the others speak HTTP/1.1.
NEAR, LARGE, PLAIN, EARLY = "near.example.com", "large.example.com", "plain.example.com", "early.example.com"
# Field values that Huffman's code makes longer.
LONG = [("x-long-1", "~" * 9000), ("x-long-2", "~" * 9000)]
FRAME = 16384
# Seconds in which an answer is there "at once".
AT_ONCE = 3
# Fewer than a visitor may reset within 5 s.
CANCELLED = 84


class SUITE(Suite):
    tools = ["setpriv", "curl"]
    modules = ["hpack", "h2"]

    def set_up(self):
        # The last one takes longer heads than the standard has it.
        self.app, self.near, self.large = H2Service("app"), H2Service("near"), H2Service("large", frame_size=1 << 16)
        self.plain, self.early = CannedOrigin(), EarlyOrigin()
        for service in (self.app, self.near, self.large, self.plain, self.early):
            self.lab.on_close(service.close)
        shared = {APP: self.app, NEAR: self.near, LARGE: self.large}
        targets = {domain: {"target": service.target, "protocol": "h2c"} for domain, service in shared.items()}
        # All streams go by one connection.
        self.chain = Chain(
            self.program, self.lab, {**targets, PLAIN: self.plain.target, EARLY: self.early.target},
            [*({"domain": domain, "protocol": "h2c"} for domain in shared), {"domain": PLAIN}, {"domain": EARLY}],
            agent_limits={"streams_per_connection": 1000})
        self.edge = self.chain.edge
        self.nodes = (self.chain.gateway.process, self.chain.agent.process)
        for domain in shared:
            wait_until_served(self.edge, domain, 20)
        # What buffers and caches grow to in normal use is there before anything is measured.
        for domain in (APP, NEAR):
            with H2(self.edge, domain, timeout=15) as h2:
                for _ in range(50):
                    check_equal(h2.get("/bytes/10000").status, 200, "status")
        self.before = [Holdings(process) for process in self.nodes]

    def neighbour(self):
        return Neighbour(self.edge, NEAR, self.near)

    def open(self, domain=APP, number=0, **options):
        options.setdefault("timeout", 10)
        return H2(self.edge, domain, source=f"127.0.0.{66 + number}", **options)

    def wait_for_services(self, when):
        wait_until(lambda: self.app.streams == 0, 10, f"service A has no request any more {when}: {self.app.streams}")

    def check_once(self, path, count):
        """So many POSTs have reached the service, each one time."""
        seen = {name: times for name, times in self.app.posts.items() if name.startswith(path)}
        check_equal(len(seen), count, f"POSTs to {path} at the service")
        again = [name for name, times in seen.items() if times > 1]
        check(not again, f"{len(again)} POSTs reached the service twice: {again[:5]}")

    @test
    def many_answers_at_once_are_whole(self):
        """Also those with which a connection's window is given back: each 1,049th of 1,000 bytes. And longer than a stream's window."""
        for size, rounds in ((1000, 60), (200_000, 10)):
            with self.open(timeout=5) as h2:
                for _ in range(rounds):
                    for stream in [h2.request(f"/bytes/{size}") for _ in range(40)]:
                        check_equal(len(h2.response(stream).body), size, "length")

    # Long heads

    @test
    def a_request_head_that_is_longer_than_a_frame(self):
        with self.neighbour():
            for domain, expected in ((LARGE, 200), (APP, 431)):
                head = "".join(f"{name}: {value}\r\n" for name, value in LONG)
                start = time.monotonic()
                with Wire(self.edge, domain) as wire:
                    wire.send(f"GET / HTTP/1.1\r\nHost: {domain}\r\n{head}\r\n".encode())
                    check_equal(wire.answer().status, expected, f"status by HTTP/1.1 of {domain}")
                with self.open(domain) as h2:
                    h2.ready()
                    stream = h2.request(f"/slow/{domain}")
                    h2.head(stream)
                    fields = block(request(domain, more=LONG))
                    h2.send(frame(HEADERS, END_STREAM, 3, fields[:FRAME]) + frame(CONTINUATION, END_HEADERS, 3, fields[FRAME:]))
                    check_equal(h2.response(3).status, expected, f"status by HTTP/2 of {domain}")
                    h2.next_stream = 5
                    check_equal(h2.get().status, 200, "status of the next request")
                    (self.large if domain == LARGE else self.app).release(domain)
                    check_equal(h2.response(stream).body, b"first\nsecond\n", "an answer under way beside it")
                check(time.monotonic() - start < 2 * AT_ONCE, f"the answers took {time.monotonic() - start:.1f} s")

    def long_answers(self, domain, head, trailers, others):
        """`others` are paths of right answers: one is under way meanwhile."""
        with self.open(domain) as h2:
            h2.ready()
            for _ in range(3):
                first = h2.request(others[0])
                check_equal(h2.get(head).status, 502, "status for a long head")
                response = h2.get(trailers)
                check(response.reset is not None and not response.ended, f"long trailers: {response}")
                check_equal(h2.get(others[-1]).status, 200, "status of the next request")
                if others[0].startswith("/slow"):
                    self.app.release(others[0].rpartition("/")[2])
                response = h2.response(first)
                check(response.status == 200 and response.ended, f"another answer: {response}")
            check(h2.goaway is None, f"GOAWAY with {h2.goaway}")
        # What a visitor can take, it gets.
        with self.open(domain, settings=setting(MAX_FRAME_SIZE, 1 << 16)) as h2:
            check_equal((h2.get(head).status, len(h2.get(trailers).trailers or [])), (200, 100), "status and trailers in large frames")
        with Wire(self.edge, domain) as wire:
            for path in (head, trailers):
                wire.send(f"GET {path} HTTP/1.1\r\nHost: {domain}\r\n\r\n".encode())
                answer = wire.answer()
                check_equal((answer.status, answer.body), (200, b"long"), "status and body by HTTP/1.1")

    @test
    def an_answer_head_that_is_longer_than_a_frame(self):
        with self.neighbour():
            self.long_answers(APP, "/head/100/300", "/trailers/100/300", ["/slow/heads", "/"])

    @test
    def an_answer_head_that_is_longer_than_a_frame_by_http_1_1(self):
        with self.neighbour():
            self.long_answers(PLAIN, "/long-head", "/long-trailers", ["/plain"])

    @test
    def an_answer_head_that_a_visitor_does_not_take(self):
        """It says so by SETTINGS_MAX_HEADER_LIST_SIZE."""
        with self.open(settings=setting(MAX_HEADER_LIST_SIZE, 1000)) as h2:
            statuses = [h2.get(path).status for path in ("/head/1/300", "/head/3/300", "/head/1/300")]
            check_equal(statuses, [200, 502, 200], "statuses")
            response = h2.get("/trailers/3/300")
            check(response.status == 200 and response.reset is not None, f"long trailers: {response}")
            check(h2.goaway is None, f"GOAWAY with {h2.goaway}")

    @test
    def field_values_that_are_no_utf_8(self):
        """HTTP/1.1 passes them on as they are, HTTP/2 as the same letters."""
        with self.open(PLAIN) as h2:
            fields = dict(h2.get("/texts").fields)
            check_equal((fields["x-latin"], fields["x-utf"]), ("caf\xe9", "caf\xe9"), "values by HTTP/2")
        with Wire(self.edge, PLAIN) as wire:
            wire.send(f"GET /texts HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n".encode())
            head = wire.answer().head
            check(b"X-Latin: caf\xe9\r\nX-UTF: caf\xc3\xa9\r\n" in head, f"by HTTP/1.1: {head}")

    # Visitors that do not wait

    @test
    def visitors_that_cancel_250_streams(self):
        with self.neighbour():
            connections = [self.open(number=number) for number in range(3)]
            for h2 in connections:
                h2.ready()
                h2.streams = [h2.request(f"/hold/cancel/{id(h2)}/{number}", "POST" if number % 2 else "GET") for number in range(CANCELLED)]
            wait_until(lambda: self.app.streams == 3 * CANCELLED, 10, "all requests are at the service")
            for h2 in connections:
                for stream in h2.streams:
                    h2.reset(stream)
            self.wait_for_services("after they were cancelled")
            for h2 in connections:
                check_equal(h2.get().status, 200, "status on the same connection")
                h2.close()
        self.check_once("/hold/cancel", 3 * CANCELLED // 2)

    @test
    def visitors_of_http_1_1_that_disconnect(self):
        count, group = 230, 46
        with self.neighbour():
            for first in range(0, count, group):
                wires = [Wire(self.edge, APP, source=f"127.0.0.{66 + number % 4}") for number in range(group)]
                for number, wire in enumerate(wires):
                    wire.send(f"POST /hold/gone/{first + number} HTTP/1.1\r\nHost: {APP}\r\nContent-Length: 2\r\n\r\nok".encode())
                wait_until(lambda: self.app.streams == group, 10, "all requests are at the service")
                for wire in wires:
                    wire.close()
                self.wait_for_services("after their visitors have gone")
        self.check_once("/hold/gone", count)

    def upload_early(self, h2, paths, rounds, when=lambda: True):
        """Uploads that are answered while their bodies are on the way; the visitor reads the answers later."""
        size = 4000
        h2.until(lambda: h2.window >= (rounds + 1) * len(paths) * size, "the connection's window has been given back")
        streams = [h2.request(path, "POST", end=False) for path in paths]
        for number in range(rounds + 1):
            for stream in streams:
                h2.data(stream, bytes(size))
                h2.window -= size
            if number == 0:
                wait_until(when, 10, "all uploads are answered")
        for stream in streams:
            check_equal(h2.response(stream).status, 401, "status")
        h2.ping()
        check(h2.goaway is None, f"GOAWAY with {h2.goaway}")

    @test
    def uploads_that_are_answered_early(self):
        """More bytes than the windows of all connections on their way have room for."""
        with self.neighbour():
            for number in range(3):
                with self.open(number=number) as h2:
                    h2.ready()
                    before = self.app.early
                    paths = [f"/early/{number}/{upload}" for upload in range(80)]
                    self.upload_early(h2, paths, 8, lambda: self.app.early == before + 80)
                    check_equal(h2.get().status, 200, "status on the same connection")
        self.check_once("/early", 240)

    @test
    def visitors_that_leave_endless_answers(self):
        with self.neighbour():
            for number in range(3):
                with self.open(number=number, refill=False) as h2:
                    h2.ready()
                    h2.grow(0, 1 << 24)
                    streams = [h2.request("/endless") for _ in range(100)]
                    h2.until(lambda: all(stream in h2.responses and h2.responses[stream].body for stream in streams), "all have begun")
                self.wait_for_services("after the visitor has gone")
        with self.open() as h2:
            check_equal(len(h2.get("/bytes/300000").body), 300_000, "length of the next answer of the same service")

    @test
    def sixty_uploads_by_http_1_1_that_are_answered_early(self):
        with self.neighbour():
            with self.open(EARLY) as h2:
                h2.ready()
                for _ in range(3):
                    before = self.early.answered
                    self.upload_early(h2, [f"/{number}" for number in range(60)], 9, lambda: self.early.answered >= before + 60)
                check_equal(h2.get().status, 401, "status on the same connection")

    # A service that resets

    @test
    def a_service_that_resets_250_streams(self):
        with self.neighbour(), self.open(number=50) as other:
            # An answer of the same service that somebody else waits for.
            slow = other.request("/slow/resets")
            other.head(slow)
            for code in (INTERNAL_ERROR, CANCEL, REFUSED_STREAM):
                with self.open(number=code) as h2:
                    h2.ready()
                    start = time.monotonic()
                    streams = [h2.request(f"/reset/{code}/{number}", "POST") for number in range(84)]
                    responses = [h2.response(stream) for stream in streams]
                    check(time.monotonic() - start < AT_ONCE, f"the answers took {time.monotonic() - start:.1f} s")
                    wrong = [one for one in responses if one.status not in (502, 503) and one.reset is None]
                    check(not wrong, f"{len(wrong)} answers to requests that were reset: {wrong[:3]}")
                    check_equal(h2.get().status, 200, "status on the same connection")
            self.app.release("resets")
            check_equal(other.response(slow).body, b"first\nsecond\n", "an answer under way beside them")
        for code in (INTERNAL_ERROR, CANCEL):
            self.check_once(f"/reset/{code}/", 84)

    # Memory

    @test
    def a_visitor_with_a_boundless_header_table(self):
        """Answers with a cookie of 4 KB that never comes again."""
        table = (1 << 32) - 1
        with self.open(settings=setting(HEADER_TABLE_SIZE, table)) as h2:
            h2.decoder.max_allowed_table_size = table
            h2.ready()

            def ask(count):
                for _ in range(count // 50):
                    streams = [h2.request("/cookie") for _ in range(50)]
                    for stream in streams:
                        check_equal(h2.response(stream).status, 200, "status")

            ask(100)
            before = Holdings(self.chain.gateway.process)
            ask(2000)
            before.check_memory(5, "after 2,000 answers")

    # PING

    @test
    def a_service_that_sends_a_ping_for_each_data_frame(self):
        count = 30_000_000
        path = pattern_file(self.lab.directory, count)
        with self.neighbour():
            options = [*self.edge.curl_options(APP), "--http2", "--request", "POST", "--header", "Expect:", "--data-binary", f"@{path}"]
            answer = curl([*options, self.edge.url(APP, "/ping")], timeout=60)
            check_equal(answer, b"%d" % count, "bytes at the service")
            check(self.app.pings >= count // FRAME, f"the service has sent {self.app.pings} PINGs only")
            wait_until(lambda: self.app.answered_pings == self.app.pings, 5, "all PINGs are answered")

    # Faults of one stream

    @test
    def a_body_that_is_longer_than_it_says(self):
        with self.neighbour(), self.open() as h2:
            h2.ready()
            slow = h2.request("/slow/longer")
            h2.head(slow)
            for _ in range(5):
                response = h2.get("/short")
                check(response.status == 502 or response.reset is not None, f"four bytes for one: {response}")
                check_equal(h2.get().status, 200, "status of the next request")
            with Wire(self.edge, APP) as wire:
                wire.send(f"GET /short HTTP/1.1\r\nHost: {APP}\r\n\r\n".encode())
                try:
                    check_equal(wire.answer().status, 502, "status by HTTP/1.1")
                except Ended:
                    pass
            self.app.release("longer")
            check_equal(h2.response(slow).body, b"first\nsecond\n", "an answer under way beside it")

    @test
    def faults_of_a_visitors_stream(self):
        """Each is a stream error, RFC 9113 §8.1.1 and §6.9."""
        def wrong(fields, more=None):
            head = END_HEADERS | (0 if more else END_STREAM)
            return lambda stream: frame(HEADERS, head, stream, block(fields)) + (more(stream) if more else b"")

        right = request(APP)
        faults = {
            "a wrong content-length": wrong(
                request(APP, "/post", "POST", more=[("content-length", "1")]), lambda stream: frame(0, END_STREAM, stream, b"four")),
            "an upper-case field name": wrong([*right, ("X-Upper", "1")]),
            "no :path": wrong(right[:-1]),
            "a connection field": wrong([*right, ("connection", "close")]),
            "a WINDOW_UPDATE of 0": wrong(
                request(APP, "/post", "POST"), lambda stream: frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 0))),
        }
        with self.neighbour(), self.open() as h2:
            h2.ready()
            slow = h2.request("/slow/faults")
            h2.head(slow)
            missing = []
            for name, fault in faults.items():
                stream, h2.next_stream = h2.next_stream, h2.next_stream + 2
                h2.send(fault(stream))
                h2.ping()
                if h2.responses.get(stream, Response()).reset is None:
                    missing.append(f"{name}: {h2.responses.get(stream)}")
                check(h2.goaway is None, f"{name}: GOAWAY with {h2.goaway}")
                check_equal(h2.get().status, 200, f"status after {name}")
            self.app.release("faults")
            check_equal(h2.response(slow).body, b"first\nsecond\n", "an answer under way beside them")
            check(not missing, "no RST_STREAM: " + "; ".join(missing))

    @test
    def nothing_is_left_behind(self):
        for one in self.before:
            one.wait_for_return(10, more=8)
        for service in (self.app, self.near, self.large):
            check(not service.faults, f"what h2 says of the agent: {service.faults[:3]}")
            check(service.opened <= 8, f"{service.opened} connections to {service.name}")
