"""What takes minutes: 5 GB each way, a thousand idle WebSockets through reloads, EventSource in a browser. 4 minutes."""

import html
import http.server
import os
import re
import shutil
import signal
import subprocess
import threading
import time

from interop.chain import APP, Chain
from interop.client import download
from interop.h2_websocket import TEXT, WireWebSocket
from interop.nodes import Origin, wait_until_served
from interop.origin import PATTERN, pattern_digest
from interop.recorder import RecordingOrigin
from interop.runner import Suite, test
from interop.system import check, check_equal

RAW = "raw.example.com"
HUGE = 5_000_000_000
# MB by which memory may go up and down while a body passes.
FLAT = 20
SOCKETS, IDLE = 1000, 120
PAGE = b"""HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"""
SCRIPT = b"""<!doctype html><title>waiting</title><p id="seen"></p><script>
const source = new EventSource("/events"), seen = []
source.onmessage = event => { seen.push(event.data); document.getElementById("seen").textContent = seen.join(",")
if (seen.length == 3) { source.close(); document.title = "done" } }
</script>"""


class Samples:
    """The memory of processes, again and again while something goes on."""

    def __init__(self, *processes):
        self.processes, self.values, self.done = processes, {process.name: [] for process in processes}, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.done.wait(0.25):
            for process in self.processes:
                self.values[process.name].append(process.memory())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def check_flat(self, most, what):
        for name, values in self.values.items():
            # The first two seconds fill the buffers.
            values = values[8:]
            check(len(values) > 8, f"{what}: too quick for samples")
            check(max(values) - min(values) < most, f"{what}: memory of the {name} from {min(values):.0f} to {max(values):.0f} MB")


class SUITE(Suite):
    tools = ["setpriv", "curl"]
    modules = ["hpack"]
    timeout = 400

    def set_up(self):
        self.origin = Origin(self.lab)
        self.recorder = RecordingOrigin()
        self.lab.on_close(self.recorder.close)
        self.chain = Chain(
            self.program, self.lab, {APP: self.origin.target, RAW: self.recorder.target}, [{"domain": APP}, {"domain": RAW}],
            limits={"connections_per_client": SOCKETS + 100})
        self.edge = self.chain.edge
        wait_until_served(self.edge, APP, 20)
        self.processes = (self.chain.gateway.process, self.chain.agent.process)

    @test
    def five_gigabytes_down(self):
        for option in ("--http1.1", "--http2"):
            with Samples(*self.processes) as samples:
                download([*self.edge.curl_options(APP), option, "--max-time", "300"], self.edge.url(APP, f"/bytes/{HUGE}"), HUGE)
            samples.check_flat(FLAT, f"download by {option}")

    @test
    def five_gigabytes_up(self):
        for option in ("--http1.1", "--http2"):
            with Samples(*self.processes) as samples:
                command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "300", *self.edge.curl_options(APP), option,
                           "--upload-file", "-", self.edge.url(APP, "/upload")]
                with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
                    left = HUGE
                    while left > 0:
                        child.stdin.write(PATTERN[:left])
                        left -= min(left, len(PATTERN))
                    child.stdin.close()
                    answer = child.stdout.read()
            check_equal(answer.count(pattern_digest(HUGE).encode()), 1, f"SHA-256 of an upload by {option} in {answer}")
            samples.check_flat(FLAT, f"upload by {option}")

    @test
    def a_thousand_idle_websockets_live_through_reloads(self):
        sockets = [WireWebSocket(self.edge, RAW, source=f"127.0.1.{1 + number % 50}", timeout=20) for number in range(SOCKETS)]
        try:
            until, reloads = time.monotonic() + IDLE, 0
            while time.monotonic() < until:
                self.chain.gateway.process.send_signal(signal.SIGHUP)
                reloads += 1
                time.sleep(1)
            check(reloads > IDLE // 2, f"{reloads} reloads")
            for number, one in enumerate(sockets):
                one.wire.send(b"message %04d" % number)
            for number, one in enumerate(sockets):
                check_equal(one.wire.exactly(12), b"message %04d" % number, f"echo of WebSocket {number}")
        finally:
            for one in sockets:
                one.close()

    @test
    def event_source_in_a_browser(self):
        """Three events, a second apart, and the browser has each when it was sent: it says so itself when it has the last one."""
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        if not chromium:
            print("    chromium is not installed: EventSource is not tested", flush=True)
            return
        self.recorder.answers["/page"] = PAGE % (len(SCRIPT), SCRIPT)
        service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Events)
        threading.Thread(target=service.serve_forever, daemon=True).start()
        try:
            chain = Chain(self.program, self.lab, f"127.0.0.1:{service.server_address[1]}", name="events-")
            wait_until_served(chain.edge, APP, 20, path="/page")
            result = subprocess.run(
                [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", "--disable-background-networking",
                 f"--host-resolver-rules=MAP {APP} 127.0.0.1, MAP * ~NOTFOUND", f"--user-data-dir={self.lab.private_directory('chromium')}",
                 "--virtual-time-budget=15000", "--dump-dom", chain.edge.url(APP, "/page")],
                capture_output=True, text=True, timeout=90, env={**os.environ, "HOME": self.lab.directory})
            seen = re.search(r'<p id="seen">([^<]*)</p>', html.unescape(result.stdout))
            check(seen and seen[1] == "one,two,three", f"{result.stdout[-500:]} {result.stderr[-500:]}")
        finally:
            service.shutdown()
            service.server_close()


class Events(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/page":
            self.wfile.write(PAGE % (len(SCRIPT), SCRIPT))
            return
        if self.path != "/events":
            self.send_error(404)
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n")
        self.close_connection = True
        for text in (b"one", b"two", b"three"):
            self.wfile.write(b"data: " + text + b"\n\n")
            self.wfile.flush()
            time.sleep(1)
