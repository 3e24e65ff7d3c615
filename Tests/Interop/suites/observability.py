"""What an operator sees: metrics and status; and what a restart must not forget: WireGuard's timestamps."""

import json
import os
import signal
import socket
import subprocess
import time

from interop.metrics import parse
from interop.nodes import Agent, Gateway, Origin, wait_until_served
from interop.product import listens
from interop.relay import Relay
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until

APP = "app.example.com"
# Bytes of a download that nobody reads which pass before everything on the way is full, at least.
FILLED = 200_000


class Recorder(Relay):
    """A relay that keeps the initiations that it has passed to the gateway."""

    def __init__(self, gateway_port):
        self.initiations = []
        super().__init__(gateway_port, 1)

    def send(self, out, datagram, to):
        if to == self.gateway and len(datagram) == 148 and datagram[0] == 1:
            self.initiations.append(datagram)
        super().send(out, datagram, to)


class SUITE(Suite):
    tools = ["curl", "setpriv"]

    def set_up(self):
        lab = self.lab
        udp = free_port(socket.SOCK_DGRAM)
        self.udp = udp
        self.metrics_port = free_port()
        self.relay = Recorder(udp)
        lab.on_close(self.relay.close)
        out = lab.private_directory("conf")
        result = self.program.run(lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{udp}", "--out", out])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        agent_conf = os.path.join(out, "agent.conf")
        with open(agent_conf) as file:
            text = file.read().replace(f"127.0.0.1:{udp}", f"127.0.0.1:{self.relay.port}")
        lab.write("conf/agent.conf", text)
        self.origin = Origin(lab)
        self.gateway = Gateway(
            self.program, lab, os.path.join(out, "gateway.conf"), [f"{APP}=10.1.0.2"],
            options=["--metrics-listen", f"127.0.0.1:{self.metrics_port}"])
        self.agent = Agent(self.program, lab, agent_conf, self.origin.target)
        self.edge = self.gateway.edge
        wait_until_served(self.edge, APP, 20)

    def curl(self, path, *options):
        return subprocess.run(
            ["curl", "-sS", "-w", "\n%{http_code}", *options, f"http://127.0.0.1:{self.metrics_port}{path}"],
            capture_output=True, text=True, timeout=20).stdout.rsplit("\n", 1)

    @test
    def curl_gets_metrics_that_parse(self):
        text, code = self.curl("/metrics")
        check_equal(code, "200", "status of /metrics")
        samples = parse(text)
        peer = self.gateway.status()["peers"][0]["publicKey"]
        label = f'peer="{peer}"'
        check(samples[("kakuremichi_wireguard_peer_receive_bytes_total", label)] > 0, "no bytes from the agent")
        age = time.time() - samples[("kakuremichi_wireguard_peer_last_handshake_timestamp_seconds", label)]
        check(-1 <= age < 60, f"the last handshake is {age:.0f} s old")
        check_equal(samples[("kakuremichi_wireguard_peer_session", label)], 1, "session")
        for labels in ('outcome="established_as_responder"', 'outcome="initiation_received"', 'outcome="response_sent"'):
            check(samples[("kakuremichi_wireguard_handshakes_total", labels)] > 0, f"no handshake of {labels}")
        check(samples[("kakuremichi_wireguard_peer_handshakes_total", f'{label},outcome="established"')] > 0, "no handshake of the peer")
        check_equal(samples[("kakuremichi_wireguard_handshakes_total", 'outcome="cookie_received"')], 0, "cookies")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"\1\0\0\0" + bytes(144), ("127.0.0.1", self.udp))
            drops = ("kakuremichi_wireguard_dropped_packets_total", 'reason="invalidMAC1"')
            wait_until(lambda: parse(self.curl("/metrics")[0]).get(drops) == 1, 5, "the drop is counted")
        text, samples = (again := self.curl("/metrics")[0]), parse(again)
        printed = self.program.run(self.lab, ["status", "--metrics", "--state", self.gateway.state])
        check_equal(set(parse(printed.stdout)), set(samples), "metrics by the admin socket")

    @test
    def status_is_there_by_http_and_strangers_are_refused(self):
        text, code = self.curl("/status")
        check_equal((code, json.loads(text)["role"]), ("200", "gateway"), "/status")
        check_equal(self.curl("/metrics", "-H", "Host: evil.example")[1], "403", "status for a foreign Host")
        check_equal(self.curl("/metrics", "-H", "Origin: http://evil.example")[1], "403", "status for a foreign Origin")
        check_equal(self.curl("/metrics", "-X", "POST")[1], "405", "status of POST")

    @test
    def an_address_that_others_reach_is_refused_at_the_start(self):
        result = self.program.run(
            self.lab, ["gateway", "--wg", os.path.join(self.lab.directory, "conf/gateway.conf"), "--metrics-listen", "0.0.0.0:1", "--check"])
        check_equal(result.returncode, 1, "exit code")
        check("not a loopback address" in result.stderr, result.stderr)

    def connections(self, node):
        result = self.program.run(self.lab, ["status", "--connections", "--json", "--state", node.state])
        check_equal(result.returncode, 0, f"exit code ({result.stderr.strip()})")
        return json.loads(result.stdout)["connections"]

    @test
    def a_slow_download_is_seen_on_both_sides(self):
        with self.edge.open_tls(APP) as client:
            client.sendall(f"GET /endless/slow HTTP/1.1\r\nHost: {APP}\r\n\r\n".encode())
            check(client.recv(1000).startswith(b"HTTP/1.1 200"), "no answer")

            def busy(node, direction, moved, waiting):
                return [
                    one for one in self.connections(node)
                    if one["direction"] == direction and one[moved] > FILLED and one[waiting] > 0]

            # Nobody reads: everything fills up on the way.
            received = wait_until(lambda: busy(self.gateway, "out", "bytesReceived", "unread"), 20, "the gateway's side fills up")
            sent = wait_until(lambda: busy(self.agent, "in", "bytesSent", "unacknowledged"), 20, "the agent's side fills up")
            check_equal((len(received), len(sent)), (1, 1), "busy connections")
            received, sent = received[0], sent[0]
            check_equal((received["remote"], received["local"]), (sent["local"], sent["remote"]), "both ends")
            check_equal(received["peer"], self.gateway.status()["peers"][0]["publicKey"], "peer")
            for one in (received, sent):
                check_equal((one["state"], one["mss"], one["congestion"]), ("ESTABLISHED", 1368, "cubic"), "state, MSS and algorithm")
                check(0 < one["srtt"] < 5 and one["minimumRTT"] <= one["srtt"] * 4, f"round-trip times {one}")
                check(0.2 <= one["rto"] <= 60 and one["cwnd"] >= one["mss"], f"RTO and cwnd: {one}")
                check(0 <= one["silence"] <= one["age"] + 1 and one["age"] < 120, f"times {one}")
            check(received["bytesSent"] < 5000, f"the gateway's end: {received}")
            check(sent["unsent"] <= sent["unacknowledged"], f"the agent's end: {sent}")
            table = self.program.run(self.lab, ["status", "--connections", "--state", self.agent.state]).stdout
            check("ESTABLISHED  10.1.0.2:80 <- 10.1.0.254:" in table and "cubic, " in table, table)
            samples = parse(self.curl("/metrics")[0])
            check(samples[("kakuremichi_tcp_connections", 'state="established"')] >= 1, "connections in the metrics")
            check(samples[("kakuremichi_tcp_bytes_total", 'direction="receive"')] > FILLED, "bytes in the metrics")
            check(samples[("kakuremichi_tcp_buffer_memory_bytes", "")] > 0, "memory of buffers in the metrics")
        wait_until(
            lambda: not [one for one in self.connections(self.agent) if one["bytesSent"] > FILLED], 20, "the connection is gone")

    def replay(self):
        """An old initiation from another address; returns what `status` says then."""
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.sendto(self.relay.initiations[-1], ("127.0.0.1", self.udp))
            found = {}

            def refused():
                found["status"] = self.gateway.status()
                return found["status"] and found["status"]["counters"].get("dropped: wireguard staleTimestamp", 0) > 0

            wait_until(refused, 10, "the replayed initiation is refused")
            endpoint = found["status"]["peers"][0].get("endpoint")
            check(endpoint != f"127.0.0.1:{stranger.getsockname()[1]}", "the replay has moved the endpoint")
        return found["status"]

    @test
    def a_replay_is_refused_after_an_orderly_restart(self):
        self.agent.process.stop(signal.SIGKILL)
        self.relay.is_dead = True
        check_equal(self.gateway.process.stop(), 0, "exit code of the gateway")
        path = os.path.join(self.gateway.state, "timestamps")
        check_equal(os.stat(path).st_mode & 0o777, 0o600, "mode of timestamps")
        self.gateway.start()
        peer = self.replay()["peers"][0]
        check_equal(peer["refusedTimestamps"], 1, "refused timestamps")
        table = self.program.run(self.lab, ["status", "--state", self.gateway.state]).stdout
        check("REFUSED TIMESTAMPS" in table, table)
        check("old timestamp is refused" in self.gateway.process.output(), "no log line for the refused timestamp")

    @test
    def a_replay_is_refused_after_a_kill(self):
        self.gateway.process.stop(signal.SIGKILL)
        self.gateway.start()
        self.replay()

    @test
    def a_damaged_file_does_not_keep_the_gateway_from_starting(self):
        self.gateway.process.stop()
        path = os.path.join(self.gateway.state, "timestamps")
        with open(path, "ab") as file:
            file.write(b"\0garbage")
        self.gateway.start()
        self.replay()
        check(os.path.exists(path + ".damaged"), "the damaged file is not put aside")

    @test
    def the_agent_is_back_after_all_that(self):
        self.relay.is_dead = False
        self.agent.start()
        wait_until_served(self.edge, APP, 20)
