"""Orderly ends and configurations that change: who is in the midst of something notices nothing that need not be. 40 s."""

import os
import re
import signal
import socket
import ssl
import subprocess
import time

from interop.bystander import Bystander
from interop.chain import APP, Chain
from interop.client import Edge, first_status
from interop.h2_websocket import CLOSE, TEXT, H2WebSocket, WireWebSocket
from interop.h2raw import H2, NO_ERROR, Closed
from interop.http1_cases import get
from interop.nodes import Origin, wait_until_served
from interop.runner import Suite, test
from interop.settings import route_add, route_list, route_remove
from interop.system import check, check_equal, free_port, wait_until
from interop.wire import Ended, Wire

SECOND, THIRD = "second.example.com", "third.example.com"
GOING_AWAY = b"\x03\xe9"


class SUITE(Suite):
    tools = ["setpriv", "openssl"]
    modules = ["hpack"]

    def set_up(self):
        self.origin = Origin(self.lab)
        self.chain = Chain(self.program, self.lab, self.origin.target, [{"domain": APP}, {"domain": SECOND}])
        self.edge = self.chain.edge
        self.gateway = self.chain.gateway
        wait_until_served(self.edge, APP, 20)

    # Reload

    def reload(self):
        self.gateway.process.send_signal(signal.SIGHUP)

    def set_routes(self, *routes):
        self.chain.routes = list(routes)
        self.chain.write_gateway()
        self.reload()

    def status_of(self, domain):
        """By the plain port's redirect, which needs no certificate: 301 for a known domain, 404 for another."""
        answer = self.edge.raw(f"GET / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
        return first_status(answer)

    @test
    def sighup_adds_and_removes_routes(self):
        check_equal((self.status_of(SECOND), self.status_of(THIRD)), (301, 404), "before")
        self.set_routes({"domain": APP}, {"domain": THIRD})
        wait_until(lambda: self.status_of(THIRD) == 301, 10, "the new route is there")
        check_equal(self.status_of(SECOND), 404, "status of the removed route")
        wait_until_served(self.edge, THIRD, 10)
        self.set_routes({"domain": APP}, {"domain": SECOND})
        wait_until(lambda: self.status_of(SECOND) == 301 and self.status_of(THIRD) == 404, 10, "it is as before")
        wait_until_served(self.edge, SECOND, 10)

    @test
    def a_route_that_is_switched_off_is_a_503_at_once(self):
        self.set_routes({"domain": APP}, {"domain": SECOND, "enabled": False})
        wait_until_served(self.edge, SECOND, 10, status=503)
        self.set_routes({"domain": APP}, {"domain": SECOND})
        wait_until_served(self.edge, SECOND, 10)

    @test
    def what_is_under_way_never_notices_a_reload(self):
        """Answers, uploads, streams and WebSockets of an untouched route through ten reloads that change another; and every normal request."""
        with Wire(self.edge, APP) as slow, Wire(self.edge, APP) as upload, H2(self.edge, APP) as h2, Wire(self.edge, APP) as kept:
            h2.ready()
            slow.send(get(target=b"/drip/reloaded"))
            check_equal(slow.head().status, 200, "status of a slow answer")
            upload.send(f"POST /upload/reloaded HTTP/1.1\r\nHost: {APP}\r\nContent-Length: 20\r\n\r\n0123456789".encode())
            stream = h2.request("/drip/reloaded2")
            h2.head(stream)
            websocket, over_h2 = WireWebSocket(self.edge, APP), H2WebSocket(h2)
            kept.send(get())
            check_equal(kept.answer().status, 200, "status of a kept connection")
            with Bystander(self.edge, APP) as bystander:
                for number in range(10):
                    routes = [{"domain": APP}, {"domain": SECOND}] + [{"domain": THIRD}] * (number % 2 == 0)
                    self.set_routes(*routes)
                    wait_until(lambda: self.status_of(THIRD) == (301 if number % 2 == 0 else 404), 10, f"reload {number} has happened")
                    for one in (websocket, over_h2):
                        one.send(TEXT, b"message %d" % number)
                        check_equal(one.receive(), (TEXT, b"message %d" % number), "echo")
                bystander.answers(3)
            bystander.check(2)
            upload.send(b"0123456789")
            check_equal(upload.answer().status, 200, "status of the upload")
            self.origin.get("/release/reloaded")
            self.origin.get("/release/reloaded2")
            check(b"second" in slow.until(b"0\r\n\r\n"), "the rest of the slow answer")
            check_equal((h2.response(stream).body, h2.goaway), (b"first\nsecond\n", None), "the slow stream, and GOAWAY")
            kept.send(get())
            check_equal(kept.answer().status, 200, "status of the kept connection")
            websocket.close()

    @test
    def a_websocket_of_a_removed_route_ends(self):
        """Its close frame says 1001, or the connection ends."""
        websocket = WireWebSocket(self.edge, SECOND)
        other = WireWebSocket(self.edge, APP)
        try:
            self.set_routes({"domain": APP})
            wait_until(lambda: self.status_of(SECOND) == 404, 10, "the route is gone")
            try:
                check_equal(websocket.receive(), (CLOSE, GOING_AWAY), "what the WebSocket says")
            except Ended:
                pass
            other.send(TEXT, b"still here")
            check_equal(other.receive(), (TEXT, b"still here"), "echo of the other")
        finally:
            websocket.close()
            other.close()
            self.set_routes({"domain": APP}, {"domain": SECOND})
        wait_until_served(self.edge, SECOND, 10)

    @test
    def sighup_changes_peers_and_the_others_keep_their_sessions(self):
        path = os.path.join(self.chain.directory, "gateway.conf")
        with open(path) as file:
            before = file.read()
        other = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

        def peers():
            return {peer["publicKey"]: peer for peer in self.gateway.status()["peers"]}

        (key, first), = peers().items()
        websocket = WireWebSocket(self.edge, APP)
        try:
            self.chain.write("gateway.conf", before + f"\n[Peer]\nPublicKey = {other}\nAllowedIPs = 10.1.0.77/32\n")
            self.reload()
            wait_until(lambda: other in peers(), 10, "the new peer is there")
            check_equal(peers()[other]["allowedIPs"], ["10.1.0.77/32"], "its addresses")
            websocket.send(TEXT, b"still here")
            check_equal(websocket.receive(), (TEXT, b"still here"), "echo")
            self.chain.write("gateway.conf", before)
            self.reload()
            wait_until(lambda: other not in peers(), 10, "the peer is gone")
            now = peers()[key]
            check_equal((now["hasSession"], now["endpoint"]), (True, first["endpoint"]), "session and endpoint of the peer that stayed")
            websocket.send(TEXT, b"still here")
            check_equal(websocket.receive(), (TEXT, b"still here"), "echo")
        finally:
            self.chain.write("gateway.conf", before)
            websocket.close()

    @test
    def sighup_changes_the_targets_of_an_agent(self):
        """Connections that the gateway keeps for later do not lead to the old target."""
        path = os.path.join(self.chain.directory, "agent.toml")
        with open(path) as file:
            before = file.read()

        def set_targets(text):
            self.chain.write("agent.toml", text)
            self.chain.agent.process.send_signal(signal.SIGHUP)

        wait_until_served(self.edge, APP, 10)
        nobody = f"127.0.0.1:{free_port()}"
        try:
            set_targets(before.replace(self.origin.target, nobody))
            wait_until_served(self.edge, APP, 10, status=502)
            tunnel = f'[[tunnel]]\ndomain = "{APP}"\ntarget = "{self.origin.target}"\n'
            set_targets(before.replace(self.origin.target, nobody) + tunnel)
            wait_until_served(self.edge, APP, 10)
        finally:
            set_targets(before)
        wait_until_served(self.edge, APP, 10)
        check_equal(self.edge.status_of(APP), 200, "status with the old target again")

    @test
    def a_bad_file_changes_nothing_and_says_why(self):
        good = self.chain.gateway_text()
        faults = {
            "a syntax error": good.replace("[wireguard]", "[wireguard"), "an unknown key": 'colour = "red"\n' + good,
            "a bad route": good.replace(f'"{SECOND}"', '"-a..b"'), "no WireGuard file": good.replace("gateway.conf", "missing.conf"), "an empty file": "",
        }
        try:
            for what, text in faults.items():
                before = len(self.gateway.process.output())
                self.chain.write("gateway.toml", text)
                self.reload()
                said = wait_until(
                    lambda: [line for line in self.gateway.process.output()[before:].splitlines() if re.search(r'"level":"(ERROR|WARN)', line)], 10,
                    f"{what} is told")
                check(any(".toml" in line or "missing.conf" in line for line in said), f"{what}: the file is not named: {said}")
                for domain in (APP, SECOND):
                    check_equal(self.edge.status_of(domain), 200, f"status of {domain} after {what}")
        finally:
            self.chain.write("gateway.toml", good)
        self.set_routes({"domain": APP}, {"domain": SECOND}, {"domain": THIRD})
        wait_until(lambda: self.status_of(THIRD) == 301, 10, "a good file counts again")

    @test
    def certificates_that_were_replaced_are_shown_to_new_connections(self):
        directory = self.lab.private_directory("certificate-conf")
        path, key = os.path.join(directory, "site.pem"), os.path.join(directory, "site.key")
        self.make_certificate(path, key, "first")
        chain = Chain(self.program, self.lab, self.origin.target, options=["--cert", path, "--key", key], name="pem-")
        edge = Edge(chain.edge.https_port, chain.edge.http_port, path)
        wait_until_served(edge, APP, 20)
        with Wire(edge, APP) as kept:
            kept.send(get())
            check_equal(kept.answer().status, 200, "status")
            certificate = self.shown(edge)
            self.make_certificate(path, key, "second")
            chain.gateway.process.send_signal(signal.SIGHUP)
            wait_until(lambda: self.shown(edge) != certificate, 10, "the new certificate is shown")
            kept.send(get())
            check_equal(kept.answer().status, 200, "status on the connection from before")
        certificate = self.shown(edge)
        # A key that does not belong to it: the good pair stays.
        with open(key, "w") as file:
            file.write("no key\n")
        before = len(chain.gateway.process.output())
        chain.gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "site.key" in chain.gateway.process.output()[before:], 10, "the fault is told")
        check_equal(self.shown(edge), certificate, "the certificate after a bad key")
        check_equal(edge.status_of(APP), 200, "status after a bad key")
        chain.gateway.process.stop()
        chain.agent.process.stop()

    def make_certificate(self, path, key, name):
        """Both files are written beside and moved, the key first."""
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
             "-addext", f"subjectAltName=DNS:{APP}", "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-keyout", key + ".new",
             "-out", path + ".new"], check=True, capture_output=True)
        for file, mode in ((key, 0o600), (path, 0o644)):
            os.rename(self.lab.own(file + ".new", mode), file)

    @staticmethod
    def shown(edge):
        # Which one is shown is the question, not whether it is trusted: the file of the authority changes before the gateway does.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((edge.address, edge.https_port), timeout=15) as raw, context.wrap_socket(
                raw, server_hostname=APP) as connection:
            return connection.getpeercert(binary_form=True)

    def read(self, name):
        with open(os.path.join(self.chain.directory, name)) as file:
            return file.read()

    def reload_and_read(self, words):
        """Lines of the log since the reload, when one has the words."""
        before = len(self.gateway.process.output())
        self.reload()
        return wait_until(
            lambda: [line for line in self.gateway.process.output()[before:].splitlines() if words in line], 20, f"the log says {words!r}")

    @test
    def an_address_that_changed_in_the_file_cuts_nothing_off(self):
        """It counts from the next start on: routes of before, new ones and added ones go on over the interface's own."""
        before, fourth = self.read("gateway.conf"), "fourth.example.com"
        address = re.search(r"Address = ([0-9.]+)/24", before)[1]
        try:
            self.chain.write("gateway.conf", before.replace(f"Address = {address}/24", "Address = 10.1.0.200/24"))
            self.chain.routes = [{"domain": APP}, {"domain": SECOND}, {"domain": THIRD}]
            self.chain.write_gateway()
            said = self.reload_and_read("These settings change at the next start only")
            check("WireGuard's addresses" in said[0], said)
            wait_until_served(self.edge, THIRD, 10)
            check_equal([self.edge.status_of(domain) for domain in (APP, SECOND)], [200, 200], "status of the other routes")
            result = self.program.run(self.lab, route_add(self.gateway.state, fourth, "10.1.0.2"))
            check_equal(result.returncode, 0, f"exit code of route add ({result.stderr.strip()})")
            wait_until_served(self.edge, fourth, 5)
            self.program.run(self.lab, route_remove(self.gateway.state, fourth))
        finally:
            self.chain.write("gateway.conf", before)
            self.set_routes({"domain": APP}, {"domain": SECOND})
        wait_until(lambda: self.status_of(THIRD) == 404, 10, "it is as before")

    @test
    def a_private_key_that_changed_in_the_file_changes_no_peers(self):
        before, key = self.read("gateway.conf"), "GPkx7kUkGKRoyXUFV3PHl2T2ZVkKYzZiuOZJwLTXQXE="
        known = [peer["publicKey"] for peer in self.gateway.status()["peers"]]
        other = re.sub(r"PrivateKey = .*", f"PrivateKey = {key}", re.sub(r"PublicKey = .*", "PublicKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", before))
        websocket = WireWebSocket(self.edge, APP)
        try:
            self.chain.write("gateway.conf", other)
            said = self.reload_and_read("another private key")
            check("restart" in said[0], said)
            check_equal([peer["publicKey"] for peer in self.gateway.status()["peers"]], known, "peers")
            websocket.send(TEXT, b"still here")
            check_equal(websocket.receive(), (TEXT, b"still here"), "echo")
            check_equal(self.edge.status_of(APP), 200, "status")
        finally:
            self.chain.write("gateway.conf", before)
            websocket.close()
        self.reload_and_read("Configuration reloaded")

    @test
    def files_are_served_until_the_start_that_begins_acme(self):
        directory = self.lab.private_directory("to-acme")
        path, key = os.path.join(directory, "site.pem"), os.path.join(directory, "site.key")
        self.make_certificate(path, key, "site")
        text = self.chain.gateway_text()
        edge = Edge(self.edge.https_port, self.edge.http_port, path)
        try:
            self.chain.write("gateway.toml", text + f'[[certificate]]\ncert = "{path}"\nkey = "{key}"\n')
            self.reload_and_read("Configuration reloaded")
            certificate = self.shown(edge)
            check_equal(edge.status_of(APP), 200, "status with the file")
            self.chain.write("gateway.toml", text + '[acme]\nemail = "me@example.org"\n')
            said = self.reload_and_read("ACME begins at the next start only")
            check("restart" in said[0], said)
            check_equal(self.shown(edge), certificate, "the certificate")
            check_equal(edge.status_of(APP), 200, "status")
        finally:
            self.chain.write("gateway.toml", text)
            self.reload()
        wait_until_served(self.edge, APP, 10)

    # Routes by command

    @test
    def routes_are_added_removed_and_listed_by_command(self):
        def run(command):
            result = self.program.run(self.lab, command)
            check_equal(result.returncode, 0, f"exit code of {command[:3]} ({result.stderr.strip()})")
            return result.stdout

        state, fourth = self.gateway.state, "fourth.example.com"
        websocket = WireWebSocket(self.edge, APP)
        try:
            check(APP in run(route_list(state)) and fourth not in run(route_list(state)), "the list before")
            run(route_add(state, fourth, "10.1.0.2"))
            check(fourth in run(route_list(state)), "the added route is not in the list")
            wait_until_served(self.edge, fourth, 5)
            run(route_remove(state, fourth))
            check(fourth not in run(route_list(state)), "the removed route is in the list")
            check_equal(self.status_of(fourth), 404, "status of the removed route")
            for command in (route_remove(state, fourth), route_add(state, "-a..b", "10.1.0.2"), route_add(state, "x.example.com", "10.1.0.300")):
                result = self.program.run(self.lab, command)
                check(0 < result.returncode < 128 and result.stderr + result.stdout, f"exit code {result.returncode} of {command[:3]}")
            websocket.send(TEXT, b"still here")
            check_equal(websocket.receive(), (TEXT, b"still here"), "echo")
        finally:
            websocket.close()

    # Drain

    def start_again(self):
        """The test before has stopped the gateway, unless it failed."""
        self.gateway.process.stop()
        self.gateway.start()
        wait_until_served(self.edge, APP, 40)

    def refuses(self):
        try:
            socket.create_connection((self.edge.address, self.edge.https_port), timeout=2).close()
            return False
        except OSError:
            return True

    @test
    def sigterm_drains(self):
        """What is under way ends in order, each kind of connection is told, nothing new is let in, and then the process ends at once."""
        self.start_again()
        process = self.gateway.process
        with Wire(self.edge, APP, timeout=20) as slow, Wire(self.edge, APP, timeout=20) as upload, H2(self.edge, APP, timeout=20) as h2, \
                H2(self.edge, APP, timeout=20) as idle, Wire(self.edge, APP) as kept, H2(self.edge, APP, timeout=20) as sockets:
            for one in (h2, idle, sockets):
                one.ready()
            slow.send(get(target=b"/drip/drained"))
            head = slow.head()
            check_equal(head.status, 200, "status of a slow answer")
            upload.send(f"POST /upload/drained HTTP/1.1\r\nHost: {APP}\r\nContent-Length: 20\r\n\r\n0123456789".encode())
            self.origin.wait_for("drained", lambda seen: seen.get("received") == 10, 5, "the upload has begun")
            stream = h2.request("/drip/drained2")
            h2.head(stream)
            kept.send(get())
            check_equal(kept.answer().status, 200, "status of a kept connection")
            websocket, over_h2 = WireWebSocket(self.edge, APP), H2WebSocket(sockets)
            process.expected_to_run = False
            process.send_signal(signal.SIGTERM)
            wait_until(self.refuses, 5, "new connections are refused")
            check_equal(websocket.receive(), (CLOSE, GOING_AWAY), "what the WebSocket says")
            websocket.send(CLOSE, GOING_AWAY)
            check_equal(over_h2.receive(), (CLOSE, GOING_AWAY), "what the WebSocket over HTTP/2 says")
            over_h2.send(CLOSE, GOING_AWAY)
            sockets.data(over_h2.stream, b"", end=True)
            check(idle.ends(5), "an idle connection of HTTP/2 stays open")
            check_equal(idle.goaway, NO_ERROR, "GOAWAY of an idle connection")
            check(kept.ends(5), "an idle connection stays open")
            h2.until(lambda: h2.goaway is not None, "GOAWAY")
            check_equal(h2.goaway, NO_ERROR, "code of GOAWAY")
            # A stream beyond what GOAWAY names is not served; the one in hand is.
            upload.send(b"0123456789")
            answer = upload.answer()
            check_equal((answer.status, "close" in (answer.get("connection") or "").lower()), (200, True), "status of the upload, and Connection: close")
            check(process.is_running, "the gateway has ended with answers under way")
            self.origin.get("/release/drained")
            self.origin.get("/release/drained2")
            check(b"second" in slow.until(b"0\r\n\r\n"), "the rest of the slow answer")
            check(slow.ends(5), "the connection of the slow answer stays open")
            check_equal(h2.response(stream).body, b"first\nsecond\n", "the slow stream")
            start = time.monotonic()
            check(h2.ends(5), "the connection of HTTP/2 stays open")
            check_equal(process.wait(10), 0, "exit code")
            check(time.monotonic() - start < 3, f"the gateway took {time.monotonic() - start:.1f} s when nothing was left")
            websocket.close()

    @test
    def new_streams_during_the_drain_are_not_half_served(self):
        """A stream behind GOAWAY's last one is refused or ignored, one before it is served."""
        self.start_again()
        process = self.gateway.process
        with H2(self.edge, APP, timeout=20) as h2:
            h2.ready()
            held = h2.request("/drip/held")
            h2.head(held)
            process.expected_to_run = False
            process.send_signal(signal.SIGTERM)
            h2.until(lambda: h2.goaway is not None, "GOAWAY")
            late = h2.request()
            self.origin.get("/release/held")
            check_equal(h2.response(held).body, b"first\nsecond\n", "the stream in hand")
            try:
                response = h2.response(late, 5)
                check(response.status == 200 and response.ended or response.reset == 7, f"the late stream: {response}")
            except (Closed, TimeoutError):
                pass
        check_equal(process.wait(10), 0, "exit code")

    @test
    def the_drain_has_a_deadline(self):
        """A client that never ends does not keep the process."""
        self.start_again()
        process = self.gateway.process
        with Wire(self.edge, APP) as wire, H2(self.edge, APP) as h2:
            h2.ready()
            wire.send(get(target=b"/endless/undrained"))
            check_equal(wire.head().status, 200, "status")
            h2.request("/upload/undrained2", "POST", end=False)
            websocket = WireWebSocket(self.edge, APP)
            process.expected_to_run = False
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            check_equal(process.wait(60), 0, "exit code")
            check(time.monotonic() - start < 45, f"the gateway took {time.monotonic() - start:.0f} s")
            websocket.close()

    @test
    def a_file_that_does_not_answer_keeps_nothing_up(self):
        """A pipe that nobody writes into: requests are served, after 10 s the reload ends, and SIGTERM is obeyed at once."""
        self.start_again()
        process, text = self.gateway.process, self.chain.gateway_text()
        pipe = os.path.join(self.chain.directory, "silent.conf")
        os.mkfifo(pipe)
        self.lab.own(pipe, 0o600)
        self.chain.write("gateway.toml", text.replace('"gateway.conf"', '"silent.conf"'))
        try:
            before = len(process.output())
            self.reload()
            check_equal(self.edge.status_of(APP), 200, "status during the reload")
            wait_until(lambda: "is not reloaded" in process.output()[before:], 20, "the reload ends")
            check("silent.conf has not ended within 10 s" in process.output()[before:], "the file is not named")
            self.reload()
            check_equal(self.edge.status_of(APP), 200, "status during the second reload")
            process.expected_to_run = False
            process.send_signal(signal.SIGTERM)
            start = time.monotonic()
            check_equal(process.wait(10), 0, "exit code")
            check(time.monotonic() - start < 5, f"the gateway took {time.monotonic() - start:.1f} s")
        finally:
            self.chain.write("gateway.toml", text)

    @test
    def a_second_signal_ends_at_once(self):
        self.start_again()
        process = self.gateway.process
        with Wire(self.edge, APP) as wire:
            wire.send(get(target=b"/endless/twice"))
            check_equal(wire.head().status, 200, "status")
            process.expected_to_run = False
            process.send_signal(signal.SIGTERM)
            wait_until(self.refuses, 5, "new connections are refused")
            process.send_signal(signal.SIGTERM)
            check_equal(process.wait(3), 128 + signal.SIGTERM, "exit code")
