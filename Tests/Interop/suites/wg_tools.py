"""`wg` on the sockets of our gateway and agent, unprivileged; `kakuremichi wg` beside `wg`; wireguard-go as the measure of both."""

import base64
import copy
import os
import re
import socket
import subprocess
import threading
import time

from interop.namespaces import Namespace
from interop.nodes import Agent, Gateway, Origin, wait_until_served
from interop.product import Program, bound_udp_ports, key_pair, random_key, wg_quick
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, unused_uid, wait_until

DOMAIN = "app.example.com"
FIELDS = [
    "public-key", "private-key", "listen-port", "fwmark", "peers", "preshared-keys", "endpoints", "allowed-ips", "latest-handshakes",
    "transfer", "persistent-keepalive", "dump",
]


class SUITE(Suite):
    needs_root = True
    tools = ["ip", "wg", "wireguard-go", "curl", "setpriv", "unshare"]

    def set_up(self):
        lab = self.lab
        # The program may not write to /var/run/wireguard and takes this; `wg` sees it there in a mount namespace of its own.
        self.runtime = lab.private_directory("run")
        self.sockets = os.path.join(self.runtime, "wireguard")
        program = copy.copy(self.program)
        program.environment = lambda **more: Program.environment(self.program, **{"XDG_RUNTIME_DIR": self.runtime, **more})
        self.program = program
        gateway_key, self.gateway_public = key_pair()
        agent_key, self.agent_public = key_pair()
        self.gateway_key = gateway_key
        self.port = free_port(socket.SOCK_DGRAM)
        self.preshared = random_key()
        self.origin = Origin(lab)
        self.agent = Agent(
            program, lab, lab.write("agent.conf", wg_quick(agent_key, ["10.1.0.2/24"], [{
                "PublicKey": self.gateway_public, "PresharedKey": self.preshared, "AllowedIPs": "10.1.0.1/32",
                "Endpoint": f"127.0.0.1:{self.port}", "PersistentKeepalive": "25"}])),
            self.origin.target, options=["--interface", "ag0"])
        self.gateway = Gateway(
            program, lab, lab.write("gateway.conf", wg_quick(gateway_key, ["10.1.0.1/24"], [{
                "PublicKey": self.agent_public, "PresharedKey": self.preshared, "AllowedIPs": "10.1.0.2/32"}], self.port)),
            [f"{DOMAIN}=10.1.0.2"], options=["--interface", "gw0"])
        self.edge = self.gateway.edge
        wait_until_served(self.edge, DOMAIN, 20)

    def wg(self, *words, environment=None):
        command = 'mount -t tmpfs none /run && mkdir /run/wireguard && mount --bind "$0" /run/wireguard && exec wg "$@"'
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", command, self.sockets] + [str(word) for word in words],
            capture_output=True, text=True, timeout=20, env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **(environment or {})})

    def good(self, *words):
        result = self.wg(*words)
        check(result.returncode == 0 and result.stderr == "", f"wg {words}: {result.returncode} {result.stderr}")
        return result.stdout

    def ours(self, *words, environment=None):
        return self.program.run(self.lab, ["wg", *words], environment=environment)

    def session(self):
        """What a new handshake would change."""
        return self.good("show", "gw0", "latest-handshakes")

    def is_served(self):
        try:
            return self.edge.status_of(DOMAIN, "/", timeout=5) == 200
        except (AssertionError, OSError):
            return False

    @test
    def the_socket_is_ours_alone_and_the_log_says_how_wg_finds_it(self):
        for name in ("gw0", "ag0"):
            check_equal(os.stat(f"{self.sockets}/{name}.sock").st_mode & 0o777, 0o600, f"mode of {name}.sock")
        output = self.gateway.process.output()
        check(f"install -d -m 0700 -o {self.lab.uid} /var/run/wireguard" in output, "the log does not say how to make the directory")

    @test
    def show_lists_both_with_what_was_configured(self):
        check_equal(sorted(self.good("show", "interfaces").split()), ["ag0", "gw0"], "interfaces")
        check_equal(self.good("show", "gw0", "public-key").strip(), self.gateway_public, "public key")
        check_equal(self.good("show", "gw0", "listen-port").strip(), str(self.port), "port")
        check_equal(self.good("show", "gw0", "allowed-ips").split(), [self.agent_public, "10.1.0.2/32"], "allowed IPs")
        check_equal(self.good("show", "gw0", "preshared-keys").split(), [self.agent_public, self.preshared], "preshared key")
        check_equal(self.good("show", "ag0", "endpoints").split(), [self.gateway_public, f"127.0.0.1:{self.port}"], "endpoint")
        check_equal(self.good("show", "ag0", "persistent-keepalive").split(), [self.gateway_public, "25"], "keepalive")
        handshake = int(self.good("show", "gw0", "latest-handshakes").split()[1])
        check(abs(time.time() - handshake) < 200, f"latest handshake {handshake} is not a time of day")
        received, sent = (int(word) for word in self.good("show", "gw0", "transfer").split()[1:])
        check(received > 148 and sent > 92, f"transfer {received} {sent}")

    @test
    def our_command_prints_what_wg_prints(self):
        # Counters and ages move between two commands: a pair that differs is asked for again.
        lines = [["show"], ["show", "all"], ["show", "gw0"], ["showconf", "gw0"], ["showconf", "ag0"], ["show", "all", "dump"]]
        lines += [["show", "gw0", field] for field in FIELDS] + [["show", "all", field] for field in FIELDS]
        for words in lines:
            for environment in ({}, {"WG_COLOR_MODE": "always"}, {"WG_HIDE_KEYS": "never"}) if len(words) < 3 else ({},):
                self.compare(words, environment)

    def compare(self, words, environment):
        for attempt in range(5):
            reference, result = self.wg(*words, environment=environment), self.ours(*words, environment=environment)
            # `wg` lists a directory in its own order.
            if sorted(reference.stdout.split("\n")) == sorted(result.stdout.split("\n")):
                return check_equal((result.returncode, result.stderr), (0, ""), f"kakuremichi wg {words}")
        check_equal(result.stdout, reference.stdout, f"kakuremichi wg {words}")

    @test
    def our_command_prints_what_wg_prints_for_any_state(self):
        """A socket that answers with everything that a state can hold: ages, amounts, peers with and without."""
        server = CannedServer(f"{self.sockets}/canned0.sock", self.lab)
        try:
            for words in [["show", "canned0"], ["showconf", "canned0"]] + [["show", "canned0", field] for field in FIELDS]:
                for environment in ({}, {"WG_COLOR_MODE": "always"}, {"WG_HIDE_KEYS": "never"}):
                    for attempt in range(5):
                        reference, result = self.wg(*words, environment=environment), self.ours(*words, environment=environment)
                        if reference.stdout == result.stdout:
                            break
                    check_equal(result.stdout, reference.stdout, f"kakuremichi wg {words}")
        finally:
            server.close()

    @test
    def a_peer_that_is_added_and_removed_leaves_the_sessions_alone(self):
        before = self.session()
        other = random_key()
        self.good(
            "set", "gw0", "peer", other, "allowed-ips", "10.1.0.9/32,fd00::/64", "endpoint", "192.0.2.1:7", "persistent-keepalive", "9",
            "preshared-key", self.lab.write("psk9", random_key() + "\n"))
        dump = [line.split("\t") for line in self.good("show", "gw0", "dump").splitlines()[1:]]
        row = next(fields for fields in dump if fields[0] == other)
        check_equal(row[2:4] + row[7:], ["192.0.2.1:7", "10.1.0.9/32,fd00::/64", "9"], "the new peer")
        self.good("set", "gw0", "peer", other, "allowed-ips", "10.1.0.8/32", "persistent-keepalive", "off")
        check(f"{other}\t10.1.0.8/32" in self.good("show", "gw0", "allowed-ips"), "allowed IPs were not replaced")
        self.good("set", "gw0", "peer", other, "remove")
        check_equal(self.good("show", "gw0", "peers").split(), [self.agent_public], "peers at the end")
        check_equal(self.session(), before, "the agent's session")
        check(self.is_served(), "the route is not served")

    @test
    def a_removed_peer_is_503_its_timestamp_is_forgotten_and_it_comes_back(self):
        path = os.path.join(self.gateway.state, "timestamps")
        wait_until(lambda: os.path.exists(path) and self.agent_public in open(path).read(), 15, "the agent's timestamp is stored")
        self.good("set", "gw0", "peer", self.agent_public, "remove")
        wait_until(lambda: self.agent_public not in open(path).read(), 5, "the agent's timestamp is forgotten")
        wait_until(lambda: self.edge.status_of(DOMAIN, "/", timeout=10) == 503, 15, "a route to nobody answers 503", interval=0.2)
        self.good(
            "set", "gw0", "peer", self.agent_public, "allowed-ips", "10.1.0.2/32", "preshared-key",
            self.lab.write("psk", self.preshared + "\n"))
        wait_until(self.is_served, 40, "the route is served again", interval=0.2)

    @test
    def syncconf_and_setconf_with_showconfs_own_output_change_nothing(self):
        for command in ("syncconf", "setconf", "addconf"):
            before = self.session()
            configuration = self.good("showconf", "gw0")
            self.good(command, "gw0", self.lab.write(f"{command}.conf", configuration))
            check_equal(self.good("showconf", "gw0"), configuration, f"showconf after {command}")
            check_equal(self.session(), before, f"session after {command}")
            check(self.is_served(), f"not served after {command}")

    @test
    def our_set_and_syncconf_do_what_wgs_do(self):
        other = random_key()
        result = self.ours("set", "gw0", "peer", other, "allowed-ips", "10.1.0.7/32", "persistent-keepalive", "21")
        check_equal((result.returncode, result.stdout + result.stderr), (0, ""), "kakuremichi wg set")
        check(f"{other}\t21" in self.good("show", "gw0", "persistent-keepalive"), "the peer is not there")
        before = self.session()
        configuration = self.good("showconf", "gw0").split("[Peer]")
        kept = "[Peer]".join(part for part in configuration if other not in part)
        path = self.lab.write("sync.conf", kept)
        self.lab.own(path)
        result = self.ours("syncconf", "gw0", path)
        check_equal((result.returncode, result.stdout + result.stderr), (0, ""), "kakuremichi wg syncconf")
        check_equal(self.good("show", "gw0", "peers").split(), [self.agent_public], "peers after syncconf")
        check(self.session() in before, "the agent's session")

    @test
    def the_agent_is_changed_the_same_way(self):
        before = self.good("show", "ag0", "latest-handshakes")
        other = random_key()
        self.good("set", "ag0", "peer", other, "allowed-ips", "10.1.0.77/32")
        configuration = self.good("showconf", "ag0")
        check(other in configuration, "the new peer is not there")
        kept = self.lab.write("agent-sync.conf", "[Peer]".join(part for part in configuration.split("[Peer]") if other not in part))
        self.good("syncconf", "ag0", kept)
        check_equal(self.good("show", "ag0", "peers").split(), [self.gateway_public], "peers after syncconf")
        self.good("setconf", "ag0", kept)
        for command in ("setconf", "addconf", "syncconf"):
            result = self.ours(command, "ag0", kept)
            check_equal((result.returncode, result.stdout + result.stderr), (0, ""), f"kakuremichi wg {command}")
        check_equal(self.good("show", "ag0", "latest-handshakes"), before, "the gateway's session")
        check(self.is_served(), "the route is not served")

    @test
    def another_user_is_not_answered_though_he_could_open_the_socket(self):
        path = f"{self.sockets}/gw0.sock"
        ask = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'get=1\\n\\n'); print(len(s.recv(1)))"
        for directory in (self.lab.directory, self.runtime, self.sockets):
            os.chmod(directory, 0o755)
        os.chmod(path, 0o666)
        try:
            for uid, expected in ((self.lab.uid, "1"), (0, "1"), (unused_uid(), "0")):
                result = subprocess.run(
                    ["setpriv", f"--reuid={uid}", "--clear-groups", "/usr/bin/python3", "-c", ask, path], capture_output=True, text=True,
                    timeout=20)
                check_equal(result.stdout.strip() or "0", expected, f"bytes that user {uid} is answered; {result.stderr[-200:]}")
        finally:
            os.chmod(path, 0o600)
            os.chmod(self.sockets, 0o700)
            os.chmod(self.runtime, 0o700)

    @test
    def keys_that_are_said_there_are_not_logged(self):
        secret = random_key()
        self.good("set", "gw0", "peer", random_key(), "preshared-key", self.lab.write("secret", secret + "\n"), "allowed-ips", "10.1.0.71/32")
        self.good("showconf", "gw0")
        raw = base64.b64decode(secret).hex()
        log = self.gateway.process.output() + self.gateway.process.errors()
        check(log and not any(text in log for text in (secret, raw, self.gateway_key, self.preshared)), "a key is in the log")
        peers = [peer for peer in self.good("show", "gw0", "peers").split() if peer != self.agent_public]
        self.good("set", "gw0", *[word for peer in peers for word in ("peer", peer, "remove")])

    @test
    def the_listen_port_moves_and_moves_back(self):
        other = free_port(socket.SOCK_DGRAM)
        self.good("set", "gw0", "listen-port", other)
        check(other in bound_udp_ports(self.gateway.process.pid), "the new port is not bound")
        check_equal(self.good("show", "gw0", "listen-port").strip(), str(other), "port that is shown")
        self.good("set", "gw0", "listen-port", self.port)
        wait_until(self.is_served, 20, "served again", interval=0.2)

    @test
    def a_taken_port_is_refused_and_nothing_changes(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("0.0.0.0", 0))
            result = self.wg("set", "gw0", "listen-port", taken.getsockname()[1])
        check(result.returncode == 1 and "Address already in use" in result.stderr, f"{result.returncode} {result.stderr}")
        check_equal(self.good("show", "gw0", "listen-port").strip(), str(self.port), "port")

    @test
    def our_own_key_as_a_peer_is_skipped_as_wireguard_go_does(self):
        self.good("set", "gw0", "peer", self.gateway_public, "allowed-ips", "10.1.0.66/32")
        check_equal(self.good("show", "gw0", "peers").split(), [self.agent_public], "peers")

    @test
    def wireguard_go_and_we_show_the_same_configuration_the_same_way(self):
        space = Namespace(self.lab, "wgo")
        name = f"kmu{os.getpid() % 100000}"
        self.lab.on_close(lambda: os.path.exists(f"/var/run/wireguard/{name}.sock") and os.unlink(f"/var/run/wireguard/{name}.sock"))
        self.lab.start("wireguard-go", ["wireguard-go", "-f", name], unprivileged=False, namespace=space.name)
        wait_until(lambda: os.path.exists(f"/var/run/wireguard/{name}.sock"), 10, "wireguard-go makes its socket")
        peers = [random_key() for _ in range(3)]
        text = (
            f"[Interface]\nPrivateKey = {self.gateway_key}\nListenPort = {self.port}\n"
            f"[Peer]\nPublicKey = {peers[0]}\nAllowedIPs = 10.9.0.1/32, fd09::/64, 10.8.0.0/16\nEndpoint = 192.0.2.1:1\n"
            f"[Peer]\nPublicKey = {peers[1]}\nPresharedKey = {self.preshared}\nEndpoint = [2001:db8::1]:2\n"
            f"[Peer]\nPublicKey = {peers[2]}\nAllowedIPs = 10.9.0.3/32\nPersistentKeepalive = 25\n")
        path = self.lab.write("same.conf", text)
        kept = self.lab.write("kept.conf", self.good("showconf", "gw0"))
        theirs = space.run("wg", "setconf", name, path)
        check_equal((theirs.returncode, theirs.stderr), (0, ""), "wg setconf for wireguard-go")
        self.good("setconf", "gw0", path)
        for words in (["showconf"], ["show"], *(["show", field] for field in FIELDS if field not in ("transfer", "dump"))):
            reference = space.run("wg", words[0], name, *words[1:]).stdout.replace(name, "gw0")
            # Both list peers in an order of their own, and the bytes of handshakes that nobody answers come when they come.
            check_equal(pieces(self.good(words[0], "gw0", *words[1:])), pieces(reference), f"wg {words}")
        self.good("setconf", "gw0", kept)
        wait_until(self.is_served, 40, "served again with the first configuration", interval=0.2)

    @test
    def the_socket_goes_with_the_process_and_a_second_process_of_the_name_is_refused(self):
        result = self.program.run(
            self.lab, ["agent", "--wg", os.path.join(self.lab.directory, "agent.conf"), "--target", "127.0.0.1:9", "--interface", "ag0",
                       "--state", self.lab.private_directory("second-state")])
        check(result.returncode == 1 and "another process answers" in result.stderr, f"{result.returncode} {result.stderr}")
        # A socket that we may not ask may be somebody's: it stays.
        foreign = os.path.join(self.sockets, "root0.sock")
        with socket.socket(socket.AF_UNIX) as holder:
            holder.bind(foreign)
            holder.listen(1)
            os.chmod(foreign, 0o600)
            result = self.program.run(
                self.lab, ["agent", "--wg", os.path.join(self.lab.directory, "agent.conf"), "--target", "127.0.0.1:9", "--interface", "root0",
                           "--state", self.lab.private_directory("third-state")])
            check(result.returncode == 1 and "may be another process's" in result.stderr, f"{result.returncode} {result.stderr}")
            check(os.path.exists(foreign), "the socket of another user is gone")
        os.unlink(foreign)
        self.agent.process.stop()
        check(not os.path.exists(f"{self.sockets}/ag0.sock"), "the socket is still there")
        self.agent.start()
        wait_until(lambda: os.path.exists(f"{self.sockets}/ag0.sock"), 10, "the socket is there again")


