"""A gateway whose certificates come from a CA, what it shows in handshakes, and the secrets that it must keep."""

import base64
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time

from .chain import AGENT, quoted
from .client import Edge
from .nodes import Agent, Gateway, wait_until_served
from .pebble import EAB_KEY
from .system import Failure, check, check_equal, free_port, wait_until


class Certified:
    """A gateway from a file with `[acme]`. By default it listens where the CA validates; `agent` runs if there is a `target`;
    `more` is further text of the file."""

    def __init__(
            self, program, lab, pebble, name, domains, target=None, settings=None, https=None, http=None, cache=None, options=(), more="", start=True):
        self.program, self.lab, self.pebble, self.name, self.domains = program, lab, pebble, name, list(domains)
        self.directory = lab.private_directory(f"{name}-conf")
        udp = free_port(socket.SOCK_DGRAM)
        result = program.run(lab, ["init", "--domain", "app.example.com", "--endpoint", f"127.0.0.1:{udp}", "--out", self.directory])
        check_equal(result.returncode, 0, f"exit code of init ({result.stderr.strip()})")
        self.settings = {"email": "me@example.org", "directory": pebble.url, "ca-file": pebble.ca_file, **(settings or {})}
        self.state = lab.private_directory(f"{name}-state")
        self.cache = cache or os.path.join(self.state, "certificates")
        if cache:
            self.settings["cache-dir"] = cache
        self.more = more
        self.write()
        self.options = ["--config", self.config, "--log-level", "trace", *options]
        self.https, self.http, self.target = https or pebble.tls, http or pebble.http, target
        self.gateway = self.agent = None
        if start:
            self.start()

    @property
    def config(self):
        return os.path.join(self.directory, "gateway.toml")

    def write(self):
        lines = ["[wireguard]", 'config = "gateway.conf"', "[acme]"]
        for key, value in self.settings.items():
            lines.append(f"{key} = [{', '.join(map(quoted, value))}]" if isinstance(value, list) else f"{key} = {quoted(value)}")
        for domain in self.domains:
            lines += ["[[tunnel]]", f"domain = {quoted(domain)}", f"agent = {quoted(AGENT)}"]
        self.lab.write(self.config + ".new", "\n".join(lines) + "\n" + self.more)
        os.rename(self.config + ".new", self.config)

    def start(self):
        self.gateway = Gateway(self.program, self.lab, None, options=self.options, name=self.name, https=self.https, http=self.http)
        self.edge = Edge(self.https, self.http, self.pebble.root_file)
        if self.target and not self.agent:
            self.agent = Agent(self.program, self.lab, os.path.join(self.directory, "agent.conf"), self.target, name=f"{self.name}-agent")

    def stop(self):
        if self.gateway:
            check_equal(self.gateway.process.stop(), 0, f"exit code of {self.name}")
        self.gateway = None

    def close(self):
        if self.gateway and self.gateway.process.is_running:
            SECRETS.collect(self.lab.directory)
            self.gateway.process.stop(timeout=5)
        if self.agent:
            self.agent.process.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def reload(self, domains):
        self.domains = list(domains)
        self.write()
        self.gateway.process.send_signal(signal.SIGHUP)

    @property
    def log(self):
        """What this gateway has said since it was started."""
        return self.gateway.process.output() + self.gateway.process.errors()

    def said(self, message, **fields):
        """Lines of the log with this message and these fields."""
        lines = []
        for line in self.log.splitlines():
            if f'"msg":"{message}' in line:
                entry = json.loads(line)
                if all(entry.get(key) == value for key, value in fields.items()):
                    lines.append(entry)
        return lines

    def wait_for_line(self, message, timeout=10, **fields):
        return wait_until(lambda: self.said(message, **fields), timeout, f"{self.name} says {message!r} {fields or ''}")

    def wait_until_served(self, domain, timeout=20, **options):
        wait_until_served(self.edge, domain, timeout, **options)

    # Commands

    def certs(self, *arguments, timeout=60, code=0):
        """Runs `certs` and returns what it prints; None for `code` is any failure."""
        result = self.program.run(self.lab, ["certs", *arguments, "--state", self.state], timeout=timeout)
        if arguments[0] != "export":
            SECRETS.printed.append(result.stdout + result.stderr)
        if code is None:
            check(0 < result.returncode < 128, f"exit code {result.returncode} of certs {arguments[0]}: {result.stdout} {result.stderr}")
        else:
            check_equal(result.returncode, code, f"exit code of certs {' '.join(arguments)} ({result.stdout} {result.stderr})")
        SECRETS.collect(self.cache)
        return result.stdout + result.stderr

    def entry(self, domain):
        """Of `certs list --json`."""
        entries = json.loads(self.certs("list", "--json"))["certificates"]
        return next((entry for entry in entries if entry["name"] == domain), None)

    def wait_for_state(self, domain, state, timeout=20):
        def reached():
            entry = self.entry(domain)
            return entry if entry and entry["state"] == state else None

        return wait_until(reached, timeout, f"{domain} is {state}", interval=0.3)

    def wait_for_certificate(self, domain, timeout=20):
        """Without a handshake."""
        return self.wait_for_state(domain, "valid", timeout)

    # Handshakes

    def shown(self, domain, verify=True, timeout=35):
        """The certificate of a handshake, parsed; a handshake that fails is an error."""
        return parsed(self.handshake(domain, verify=verify, timeout=timeout)[0])

    def shown_by(self, issuer, domain):
        """The same, verified by a CA of our own."""
        path = self.lab.write(f"{self.name}-issuer.pem", issuer.root_pem, 0o644)
        with Edge(self.https, self.http, path).open_tls(domain) as connection:
            return parsed(connection.getpeercert(binary_form=True))

    def handshake(self, domain, alpn=(), verify=True, timeout=35):
        """The certificate as DER, and the protocol."""
        if verify:
            connection = self.edge.open_tls(domain, timeout, alpn)
        else:
            connection = unverified(self.https, domain, alpn, timeout)
        with connection:
            return connection.getpeercert(binary_form=True), connection.selected_alpn_protocol()

    def alert(self, domain, alpn=(), timeout=35):
        """Why a handshake fails; None if it does not."""
        try:
            self.handshake(domain, alpn, verify=False, timeout=timeout)
        except ssl.SSLError as error:
            return error.reason
        return None

    def path(self, name):
        return os.path.join(self.cache, name)

    def file(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()


def unverified(port, domain, alpn=(), timeout=35):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    raw = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    try:
        return context.wrap_socket(raw, server_hostname=domain)
    except Exception:
        raw.close()
        raise


def parsed(certificate):
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate) if certificate.startswith(b"-----") else x509.load_der_x509_certificate(certificate)


