"""Clients that cost a server more than themselves: the connection ends or is bounded, and others are served. 40 s."""

import socket
import struct
import time

from interop.bystander import Bystander
from interop.chain import APP, Chain, Holdings
from interop.h2raw import (
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, H2, HEADERS, INITIAL_WINDOW_SIZE, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, Closed, block, frame, literal, request, setting)
from interop.nodes import Origin, wait_until_served
from interop.recorder import RecordingOrigin
from interop.runner import Suite, test
from interop.system import check, wait_until

HELD = "held.example.com"
ATTACKER = "127.0.0.66"
# MB that a flood may leave behind, and hold while it lasts.
GROWTH, HELD_GROWTH = 8, 40
IN_FLIGHT = 150


class SUITE(Suite):
    tools = ["setpriv"]
    modules = ["hpack"]

    def set_up(self):
        self.origin = Origin(self.lab)
        self.recorder = RecordingOrigin()
        self.lab.on_close(self.recorder.close)
        self.chain = Chain(
            self.program, self.lab, {APP: self.origin.target, HELD: self.recorder.target}, [{"domain": APP}, {"domain": HELD}],
            limits={"header": 3, "body_idle": 3, "requests_in_flight_per_client": IN_FLIGHT})
        self.edge = self.chain.edge
        wait_until_served(self.edge, APP, 20)
        # What buffers and caches grow to in normal use is there before anything is measured.
        for _ in range(10):
            with H2(self.edge, APP) as h2:
                for stream in [h2.request("/bytes/200000") for _ in range(20)]:
                    h2.response(stream)

    def open(self, domain=APP, **options):
        options.setdefault("timeout", 3)
        options.setdefault("source", ATTACKER)
        return H2(self.edge, domain, **options)

    def flood(self, pieces, outcomes, domain=APP, reads=True, finish=5, **options):
        """Sends the pieces while a normal client asks; how it ended must be one of the outcomes: ended, stalled (not read any more), finished."""
        gateway = self.chain.gateway.process
        before = Holdings(gateway)
        with Bystander(self.edge, APP) as bystander:
            with self.open(domain, **options) as h2:
                outcome = self.pour(h2, pieces, reads, finish if "finished" not in outcomes else 0)
                held = before.growth()
            bystander.answers(3)
            bystander.check(3)
        check(outcome in outcomes, f"the flood has {outcome}, not {' or '.join(outcomes)}; last frames {h2.frames[-3:]}")
        check(held < HELD_GROWTH, f"{held:.1f} MB more in the midst of the flood")
        before.wait_for_return(10)
        before.check_memory(GROWTH, "after the flood")
        return h2

    @staticmethod
    def pour(h2, pieces, reads, finish):
        try:
            h2.ready()
            for piece in pieces(h2):
                if not h2.send(piece):
                    return "ended"
                while reads and h2.read_frame(time.monotonic() + 0.0001) is not None:
                    pass
                if h2.goaway:
                    break
            return "ended" if finish and h2.ends(finish) else "finished"
        except Closed:
            return "ended"
        except (TimeoutError, socket.timeout):
            return "stalled"

    # Streams

    @test
    def rapid_reset(self):
        def pieces(h2):
            for start in range(1, 100_000, 200):
                yield b"".join(
                    frame(HEADERS, END_HEADERS | END_STREAM, number, block(request(APP))) + frame(RST_STREAM, 0, number, struct.pack(">I", CANCEL))
                    for number in range(start, start + 200, 2))

        self.flood(pieces, ["ended"])

    @test
    def rapid_reset_in_small_steps(self):
        """Fewer at once than any limit of streams, each reset when the web service has its request."""
        def pieces(h2):
            number = 1
            for _ in range(2000):
                streams = range(number, number + 20, 2)
                number += 20
                yield b"".join(frame(HEADERS, END_HEADERS | END_STREAM, one, block(request(APP, "/bytes/100000"))) for one in streams)
                yield b"".join(frame(RST_STREAM, 0, one, struct.pack(">I", CANCEL)) for one in streams)

        self.flood(pieces, ["ended"])

    @test
    def made_you_reset(self):
        """The server is brought to reset streams itself: by windows of zero and beyond all bounds, by bodies too long, by DATA too late."""
        provocations = [
            lambda one: frame(HEADERS, END_HEADERS | END_STREAM, one, block(request(APP, "/bytes/100000"))) + frame(WINDOW_UPDATE, 0, one, bytes(4)),
            lambda one: frame(HEADERS, END_HEADERS | END_STREAM, one, block(request(APP, "/bytes/100000"))) + frame(
                WINDOW_UPDATE, 0, one, struct.pack(">I", 0x7FFFFFFF)),
            lambda one: frame(HEADERS, END_HEADERS | END_STREAM, one, block(request(APP, "/bytes/100000"))) + frame(DATA, END_STREAM, one, b"x"),
            lambda one: frame(HEADERS, END_HEADERS, one, block(request(APP, "/upload", "POST", more=[("content-length", "1")]))) + frame(
                DATA, END_STREAM, one, b"too long"),
        ]
        for provocation in provocations:
            def pieces(h2, provocation=provocation):
                for start in range(1, 20_000, 20):
                    yield b"".join(provocation(one) for one in range(start, start + 20, 2))

            self.flood(pieces, ["ended"])

    @test
    def streams_that_are_refused_cost_nothing(self):
        def pieces(h2):
            for start in range(1, 200_000, 200):
                yield b"".join(
                    frame(HEADERS, END_HEADERS, number, block(request(APP, "/upload", "POST"))) for number in range(start, start + 200, 2))

        self.flood(pieces, ["ended", "stalled", "finished"])

    # Fields

    @test
    def continuations_without_end(self):
        def pieces(h2):
            yield frame(HEADERS, END_STREAM, 1, block(request(APP)))
            for _ in range(20_000):
                yield frame(CONTINUATION, 0, 1, literal("x-a", "a" * 1000))

        self.flood(pieces, ["ended"])

    @test
    def empty_continuations_without_end(self):
        def pieces(h2):
            yield frame(HEADERS, END_STREAM, 1, block(request(APP)))
            for _ in range(1000):
                yield frame(CONTINUATION, 0, 1) * 100

        self.flood(pieces, ["ended"])

    @test
    def a_compression_bomb(self):
        """16 KB on the wire are 64 MB of fields."""
        bomb = block(request(APP)) + literal("x-a", "a" * 4000, 0x40) + b"\xbe" * 12_000

        def pieces(h2):
            for number in range(1, 400, 2):
                yield frame(HEADERS, END_HEADERS | END_STREAM, number, bomb)

        h2 = self.flood(pieces, ["ended", "finished"])
        check(not any(one.status == 200 for one in h2.responses.values()), "a compression bomb was served")

    @test
    def fields_that_come_slowly(self):
        """3 s for a head: a byte now and then does not prolong that."""
        with Bystander(self.edge, APP) as bystander:
            with self.open() as h2:
                h2.ready()
                start = time.monotonic()
                whole = block(request(APP, more=[("x-a", "a" * 200)]))
                h2.frame(HEADERS, END_STREAM, 1, whole[:100])
                for index in range(100, len(whole)):
                    h2.frame(CONTINUATION, 0, 1, whole[index:index + 1])
                    if h2.ends(0.2) or h2.goaway or (h2.responses.get(1) and h2.responses[1].status == 408):
                        break
                seconds = time.monotonic() - start
            bystander.check(2)
        check(seconds < 8, f"a head was waited for {seconds:.1f} s")

    @test
    def connections_that_never_begin(self):
        """Nothing, half a preface, a preface without SETTINGS."""
        for said in (b"", PREFACE[:10], PREFACE):
            with self.open(begin=False) as h2:
                h2.send(said)
                check(h2.ends(10), f"the connection is open 10 s after {said!r}")

    # Frames that ask for frames

    @test
    def settings_whose_acknowledgements_nobody_reads(self):
        self.flood(lambda h2: (frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 65535)) * 500 for _ in range(2000)), ["ended", "stalled"], reads=False)

    @test
    def pings_whose_answers_nobody_reads(self):
        self.flood(lambda h2: (frame(PING, 0, 0, bytes(8)) * 500 for _ in range(2000)), ["ended", "stalled"], reads=False)

    @test
    def answers_that_nobody_reads(self):
        """The windows are open and the requests short: each is answered whole, as far as the gateway can tell."""
        def pieces(h2):
            h2.grow(0, 1 << 30)
            for number in range(100):
                yield b"".join(
                    frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * stream, block(request(APP, "/bytes/60000")))
                    for stream in range(50 * number, 50 * number + 50))
                # Fewer at once than a client may have.
                time.sleep(0.05)

        self.flood(pieces, ["ended", "stalled"], reads=False, settings=setting(INITIAL_WINDOW_SIZE, 1 << 30))

    @test
    def large_settings(self):
        self.flood(lambda h2: (frame(SETTINGS, 0, 0, setting(0x99, 1) * 2700) * 4 for _ in range(500)), ["ended", "stalled"], reads=False)

    @test
    def empty_data(self):
        def pieces(h2):
            yield frame(HEADERS, END_HEADERS, 1, block(request(APP, "/upload/empty", "POST")))
            for _ in range(500):
                yield frame(DATA, 0, 1) * 500

        self.flood(pieces, ["ended"])

    @test
    def small_windows_cost_little(self):
        """A body asked for byte by byte."""
        def pieces(h2):
            yield frame(HEADERS, END_HEADERS | END_STREAM, 1, block(request(APP, "/endless/bytewise")))
            for _ in range(500):
                yield frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)) * 40

        self.flood(pieces, ["ended", "stalled", "finished"], settings=setting(INITIAL_WINDOW_SIZE, 1), refill=False)

    # Windows

    @test
    def a_hundred_streams_that_never_open_their_window(self):
        gateway = self.chain.gateway.process
        self.unread_streams()
        # What the allocator keeps serves the next ones; what leaks comes once more each time.
        before = Holdings(gateway)
        for _ in range(2):
            self.unread_streams()
        before.check_memory(16, "after 200 such streams more")

    def unread_streams(self):
        before = Holdings(self.chain.gateway.process)
        with Bystander(self.edge, APP) as bystander:
            with self.open(settings=setting(INITIAL_WINDOW_SIZE, 0), timeout=15, refill=False) as h2:
                h2.ready()
                streams = [h2.request("/bytes/50000000") for _ in range(100)]
                h2.head(streams[0])
                start = time.monotonic()
                h2.until(lambda: h2.goaway is not None or all(
                    h2.responses.get(one) and (h2.responses[one].reset is not None or h2.responses[one].ended) for one in streams)
                    or before.growth() > 100, "streams without a window are given up after 3 s without a byte")
                check(time.monotonic() - start < 12, "they were kept too long")
                check(before.growth() < 40, f"{before.growth():.1f} MB more for 100 streams that nobody reads")
            bystander.check(3)
        before.wait_for_return(10)

    @test
    def whole_answers_that_never_get_a_window(self):
        """Each is complete as far as the web service knows; only the client does not take it."""
        before = Holdings(self.chain.gateway.process)
        with self.open(settings=setting(INITIAL_WINDOW_SIZE, 0), timeout=15, refill=False) as h2:
            h2.ready()
            streams = [h2.request("/bytes/10000") for _ in range(100)]
            h2.until(lambda: h2.goaway is not None or all(
                h2.responses.get(one) and h2.responses[one].reset is not None for one in streams), "the streams are given up after 3 s")
        before.wait_for_return(10)

    # The other side of a stream

    @test
    def a_reset_stream_ends_at_the_web_service(self):
        with self.open() as h2:
            stream = h2.request("/endless/cancelled")
            h2.until(lambda: h2.responses.get(stream) and len(h2.responses[stream].body) > 100_000, "the first bytes")
            h2.reset(stream)
            self.origin.wait_for("cancelled", lambda seen: seen.get("closed"), 5, "the web service's connection is closed")
            check(h2.get().status == 200, "the connection goes on")

    @test
    def a_reset_upload_ends_at_the_web_service(self):
        with self.open() as h2:
            stream = h2.request("/upload/cut", "POST", end=False, more=[("content-length", "1000")])
            h2.data(stream, b"x" * 100)
            self.origin.wait_for("cut", lambda seen: seen["received"] == 100, 5, "the first bytes are there")
            h2.reset(stream)
            self.origin.wait_for("cut", lambda seen: seen["ended"] == "cut off", 5, "the web service sees the end")
            check(h2.get().status == 200, "the connection goes on")

    @test
    def a_stream_counts_until_its_work_has_ended(self):
        """Reset or not, never more requests of a client are under way at the web service than it may have."""
        connections = [self.open(HELD) for _ in range(4)]
        try:
            for h2 in connections:
                h2.ready()
            for _ in range(10):
                for h2 in connections:
                    if h2.closed or h2.goaway:
                        continue
                    streams = [h2.request("/hold") for _ in range(50)]
                    for stream in streams:
                        h2.reset(stream)
        finally:
            for h2 in connections:
                h2.close()
        wait_until(lambda: self.recorder.holding == 0, 10, "all requests have ended at the web service")
        # The web service sees an end a moment later than the gateway.
        check(self.recorder.most_holding <= IN_FLIGHT * 1.5, f"{self.recorder.most_holding} requests at once")

    @test
    def a_client_beyond_its_requests_is_refused_and_others_are_served(self):
        before = self.recorder.holding
        connections = [self.open(HELD, timeout=8) for _ in range(4)]
        try:
            for h2 in connections:
                h2.ready()
                h2.streams = [h2.request("/hold") for _ in range(60)]
            wait_until(lambda: self.recorder.holding >= before + IN_FLIGHT, 8, f"{IN_FLIGHT} requests are under way")
            with Bystander(self.edge, APP) as bystander:
                refused = []
                for h2 in connections:
                    h2.ping()
                    refused += [one for one in h2.responses.values() if one.reset is not None or one.status in (429, 503)]
                bystander.answers(3)
            bystander.check(2)
            check(self.recorder.holding == before + IN_FLIGHT, f"{self.recorder.holding} requests under way, not {IN_FLIGHT}")
            check(len(refused) == 240 - IN_FLIGHT, f"{len(refused)} of 240 were refused")
        finally:
            for h2 in connections:
                h2.close()
        wait_until(lambda: self.recorder.holding == before, 10, "all requests have ended at the web service")

    @test
    def the_gateway_serves_as_before(self):
        with self.open() as h2:
            check(h2.get().status == 200, "status")
        check(self.chain.gateway.process.peak_memory() < 200, f"peak memory {self.chain.gateway.process.peak_memory():.0f} MB")
