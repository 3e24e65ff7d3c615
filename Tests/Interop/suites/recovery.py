"""What happens when a part goes away and comes back: agent, gateway, web service; orderly ends; `echo` and `dial`."""

import http.client
import os
import re
import signal
import socket
import time

from interop.client import read_all
from interop.nodes import Agent, Gateway, Origin, wait_until_served
from interop.origin import PATTERN, PAGE
from interop.product import bound_udp_ports
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until

APP = "app.example.com"


class SUITE(Suite):
    tools = ["setpriv"]

    def set_up(self):
        lab = self.lab
        self.out = lab.private_directory("conf")
        self.udp = free_port(socket.SOCK_DGRAM)
        result = self.program.run(lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{self.udp}", "--out", self.out])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        self.gateway_conf, self.agent_conf = os.path.join(self.out, "gateway.conf"), os.path.join(self.out, "agent.conf")
        self.gateway_ip, self.agent_ip = self.address(self.gateway_conf), self.address(self.agent_conf)
        self.origin = Origin(lab)

    @staticmethod
    def address(path):
        with open(path) as file:
            return re.search(r"^Address\s*=\s*([0-9.]+)", file.read(), re.MULTILINE)[1]

    @test
    def an_agent_that_starts_first_waits_for_its_gateway(self):
        self.agent = Agent(self.program, self.lab, self.agent_conf, self.origin.target)
        wait_until(lambda: bound_udp_ports(self.agent.process.pid), 10, "the agent has its UDP socket")
        self.gateway = Gateway(self.program, self.lab, self.gateway_conf, [f"{APP}={self.agent_ip}"])
        self.edge = self.gateway.edge
        wait_until_served(self.edge, APP, 15)

    @test
    def a_web_service_that_is_down_is_a_502_and_comes_back(self):
        self.origin.process.stop(signal.SIGKILL)
        wait_until_served(self.edge, APP, 5, status=502)
        self.origin.start()
        wait_until_served(self.edge, APP, 5)

    @test
    def a_killed_agent_is_a_502_or_503_within_5_s(self):
        self.old_ports = bound_udp_ports(self.agent.process.pid)
        self.agent.process.stop(signal.SIGKILL)
        for attempt in ("first", "second"):
            start = time.monotonic()
            status = self.edge.status_of(APP, timeout=20)
            seconds = time.monotonic() - start
            check(status in (502, 503), f"status {status} for the {attempt} request")
            check(seconds < 5, f"the {attempt} answer took {seconds:.1f} s")

    @test
    def an_agent_that_is_back_on_a_new_port_is_used_by_itself(self):
        self.agent.start()
        wait_until_served(self.edge, APP, 10)
        check(bound_udp_ports(self.agent.process.pid) != self.old_ports, "the agent has its old UDP port: the test shows nothing")

    @test
    def a_gateway_that_restarts_is_reached_again(self):
        check_equal(self.gateway.process.stop(), 0, "exit code of the gateway")
        self.gateway.start()
        wait_until_served(self.edge, APP, 35)

    @test
    def a_gateway_that_was_killed_is_reached_again(self):
        self.gateway.process.stop(signal.SIGKILL)
        self.gateway.start()
        wait_until_served(self.edge, APP, 35)

    @test
    def a_gateway_without_its_state_is_reached_again(self):
        """Without a stored endpoint the agent's own probe has to bring it back."""
        self.gateway.process.stop()
        for name in os.listdir(self.gateway.state):
            path = os.path.join(self.gateway.state, name)
            if os.path.isfile(path) and not name.endswith((".pem", ".key")):
                os.unlink(path)
        self.gateway.start()
        wait_until_served(self.edge, APP, 35)

    @test
    def sigterm_of_the_agent_lets_a_running_request_finish(self):
        connection = self.edge.connection(APP, timeout=15)
        connection.request("GET", "/drip/agent")
        response = connection.getresponse()
        check_equal(response.readline(), b"first\n", "the first half")
        process = self.agent.process
        process.expected_to_run = False
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Shutting down" in process.output(), 5, "the agent says that it shuts down")
        self.origin.get("/release/agent")
        check_equal(response.read(), b"second\n", "the second half after SIGTERM")
        connection.close()
        check_equal(process.wait(5), 0, "exit code of the agent")
        self.agent.start()
        wait_until_served(self.edge, APP, 15)

    @test
    def sigterm_lets_a_running_request_finish(self):
        connection = self.edge.connection(APP, timeout=15)
        connection.request("GET", "/drip/drain")
        response = connection.getresponse()
        check_equal(response.readline(), b"first\n", "the first half")
        process = self.gateway.process
        process.expected_to_run = False
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: self.refuses_connections(), 5, "the gateway accepts no more connections")
        check(process.is_running, "the gateway ended in mid-answer")
        self.origin.get("/release/drain")
        check_equal(response.read(), b"second\n", "the second half after SIGTERM")
        connection.close()
        check_equal(process.wait(5), 0, "exit code of the gateway")

    def refuses_connections(self):
        try:
            socket.create_connection((self.edge.address, self.edge.https_port), timeout=2).close()
            return False
        except OSError:
            return True

    @test
    def sigterm_with_idle_connections_ends_at_once(self):
        self.gateway.start()
        wait_until_served(self.edge, APP, 35)
        idle = [self.edge.connection(APP) for _ in range(5)]
        for connection in idle:
            connection.request("GET", "/")
            check_equal(connection.getresponse().read(), PAGE, "the page")
        # One that has sent nothing, one in mid-handshake, one in mid-request.
        silent = socket.create_connection((self.edge.address, self.edge.https_port))
        half = self.edge.open_tls(APP)
        half.sendall(b"GET / HT")
        for process in (self.gateway.process, self.agent.process):
            process.send_signal(signal.SIGTERM)
            start = time.monotonic()
            check_equal(process.wait(10), 0, f"exit code of the {process.name}")
            check(time.monotonic() - start < 5, f"the {process.name} took {time.monotonic() - start:.1f} s to end")
        for connection in [*idle, silent, half]:
            connection.close()

    @test
    def sigint_ends_too(self):
        self.gateway.start()
        self.gateway.process.send_signal(signal.SIGINT)
        check_equal(self.gateway.process.wait(5), 0, "exit code after SIGINT")

    @test
    def echo_and_dial_from_the_agents_side(self):
        self.echo_and_dial(self.gateway_conf, self.gateway_ip, self.agent_conf)

    @test
    def echo_and_dial_from_the_gateways_side(self):
        self.echo_and_dial(self.agent_conf, self.agent_ip, self.gateway_conf)

    def echo_and_dial(self, echo_conf, echo_ip, dial_conf):
        echo = self.program.start(self.lab, "echo", ["echo", "--wg", echo_conf, "--listen-port", "7"])
        wait_until(lambda: bound_udp_ports(echo.pid), 10, "`echo` has its UDP socket")
        text = PATTERN * 5
        result = self.program.run(self.lab, ["dial", "--wg", dial_conf, f"{echo_ip}:7"], timeout=40, input=text)
        check_equal(result.returncode, 0, f"exit code of `dial` ({result.stderr[-300:]!r})")
        check(result.stdout == text, f"{len(text)} bytes sent, {len(result.stdout)} came back, or others")
        check_equal(echo.stop(timeout=5), 0, "exit code of `echo`")

    @test
    def a_second_dial_to_a_peer_without_an_endpoint_is_answered_soon(self):
        udp = free_port(socket.SOCK_DGRAM)
        out = self.lab.private_directory("dial-conf")
        result = self.program.run(self.lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{udp}", "--out", out])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        gateway, agent = os.path.join(out, "gateway.conf"), os.path.join(out, "agent.conf")
        state = self.lab.private_directory("dial-state")
        command = ["dial", "--wg", gateway, "--state", state, f"{self.address(agent)}:7"]
        start = time.monotonic()
        result = self.program.run(self.lab, command, timeout=30, input=b"x")
        check(result.returncode > 0, "`dial` to a peer that does not run")
        for words in ("The peer has no Endpoint", "no session with the peer", f"reaches UDP port {udp}"):
            check(words in result.stderr.decode(), f"the message does not hold {words!r}: {result.stderr[-600:]!r}")
        echo = self.program.start(self.lab, "second-echo", ["echo", "--wg", agent, "--state", self.lab.private_directory("second-echo")])
        for count in range(3):
            start = time.monotonic()
            result = self.program.run(self.lab, command, timeout=40, input=b"hello")
            seconds = time.monotonic() - start
            check_equal((result.returncode, result.stdout), (0, b"hello"), f"`dial` {count} ({result.stderr[-300:]!r})")
            # A handshake that is lost is begun again after 5 s, as WireGuard has it.
            check(count == 0 or seconds < 8, f"`dial` {count} took {seconds:.1f} s")
        echo.stop()
        start = time.monotonic()
        result = self.program.run(self.lab, ["dial", "--wg", gateway, "10.77.0.1:7"], timeout=30, input=b"x")
        check(b"no peer's AllowedIPs holds 10.77.0.1" in result.stderr, f"an address of nobody: {result.stderr!r}")
        check(time.monotonic() - start < 5, "an address of nobody is waited for")

    @test
    def dial_to_a_closed_port_fails(self):
        echo = self.program.start(self.lab, "echo", ["echo", "--wg", self.gateway_conf, "--listen-port", "7"])
        wait_until(lambda: bound_udp_ports(echo.pid), 10, "`echo` has its UDP socket")
        result = self.program.run(self.lab, ["dial", "--wg", self.agent_conf, f"{self.gateway_ip}:8"], timeout=20, input=b"x")
        check(result.returncode > 0, f"exit code {result.returncode} of `dial` to a closed port")
        check(b"refused" in result.stderr.lower(), f"the message does not say refused: {result.stderr[-300:]!r}")
        echo.stop()
