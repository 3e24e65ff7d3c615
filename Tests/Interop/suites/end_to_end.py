"""Gateway and agent as ordinary processes of an unprivileged user on loopback, configured by `kakuremichi init`."""

import json
import os
import re
import ssl
import stat
import threading

from interop.client import curl, download, first_status, pattern_file, read_all, upload
from interop.nodes import Agent, Gateway, Origin, wait_until_served
from interop.origin import PAGE, pattern
from interop.runner import Suite, test
from interop.system import Failure, check, check_equal, free_port, wait_until
from interop.websocket import echo_messages
import socket

LARGE = 100_000_000
APP, OTHER, ABSENT = "app.example.com", "other.example.com", "test.example.com"
SECRETS = {"Authorization": "Bearer not-for-the-log-1", "Cookie": "session=not-for-the-log-2"}


class SUITE(Suite):
    tools = ["curl", "setpriv"]

    def set_up(self):
        lab = self.lab
        self.out = lab.private_directory("conf")
        udp = free_port(socket.SOCK_DGRAM)
        self.init = self.program.run(lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{udp}", "--out", self.out])
        check_equal(self.init.returncode, 0, f"exit code of init ({self.init.stderr.strip()})")
        self.origin = Origin(lab)
        agent_ip = self.agent_address()
        self.gateway = Gateway(
            self.program, lab, os.path.join(self.out, "gateway.conf"),
            [f"{APP}={agent_ip}", f"{OTHER}={agent_ip}", f"{ABSENT}=10.1.0.100"] if agent_ip.startswith("10.1.0.") else
            [f"{APP}={agent_ip}", f"{OTHER}={agent_ip}", f"{ABSENT}={agent_ip.rpartition('.')[0]}.100"],
            options=["--log-level", "trace"])
        self.agent = Agent(
            self.program, lab, os.path.join(self.out, "agent.conf"), self.origin.target, options=["--log-level", "trace"])
        self.edge = self.gateway.edge
        self.file = pattern_file(lab.directory, LARGE)

    def agent_address(self):
        with open(os.path.join(self.out, "agent.conf")) as file:
            match = re.search(r"^Address\s*=\s*([0-9.]+)", file.read(), re.MULTILINE)
        check(match, "agent.conf has no IPv4 Address")
        return match[1]

    # Making the configuration

    @test
    def init_writes_private_files_and_prints_both_commands(self):
        for name in ("gateway.conf", "agent.conf"):
            mode = stat.S_IMODE(os.stat(os.path.join(self.out, name)).st_mode)
            check_equal(oct(mode), "0o600", f"mode of {name}")
        for command in ("kakuremichi gateway", "kakuremichi agent"):
            check(command in self.init.stdout, f"`init` does not print the command `{command} ...`: {self.init.stdout}")

    @test
    def init_does_not_overwrite(self):
        before = open(os.path.join(self.out, "agent.conf")).read()
        result = self.program.run(self.lab, ["init", "--domain", APP, "--endpoint", "127.0.0.1:51820", "--out", self.out])
        check(result.returncode != 0, "a second init into the same directory says it succeeded")
        check_equal(open(os.path.join(self.out, "agent.conf")).read(), before, "agent.conf after a second init")

    # HTTP

    @test
    def an_html_page(self):
        wait_until_served(self.edge, APP, 15)
        status, fields, body = self.edge.request(APP)
        check_equal((status, body), (200, PAGE), "status and page")
        check_equal(fields.get("content-type"), "text/html", "Content-Type")

    @test
    def two_requests_on_one_connection(self):
        connection = self.edge.connection(APP)
        try:
            for count in (10, 20_000, 0):
                connection.request("GET", f"/bytes/{count}")
                response = connection.getresponse()
                check_equal((response.status, response.read()), (200, b"".join(pattern(count))), f"answer of /bytes/{count}")
                check(connection.sock is not None, "the gateway closed the connection after an answer")
        finally:
            connection.close()

    @test
    def pipelined_requests_are_answered_in_order(self):
        head = "GET /bytes/{} HTTP/1.1\r\nHost: " + APP + "\r\n{}\r\n"
        requests = head.format(1111, "") + head.format(2222, "") + head.format(3333, "Connection: close\r\n")
        answer = self.edge.raw(requests.encode(), APP)
        lengths = re.findall(rb"(?i)content-length: (\d+)", answer)
        check_equal(lengths, [b"1111", b"2222", b"3333"], "lengths of the answers")

    @test
    def chunked_both_ways(self):
        connection = self.edge.connection(APP)
        try:
            text = b"".join(pattern(300_000))
            pieces = [text[offset:offset + 7001] for offset in range(0, len(text), 7001)]
            connection.request("POST", "/echo", body=iter(pieces), headers={"Transfer-Encoding": "chunked"}, encode_chunked=True)
            response = connection.getresponse()
            check_equal(response.getheader("Transfer-Encoding"), "chunked", "Transfer-Encoding of the answer")
            check_equal(response.read(), text, "echo of a chunked body")
        finally:
            connection.close()

    @test
    def head_has_the_length_and_no_body(self):
        answer = self.edge.raw(f"HEAD /bytes/12345 HTTP/1.1\r\nHost: {APP}\r\nConnection: close\r\n\r\n".encode(), APP)
        check(re.search(rb"(?i)content-length: 12345", answer), f"no Content-Length 12345: {answer[:300]}")
        check(answer.endswith(b"\r\n\r\n"), "bytes follow the head of an answer to HEAD")
        connection = self.edge.connection(APP)
        try:
            for method in ("HEAD", "GET"):
                connection.request(method, "/bytes/100")
                response = connection.getresponse()
                check_equal(len(response.read()), 0 if method == "HEAD" else 100, f"length after {method}")
        finally:
            connection.close()

    @test
    def http_1_0_clients_are_served_and_closed(self):
        answer = self.edge.raw(f"GET /chunked/3000 HTTP/1.0\r\nHost: {APP}\r\n\r\n".encode(), APP)
        check_equal((first_status(answer), answer.partition(b"\r\n\r\n")[2]), (200, b"".join(pattern(3000))), "status and body")

    @test
    def expect_100_continue_is_asked_of_the_origin(self):
        with self.edge.open_tls(APP) as connection:
            connection.sendall(
                f"POST /upload/expecting HTTP/1.1\r\nHost: {APP}\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n".encode())
            first = connection.recv(4096)
            check_equal(first_status(first), 100, "status before the body is sent")
            connection.sendall(b"hello")
            answer = read_all(connection)
        check(b'"length": 5' in answer, f"final answer: {answer[:300]}")
        check_equal(self.origin.seen("expecting").get("expect"), "100-continue", "Expect at the origin")

    @test
    def the_target_sees_host_and_forwarded_fields(self):
        spoofed = {
            "X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "evil.example",
            "Connection": "keep-alive, X-Hop", "X-Hop": "1", "Keep-Alive": "timeout=5", "Proxy-Connection": "x", "TE": "trailers",
            "X-Kept": "a  b", **SECRETS,
        }
        status, _, body = self.edge.request(APP, path="/headers/a%2Fb/../c//d?x=1;y=%20&z", headers=spoofed)
        check_equal(status, 200, "status")
        seen = json.loads(body)
        fields = {}
        for name, value in seen["fields"]:
            fields.setdefault(name.lower(), []).append(value)
        check_equal(seen["path"], "/headers/a%2Fb/../c//d?x=1;y=%20&z", "path")
        expected = {
            "host": APP, "x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-host": APP,
            "x-kept": "a  b", "authorization": SECRETS["Authorization"], "cookie": SECRETS["Cookie"],
        }
        for name, value in expected.items():
            check_equal(fields.get(name), [value], f"field {name} at the target")
        for name in ("x-hop", "keep-alive", "proxy-connection"):
            check(name not in fields, f"{name} reached the target: {fields.get(name)}")

    @test
    def an_answer_is_passed_on_as_it_comes(self):
        connection = self.edge.connection(APP, timeout=10)
        try:
            connection.request("GET", "/drip/early")
            response = connection.getresponse()
            check_equal(response.readline(), b"first\n", "the first half, before the origin has made the second")
            self.origin.get("/release/early")
            check_equal(response.read(), b"second\n", "the second half")
        finally:
            connection.close()

    @test
    def a_request_body_is_passed_on_as_it_comes(self):
        with self.edge.open_tls(APP) as connection:
            connection.sendall(f"POST /upload/slow HTTP/1.1\r\nHost: {APP}\r\nContent-Length: 20\r\nConnection: close\r\n\r\n0123456789".encode())
            self.origin.wait_for("slow", lambda seen: seen["received"] == 10, 5, "the origin has the first half of the body")
            connection.sendall(b"0123456789")
            check(b'"length": 20' in read_all(connection), "no answer to the whole body")

    @test
    def download_100_mb(self):
        download(self.edge.curl_options(APP), self.edge.url(APP, f"/bytes/{LARGE}"), LARGE)

    @test
    def upload_100_mb(self):
        upload(self.edge.curl_options(APP), self.edge.url(APP, "/upload"), self.file)

    @test
    def bodies_are_not_held_whole(self):
        for process in (self.gateway.process, self.agent.process):
            peak = process.peak_memory()
            check(peak < 100, f"peak memory of the {process.name} after 100 MB each way: {peak:.0f} MB")

    @test
    def two_hundred_clients_at_once(self):
        """The origin answers when the requests of all clients are there."""
        problems = []

        def client():
            try:
                result = self.edge.request(APP, path="/together/200", timeout=40)
                if (result[0], result[2]) != (200, b"together\n"):
                    problems.append(f"{result[0]} {result[2][:80]!r}")
            except Exception as error:
                problems.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=client) for _ in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        check(not problems, f"{len(problems)} of 200 clients failed: {sorted(set(problems))[:5]}")

    @test
    def websocket_echo(self):
        echo_messages(self.edge, APP)
        self.origin.wait_for("websocket", lambda seen: seen.get("close_code") == 1000, 5, "the close frame reached the origin")

    @test
    def a_client_that_leaves_closes_the_origins_connection(self):
        connection = self.edge.connection(APP)
        connection.request("GET", "/endless/leaver")
        response = connection.getresponse()
        check_equal(len(response.read(1_000_000)), 1_000_000, "bytes before the client leaves")
        response.close()
        connection.close()
        self.origin.wait_for("leaver", lambda seen: seen.get("closed"), 5, "the origin's connection is closed")

    @test
    def a_client_that_leaves_an_upload_ends_it_at_the_origin(self):
        with self.edge.open_tls(APP) as connection:
            connection.sendall(f"POST /upload/torn HTTP/1.1\r\nHost: {APP}\r\nContent-Length: 1000000\r\n\r\n".encode() + b"x" * 1000)
            self.origin.wait_for("torn", lambda seen: seen["received"] == 1000, 5, "the first bytes are there")
        self.origin.wait_for("torn", lambda seen: seen["ended"] == "cut off", 5, "the origin sees the upload end")

    @test
    def a_slow_reader_stops_the_origin(self):
        """Back-pressure through gateway, tunnel and agent: the origin stands still when the client does not read."""
        connection = self.edge.connection(APP)
        try:
            connection.request("GET", "/endless/lazy")
            check_equal(connection.getresponse().status, 200, "status")
            samples = []

            def stands_still():
                samples.append(self.origin.seen("lazy").get("sent", 0))
                return len(samples) > 10 and samples[-1] > 0 and samples[-1] == samples[-10]

            wait_until(stands_still, 20, "the origin stops sending to a client that does not read", interval=0.1)
            check(samples[-1] < 64 << 20, f"{samples[-1] >> 20} MB were taken from the origin for a client that reads nothing")
        finally:
            connection.close()
        self.origin.wait_for("lazy", lambda seen: seen.get("closed"), 10, "the origin's connection is closed afterwards")

    @test
    def an_origin_that_breaks_off_is_no_complete_answer(self):
        with self.edge.open_tls(APP) as connection:
            connection.sendall(f"GET /break HTTP/1.1\r\nHost: {APP}\r\n\r\n".encode())
            answer = read_all(connection)
        check_equal(first_status(answer), 200, "status")
        check(len(answer.partition(b"\r\n\r\n")[2]) <= 5000, "the answer was filled up")

    # Routing and TLS

    @test
    def a_tunnel_without_an_agent_is_not_a_404(self):
        status, _, _ = self.edge.request(ABSENT, timeout=15)
        check(status in (502, 503), f"status {status}")

    @test
    def an_unknown_host_is_a_404(self):
        status, _, body = self.edge.request(APP, headers={"Host": "nobody.example.net"})
        check_equal(status, 404, "status")
        check(b"Tunnel not found" in body, f"body {body[:100]!r}")

    @test
    def an_unknown_sni_ends_with_alert_112(self):
        try:
            self.edge.open_tls("nobody.example.net").close()
        except ssl.SSLError as error:
            check_equal(error.reason, "TLSV1_UNRECOGNIZED_NAME", "OpenSSL's name of the alert")
        else:
            raise Failure("the handshake for an unknown name succeeded")

    @test
    def a_handshake_without_a_name_gets_no_certificate(self):
        context = self.edge.tls_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with socket.create_connection((self.edge.address, self.edge.https_port), timeout=10) as raw:
            try:
                context.wrap_socket(raw).close()
            except (ssl.SSLError, ConnectionError):
                return
        raise Failure("the handshake succeeded")

    @test
    def old_tls_versions_are_refused(self):
        result = os.popen(
            f"echo | timeout 5 openssl s_client -connect 127.0.0.1:{self.edge.https_port} -servername {APP} -tls1_1 "
            "-cipher DEFAULT@SECLEVEL=0 2>&1").read()
        check("Cipher is (NONE)" in result or "alert protocol version" in result, f"TLS 1.1 was accepted: {result[-300:]}")

    @test
    def a_host_the_certificate_does_not_cover_is_misdirected(self):
        check_equal(self.edge.request(OTHER)[0], 200, "status under its own certificate")
        check_equal(self.edge.request(APP, headers={"Host": OTHER})[0], 421, "status under another's certificate")

    @test
    def plain_http_redirects(self):
        for method, expected in (("GET", 301), ("HEAD", 301), ("POST", 308), ("DELETE", 308)):
            answer = self.edge.raw(
                f"{method} /a%2Fb/../c?x=1;y&z=%20 HTTP/1.1\r\nHost: {APP}:{self.edge.http_port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            check_equal(first_status(answer), expected, f"status of a plain {method}")
            location = re.search(rb"(?i)\r\nlocation: (.*?)\r\n", answer)
            check_equal(location and location[1].decode(), self.edge.url(APP, "/a%2Fb/../c?x=1;y&z=%20"), "Location")

    @test
    def plain_http_for_an_unknown_host_is_a_404(self):
        answer = self.edge.raw(b"GET / HTTP/1.1\r\nHost: nobody.example.net\r\nConnection: close\r\n\r\n")
        check_equal(first_status(answer), 404, "status")
        check(b"Tunnel not found" in answer, f"body: {answer[-100:]}")

    @test
    def host_names_are_compared_as_names(self):
        for host in ("APP.Example.COM", f"{APP}.", f"{APP}:{self.edge.https_port}"):
            check_equal(self.edge.request(APP, headers={"Host": host})[0], 200, f"status for Host: {host}")

    @test
    def connections_of_the_past_leave_nothing_open(self):
        """All clients are gone: what is left is listeners, the UDP socket and the process's own."""
        path = f"/proc/{self.gateway.process.pid}/fd"
        wait_until(lambda: len(os.listdir(path)) < 60, 20, f"fewer than 60 open descriptors of the gateway; there are {len(os.listdir(path))}")

    # Status and logs

    @test
    def status_names_peers_handshake_routes_and_listeners(self):
        check(self.gateway.status(), "`status --json` of the gateway fails")
        text = json.dumps(self.gateway.status())
        for part in (APP, OTHER, ABSENT, self.agent_address(), str(self.edge.https_port), str(self.edge.http_port)):
            check(part in text, f"{part} is not in the gateway's status: {text}")
        check(re.search(r"(?i)handshake", text), f"no handshake in the status: {text}")
        check(self.agent.status(), "`status --json` of the agent fails")
        for state in (self.gateway.state, self.agent.state):
            result = self.program.run(self.lab, ["status", "--state", state])
            check_equal(result.returncode, 0, "exit code of `status`")
            check(len(result.stdout.splitlines()) > 2, f"`status` says little: {result.stdout}")
            mode = stat.S_IMODE(os.stat(os.path.join(state, "admin.sock")).st_mode)
            check_equal(oct(mode), "0o600", "mode of admin.sock")

    @test
    def logs_are_json_lines_without_secrets(self):
        keys = re.findall(r"(?:PrivateKey|PresharedKey)\s*=\s*(\S+)", "".join(
            open(os.path.join(self.out, name)).read() for name in ("gateway.conf", "agent.conf")))
        for process in (self.gateway.process, self.agent.process):
            lines = process.output().splitlines()
            check(lines, f"the {process.name} logs nothing on standard output")
            for line in lines:
                check(isinstance(json.loads(line), dict), f"not an object: {line[:200]}")
            everything = process.output() + process.errors()
            for secret in keys + ["not-for-the-log"]:
                check(secret not in everything, f"a secret is in the log of the {process.name}: {secret[:6]}...")

    @test
    def a_second_process_on_the_state_directory_is_refused(self):
        other_ports = ["--https", f"127.0.0.1:{free_port()}", "--http", f"127.0.0.1:{free_port()}"]
        arguments = [*self.gateway.arguments]
        arguments[arguments.index("--https"):arguments.index("--state")] = other_ports
        for command, state in ((arguments, self.gateway.state), (self.agent.arguments, self.agent.state)):
            result = self.program.run(self.lab, command, timeout=10)
            check(result.returncode > 0, f"exit code {result.returncode} of a second {command[0]}")
            check(state in result.stdout + result.stderr, f"the message does not name the directory: {result.stdout}{result.stderr}")
        check_equal(self.edge.request(APP)[0], 200, "status afterwards")

    @test
    def a_tls_session_is_resumed(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.edge.tls_context()
            context.minimum_version = context.maximum_version = version

            def ask(session=None):
                with socket.create_connection((self.edge.address, self.edge.https_port), timeout=15) as raw:
                    with context.wrap_socket(raw, server_hostname=APP, session=session) as connection:
                        connection.sendall(f"GET / HTTP/1.1\r\nHost: {APP}\r\nConnection: close\r\n\r\n".encode())
                        check_equal(first_status(read_all(connection)), 200, f"status over {version.name}")
                        return connection.session_reused, connection.session

            reused, session = ask()
            check(not reused and session, f"no session to resume over {version.name}")
            check(ask(session)[0], f"the session was not resumed over {version.name}")
