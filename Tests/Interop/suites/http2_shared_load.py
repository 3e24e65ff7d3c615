"""As `http2_shared`, with downloads that fill the connection while others are served. 30 s."""

import time
from concurrent.futures import ThreadPoolExecutor

from interop.chain import Holdings
from interop.client import curl
from interop.h2raw import ACK, INITIAL_WINDOW_SIZE, PING, setting
from interop.runner import Suite, test
from interop.system import check, check_equal
from suites import http2_shared
from suites.http2_shared import FRAME, NEAR


class SUITE(Suite):
    tools, modules = http2_shared.SUITE.tools, http2_shared.SUITE.modules
    set_up, neighbour, open = http2_shared.SUITE.set_up, http2_shared.SUITE.neighbour, http2_shared.SUITE.open
    wait_for_services = http2_shared.SUITE.wait_for_services

    @test
    def streams_that_nobody_reads_cost_little(self):
        """270 endless answers without a window, and a download of 20 MB meanwhile."""
        before = [Holdings(process) for process in self.nodes]
        url, options = self.edge.url(NEAR, "/bytes/20000000"), ["--http2", "--output", "/dev/null", "--write-out", "%{size_download}"]
        connections = []
        try:
            with self.neighbour(), ThreadPoolExecutor(1) as pool:
                for number in range(3):
                    h2 = self.open(number=number, settings=setting(INITIAL_WINDOW_SIZE, 0), refill=False)
                    connections.append(h2)
                    h2.ready()
                    h2.streams = [h2.request("/endless") for _ in range(90)]
                for h2 in connections:
                    for stream in h2.streams:
                        h2.head(stream)
                download = pool.submit(curl, [*self.edge.curl_options(NEAR), *options, url], timeout=30)
                end = time.monotonic() + 5
                held = [0.0, 0.0]
                while time.monotonic() < end:
                    held = [max(most, one.growth()) for most, one in zip(held, before)]
                    time.sleep(0.1)
                check_equal(download.result(), b"20000000", "bytes of a download")
                check(all(h2.goaway is None for h2 in connections), "the visitors' connections have ended")
        finally:
            for h2 in connections:
                h2.close()
        self.wait_for_services("after the visitors have gone")
        for process, most in zip(self.nodes, held):
            # Windows and buffers of 270 streams are 35 MB; what they were read into makes it more.
            check(most < 130, f"the {process.name} had {most:.1f} MB more")

    @test
    def a_visitor_that_measures_its_path(self):
        """1,000 PINGs in 5 s, with a download that goes on."""
        with self.neighbour(), self.open(refill=False) as h2:
            h2.ready()
            stream = h2.request("/endless")
            start = time.monotonic()
            for number in range(1, 1001):
                h2.frame(PING, 0, 0, bytes(8))
                for one in (0, stream):
                    h2.grow(one, 4000)
                while h2.read_frame(start + number * 0.005) is not None:
                    pass
            h2.ping()
            check_equal(sum(one.kind == PING and one.flags & ACK for one in h2.frames), 1001, "answers to PINGs")
            check(h2.goaway is None and h2.responses[stream].reset is None, f"cut off: {h2.frames[-3:]}")
            check(len(h2.responses[stream].body) > 3_500_000, f"{len(h2.responses[stream].body)} bytes of the download")
            h2.reset(stream)
            h2.grow(0, FRAME)
            check_equal(h2.get().status, 200, "status on the same connection")
