"""Parts that fail in the midst of an exchange, and what is left of it afterwards: connections, descriptors, memory. 35 s."""

import os
import signal
import socket
import ssl
import struct
import time

from interop.chain import APP, Chain, Holdings
from interop.garbage import client_hello
from interop.h2raw import H2, Closed
from interop.http1_cases import get, post
from interop.nodes import Origin, wait_until_served
from interop.recorder import RecordingOrigin
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until
from interop.wire import Ended, Wire

HELD, REFUSING = "held.example.com", "refusing.example.com"
HELD_HOST, REFUSING_HOST = b"Host: " + HELD.encode() + b"\r\n", b"Host: " + REFUSING.encode() + b"\r\n"
# MB that a hundred failures may leave behind.
GROWTH = 8


class SUITE(Suite):
    tools = ["setpriv"]
    modules = ["hpack"]
    # Whether each target has an agent of its own, which then relays bytes.
    relays = False

    def set_up(self):
        self.origin = Origin(self.lab)
        self.recorder = RecordingOrigin()
        self.lab.on_close(self.recorder.close)
        refusing, limits = f"127.0.0.1:{free_port()}", {"response_head": 3}
        if self.relays:
            self.chain = Chain(
                self.program, self.lab, self.origin.target,
                [{"domain": APP}, {"domain": HELD, "agent": "10.1.0.3"}, {"domain": REFUSING, "agent": "10.1.0.4"}], limits=limits,
                more=[self.recorder.target, refusing])
        else:
            self.chain = Chain(
                self.program, self.lab, {APP: self.origin.target, HELD: self.recorder.target, REFUSING: refusing},
                [{"domain": APP}, {"domain": HELD}, {"domain": REFUSING}], limits=limits, agent_limits={"pool_idle": 3})
        self.edge = self.chain.edge
        wait_until_served(self.edge, APP, 20)
        for _ in range(100):
            self.edge.request(APP, path="/bytes/100000")
        self.before = Holdings(self.chain.gateway.process)

    def as_before(self):
        """Whatever happened: no descriptor and little memory is left of it, and the next request is served."""
        self.before.wait_for_return(10)
        self.before.check_memory(GROWTH, "afterwards")
        wait_until_served(self.edge, APP, 20)

    def h2_works(self):
        """Whether the gateway speaks HTTP/2 at all: asked before a test blames a fault on it."""
        with H2(self.edge, APP, begin=False) as h2:
            check_equal(h2.protocol, "h2", "ALPN")

    @test
    def an_agent_killed_in_mid_response(self):
        """No answer may look complete, and no client may wait for ever."""
        self.h2_works()
        with Wire(self.edge, APP, timeout=60) as wire, H2(self.edge, APP, timeout=60) as h2:
            wire.send(get(target=b"/endless/killed"))
            check_equal(wire.head().status, 200, "status")
            stream = h2.request("/endless/killed2")
            check_equal(h2.head(stream).status, 200, "status over HTTP/2")
            self.chain.agent.process.stop(signal.SIGKILL)
            start = time.monotonic()
            try:
                while True:
                    wire.buffer = b""
                    wire.more()
            except Ended:
                pass
            try:
                h2.until(lambda: h2.responses[stream].ended or h2.responses[stream].reset is not None, "the end of the stream")
                check(not h2.responses[stream].ended, "the stream has ended as if it were complete")
            except Closed:
                pass
            check(time.monotonic() - start < 70, f"clients waited {time.monotonic() - start:.0f} s")
        self.chain.agent.start()
        wait_until_served(self.edge, APP, 20)
        self.as_before()

    @test
    def a_target_that_refuses(self):
        for _ in range(50):
            with Wire(self.edge, REFUSING) as wire:
                wire.send(get(host=REFUSING_HOST))
                check_equal(wire.answer().status, 502, "status")
                wire.send(get(host=REFUSING_HOST))
                check_equal(wire.answer().status, 502, "status on the same connection")
        self.as_before()

    @test
    def a_target_that_accepts_and_is_silent(self):
        wires = [Wire(self.edge, HELD) for _ in range(30)]
        try:
            start = time.monotonic()
            for wire in wires:
                wire.send(get(target=b"/hold", host=HELD_HOST))
            for wire in wires:
                check_equal(wire.answer().status, 504, "status")
            check(2 <= time.monotonic() - start < 6, f"the answers took {time.monotonic() - start:.1f} s")
        finally:
            for wire in wires:
                wire.close()
        wait_until(lambda: self.recorder.holding == 0, 5, "no request is held at the web service")
        self.as_before()

    @test
    def a_target_that_dies_before_and_within_its_answer(self):
        self.recorder.answers["/dies"] = (b"", True)
        self.recorder.answers["/half"] = (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf", True)
        for _ in range(50):
            with Wire(self.edge, HELD) as wire:
                wire.send(get(target=b"/dies", host=HELD_HOST))
                check_equal(wire.answer().status, 502, "status")
            with Wire(self.edge, HELD) as wire:
                wire.send(get(target=b"/half", host=HELD_HOST))
                try:
                    check(wire.answer().status == 502, "half an answer is complete")
                except Ended:
                    pass
        self.as_before()

    @test
    def a_post_is_not_sent_twice(self):
        """A connection that dies with a request on it: a GET may be asked again, a POST not."""
        self.recorder.answers["/once"] = (b"", True)
        with Wire(self.edge, HELD) as wire:
            # So that a kept connection is used.
            wire.send(get(host=HELD_HOST))
            check_equal(wire.answer().status, 200, "status")
            wire.send(post(b"Content-Length: 5\r\n", b"hello", b"/once").replace(APP.encode(), HELD.encode()))
            check_equal(wire.answer().status, 502, "status")
        check_equal(len(self.recorder.seen(b"^/once")), 1, "times that the POST was at the web service")

    @test
    def kept_connections_that_the_target_has_closed_are_no_fault(self):
        self.recorder.answers["/last"] = (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True)
        with Wire(self.edge, HELD) as wire:
            for number in range(100):
                wire.send(get(target=b"/last", host=HELD_HOST))
                check_equal(wire.answer().status, 200, f"status of request {number}")

    @test
    def clients_that_abort_their_uploads(self):
        """By an orderly end, by a reset, over HTTP/2: the web service sees each end."""
        for number in range(60):
            name = f"aborted{number}"
            if number % 3 == 2:
                with H2(self.edge, APP) as h2:
                    stream = h2.request(f"/upload/{name}", "POST", end=False)
                    h2.data(stream, b"x" * 1000)
                    self.origin.wait_for(name, lambda seen: seen["received"] == 1000 or seen["ended"], 5, "the first bytes are there")
            else:
                with Wire(self.edge, APP) as wire:
                    wire.send(post(b"Content-Length: 100000\r\n", b"x" * 1000, f"/upload/{name}".encode()))
                    self.origin.wait_for(name, lambda seen: seen["received"] == 1000, 5, "the first bytes are there")
                    if number % 3 == 1:
                        wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.origin.wait_for(name, lambda seen: seen["ended"] == "cut off" or number % 3 == 2, 5, "the web service sees the end")
        self.as_before()

    @test
    def clients_that_abort_their_downloads(self):
        for number in range(30):
            with Wire(self.edge, APP) as wire:
                wire.send(get(target=f"/endless/down{number}".encode()))
                check_equal(wire.head().status, 200, "status")
                if number % 2:
                    wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for number in range(30):
            self.origin.wait_for(f"down{number}", lambda seen: seen.get("closed"), 10, "the web service's connection is closed")
        self.as_before()

    @test
    def clients_that_leave_before_their_answer(self):
        """By a reset, or by the end of HTTP/2: the request ends at the web service, long before its time is over."""
        before = self.recorder.holding
        for number in range(20):
            if number % 2:
                with H2(self.edge, HELD) as h2:
                    h2.request("/hold")
                    wait_until(lambda: self.recorder.holding == before + 1, 2, "the request is at the web service")
            else:
                with Wire(self.edge, HELD) as wire:
                    wire.send(get(target=b"/hold", host=HELD_HOST))
                    wait_until(lambda: self.recorder.holding == before + 1, 2, "the request is at the web service")
                    wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wait_until(lambda: self.recorder.holding == before, 1.5, "the request has ended at the web service")
        self.as_before()

    @test
    def half_closed_clients_get_their_answer(self):
        """TLS has an end for each direction: whoever has ended theirs may still read."""
        context = self.edge.tls_context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with socket.create_connection((self.edge.address, self.edge.https_port), timeout=10) as raw:
            tls = context.wrap_bio(incoming, outgoing, server_hostname=APP)
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(65536))
            tls.write(get(b"Connection: close\r\n", b"/bytes/100000"))
            try:
                tls.unwrap()
            except ssl.SSLWantReadError:
                pass
            raw.sendall(outgoing.read())
            raw.shutdown(socket.SHUT_WR)
            received = 0
            while piece := raw.recv(65536):
                received += len(piece)
        # An answer in full, or an end without one: never a connection that stays.
        check(received > 100_000 or received < 10_000, f"{received} bytes of an answer of 100,000")
        self.as_before()

    @test
    def half_closed_tcp_without_an_end_of_tls_leaves_nothing(self):
        for part in (b"", b"GET / HT", get(target=b"/endless/half"), post(b"Content-Length: 1000\r\n", b"x")):
            with self.edge.open_tls(APP) as connection:
                connection.sendall(part)
                socket.socket.shutdown(connection, socket.SHUT_WR)
                deadline = time.monotonic() + 15
                try:
                    while connection.recv(65536) and time.monotonic() < deadline:
                        pass
                except (OSError, ssl.SSLError):
                    pass
        self.as_before()

    @test
    def handshakes_that_are_abandoned(self):
        hello = client_hello()
        for number in range(300):
            with socket.create_connection((self.edge.address, self.edge.https_port), timeout=5) as connection:
                connection.sendall(hello[:number * 7 % len(hello)] if number % 2 else hello)
                if number % 3 == 0:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif number % 2 == 0:
                    connection.recv(4096)
        self.as_before()

    @test
    def connections_that_break_off_in_every_frame_of_http_2(self):
        from interop.h2raw import END_HEADERS, HEADERS, PREFACE, SETTINGS, block, frame, request

        self.h2_works()
        whole = PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, block(request(APP, "/upload/broken", "POST"))) + frame(0, 0, 1, b"x" * 100)
        for length in range(0, len(whole), 3):
            with H2(self.edge, APP, begin=False) as h2:
                h2.send(whole[:length])
        self.as_before()

    @test
    def the_agents_connections_are_given_back_too(self):
        """Kept connections to the targets end by themselves: then only the agent's own descriptors are left."""
        agent = self.chain.agent.process
        wait_until(lambda: agent.descriptors() < 30, 10, f"the agent has fewer than 30 descriptors: it has {agent.descriptors()}", interval=0.5)
        check(agent.memory() < 100, f"memory of the agent: {agent.memory():.0f} MB")
        check(os.path.exists(f"/proc/{self.chain.gateway.process.pid}"), "the gateway has died")
