"""What visitors and services do every day on connections of HTTP/2, all at once: nobody's answer suffers. 40 s."""

import base64
import hashlib
import itertools
import random
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from interop.canned import CannedOrigin
from interop.chain import APP, Chain, Holdings
from interop.h2_service import H2Service
from interop.h2raw import END_HEADERS, H2, INITIAL_WINDOW_SIZE, setting
from interop.nodes import wait_until_served
from interop.runner import Suite, test
from interop.system import check, check_equal
from interop.wire import Wire

# Behind one agent; `MIXED` and `PLAIN` are reached over HTTP/1.1, and `MIXED` speaks HTTP/2 behind the agent.
MIXED, PLAIN, RESETTING = "mixed.example.com", "plain.example.com", "resetting.example.com"
LOAD = 4
names = (f"late{number}" for number in itertools.count())


class SUITE(Suite):
    tools = ["setpriv"]
    modules = ["hpack", "h2"]

    def set_up(self):
        self.app, self.plain = H2Service("app"), CannedOrigin()
        self.resetting = socket.create_server(("127.0.0.1", 0))
        for service in (self.app, self.plain, self.resetting):
            self.lab.on_close(service.close)
        h2c = {"target": self.app.target, "protocol": "h2c"}
        self.chain = Chain(
            self.program, self.lab,
            {APP: h2c, MIXED: h2c, PLAIN: self.plain.target, RESETTING: f"127.0.0.1:{self.resetting.getsockname()[1]}"},
            [{"domain": APP, "protocol": "h2c"}, {"domain": MIXED}, {"domain": PLAIN}, {"domain": RESETTING}],
            agent_limits={"streams_per_connection": 1000})
        self.edge = self.chain.edge
        wait_until_served(self.edge, APP, 20)
        self.before = [Holdings(process) for process in (self.chain.gateway.process, self.chain.agent.process)]

    def open(self, number, domain=APP, window=1 << 24, **options):
        h2 = H2(self.edge, domain, timeout=20, source=f"127.0.0.{60 + number}", settings=setting(INITIAL_WINDOW_SIZE, window), **options)
        h2.ready()
        h2.grow(0, 1 << 30)
        return h2

    # Services

    @test
    def what_comes_behind_an_answer_is_nobodys(self):
        """A service that speaks HTTP/2 says all, but does not end its stream, and then says more."""
        for domain, path, method in itertools.product((MIXED, APP), ("204/0", "304/0", "200/5"), ("GET", "HEAD")):
            name, start = next(names), time.monotonic()
            if method == "HEAD" and path != "200/5":
                continue
            with Wire(self.edge, domain) as wire:
                wire.send(f"{method} /late/{path if method == 'GET' else '200/0'}/{name} HTTP/1.1\r\nHost: {domain}\r\n\r\n".encode())
                check_equal(wire.answer(method).status, int(path[:3]), f"status of {method} {path}")
                for number in range(20):
                    if number == 5:
                        self.app.release(name)
                    # On the visitor's connection as well.
                    wire.send(f"GET /bytes/10 HTTP/1.1\r\nHost: {domain}\r\n\r\n".encode())
                    answer = wire.answer()
                    check_equal((answer.status, len(answer.body)), (200, 10), f"answer {number} of the same service")
                    with Wire(self.edge, PLAIN) as other:
                        other.send(f"GET /plain HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n".encode())
                        answer = other.answer()
                        check_equal((answer.status, answer.body), (200, b"ok"), f"answer {number} of another service")
            check(time.monotonic() - start < 5, f"{method} {path}: {time.monotonic() - start:.1f} s")

    @test
    def a_service_that_refuses_gets_no_more_connections(self):
        opened = self.app.opened
        with self.open(1) as h2:
            for _ in range(50):
                check_equal(h2.get("/refuse").status, 502, "status")
            check_equal(h2.get().status, 200, "status afterwards")
        check(self.app.opened - opened <= 1, f"{self.app.opened - opened} more connections")

    @test
    def a_service_that_resets_a_websocket(self):
        """RFC 8441 5: the visitor's stream is reset, too."""
        def serve():
            service, _ = self.resetting.accept()
            head = b""
            while b"\r\n\r\n" not in head:
                head += service.recv(65536)
            key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")).split(b":")[1].strip()
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            service.sendall(
                b"HTTP/1.1 101 Here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\nhalf")
            gone.wait(10)
            service.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            service.close()

        gone = threading.Event()
        threading.Thread(target=serve, daemon=True).start()
        with self.open(1, RESETTING) as h2:
            h2.headers(1, [
                (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", RESETTING), (":path", "/"),
                ("sec-websocket-version", "13")], END_HEADERS)
            h2.until(lambda: 1 in h2.responses and h2.responses[1].body == b"half", "what the service has sent")
            gone.set()
            response = h2.response(1)
            check(response.reset is not None and not response.ended, f"{response}")

    # Visitors

    def uploads(self, number, end):
        done = 0
        with self.open(number) as h2:
            while time.monotonic() < end:
                stream = h2.request("/upload", "POST", end=False)
                h2.upload(stream, bytes(1_000_000))
                check_equal(h2.response(stream).body, b"1000000", "length of an upload at the service")
                h2.frames.clear()
                done += 1
        return done

    def downloads(self, number, end):
        done = 0
        with self.open(number) as h2:
            while time.monotonic() < end:
                for size, stream in [(size, h2.request(f"/bytes/{size}")) for size in (20_000, 70_000, 150_000, 1_000_000)]:
                    response = h2.response(stream)
                    check(response.ended and len(response.body) == size, f"of {size} bytes: {response}")
                    done += 1
                h2.frames.clear()
                h2.responses.clear()
        return done

    def cancels(self, number, end):
        """Fewer than a visitor may."""
        done, chance = 0, random.Random(number)
        with self.open(number) as h2:
            while time.monotonic() < end:
                upload, download = h2.request("/upload", "POST", end=False), h2.request("/bytes/3000")
                for _ in range(chance.randrange(1, 5)):
                    h2.data(upload, bytes(16000))
                time.sleep(chance.random() * 0.03)
                h2.reset(upload)
                h2.reset(download)
                time.sleep(0.06)
                h2.ping()
                check(h2.goaway is None, "cut off")
                h2.frames.clear()
                h2.responses.clear()
                done += 2
        return done

    def together(self, *kinds):
        opened, end = self.app.opened, time.monotonic() + LOAD
        with ThreadPoolExecutor(len(kinds)) as pool:
            results = [pool.submit(kind, number, end) for number, kind in enumerate(kinds)]
            counts = [result.result() for result in results]
        check(all(counts), f"{counts}")
        check(self.app.opened - opened <= 1, f"{self.app.opened - opened} connections to the service were made anew")

    @test
    def uploads_and_downloads(self):
        self.together(*[self.uploads] * 4, *[self.downloads] * 3)

    @test
    def downloads_and_requests_that_are_cancelled(self):
        self.together(*[self.downloads] * 2, *[self.cancels] * 6)

    @test
    def a_visitor_that_takes_nothing_for_a_while_and_cancels(self):
        """As a browser on a slow line does, with what its user has scrolled past."""
        for domain in (APP, MIXED):
            with self.open(1, domain, window=1 << 30) as h2:
                h2.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
                large = [h2.request("/bytes/5000000") for _ in range(4)]
                h2.head(large[-1])
                # The pause is what is tested.
                time.sleep(1)
                small = [h2.request("/bytes/100") for _ in range(5)] + [h2.request("/upload", "POST", end=False) for _ in range(3)]
                for stream in small[5:]:
                    for _ in range(10):
                        h2.data(stream, bytes(16000))
                time.sleep(0.5)
                for stream in small:
                    h2.reset(stream)
                check_equal([len(h2.response(stream).body) for stream in large], [5_000_000] * 4, "lengths")
                check(h2.goaway is None, f"GOAWAY with {h2.goaway}")

    @test
    def a_visitor_that_reads_steadily_and_slowly(self):
        """Large windows, and more downloads than its line carries."""
        for domain in (APP, MIXED):
            with self.open(1, domain) as h2:
                for _ in range(24):
                    h2.request("/endless")
                start, before = time.monotonic(), 0
                while time.monotonic() < start + LOAD:
                    h2.read_frame(start + LOAD + 10)
                    count = sum(len(response.body) for response in h2.responses.values())
                    # The pace is what is tested: 15 MB/s.
                    if count - before > 1_500_000:
                        before = count
                        time.sleep(max(0, start + count / 15e6 - time.monotonic()))
                check(h2.goaway is None and all(response.reset is None for response in h2.responses.values()), "cut off")
                check(before > 10e6, f"{before / 1e6:.0f} MB")

    @test
    def nothing_is_left_behind(self):
        for one in self.before:
            one.wait_for_return(40)
