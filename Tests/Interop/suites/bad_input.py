"""Wrong configurations, ports that cannot be had, and garbage on every socket."""

import os
import re
import socket

from interop.client import first_status, read_all
from interop.garbage import flood_udp, seed, send_and_close, tcp_inputs
from interop.malformed import REQUESTS
from interop.nodes import Agent, Gateway, Origin, wait_until_served
from interop.product import bound_udp_ports, random_key
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, wait_until
import ssl
import time

APP = "app.example.com"
KEY, PEER = random_key(), random_key()
BAD_KEY = "bm90LWEta2V5LW9mLTMyLWJ5dGVz"
INTERFACE = f"[Interface]\nPrivateKey = {KEY}\nAddress = 10.1.0.1/24\n"
PEER_SECTION = f"[Peer]\nPublicKey = {PEER}\nAllowedIPs = 10.1.0.2/32\n"

# name: (file, line of the fault, words that the message has to hold)
WG_FILES = {
    "a private key of the wrong length": (f"[Interface]\nPrivateKey = {BAD_KEY}\nAddress = 10.1.0.1/24\n", 2, ["PrivateKey", "wg genkey"]),
    "a private key with a stray byte": (f"[Interface]\nPrivateKey = {KEY[:-2]}!=\nAddress = 10.1.0.1/24\n", 2, ["PrivateKey"]),
    "a preshared key that is none": (INTERFACE + PEER_SECTION + f"PresharedKey = {BAD_KEY}\n", 7, ["PresharedKey"]),
    "a public key that is none": (INTERFACE + f"[Peer]\nPublicKey = {BAD_KEY}\n", 5, ["PublicKey"]),
    "a port out of range": (INTERFACE + "ListenPort = 99999\n", 4, ["ListenPort", "99999"]),
    "a port beyond every integer": (INTERFACE + "ListenPort = 99999999999999999999999\n", 4, ["ListenPort"]),
    "a negative MTU": (INTERFACE + "MTU = -1\n", 4, ["MTU"]),
    "an address with too long a prefix": (f"[Interface]\nPrivateKey = {KEY}\nAddress = 10.1.0.1/33\n", 3, ["Address", "10.1.0.1/33"]),
    "allowed IPs that are none": (INTERFACE + PEER_SECTION.replace("10.1.0.2/32", "10.1.0.300/32"), 6, ["AllowedIPs", "10.1.0.300"]),
    "an endpoint without a port": (INTERFACE + PEER_SECTION + "Endpoint = vpn.example.com\n", 7, ["Endpoint", "vpn.example.com"]),
    "a keepalive out of range": (INTERFACE + PEER_SECTION + "PersistentKeepalive = 70000\n", 7, ["PersistentKeepalive"]),
    "an unknown key": (INTERFACE + "Colour = red\n", 4, ["Colour", "ListenPort"]),
    "an unknown section": (INTERFACE + "[Server]\n", 4, ["[Peer]"]),
    "a line without an equals sign": (INTERFACE + "hello there\n", 4, []),
    "a key before any section": ("MTU = 1400\n" + INTERFACE, 1, ["MTU"]),
    "a file without an interface": (PEER_SECTION, None, ["[Interface]"]),
    "a file without a private key": ("[Interface]\nAddress = 10.1.0.1/24\n", None, ["PrivateKey", "kakuremichi"]),
    "bytes that are no text": (INTERFACE + "MTU = \udcff\udcfe\n", 4, []),
    "an empty file": ("", None, ["[Interface]"]),
}

TOML_FILES = {
    "an unknown key": ('https = "127.0.0.1:1"\ncolour = "red"\n', 2, ["colour"]),
    "an integer out of range": ("public-https-port = 99999999999999999999\n", 1, []),
    "a port out of range": ("public-https-port = 70000\n", 1, ["public-https-port", "70000"]),
    "a string where a number belongs": ('public-https-port = "yes"\n', 1, ["public-https-port"]),
    "a syntax error": ('https = "127.0.0.1:1\n', 1, []),
    "a tunnel without an agent": ('[[tunnel]]\ndomain = "a.example.com"\n', 1, ["agent"]),
    "a domain that is none": ('[[tunnel]]\ndomain = "-a..b"\nagent = "10.1.0.2"\n', 2, ["domain"]),
}