def pieces(text):
    """What stands between blank lines, or the lines, in no order; without times and transfers."""
    parts = re.sub(r"^  (transfer|latest handshake): .*\n", "", text, flags=re.M).strip("\n")
    parts = parts.split("\n\n") if "\n\n" in parts else parts.split("\n")
    return sorted(" ".join(sorted(part.replace(",", " ").split())) for part in parts)


class CannedServer:
    """A UAPI socket with one answer."""

    def __init__(self, path, lab):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        lab.own(path)
        self.socket.listen(16)
        self.answer = self.state().encode()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                if connection.recv(4096).startswith(b"get=1"):
                    connection.sendall(self.answer)

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        os.unlink(self.path)

    @staticmethod
    def state():
        now = int(time.time())
        ages = [0, 1, 59, 60, 61, 3599, 3600, 86399, 86400, 90061, 31536000, 63244922, 31536060, -100000]
        amounts = [
            0, 1, 1023, 1024, 1536, 1029, 2**20 - 1, 2**20, 2**20 + 5243, 2**30 - 1, 2**30, 2**40 - 1, 2**50 + 12345, 2**64 - 1]
        intervals = [0, 1, 2, 59, 60, 61, 86, 3600, 3601, 7200, 65535, 0, 25, 90]
        text = f"private_key={os.urandom(32).hex()}\nlisten_port=51820\nfwmark=51966\n"
        for number, (age, amount, interval) in enumerate(zip(ages, amounts, intervals)):
            text += f"public_key={os.urandom(32).hex()}\n"
            text += f"preshared_key={os.urandom(32).hex() if number % 3 == 0 else '0' * 64}\nprotocol_version=1\n"
            if number % 2:
                text += f"endpoint=[2001:db8::{number:x}]:{number}\n" if number % 4 == 1 else f"endpoint=192.0.2.{number}:65535\n"
            handshake = now - age - 1_000_000 if age >= 0 else now - age
            text += f"last_handshake_time_sec={handshake if number != 3 else 0}\nlast_handshake_time_nsec={number if number != 3 else 0}\n"
            text += f"tx_bytes={amount // 3}\nrx_bytes={amount}\npersistent_keepalive_interval={interval}\n"
            text += "".join(f"allowed_ip={block}\n" for block in [
                "0.0.0.0/0", "::/0", f"10.{number}.0.0/24", "fd00::1/128", "::102:304/128", "::ffff:102:304/128", "::2/127"][:number % 8])
        return text + "errno=0\n\n"
