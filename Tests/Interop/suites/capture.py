"""Packet capture of running processes: what the file says, who may have it, and what becomes of it when one side is killed."""

import json
import os
import signal
import socket
import subprocess
import threading
import time

from interop.nodes import Agent, Gateway, Origin, wait_until_served
from interop.pcapng import Capture, tcp
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until

APP = "app.example.com"
GATEWAY, AGENT = "10.1.0.254", "10.1.0.2"


class SUITE(Suite):
    tools = ["setpriv"]

    def set_up(self):
        lab = self.lab
        udp = free_port(socket.SOCK_DGRAM)
        out = lab.private_directory("conf")
        result = self.program.run(lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{udp}", "--out", out])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        self.origin = Origin(lab)
        self.gateway = Gateway(self.program, lab, os.path.join(out, "gateway.conf"), [f"{APP}={AGENT}"])
        self.agent = Agent(self.program, lab, os.path.join(out, "agent.conf"), self.origin.target)
        self.edge = self.gateway.edge
        wait_until_served(self.edge, APP, 20)
        self.files = lab.private_directory("captures")
        self.peer = self.gateway.status()["peers"][0]["publicKey"]

    def path(self, name):
        return os.path.join(self.files, name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return Capture(file.read())

    def start(self, name, *options, node=None, **more):
        """A capture that runs: its file is there."""
        out = name if name == "-" else self.path(name)
        process = self.program.start(
            self.lab, "capture", ["capture", "--out", out, "--state", (node or self.gateway).state, *options], **more)
        if name != "-":
            wait_until(lambda: not process.is_running or os.path.exists(out), 10, "the capture begins")
        return process

    def capture(self, *options):
        return self.program.run(self.lab, ["capture", "--state", self.gateway.state, *options])

    def captures(self, node=None):
        """How many captures have begun and not ended, as the log says."""
        log = (node or self.gateway).process.output()
        return log.count("A packet capture begins") - log.count("A packet capture has ended")

    def wait_for_requests(self, name, count=3):
        """Makes requests; returns once they are in the file."""
        begun = os.path.getsize(self.path(name))
        for number in range(count):
            check_equal(self.edge.status_of(APP, f"/bytes/{5000 + number}"), 200, "status of a request")
        wait_until(lambda: os.path.getsize(self.path(name)) > begun + 5000 * count, 10, "the file grows")

    @test
    def both_directions_are_in_the_file_and_sigint_ends_it(self):
        captures = {"gateway.pcapng": self.gateway, "agent.pcapng": self.agent}
        processes = [self.start(name, node=node) for name, node in captures.items()]
        begun = time.time()
        self.wait_for_requests("gateway.pcapng")
        self.wait_for_requests("agent.pcapng", 1)
        for process in processes:
            check_equal(process.stop(signal.SIGINT), 0, f"exit code after SIGINT ({process.errors()})")
        own = self.agent.status()["peers"][0]["publicKey"]
        for name, peer in (("gateway.pcapng", self.peer), ("agent.pcapng", own)):
            capture = self.read(name)
            check_equal((capture.link_type, capture.filter), (101, ""), "link type and filter")
            check(capture.application.startswith("kakuremichi "), capture.application)
            payload = {"in": b"", "out": b""}
            for packet in capture.packets:
                check(begun - 5 <= packet.time <= time.time(), f"a packet of {packet.time}")
                check_equal(packet.comment, f"in from {peer}" if packet.direction == "in" else f"out to {peer}", "comment")
                segment = tcp(packet.data)
                if segment:
                    outwards = segment["source"] == (GATEWAY if name[0] == "g" else AGENT)
                    check_equal(packet.direction, "out" if outwards else "in", "direction")
                    payload[packet.direction] += segment["payload"]
            requests, answers = ("out", "in") if name[0] == "g" else ("in", "out")
            check(b"GET /bytes/500" in payload[requests], f"no request in {name}")
            check(b"HTTP/1.1 200 OK" in payload[answers] and len(payload[answers]) > 5000, f"no answer in {name}")
            last = capture.statistics[-1]
            check_equal((last["dropped"], last["comment"]), (0, "ended: stopped"), "statistics at the end")
            check_equal(last["delivered"], len(capture.packets), "packets as counted")
            check_equal(os.stat(self.path(name)).st_mode & 0o7777, 0o600, "mode of the file")
        check(f"{len(self.read('agent.pcapng').packets)} packets" in processes[1].errors(), processes[1].errors())
        wait_until(lambda: self.captures() == 0 and self.captures(self.agent) == 0, 5, "the log says that the captures have ended")

    @test
    def standard_output_and_filters(self):
        process = subprocess.Popen(
            [self.program.path, "capture", "--out", "-", "--state", self.gateway.state, "--filter", "80", "--filter", AGENT, "--filter",
             self.peer, "--count", "12", "--snaplen", "40"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.program.environment())
        wait_until(lambda: self.captures() == 1, 10, "the capture begins")
        for _ in range(3):
            check_equal(self.edge.status_of(APP, "/bytes/9000"), 200, "status of a request")
        content, errors = process.communicate(timeout=20)
        check_equal(process.returncode, 0, f"exit code ({errors.decode()})")
        capture = Capture(content)
        check_equal(capture.filter, f"80 and {AGENT} and {self.peer}", "filter")
        check_equal((capture.snap_length, len(capture.packets)), (40, 12), "snapshot length and packets")
        check(all(len(packet.data) <= 40 < packet.length for packet in capture.packets), "packets are not cut")
        check_equal(capture.statistics[-1]["comment"], "ended: count", "why it ended")

    @test
    def an_existing_file_and_a_link_are_refused(self):
        self.lab.write("captures/there", "mine")
        os.symlink(self.path("elsewhere"), self.path("link"))
        for name in ("there", "link"):
            result = self.capture("--out", self.path(name))
            check_equal(result.returncode, 1, "exit code")
            check("exists already" in result.stderr and "choose another path" in result.stderr, result.stderr)
        check(not os.path.exists(self.path("elsewhere")), "the link was followed")
        with open(self.path("there")) as file:
            check_equal(file.read(), "mine", "content of the file")
        wait_until(lambda: self.captures() == 0, 5, "no capture is left")

    @test
    def what_cannot_be_is_said(self):
        for options, words in (
            (["--filter", "nonsense"], "is not a filter"), (["--duration", "2d"], "--duration is 1s to 24h"),
            (["--max-size", "1"], "--max-size is"),
        ):
            result = self.capture("--out", self.path("never"), *options)
            check(result.returncode != 0 and words in result.stderr, f"{options}: {result.stderr}")
        result = self.program.run(self.lab, ["capture", "--out", self.path("never"), "--state", self.files])
        check(result.returncode == 1 and "cannot be reached" in result.stderr, result.stderr)
        check(not os.path.exists(self.path("never")), "a file was made")

    @test
    def only_so_many_at_a_time(self):
        processes = [self.start(f"many-{number}") for number in range(4)]
        result = self.capture("--out", self.path("many-4"))
        check(result.returncode == 1 and "4 captures run already" in result.stderr, result.stderr)
        check(not os.path.exists(self.path("many-4")), "a file was made")
        for process in processes:
            check_equal(process.stop(signal.SIGTERM), 0, "exit code after SIGTERM")

    @test
    def a_time_and_a_size_end_it(self):
        result = self.capture("--out", self.path("time"), "--duration", "1")
        check_equal((result.returncode, self.read("time").statistics[-1]["comment"]), (0, "ended: duration"), "end by time")
        process = self.start("size", "--max-size", "20K")
        for _ in range(4):
            self.edge.status_of(APP, "/bytes/9000")
        check_equal(process.wait(10), 0, "exit code")
        check_equal(self.read("size").statistics[-1]["comment"], "ended: size", "end by size")
        check(10_000 < os.path.getsize(self.path("size")) <= 20_480, f"{os.path.getsize(self.path('size'))} bytes")

    @test
    def a_killed_client_leaves_a_whole_file_and_no_capture(self):
        process = self.start("killed")
        self.wait_for_requests("killed")
        process.stop(signal.SIGKILL)
        wait_until(lambda: self.captures() == 0, 5, "the process ends the capture of a client that is gone")
        check(len(self.read("killed").packets) > 10, "no packets in the file")

    @test
    def a_reader_that_stands_still_costs_packets_and_nothing_else(self):
        reader, writer = os.pipe()
        process = self.start("-", stdout=writer)
        os.close(writer)
        wait_until(lambda: self.captures() == 1, 10, "the capture begins")
        begun = self.gateway.process.peak_memory()
        for _ in range(6):
            status, _, body = self.edge.request(APP, path="/bytes/4000000")
            check_equal((status, len(body)), (200, 4_000_000), "a download beside it")
        grown = self.gateway.process.peak_memory() - begun
        check(grown < 60, f"the gateway has grown by {grown:.0f} MB")
        content = []

        def drain():
            while piece := os.read(reader, 1 << 16):
                content.append(piece)

        thread = threading.Thread(target=drain)
        thread.start()
        time.sleep(0.5)
        check_equal(process.stop(signal.SIGINT), 0, f"exit code ({process.errors()})")
        thread.join(10)
        os.close(reader)
        capture = Capture(b"".join(content))
        last = capture.statistics[-1]
        check(last["dropped"] > 1000, f"{last['dropped']} packets dropped")
        check_equal(last["delivered"], len(capture.packets), "packets as counted")
        check(f"{last['dropped']} dropped" in process.errors(), process.errors())

    @test
    def a_reader_that_is_gone_ends_it(self):
        reader, writer = os.pipe()
        process = self.start("-", stdout=writer)
        os.close(writer)
        wait_until(lambda: self.captures() == 1, 10, "the capture begins")
        os.close(reader)
        check_equal(process.wait(10), 0, f"exit code ({process.errors()})")
        wait_until(lambda: self.captures() == 0, 5, "no capture is left")

    @test
    def the_network_never_gets_it(self):
        port = free_port()
        self.gateway.process.stop()
        self.gateway.arguments += ["--metrics-listen", f"127.0.0.1:{port}"]
        self.gateway.start()
        wait_until_served(self.edge, APP, 40)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /capture HTTP/1.1\r\nHost: localhost\r\n\r\n")
            check(connection.recv(4096).startswith(b"HTTP/1.1 404"), "the listener for metrics knows captures")
        check_equal(json.dumps(self.captures()), "0", "captures")

    @test
    def a_killed_process_leaves_a_whole_file(self):
        process = self.start("orphan")
        self.wait_for_requests("orphan")
        self.gateway.process.stop(signal.SIGKILL)
        check_equal(process.wait(10), 1, "exit code")
        check("the process went away before the end" in process.errors(), process.errors())
        check(len(self.read("orphan").packets) > 10, "no packets in the file")
        self.gateway.start()
        process = self.start("orderly")
        check_equal(self.gateway.process.stop(), 0, "exit code of the gateway")
        process.wait(10)
        self.read("orderly")
