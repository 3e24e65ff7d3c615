"""Every limit of the HTTP side, set small: what a client gets who goes beyond it, and what others notice. 60 s."""

import json
import os
import re
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress

from interop.bystander import Bystander
from interop.chain import APP, Chain, Holdings
from interop.client import curl
from interop.h2raw import END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, MAX_CONCURRENT_STREAMS, Closed, block, frame, request
from interop.h2_websocket import WireWebSocket
from interop.http1_cases import get, post
from interop.nodes import Origin, wait_until_served
from interop.recorder import RecordingOrigin
from interop.runner import Suite, test
from interop.system import check, check_equal, wait_until
from interop.wire import Ended, Wire

HELD = "held.example.com"
HELD_HOST = b"Host: " + HELD.encode() + b"\r\n"
SLOW_SERVICE = "slow.example.com"
# Bytes a second of those who read slowly.
SLOW = 300_000
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Seconds that a limit of time may be late.
LATE = 2.0
CROWD = 10_000
SMALL = {
    "header": 2, "body_idle": 3, "response_head": 3, "keep_alive_idle": 3, "linger": 1, "upgraded_idle": 2, "header_field_size": 2000, "header_list_size": 6000,
    "header_field_count": 40, "request_line_size": 1000, "minimum_body_rate": 1000, "body_rate_grace": 2, "requests_per_connection": 50,
    "streams_per_connection": 20, "requests_in_flight_per_client": 10, "connections_per_client": 30,
}
LARGE_UPLOAD = f"POST / HTTP/1.1\r\nHost: {SLOW_SERVICE}\r\nContent-Length: 100000000\r\n\r\n".encode() + bytes(100_000_000)


