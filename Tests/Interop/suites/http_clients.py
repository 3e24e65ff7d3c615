"""Clients that people use, through the whole chain: curl, nghttp, h2load, Python's h2 and websockets, gRPC. 30 s."""

import json
import os
import re
import subprocess
import time

from interop import packages
from interop.chain import APP, Chain
from interop.client import curl, download, pattern_file, upload
from interop.h2_websocket import BINARY, CLOSE, PING, PONG, TEXT, H2WebSocket
from interop.h2raw import ENABLE_CONNECT_PROTOCOL, H2
from interop.nodes import Origin, wait_until_served
from interop.origin import pattern, pattern_digest
from interop.recorder import RecordingOrigin
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, is_root, wait_until

GRPC, RAW = "grpc.example.com", "raw.example.com"
LARGE = 100_000_000
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class SUITE(Suite):
    tools = ["setpriv", "curl", "nghttp", "h2load"]
    modules = ["hpack", "h2", "grpc", "websockets"]

    def set_up(self):
        lab = self.lab
        self.origin = Origin(lab)
        self.recorder = RecordingOrigin()
        lab.on_close(self.recorder.close)
        self.grpc_port = free_port()
        lab.start("grpc", [packages.python(), "-B", f"{HERE}/interop/grpc_peer.py", "server", str(self.grpc_port)], unprivileged=False)
        self.chain = Chain(
            self.program, lab, {
                APP: self.origin.target, RAW: self.recorder.target, GRPC: {"target": f"127.0.0.1:{self.grpc_port}", "protocol": "h2c"}},
            [{"domain": APP}, {"domain": RAW}, {"domain": GRPC, "protocol": "h2c"}])
        self.edge = self.chain.edge
        wait_until_served(self.edge, APP, 20)
        self.file = pattern_file(lab.directory, LARGE)
        # The straight way first, so that a fault of the service is not taken for one of the tunnel.
        wait_until(lambda: self.grpc("unary", f"127.0.0.1:{self.grpc_port}", "-").get("right"), 15, "the gRPC service answers", interval=0.5)

    def curl(self, *options, path="/", domain=APP):
        return curl([*self.edge.curl_options(domain), *options, self.edge.url(domain, path)], timeout=60)

    # curl

    @test
    def curl_speaks_both_versions(self):
        for option, version in (("--http1.1", b"1.1"), ("--http2", b"2")):
            answer = self.curl(option, "--write-out", "|%{http_version}", path="/bytes/100000")
            check_equal(answer, b"".join(pattern(100_000)) + b"|" + version, f"answer to {option}")

    @test
    def curl_downloads_by_both_versions(self):
        for option in ("--http1.1", "--http2"):
            download([*self.edge.curl_options(APP), option], self.edge.url(APP, f"/bytes/{LARGE}"), LARGE)

    @test
    def curl_uploads_by_both_versions(self):
        for option in ("--http1.1", "--http2"):
            upload([*self.edge.curl_options(APP), option], self.edge.url(APP, "/upload"), self.file)
            upload([*self.edge.curl_options(APP), option, "--header", "Transfer-Encoding: chunked"], self.edge.url(APP, "/upload"), self.file)

    @test
    def curl_expects_100_and_gets_it_from_the_web_service(self):
        for option in ("--http1.1", "--http2"):
            path = f"/upload/curl-{option.strip('-')}"
            answer = self.curl(option, "--header", "Expect: 100-continue", "--expect100-timeout", "20", "--upload-file", self.file, path=path)
            check_equal(json.loads(answer), {"sha256": pattern_digest(LARGE), "length": LARGE}, f"what arrived with {option}")
        check_equal(self.origin.seen("curl-http1.1")["expect"], "100-continue", "Expect at the web service")

    @test
    def curl_sees_trailers_by_both_versions(self):
        self.recorder.answers["/trailers"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n"
        for option in ("--http1.1", "--http2"):
            heads = self.curl(option, "--dump-header", "-", "--output", "/dev/null", path="/trailers", domain=RAW)
            check(re.search(rb"(?im)^x-sum: 42\r$", heads), f"with {option}: {heads}")

    @test
    def curl_asks_for_many_at_once_on_one_connection(self):
        url = self.edge.url(APP, "/bytes/[10000-10049]")
        sizes = curl([
            *self.edge.curl_options(APP), "--http2", "--parallel", "--parallel-max", "50", "--output", "/dev/null",
            "--write-out", "%{size_download} %{num_connects}\n", url], timeout=40).decode().split()
        check_equal(sorted(map(int, sizes[::2])), list(range(10_000, 10_050)), "lengths")
        check(sum(map(int, sizes[1::2])) <= 3, f"{sum(map(int, sizes[1::2]))} connections for 50 requests")

    # nghttp2

    @test
    def nghttp_is_served(self):
        """It takes names from a hosts file only, so it gets one in a mount namespace of its own: as root."""
        if not is_root():
            return
        hosts = self.lab.write("hosts", f"127.0.0.1 {APP}\n", 0o644)
        command = f"mount --bind {hosts} /etc/hosts && exec nghttp -ns {self.edge.url(APP, '/bytes/1000000')}"
        result = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, timeout=40)
        check(re.search(r"\b200\b.*\b976K\b", result.stdout), f"{result.stdout} {result.stderr}")

    @test
    def h2load_gets_every_answer(self):
        result = subprocess.run(
            ["h2load", "-n", "3000", "-c", "10", "-m", "50", "-H", f":authority: {APP}", "--connect-to", f"127.0.0.1:{self.edge.https_port}",
             f"https://{APP}/bytes/1000"], capture_output=True, text=True, timeout=60)
        check("3000 succeeded, 0 failed, 0 errored" in result.stdout, result.stdout + result.stderr)
        check("Application protocol: h2" in result.stdout, result.stdout)

    # PyPI's clients

    def run_client(self, name):
        result = subprocess.run(
            [packages.python(), "-B", f"{HERE}/interop/client_programs.py", name, APP, str(self.edge.https_port), self.edge.authority],
            capture_output=True, text=True, timeout=60)
        check_equal(result.stdout, "good\n", f"what the client says ({result.stderr[-500:]})")

    @test
    def pythons_h2_multiplexes_and_uploads(self):
        self.run_client("h2")

    @test
    def pythons_websockets_echo(self):
        self.run_client("websockets")
        self.origin.wait_for("websocket", lambda seen: seen.get("close_code") == 1000, 5, "the close frame reached the web service")

    # WebSockets over HTTP/2

    @test
    def a_websocket_over_http_2(self):
        with H2(self.edge, APP) as h2:
            h2.ready()
            check_equal(h2.settings.get(ENABLE_CONNECT_PROTOCOL), 1, "SETTINGS_ENABLE_CONNECT_PROTOCOL")
            socket = H2WebSocket(h2)
            for payload in (b"", b"hello", os.urandom(125), os.urandom(126), os.urandom(70_000), os.urandom(1_000_000)):
                socket.send(BINARY, payload)
                check(socket.receive() == (BINARY, payload), f"the echo of {len(payload)} bytes differs")
            socket.send(PING, b"are you there")
            check_equal(socket.receive(), (PONG, b"are you there"), "PONG")
            check_equal(h2.get().status, 200, "status beside the WebSocket")
            socket.send(CLOSE, b"\x03\xe8")
            check_equal(socket.receive(), (CLOSE, b"\x03\xe8"), "close frame")
            h2.data(socket.stream, b"", end=True)
            h2.response(socket.stream)
        self.origin.wait_for("websocket", lambda seen: seen.get("close_code") == 1000, 5, "the close frame reached the web service")

    @test
    def many_websockets_on_one_connection(self):
        with H2(self.edge, APP) as h2:
            h2.ready()
            sockets = [H2WebSocket(h2) for _ in range(30)]
            for number, socket in enumerate(sockets):
                socket.send(TEXT, b"room %d" % number)
            for number, socket in reversed(list(enumerate(sockets))):
                check_equal(socket.receive(), (TEXT, b"room %d" % number), "echo")

    @test
    def the_web_service_sees_an_ordinary_handshake(self):
        before = len(self.recorder.requests)
        with H2(self.edge, RAW) as h2:
            h2.ready()
            socket = H2WebSocket(h2, more=[
                ("sec-websocket-protocol", "chat"), ("origin", f"https://{RAW}"), ("sec-websocket-key", "bWluZQ=="), ("sec-websocket-accept", "mine")])
            check(socket.response.get("sec-websocket-accept") is None, f"fields {socket.response.fields}")
            h2.data(socket.stream, b"\x81\x00")
            h2.until(lambda: len(socket.response.body) == 2, "the raw echo")
            # Our end of the stream is the end of the web service's input, and its end is the end of the stream.
            h2.data(socket.stream, b"", end=True)
            h2.response(socket.stream)
        [seen] = self.recorder.requests[before:]
        check_equal(seen.line, b"GET /websocket?room=2 HTTP/1.1", "request line")
        for name, value in (("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("origin", f"https://{RAW}")):
            check_equal(seen.get(name), value, name)
        check(re.fullmatch(r"[A-Za-z0-9+/]{22}==", seen.get("sec-websocket-key") or ""), f"Sec-WebSocket-Key: {seen.get('sec-websocket-key')}")
        check(seen.get("content-length") is None and seen.get("transfer-encoding") is None, f"framing: {seen.head}")
        check(seen.get("sec-websocket-accept") is None, f"Sec-WebSocket-Accept: {seen.head}")

    @test
    def what_a_web_service_answers_instead_of_a_websocket(self):
        """A 2xx, or a 101 with a wrong accept, must not look like an open WebSocket."""
        switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.recorder.answers |= {
            "/no-accept": (switching + b"\r\n", True), "/wrong-accept": (switching + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", True),
            "/not-found": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "/moved": b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"}
        for path, status in (("/ordinary", 502), ("/no-accept", 502), ("/wrong-accept", 502), ("/not-found", 404), ("/moved", 302)):
            with H2(self.edge, RAW) as h2:
                h2.ready()
                H2WebSocket(h2, path, status=status)

    @test
    def a_reset_websocket_ends_at_the_web_service(self):
        with H2(self.edge, RAW) as h2:
            h2.ready()
            socket = H2WebSocket(h2)
            h2.reset(socket.stream)
            check(self.recorder.requests[-1].ended.wait(5), "the web service's connection stays open")
            check_equal(h2.get().status, 200, "status afterwards")

    @test
    def a_refused_websocket_is_that_answer(self):
        self.recorder.answers["/no-room"] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
        with H2(self.edge, RAW) as h2:
            h2.ready()
            stream = h2.request("/no-room", "CONNECT", [(":protocol", "websocket"), ("sec-websocket-version", "13")], end=False)
            response = h2.response(stream)
        check_equal((response.status, response.body), (403, b"no"), "status and body")

    # gRPC

    def grpc(self, call, address=None, authority=None):
        result = subprocess.run(
            [packages.python(), "-B", f"{HERE}/interop/grpc_peer.py", "client", call, address or f"127.0.0.1:{self.edge.https_port}",
             authority or self.edge.authority, GRPC], capture_output=True, text=True, timeout=90)
        check(result.stdout.startswith("{"), f"no result: {result.stderr[-500:]}")
        return json.loads(result.stdout)

    @test
    def grpc_unary_with_metadata_both_ways(self):
        check_equal(self.grpc("unary"), {
            "right": True, "initial": "value", "final": "value", "binary": [0, 1, 2], "code": "OK"}, "the call")

    @test
    def grpc_server_stream(self):
        check_equal(self.grpc("stream"), {"messages": True}, "1,000 messages")

    @test
    def grpc_error_in_trailers_alone(self):
        check_equal(self.grpc("error"), {"code": "NOT_FOUND", "details": "no such thing: ä"}, "the status")

    @test
    def grpc_deadline_cancels_at_the_service(self):
        result = self.grpc("deadline")
        check_equal(result["code"], "DEADLINE_EXCEEDED", "status")
        check(result["seconds"] < 3, f"it took {result['seconds']:.1f} s")
        check(result["cancelled"] > 0, "the service was not told")

    @test
    def grpc_both_ways_10_000_messages(self):
        check_equal(self.grpc("both"), {"messages": True, "in turn": 200}, "10,000 messages at once, 200 in turn")

    @test
    def grpc_to_a_service_that_is_away_is_an_error_of_the_call(self):
        service = next(process for process in self.lab.processes if process.name == "grpc")
        service.stop()
        check_equal(self.grpc("unary").get("code"), "UNAVAILABLE", "status")
        self.lab.start("grpc", [packages.python(), "-B", f"{HERE}/interop/grpc_peer.py", "server", str(self.grpc_port)], unprivileged=False)
        wait_until(lambda: self.grpc("unary").get("right"), 20, "the service is used again", interval=0.5)

    # Server-sent events

    @test
    def events_are_there_at_once(self):
        """The first event within a second while the stream stays open."""
        for option in ("--http1.1", "--http2"):
            name = f"events-{option.strip('-')}"
            child = subprocess.Popen(
                ["curl", "--silent", "--no-buffer", *self.edge.curl_options(APP), option, self.edge.url(APP, f"/drip/{name}")], stdout=subprocess.PIPE)
            try:
                start = time.monotonic()
                self.origin.wait_for(name, lambda seen: seen.get("started"), 10, "the web service has the request")
                check_equal(os.read(child.stdout.fileno(), 100), b"first\n", "the first event")
                seconds = time.monotonic() - start
                check(seconds < 1, f"the first event took {seconds:.2f} s with {option}")
                check(child.poll() is None, "the stream has ended")
                self.origin.get(f"/release/{name}")
                check_equal(child.stdout.read(), b"second\n", "the second event")
            finally:
                child.kill()
                child.wait()
                child.stdout.close()

    @test
    def nothing_is_held_whole(self):
        for process in (self.chain.gateway.process, self.chain.agent.process):
            check(process.peak_memory() < 150, f"peak memory of the {process.name}: {process.peak_memory():.0f} MB")