# name: (flags, words)
FLAGS = {
    "a route without a target": (["--route", APP], ["--route", "DOMAIN=IP"]),
    "a route to a port out of range": (["--route", f"{APP}=10.1.0.2:99999"], ["--route", "99999"]),
    "a route of a family without an address": (["--route", f"{APP}=[fd00::2]:80"], ["fd00::2", "Address"]),
    "a route to the gateway itself": (["--route", f"{APP}=10.1.0.1"], ["10.1.0.1"]),
    "a listener without a port": (["--https", "127.0.0.1"], ["--https", "127.0.0.1"]),
    "a certificate without its key": (["--cert", "/etc/hostname"], ["--key"]),
    "a certificate that is missing": (["--cert", "/nonexistent/a.pem", "--key", "/nonexistent/a.key"], ["/nonexistent/a.pem"]),
    "a certificate that is none": (["--cert", "/etc/hostname", "--key", "/etc/hostname"], ["/etc/hostname"]),
    "an unknown flag": (["--colour", "red"], ["colour"]),
    "a log level that is none": (["--log-level", "loud"], ["loud"]),
}


class SUITE(Suite):
    tools = ["setpriv"]

    def set_up(self):
        lab = self.lab
        self.seed = seed()
        self.udp = free_port(socket.SOCK_DGRAM)
        self.out = lab.private_directory("conf")
        result = self.program.run(lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{self.udp}", "--out", self.out])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        self.origin = Origin(lab)
        self.gateway = Gateway(self.program, lab, os.path.join(self.out, "gateway.conf"), [f"{APP}=10.1.0.2"])
        self.agent = Agent(self.program, lab, os.path.join(self.out, "agent.conf"), self.origin.target)
        self.edge = self.gateway.edge
        wait_until_served(self.edge, APP, 20)
        # Looked at by the last test: a request line that never ends.
        self.slow = self.edge.open_tls(APP)
        self.slow.sendall(b"GET / HTTP/1.1\r\nHost: app")
        self.slow_since = time.monotonic()

    # Configuration

    def refused(self, arguments, what, environment=None):
        """The command ends with an error of its own, not with a trap; returns its message."""
        result = self.program.run(self.lab, arguments, timeout=10, environment=environment)
        text = result.stdout + result.stderr
        check(result.returncode not in (0,), f"{what}: accepted")
        check(0 < result.returncode < 128, f"{what}: ended by a signal or trap, code {result.returncode}: {text[-500:]}")
        check("Fatal error" not in text, f"{what}: a trap: {text[-500:]}")
        for secret in (KEY, KEY[:-2], BAD_KEY):
            check(secret not in text, f"{what}: the message shows a key: {text}")
        return text

    def gateway_arguments(self, *more):
        return ["gateway", *more, "--state", self.lab.private_directory("unused-state"), "--check"]

    @test
    def faults_of_a_wireguard_file_have_file_line_key_and_fix(self):
        for what, (text, line, words) in WG_FILES.items():
            path = os.path.join(self.lab.directory, "bad.conf")
            with open(path, "w", errors="surrogateescape") as file:
                file.write(text)
            self.lab.own(path, 0o600)
            for arguments in (self.gateway_arguments("--wg", path), ["agent", "--wg", path, "--target", "127.0.0.1:1", "--check"]):
                message = self.refused(arguments, what)
                self.names(message, path, line, words, what)

    @test
    def faults_of_a_toml_file_have_file_line_key_and_fix(self):
        conf = self.lab.write("good.conf", INTERFACE + PEER_SECTION)
        for what, (text, line, words) in TOML_FILES.items():
            path = self.lab.write("bad.toml", text + f'[wireguard]\nconfig = "{conf}"\n')
            self.names(self.refused(self.gateway_arguments("--config", path), what), path, line, words, what)

    def names(self, message, path, line, words, what):
        place = path if line is None else f"{path}:{line}:"
        for word in [place, *words]:
            check(word in message, f"{what}: the message does not name {word!r}: {message.strip()[-500:]}")

    @test
    def faults_of_flags_name_the_flag(self):
        conf = self.lab.write("good.conf", INTERFACE + PEER_SECTION)
        for what, (flags, words) in FLAGS.items():
            message = self.refused(self.gateway_arguments("--wg", conf, *flags), what)
            for word in words:
                check(word in message, f"{what}: the message does not name {word!r}: {message.strip()[-500:]}")

    @test
    def files_of_the_wrong_kind_are_called_what_they_are(self):
        conf = self.lab.write("good.conf", INTERFACE + PEER_SECTION)
        certificate = self.lab.write("c.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        key = self.lab.write("k.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        encrypted = self.lab.write("e.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
        for first, second, words in (
            (key, certificate, ["k.pem holds a private key where", "c.pem holds a certificate where"]),
            (certificate, encrypted, ["e.pem holds a private key that is encrypted", "openssl pkey"]),
        ):
            message = self.refused(self.gateway_arguments("--wg", conf, "--cert", first, "--key", second), f"{first} and {second}")
            for word in words:
                check(word in message, f"the message does not hold {word!r}: {message}")

    @test
    def programs_that_cannot_be_run_and_wildcards_without_dns_are_warned_of_with_their_place(self):
        conf = self.lab.write("good.conf", INTERFACE + PEER_SECTION)
        plain = self.lab.write("plain", "")
        path = self.lab.write(
            "warned.toml",
            f'[wireguard]\nconfig = "{conf}"\n[[tunnel]]\ndomain = "*.example.com"\nagent = "10.1.0.2"\n'
            f'[alerts]\nexec = "{plain}"\n[acme]\nemail = "me@example.org"\n')
        result = self.program.run(self.lab, self.gateway_arguments("--config", path))
        check_equal(result.returncode, 0, f"exit code of --check ({result.stderr})")
        for words in (f"warning: {path}:7:8: exec: {plain} cannot be run", f"warning: {path}:4:10: domain: no certificate can be ordered"):
            check(words in result.stderr, f"no warning {words!r}: {result.stderr}")
        path = self.lab.write("empty.toml", f'access-log = ""\n[wireguard]\nconfig = "{conf}"\n')
        self.names(self.refused(self.gateway_arguments("--config", path), "an empty path"), path, 1, ["access-log", "is empty"], "an empty path")

    @test
    def all_faults_are_shown_at_once(self):
        path = self.lab.write("many.conf", INTERFACE + "MTU = no\nListenPort = 99999\nColour = red\n")
        message = self.refused(self.gateway_arguments("--wg", path), "a file with three faults")
        for line in (4, 5, 6):
            check(f"{path}:{line}:" in message, f"line {line} is not named: {message}")

    @test
    def a_missing_file_is_named(self):
        message = self.refused(self.gateway_arguments("--wg", "/nonexistent/gateway.conf"), "a missing file")
        check("/nonexistent/gateway.conf" in message, f"message: {message}")

    @test
    def commands_in_a_file_are_never_run(self):
        marker = os.path.join(self.lab.private_directory("marker"), "ran")
        hooks = "".join(f"{hook} = touch {marker}\n" for hook in ("PreUp", "PostUp", "PreDown", "PostDown"))
        path = self.lab.write("hooks.conf", INTERFACE + hooks + "DNS = 10.1.0.1\nTable = off\n" + PEER_SECTION)
        os.chmod(path, 0o644)
        result = self.program.run(self.lab, self.gateway_arguments("--wg", path, "--route", f"{APP}=10.1.0.2"))
        check_equal(result.returncode, 0, f"exit code of --check ({result.stderr})")
        text = result.stdout + result.stderr
        for word in ("PostUp", "PreDown", "DNS", "Table", "chmod 600"):
            check(word in text, f"no warning of {word}: {text}")
        echo = self.program.start(self.lab, "echo", ["echo", "--wg", path, "--listen-port", "7"])
        wait_until(lambda: bound_udp_ports(echo.pid), 10, "the program runs with such a file")
        echo.stop()
        check(not os.path.exists(marker), "a command of the file was run")

    @test
    def an_invalid_key_file_is_an_error_and_stays_as_it_is(self):
        path = self.lab.write("wireguard.key", "this is no key\n")
        self.refused(["keys", path], "an invalid key file")
        check_equal(open(path).read(), "this is no key\n", "the key file afterwards")

    # Ports

    @test
    def a_tcp_port_in_use_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.cannot_bind(["--https", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{free_port()}"], str(port), "another port")

    @test
    def the_metrics_port_in_use_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.cannot_bind(
                ["--https", f"127.0.0.1:{free_port()}", "--http", "off", "--metrics-listen", address], f"cannot listen on {address}",
                "another program", "--metrics-listen 127.0.0.1:")

    @test
    def a_udp_port_in_use_is_named(self):
        self.cannot_bind(["--https", f"127.0.0.1:{free_port()}", "--http", "off", "--wireguard-port", str(self.udp)], str(self.udp), "in use")

    @test
    def a_privileged_port_names_three_ways_out(self):
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
            if int(file.read()) <= 443:
                return
        text = self.cannot_bind(["--https", "127.0.0.1:443", "--http", "off"], "443", "")
        for way in (r"port", r"CAP_NET_BIND_SERVICE|setcap", r"ip_unprivileged_port_start|sysctl"):
            check(re.search(way, text, re.IGNORECASE), f"no way out by {way}: {text}")

    def cannot_bind(self, listeners, *words):
        conf = self.lab.write("bind.conf", INTERFACE + PEER_SECTION)
        text = self.refused(
            ["gateway", "--wg", conf, "--route", f"{APP}=10.1.0.2", *listeners, "--state", self.lab.private_directory("bind-state")], "the port")
        for word in words:
            check(word.lower() in text.lower(), f"the message does not name {word!r}: {text}")
        return text

    # Garbage

    @test
    def garbage_datagrams_are_dropped(self):
        ports = [(self.gateway.process, self.udp)] + [(self.agent.process, port) for port in bound_udp_ports(self.agent.process.pid)]
        for process, port in ports:
            flood_udp(port, 20_000, self.seed)
            check(process.is_running, f"the {process.name} died of a flood with seed {self.seed}")
            self.still_serves(f"after a flood of the {process.name}, seed {self.seed}")

    @test
    def dropped_datagrams_are_counted(self):
        counters = self.gateway.status().get("counters", {})
        dropped = sum(value for name, value in counters.items() if re.search("drop|invalid|short|mac|unknown|length|type", name, re.IGNORECASE))
        check(dropped > 1000, f"20,000 datagrams of garbage, counters: {counters}")

    @test
    def garbage_on_the_tcp_ports_closes_that_connection_only(self):
        for port in (self.edge.https_port, self.edge.http_port):
            for data in tcp_inputs(self.seed):
                send_and_close(port, data)
            check(self.gateway.process.is_running, f"the gateway died, seed {self.seed}")
            self.still_serves(f"after garbage on port {port}, seed {self.seed}")

    @test
    def connections_that_say_nothing_do_not_stop_others(self):
        silent = [socket.create_connection((self.edge.address, self.edge.https_port)) for _ in range(300)]
        self.still_serves("with 300 silent connections")
        for connection in silent:
            connection.close()

    @test
    def malformed_requests_are_answered_by_the_gateway(self):
        """Over TLS, each on its own connection; the web service must not see one of them."""
        wrong = []
        for what, request, expected in REQUESTS:
            with self.edge.open_tls(APP, timeout=8) as connection:
                try:
                    connection.sendall(request)
                except (ConnectionError, ssl.SSLError):
                    pass
                answer = read_all_or_part(connection)
            status = first_status(answer)
            if status not in expected:
                wrong.append(f"{what}: {status} instead of {'/'.join(map(str, expected))}")
        check(not wrong, "\n".join(wrong))
        check_equal(self.origin.seen("smuggled"), {}, "a smuggled request at the origin")
        self.still_serves("after malformed requests")

    @test
    def a_head_that_never_ends_is_cut_off(self):
        self.slow.settimeout(max(1, 20 - (time.monotonic() - self.slow_since)))
        answer = read_all(self.slow)
        check(first_status(answer) in (None, 408), f"answer: {answer[:200]}")

    @test
    def memory_stays_small_under_all_this(self):
        for process in (self.gateway.process, self.agent.process):
            check(process.peak_memory() < 150, f"peak memory of the {process.name}: {process.peak_memory():.0f} MB")

    def still_serves(self, when):
        check_equal(self.edge.status_of(APP), 200, f"status {when}")


def read_all_or_part(connection):
    """Until the end of the connection, or what came within its time limit."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except (ConnectionError, ssl.SSLError, TimeoutError):
        pass
    return received