class SUITE(Suite):
    tools = ["setpriv", "curl"]
    modules = ["hpack"]
    timeout = 120

    def set_up(self):
        self.origin = Origin(self.lab)
        self.recorder = RecordingOrigin()
        self.lab.on_close(self.recorder.close)
        self.slow = socket.create_server(("127.0.0.1", 0))
        self.lab.on_close(self.slow.close)
        targets = {APP: self.origin.target, HELD: self.recorder.target, SLOW_SERVICE: f"127.0.0.1:{self.slow.getsockname()[1]}"}
        routes = [{"domain": domain} for domain in targets]
        self.chain = Chain(self.program, self.lab, targets, routes, limits=SMALL)
        self.edge = self.chain.edge
        wait_until_served(self.edge, APP, 20)

    def served(self):
        check_equal(self.edge.status_of(APP), 200, "status of a normal request")

    def within(self, seconds, start, what):
        passed = time.monotonic() - start
        check(seconds * 0.5 <= passed <= seconds + LATE, f"{what} after {passed:.1f} s, not after {seconds}")

    # Times

    @test
    def a_head_that_comes_slowly_is_cut_off(self):
        """Bytes now and then do not prolong the time, and an idle connection that begins a request begins the time."""
        for before in (b"", get()):
            with Wire(self.edge, APP) as wire:
                if before:
                    wire.send(before)
                    check_equal(wire.answer().status, 200, "status of the first request")
                start = time.monotonic()
                wire.send(b"GET / HTTP/1.1\r\nX-Slow: ")
                status = self.trickle(wire)
                self.within(SMALL["header"], start, "the end")
                check(status in (None, 408), f"status {status}")

    @staticmethod
    def trickle(wire, byte=b"a"):
        """A byte every 0.2 s until the other side has said something; its status, or None at the end."""
        wire.connection.settimeout(0.2)
        for _ in range(100):
            try:
                return wire.head().status
            except TimeoutError:
                wire.send(byte)
            except Ended:
                return None
        return "nothing"

    @test
    def a_handshake_that_comes_slowly_is_cut_off(self):
        start = time.monotonic()
        with socket.create_connection((self.edge.address, self.edge.https_port), timeout=10) as connection:
            connection.sendall(b"\x16\x03\x01")
            check_equal(connection.recv(100), b"", "what comes back")
        self.within(SMALL["header"], start, "the end")

    @test
    def an_upload_that_stops_is_a_408(self):
        for name, framing, body in (
                ("stopped", b"Content-Length: 1000\r\n", b"x" * 10), ("stopped-chunks", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n")):
            with Wire(self.edge, APP) as wire:
                start = time.monotonic()
                wire.send(post(framing, body, f"/upload/{name}".encode()))
                check_equal(wire.answer().status, 408, "status")
                check(time.monotonic() - start < SMALL["body_idle"] + LATE, "it took too long")
                check(wire.ends(), "the connection stays open")
            self.origin.wait_for(name, lambda seen: seen["ended"], 5, "the web service sees the end")

    @test
    def an_upload_below_the_minimum_rate_is_a_408(self):
        with Wire(self.edge, APP) as wire:
            start = time.monotonic()
            wire.send(post(b"Content-Length: 100000\r\n", b"", b"/upload/slow"))
            check_equal(self.trickle(wire), 408, "status")
            check(SMALL["body_rate_grace"] * 0.5 <= time.monotonic() - start <= 8, f"after {time.monotonic() - start:.1f} s")

    @test
    def an_upload_at_the_minimum_rate_is_let_through(self):
        with Wire(self.edge, APP) as wire:
            wire.send(post(b"Content-Length: 10000\r\n", b"", b"/upload/steady"))
            # The rate is what is tested: 2,000 bytes a second.
            for _ in range(25):
                wire.send(b"x" * 400)
                time.sleep(0.2)
            check_equal(wire.answer().status, 200, "status")

    @test
    def a_slow_upload_over_http_2_is_ended_alone(self):
        with H2(self.edge, APP) as h2:
            h2.ready()
            stream = h2.request("/upload/h2slow", "POST", end=False)
            for _ in range(100):
                h2.data(stream, b"x")
                try:
                    response = h2.response(stream, 0.2)
                    break
                except TimeoutError:
                    continue
            check(response.status == 408 or response.reset is not None, f"{response}")
            check_equal(h2.get().status, 200, "status of another stream")

    @test
    def a_target_that_does_not_answer_is_a_504(self):
        start, before = time.monotonic(), self.recorder.holding
        with Wire(self.edge, HELD) as wire:
            wire.send(get(target=b"/hold", host=HELD_HOST))
            check_equal(wire.answer().status, 504, "status")
        self.within(SMALL["response_head"], start, "the answer")
        wait_until(lambda: self.recorder.holding == before, 5, "the web service's connection is closed")

    @test
    def a_reader_that_stands_still_is_let_go(self):
        before = Holdings(self.chain.gateway.process)
        with Wire(self.edge, APP) as wire:
            wire.send(get(target=b"/endless/unread"))
            self.origin.wait_for("unread", lambda seen: seen.get("closed"), 30, "the web service's connection is closed")
            check(before.growth() < 24, f"{before.growth():.1f} MB for a client that reads nothing")

    @test
    def a_slow_reader_is_served(self):
        """Its system's buffers take megabytes at once, and tell the gateway of room for more only now and then."""
        with Wire(self.edge, APP) as wire:
            wire.send(get(target=b"/endless/slowly"))
            wire.head()
            self.pace(wire.connection.recv)
            check(not self.origin.seen("slowly").get("closed"), "the web service's connection is closed")

    @contextmanager
    def large_upload(self):
        """Gives the thread that sends, which nobody else may disturb, and the service's connection."""
        with Wire(self.edge, SLOW_SERVICE, timeout=60) as wire:
            sending = threading.Thread(target=lambda: wire.send(LARGE_UPLOAD), daemon=True)
            sending.start()
            service, _ = self.slow.accept()
            try:
                with service:
                    yield sending, service
            finally:
                with suppress(OSError):
                    wire.connection.shutdown(socket.SHUT_RDWR)
                sending.join(10)

    @test
    def a_slow_service_gets_the_whole_upload(self):
        with self.large_upload() as (sending, service):
            self.pace(service.recv)
            check(sending.is_alive(), "the visitor was cut off")

    @test
    def a_service_that_stops_reading_is_a_504(self):
        """The visitor is not to blame."""
        path = os.path.join(self.lab.private_directory("upload"), "zeros")
        with open(path, "wb") as file:
            file.truncate(100_000_000)
        os.chmod(os.path.dirname(path), 0o755)
        status = curl([
            *self.edge.curl_options(SLOW_SERVICE), "--http1.1", "--no-fail", "--output", "/dev/null", "--write-out", "%{http_code}",
            "--header", "Expect:", "--upload-file", path, self.edge.url(SLOW_SERVICE, "/")])
        check_equal(status, b"504", "status")
        self.slow.accept()[0].close()

    @staticmethod
    def pace(receive):
        """The pace is what is tested: `SLOW` bytes a second, several times as long as nothing may move."""
        start, count = time.monotonic(), 0
        while count < SLOW * 4 * SMALL["body_idle"]:
            piece = receive(16384)
            check(piece, f"cut off after {time.monotonic() - start:.1f} s and {count} bytes")
            count += len(piece)
            time.sleep(max(0, start + count / SLOW - time.monotonic()))

    @test
    def a_websocket_ends_when_nothing_moves(self):
        one = WireWebSocket(self.edge, HELD)
        for _ in range(3):
            # The pause is what is tested: what moves keeps it.
            time.sleep(SMALL["upgraded_idle"] * 0.6)
            one.wire.send(b"message")
            check_equal(one.wire.exactly(7), b"message", "echo")
        start = time.monotonic()
        check(one.wire.ends(), "it stays open")
        self.within(SMALL["upgraded_idle"], start, "the end")

    @test
    def a_kept_connection_ends_when_it_is_idle(self):
        with Wire(self.edge, APP) as wire:
            wire.send(get())
            check_equal(wire.answer().status, 200, "status")
            start = time.monotonic()
            check(wire.ends(SMALL["keep_alive_idle"] + LATE + 1), "the connection stays open, or something was said")
            self.within(SMALL["keep_alive_idle"], start, "the end")
        with H2(self.edge, APP) as h2:
            check_equal(h2.get().status, 200, "status")
            start = time.monotonic()
            check(h2.ends(SMALL["keep_alive_idle"] + LATE + 1), "the connection of HTTP/2 stays open")
            check_equal(h2.goaway, 0, "code of GOAWAY")
            self.within(SMALL["keep_alive_idle"], start, "the end")

    # Sizes

    @test
    def heads_up_to_their_limits_pass_and_beyond_are_refused(self):
        field, line = SMALL["header_field_size"], SMALL["request_line_size"]
        cases = [
            ("a field", get(b"X-A: " + b"a" * (field - 100) + b"\r\n"), 200), ("a field beyond", get(b"X-A: " + b"a" * (field + 10) + b"\r\n"), 431),
            ("a name beyond", get(b"X" * (field + 10) + b": 1\r\n"), 431),
            ("fields", get(b"".join(b"X-%d: 1\r\n" % number for number in range(30))), 200),
            ("fields beyond", get(b"".join(b"X-%d: 1\r\n" % number for number in range(45))), 431),
            ("a list", get(b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(4))), 200),
            ("a list beyond", get(b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(7))), 431),
            ("a target", get(target=b"/headers/" + b"a" * (line - 100)), 200), ("a target beyond", get(target=b"/headers/" + b"a" * (line + 10)), 414),
            ("a method beyond", get(method=b"A" * (line + 10)), [400, 414, 501]),
        ]
        wrong = []
        for name, text, expected in cases:
            with Wire(self.edge, APP) as wire:
                wire.send(text)
                status = wire.answer().status
                if status not in (expected if isinstance(expected, list) else [expected]):
                    wrong.append(f"{name}: {status}, not {expected}")
        check(not wrong, "\n".join(wrong))

    @test
    def a_head_beyond_the_limit_is_refused_before_its_end(self):
        with Wire(self.edge, APP) as wire:
            wire.send(b"GET / HTTP/1.1\r\nX-A: " + b"a" * 20_000)
            check_equal(wire.answer().status, 431, "status while the head is under way")
            check(wire.ends(), "the connection stays open")

    @test
    def the_same_limits_hold_over_http_2(self):
        with H2(self.edge, APP) as h2:
            h2.ready()
            for more, expected in (
                    ([("x-a", "a" * 1500)], 200), ([("x-a", "a" * 3000)], 431), ([(f"x-{number}", "1") for number in range(60)], 431),
                    ([(f"x-{number}", "a" * 1000) for number in range(7)], 431)):
                response = h2.get(more=more)
                check(response.status == expected or expected == 431 and response.reset is not None, f"for {str(more)[:40]}: {response}")
            response = h2.get("/headers/" + "a" * 1500)
            check(response.status in (414, 431) or response.reset is not None, f"for a long path: {response}")
            check_equal(h2.get().status, 200, "status afterwards")

    # Counts

    @test
    def a_connection_ends_after_so_many_requests(self):
        most = SMALL["requests_per_connection"]
        with Wire(self.edge, APP) as wire:
            for number in range(1, most + 1):
                wire.send(get())
                answer = wire.answer()
                check_equal(answer.status, 200, f"status of request {number}")
                check_equal("close" in (answer.get("connection") or "").lower(), number == most, f"Connection: close in answer {number}")
            check(wire.ends(), "the connection stays open")

    @test
    def an_http_2_connection_says_goaway_after_so_many_requests(self):
        most = SMALL["requests_per_connection"]
        with H2(self.edge, APP) as h2:
            h2.ready()
            count = 0
            try:
                while h2.goaway is None and count < 2 * most:
                    check_equal(h2.get().status, 200, f"status of request {count}")
                    count += 1
            except Closed:
                pass
            check_equal(h2.goaway, 0, "code of GOAWAY")
            check(most - 1 <= count <= most + 1, f"{count} requests were answered")
            check(h2.ends(), "the connection stays open")

    @test
    def requests_on_their_way_are_served_when_a_connection_ends(self):
        most = SMALL["requests_per_connection"]
        with H2(self.edge, APP) as h2:
            h2.ready()
            for _ in range(most - 3):
                h2.get()
            streams = range(h2.next_stream, h2.next_stream + 16, 2)
            h2.send(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, stream, block(request(APP))) for stream in streams))
            check_equal([h2.response(stream).status for stream in streams], [200] * 8, "statuses")
            h2.until(lambda: len([one for one in h2.frames if one.kind == GOAWAY]) > 1, "two GOAWAYs")
            check_equal([one.last_stream for one in h2.frames if one.kind == GOAWAY], [(1 << 31) - 1, streams[-1]], "last streams")

    @test
    def streams_of_a_connection_are_bounded_and_announced(self):
        with H2(self.edge, HELD) as h2:
            h2.ready()
            h2.until(lambda: h2.settings.get(MAX_CONCURRENT_STREAMS) == SMALL["streams_per_connection"], "SETTINGS_MAX_CONCURRENT_STREAMS")

    @test
    def requests_in_flight_are_bounded_for_a_client_and_not_for_another(self):
        most = SMALL["requests_in_flight_per_client"]
        before = self.recorder.holding
        held = [Wire(self.edge, HELD, source="127.0.0.50") for _ in range(most + 5)]
        try:
            for wire in held[:most]:
                wire.send(get(target=b"/hold", host=HELD_HOST))
            wait_until(lambda: self.recorder.holding == before + most, 2.5, f"{most} requests are under way")
            for wire in held[most:]:
                wire.send(get(host=HELD_HOST))
                check(wire.answer().status in (429, 503), "status beyond the limit")
            with Wire(self.edge, HELD, source="127.0.0.51") as other:
                other.send(get(host=HELD_HOST))
                check_equal(other.answer().status, 200, "status of another client")
            for wire in held[:most]:
                check_equal(wire.answer().status, 504, "status of those that were held")
            with Wire(self.edge, HELD, source="127.0.0.50") as wire:
                wire.send(get(host=HELD_HOST))
                check_equal(wire.answer().status, 200, "status of the same client afterwards")
        finally:
            for wire in held:
                wire.close()

    @test
    def connections_are_bounded_for_a_client_and_not_for_another(self):
        most = SMALL["connections_per_client"]
        held = []
        try:
            refused = 0
            for _ in range(most + 10):
                try:
                    held.append(Wire(self.edge, APP, source="127.0.0.60"))
                except OSError:
                    refused += 1
            check_equal((len(held), refused), (most, 10), "connections held and refused")
            with Wire(self.edge, APP, source="127.0.0.61") as other:
                other.send(get())
                check_equal(other.answer().status, 200, "status of another client")
        finally:
            for wire in held:
                wire.close()

        def again():
            try:
                with Wire(self.edge, APP, source="127.0.0.60") as wire:
                    wire.send(get())
                    return wire.answer().status == 200
            except (OSError, Ended):
                return False

        wait_until(again, 5, "the client is let in again")

    @test
    def visitors_behind_a_trusted_proxy_are_bounded_and_it_is_not(self):
        limits = {"response_head": 3, "connections_per_client": 5, "requests_in_flight_per_client": 6}
        chain = Chain(self.program, self.lab, self.recorder.target, limits=limits, trusted=["127.0.0.2/32"], name="trusting-")
        wait_until_served(chain.edge, APP, 20)
        most, before = limits["requests_in_flight_per_client"], self.recorder.holding
        held = [Wire(chain.edge, APP, source="127.0.0.2") for _ in range(most + 3)]
        try:
            visitor = b"X-Forwarded-For: 203.0.113.7\r\n"
            for wire in held[:most]:
                wire.send(get(visitor, target=b"/hold"))
            wait_until(lambda: self.recorder.holding == before + most, 2.5, f"{most} requests are under way")
            for fields, wire, status in zip((visitor, b"X-Forwarded-For: 203.0.113.8\r\n", b""), held[most:], (429, 200, 200)):
                wire.send(get(fields))
                check_equal(wire.answer().status, status, f"status of {fields!r}")
        finally:
            for wire in held:
                wire.close()

    # Many at once

    @test
    def ten_thousand_slow_clients(self):
        """From 2,500 addresses: 1,000 with heads that trickle, 9,000 with handshakes that do. Normal clients are served: 99 of 100 within 1 s."""
        chain = Chain(
            self.program, self.lab, self.origin.target, limits={"header": 10, "connections": CROWD + 500, "connections_per_client": 100}, name="crowded-")
        wait_until_served(chain.edge, APP, 20)
        gateway = chain.gateway.process
        before = Holdings(gateway)
        crowd = self.lab.start("crowd", [
            sys.executable, "-B", f"{HERE}/interop/crowd.py", str(chain.edge.https_port), APP, chain.edge.authority, str(CROWD), "1000", "3", "60"], unprivileged=False)
        crowd.expected_to_run = False
        wait_until(lambda: crowd.output() or not crowd.is_running, 30, "all are connected")
        opened = re.match(r"open (\d+)", crowd.output())
        check(opened, f"the crowd says {crowd.output()} {crowd.errors()[-500:]}")
        with Bystander(chain.edge, APP) as bystander:
            bystander.answers(100)
            held, descriptors = before.growth(), gateway.descriptors()
            check_equal(crowd.wait(60), 0, "exit code of the crowd")
        bystander.check(1, share=0.99)
        result = json.loads(crowd.output().splitlines()[-1])
        check(int(opened[1]) > CROWD * 0.9, f"only {opened[1]} of {CROWD} were connected at once")
        check_equal((result["refused"], result["ended"]), (0, CROWD), "slow clients that were refused, and that the gateway has ended")
        check(result["longest"] < 10 + LATE + 5, f"one was kept for {result['longest']:.1f} s")
        check(held < 400, f"{held:.0f} MB for {descriptors} connections")
        before.wait_for_return(10)
        chain.gateway.process.stop()
        chain.agent.process.stop()

    @test
    def nothing_is_left_behind(self):
        wait_until(lambda: self.chain.gateway.process.descriptors() < 60, 10, "the gateway's descriptors are closed")
        check(self.chain.gateway.process.memory() < 150, f"memory {self.chain.gateway.process.memory():.0f} MB")
        self.served()