def serial_in(content):
    """Of the first certificate of a file."""
    return parsed(content[content.index(b"-----BEGIN CERTIFICATE"):]).serial_number


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def thumbprint(pem):
    """RFC 7638, of a P-256 key."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    numbers = load_pem_private_key(pem, None).public_key().public_numbers()
    x, y = (encoded(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
    return encoded(hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest())


class Secrets:
    """Private keys as they were seen in files, in every form in which they might be told."""

    BLOCK = re.compile(rb"-----BEGIN ((?:EC |RSA )?PRIVATE KEY)-----\n(.*?)-----END \1-----", re.DOTALL)

    def __init__(self):
        self.printed, self.texts = [], {EAB_KEY}

    def collect(self, directory):
        for place, _, names in os.walk(directory):
            for name in names:
                try:
                    with open(os.path.join(place, name), "rb") as file:
                        content = file.read(1 << 16)
                except OSError:
                    continue
                if b"PRIVATE KEY" in content and not name.endswith(".out"):
                    self.add(content)

    def add(self, content):
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        for match in self.BLOCK.finditer(content):
            self.texts.update(line.decode(errors="replace") for line in match[2].split() if len(line) >= 32)
            try:
                numbers = load_pem_private_key(match[0], None).private_numbers()
            except (ValueError, TypeError):
                continue
            if hasattr(numbers, "private_value"):
                value = numbers.private_value.to_bytes(32, "big")
                self.texts.update({value.hex(), encoded(value), base64.b64encode(value).decode()})

    def found(self, text):
        return [secret[:12] + "..." for secret in self.texts if secret in text]

    def check_untold(self, lab):
        """Neither in a log, nor in what `certs` printed, nor in a state directory outside of its cache."""
        self.collect(lab.directory)
        check(len(self.texts) > 20, "no secrets were collected")
        paths = [os.path.join(lab.logs, name) for name in os.listdir(lab.logs)]
        paths += [os.path.join(lab.directory, name, "acme.json") for name in os.listdir(lab.directory) if name.endswith("-state")]
        size = 0
        for path in filter(os.path.exists, paths):
            with open(path, errors="replace") as file:
                text = file.read()
            size += len(text)
            found = self.found(text)
            check(not found, f"{os.path.basename(path)} holds {found}")
        found = self.found("\n".join(self.printed))
        check(not found and self.printed, f"certs has printed {found}")
        return size


# Of the whole run.
SECRETS = Secrets()


def at_once(actions, timeout=45):
    """Runs all of them in threads; returns their results, failures as exceptions."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(len(actions)) as pool:
        futures = [pool.submit(action) for action in actions]
        results = []
        for future in futures:
            try:
                results.append(future.result(timeout))
            except (OSError, Failure) as error:
                results.append(error)
        return results


def count_handshakes(site, domain, until, failures, serials, threads=4):
    """New handshakes without pause until the event; what fails is kept, and which certificates were shown."""
    import threading

    counts = [0] * threads

    def run(number):
        while not until.is_set():
            try:
                serials.add(site.shown(domain, timeout=10).serial_number)
                counts[number] += 1
            except Exception as error:
                failures.append(repr(error))
            time.sleep(0.005)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    until.wait()
    for worker in workers:
        worker.join()
    return sum(counts)


def curl_version(edge, domain, path="/"):
    """Status and HTTP version of a request by curl."""
    result = subprocess.run(
        ["curl", "--silent", "--show-error", "--http2", "--max-time", "30", "--output", "/dev/null", "--write-out", "%{http_code} %{http_version}",
         *edge.curl_options(domain), edge.url(domain, path)], capture_output=True, text=True)
    check(result.returncode == 0, f"curl: {result.stderr}")
    return tuple(result.stdout.split())
