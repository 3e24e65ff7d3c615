"""Gateway and agent over a link that loses, doubles, displaces and damages datagrams, falls silent, and changes its port."""

import os
import socket
import threading

from interop.client import download, pattern_file, upload
from interop.garbage import seed
from interop.nodes import Agent, Gateway, Origin, wait_until_served
from interop.origin import PATTERN
from interop.relay import Relay
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until
from interop.websocket import echo_while

APP = "app.example.com"
LENGTH = 10_000_000


class SUITE(Suite):
    tools = ["curl", "setpriv"]

    def set_up(self):
        lab = self.lab
        udp = free_port(socket.SOCK_DGRAM)
        self.seed = seed()
        print(f"    rough_link: INTEROP_SEED={self.seed}")
        self.relay = Relay(udp, self.seed)
        lab.on_close(self.relay.close)
        out = lab.private_directory("conf")
        result = self.program.run(lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{udp}", "--out", out])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        agent_conf = os.path.join(out, "agent.conf")
        with open(agent_conf) as file:
            text = file.read().replace(f"127.0.0.1:{udp}", f"127.0.0.1:{self.relay.port}")
        lab.write("conf/agent.conf", text)
        self.origin = Origin(lab)
        self.gateway = Gateway(self.program, lab, os.path.join(out, "gateway.conf"), [f"{APP}=10.1.0.2"], options=["--log-level", "trace"])
        self.agent = Agent(self.program, lab, agent_conf, self.origin.target, options=["--log-level", "trace"])
        self.edge = self.gateway.edge
        self.file = pattern_file(lab.directory, LENGTH)
        wait_until_served(self.edge, APP, 20)

    def download(self, length=LENGTH):
        download(self.edge.curl_options(APP), self.edge.url(APP, f"/bytes/{length}"), length)

    @test
    def transfers_over_a_lossy_link_are_right(self):
        self.relay.set(loss=0.02, duplication=0.01, displacement=0.02, corruption=0.01)
        self.download()
        upload(self.edge.curl_options(APP), self.edge.url(APP, "/upload"), self.file)
        check(self.relay.lost > 50, f"the relay lost only {self.relay.lost} datagrams: the test shows nothing")

    @test
    def ten_transfers_at_once_over_a_lossy_link_are_right(self):
        problems = []

        def fetch():
            try:
                self.download(1_000_000)
            except AssertionError as error:
                problems.append(str(error))

        threads = [threading.Thread(target=fetch) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(not problems, "\n".join(problems))

    @test
    def a_link_that_doubles_every_datagram_is_right(self):
        self.relay.set(duplication=1.0)
        self.download()

    @test
    def a_nat_that_changes_its_port_does_not_break_a_transfer(self):
        self.relay.set()
        connection = self.edge.connection(APP)
        connection.request("GET", "/endless/rebound")
        response = connection.getresponse()
        text = b""
        for _ in range(4):
            text += response.read(3_000_001)
            self.relay.rebind_wanted = True
            wait_until(lambda: not self.relay.rebind_wanted, 5, "the relay has new ports")
        text += response.read(3_000_001)
        connection.close()
        expected = PATTERN[:65536] * (len(text) // 65536 + 1)
        check(text == expected[:len(text)] and len(text) == 5 * 3_000_001, f"{len(text)} bytes, or others than sent")

    @test
    def a_websocket_lives_through_a_silent_link(self):
        """Six seconds without a datagram, then a new port as after a NAT's timeout."""

        def disturb(step):
            self.relay.is_dead = step == 1
            self.relay.rebind_wanted = step == 2

        try:
            echo_while(self.edge, APP, disturb, silence=6)
        finally:
            self.relay.is_dead = False

    @test
    def a_new_agent_connects_over_a_very_bad_link(self):
        self.relay.set(loss=0.2, corruption=0.05)
        self.agent.process.stop()
        self.agent.start()
        wait_until_served(self.edge, APP, 40)
        self.relay.set()
        wait_until_served(self.edge, APP, 10)
