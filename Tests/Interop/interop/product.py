"""The program under test: staged where an unprivileged user can read it, started, asked for its status."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile

from .system import Failure, check, is_root, wait_until

STANDARD_LIBRARY_DIRECTORIES = ("/lib/", "/lib64/", "/usr/lib/")


class Program:
    """The built binary; as root a copy of it with its shared libraries, for a user that may not read the build directory."""

    def __init__(self, path):
        self.directory = None
        self.path = self.built = os.path.abspath(path)
        if not os.access(self.path, os.X_OK):
            raise SystemExit(f"{path} is not a program: build it with `swift build -c release --product kakuremichi`")
        if is_root():
            self.stage()

    def stage(self):
        listing = subprocess.run(["ldd", self.path], capture_output=True, text=True).stdout
        if "not found" in listing:
            raise SystemExit(f"shared libraries are missing:\n{listing}")
        self.directory = tempfile.mkdtemp(prefix="kakuremichi-program-")
        os.chmod(self.directory, 0o755)
        for match in re.finditer(r"=> (/\S+)", listing):
            if not match[1].startswith(STANDARD_LIBRARY_DIRECTORIES):
                shutil.copy(match[1], self.directory)
        self.path = shutil.copy(self.path, self.directory)
        os.chmod(self.path, 0o755)

    def companion(self, name):
        """Another program that was built beside this one; `close` it when it is no longer needed."""
        path = os.path.join(os.path.dirname(self.built), name)
        check(os.access(path, os.X_OK), f"{path} is not built: `swift build -c release --product {name}`")
        return Program(path)

    def close(self):
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def environment(self, **more):
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
        if self.directory:
            environment["LD_LIBRARY_PATH"] = self.directory
        environment.update(more)
        return environment

    def start(self, lab, name, arguments, **options):
        return lab.start(name, [self.path] + [str(argument) for argument in arguments], environment=self.environment(), **options)

    def run(self, lab, arguments, timeout=20, environment=None, input=None):
        """Runs a command to its end as the unprivileged user."""
        command = ["setpriv", "--pdeathsig", "KILL"]
        if is_root():
            command += [f"--reuid={lab.uid}", f"--regid={lab.uid}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
        command += [self.path] + [str(argument) for argument in arguments]
        try:
            return subprocess.run(
                command, capture_output=True, text=input is None or isinstance(input, str), timeout=timeout, input=input,
                stdin=subprocess.DEVNULL if input is None else None, cwd=lab.logs, env=self.environment(**(environment or {})))
        except subprocess.TimeoutExpired:
            raise Failure(f"`kakuremichi {' '.join(str(a) for a in arguments)}` did not end within {timeout} s") from None

    def status(self, lab, state):
        """The answer of `status --json`, or None while the process does not answer."""
        result = self.run(lab, ["status", "--json", "--state", state])
        if result.returncode != 0:
            return None
        return json.loads(result.stdout)


def random_key():
    """32 random bytes are a valid private key, and a public key nobody holds."""
    return base64.b64encode(os.urandom(32)).decode()


def key_pair():
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip()
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout.strip()
    return private, public


def loop_of(public, count):
    """The loop that has the peer with a public key, of a process with so many: the program's rule, written down once more."""
    value, mask = 0, (1 << 64) - 1
    key = base64.b64decode(public)
    for offset in range(0, 32, 8):
        product = (value ^ int.from_bytes(key[offset:offset + 8], "little")) * 0x9E3779B97F4A7C15
        value = product >> 64 ^ product & mask
    return value * count >> 64


def key_pair_of_loop(loop, count):
    while True:
        private, public = key_pair()
        if loop_of(public, count) == loop:
            return private, public


def wg_quick(private, addresses, peers, listen_port=None, mtu=None):
    """The text of a wg-quick file; `peers` are dictionaries of the file's own key words."""
    lines = ["[Interface]", f"PrivateKey = {private}", f"Address = {', '.join(addresses)}"]
    if listen_port:
        lines.append(f"ListenPort = {listen_port}")
    if mtu:
        lines.append(f"MTU = {mtu}")
    for peer in peers:
        lines += ["", "[Peer]"] + [f"{key} = {value}" for key, value in peer.items()]
    return "\n".join(lines) + "\n"


def listens(pid, port, kind="tcp"):
    """Whether the process listens on this port (for UDP: has bound it), as /proc says."""
    try:
        inodes = own_inodes(pid)
        return any(
            row[9] in inodes and int(row[1].rsplit(":", 1)[1], 16) == port and (kind == "udp" or row[3] == "0A")
            for row in socket_rows(pid, kind))
    except OSError:
        return False


def bound_udp_ports(pid):
    inodes = own_inodes(pid)
    return sorted({int(row[1].rsplit(":", 1)[1], 16) for row in socket_rows(pid, "udp") if row[9] in inodes})


def own_inodes(pid):
    inodes = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    return inodes


def socket_rows(pid, kind):
    for family in ("", "6"):
        try:
            with open(f"/proc/{pid}/net/{kind}{family}") as file:
                for line in file.readlines()[1:]:
                    yield line.split()
        except FileNotFoundError:
            continue


def wait_for_port(process, port, kind="tcp", timeout=15):
    def ready():
        check(process.is_running, f"{process.name} ended with code {process.child.returncode} before it listened")
        return listens(process.pid, port, kind)

    wait_until(ready, timeout, f"{process.name} listens on {kind} port {port}")
