"""Web services that answer oddly, and web services that answer wrongly."""

import http.client
import os
import re
import socket
import ssl

from interop.canned import RIGHT, SURPLUS, TORN, WRONG, CannedOrigin
from interop.client import first_status, read_all
from interop.nodes import Agent, Gateway, wait_until_served
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port

APP = "app.example.com"


class SUITE(Suite):
    tools = ["setpriv"]

    def set_up(self):
        lab = self.lab
        udp = free_port(socket.SOCK_DGRAM)
        out = lab.private_directory("conf")
        result = self.program.run(lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{udp}", "--out", out])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        self.origin = CannedOrigin()
        lab.on_close(self.origin.close)
        self.gateway = Gateway(self.program, lab, os.path.join(out, "gateway.conf"), [f"{APP}=10.1.0.2"])
        self.agent = Agent(self.program, lab, os.path.join(out, "agent.conf"), self.origin.target)
        self.edge = self.gateway.edge
        wait_until_served(self.edge, APP, 20, path="/plain")

    def answer(self, path, version="1.1", method="GET"):
        with self.edge.open_tls(APP) as connection:
            connection.sendall(f"{method} {path} HTTP/{version}\r\nHost: {APP}\r\nConnection: close\r\n\r\n".encode())
            return read_all(connection)

    @test
    def odd_but_right_answers_pass(self):
        for path in RIGHT:
            status, _, body = self.edge.request(APP, path=path)
            expected = {"/no-content": (204, b""), "/not-modified": (304, b"")}.get(path, (200, b"ok"))
            check_equal((status, body), expected, f"status and body of {path}")

    @test
    def repeated_fields_stay_apart(self):
        check_equal(len(re.findall(rb"(?i)\r\nset-cookie: [ab]=", self.answer("/lower-case"))), 2, "Set-Cookie fields")

    @test
    def an_informational_answer_passes(self):
        answer = self.answer("/early-hints")
        check_equal(first_status(answer), 103, "first status")
        check(b"HTTP/1.1 200 OK\r\n" in answer, f"final answer: {answer[:300]}")
        check_equal(first_status(self.answer("/early-hints", "1.0")), 200, "first status for HTTP/1.0")

    @test
    def trailers_pass(self):
        check(re.search(rb"(?i)\r\n0\r\nx-sum: 42\r\n\r\n$", self.answer("/trailers")), f"answer: {self.answer('/trailers')}")

    @test
    def http_1_0_clients_get_no_chunks(self):
        answer = self.answer("/extension", "1.0")
        check_equal(answer.partition(b"\r\n\r\n")[2], b"ok", "body")
        check(b"chunked" not in answer, f"answer: {answer}")

    @test
    def wrong_answers_are_a_502(self):
        wrong = []
        for path in WRONG:
            # Informational answers may have gone ahead.
            statuses = re.findall(rb"HTTP/1\.1 (\d{3})", self.answer(path))
            if statuses[-1:] != [b"502"]:
                wrong.append(f"{path}: {statuses}")
        check(not wrong, f"instead of 502: {wrong}")

    @test
    def torn_answers_are_never_complete(self):
        for path in TORN:
            connection = self.edge.connection(APP)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
                check(response.status == 502, f"{path} looks complete: {response.status} {body!r}")
            except (http.client.HTTPException, ConnectionError, ssl.SSLError, ValueError):
                pass
            finally:
                connection.close()

    @test
    def surplus_bytes_are_nobodys_answer(self):
        for path in SURPLUS:
            for _ in range(20):
                connection = self.edge.connection(APP)
                try:
                    for step in (path, "/plain"):
                        connection.request("GET", step)
                        check_equal(connection.getresponse().read(), b"ok", f"body of {step}")
                except (http.client.HTTPException, ConnectionError):
                    pass
                finally:
                    connection.close()

    @test
    def the_others_are_served_as_before(self):
        check_equal(self.edge.request(APP, path="/plain")[2], b"ok", "body")
        for process in (self.gateway.process, self.agent.process):
            check(process.peak_memory() < 100, f"peak memory of the {process.name}: {process.peak_memory():.0f} MB")
