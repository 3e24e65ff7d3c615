"""HTTP clients of the tests: curl for whole transfers, sockets for everything that curl would put right."""

import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess

from .origin import pattern, pattern_digest
from .system import Failure, check, check_equal


class Edge:
    """The public side of a gateway on loopback, as a client sees it."""

    def __init__(self, https_port, http_port, authority, address="127.0.0.1"):
        self.https_port = https_port
        self.http_port = http_port
        self.authority = authority
        self.address = address

    def tls_context(self, alpn=()):
        context = ssl.create_default_context(cafile=self.authority)
        # What newer Pythons check by default.
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def open_tls(self, domain, timeout=15, alpn=(), source=None):
        """`source` is the client's own address, of the many that loopback has."""
        roots = self.roots()
        try:
            return self.handshake(domain, timeout, alpn, source)
        except ssl.SSLCertVerificationError:
            # A domain may have been added meanwhile, and the root that was read replaced.
            if self.roots() == roots:
                raise
            return self.handshake(domain, timeout, alpn, source)

    def roots(self):
        with open(self.authority, "rb") as file:
            return file.read()

    def handshake(self, domain, timeout, alpn, source):
        raw = socket.create_connection((self.address, self.https_port), timeout=timeout, source_address=source and (source, 0))
        # As browsers and curl do.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return self.tls_context(alpn).wrap_socket(raw, server_hostname=domain)
        except Exception:
            raw.close()
            raise

    def open_plain(self, timeout=15):
        return socket.create_connection((self.address, self.http_port), timeout=timeout)

    def connection(self, domain, timeout=30):
        """An http.client connection over TLS; closes when asked only, so that a second request proves keep-alive."""
        connection = http.client.HTTPConnection(domain, timeout=timeout)
        connection.sock = self.open_tls(domain, timeout)
        connection.auto_open = 0
        return connection

    def request(self, domain, method="GET", path="/", body=None, headers=None, timeout=30):
        """One request on a fresh connection: status, fields (lower-case), body."""
        connection = self.connection(domain, timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def status_of(self, domain, path="/", timeout=10):
        """The status code, or None when there is no answer."""
        try:
            return self.request(domain, path=path, timeout=timeout)[0]
        except (OSError, http.client.HTTPException):
            return None

    def raw(self, request, domain=None, timeout=15):
        """Sends bytes over TLS with this domain as SNI (plain HTTP without) and returns everything until the end of the connection."""
        with self.open_tls(domain, timeout) if domain else self.open_plain(timeout) as connection:
            connection.sendall(request)
            return read_all(connection)

    def curl_options(self, domain):
        return ["--cacert", self.authority, "--resolve", f"{domain}:{self.https_port}:{self.address}"]

    def url(self, domain, path="/"):
        return f"https://{domain}:{self.https_port}{path}"


def read_all(connection):
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except (ConnectionError, ssl.SSLError):
        pass
    except TimeoutError:
        raise Failure(f"the connection was neither answered to its end nor closed; so far: {received[:200]!r}") from None
    return received


def first_status(answer):
    match = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(match[1]) if match else None


def curl(arguments, namespace=None, timeout=60, input=None):
    """Runs curl and returns its standard output as bytes; a Failure with its message otherwise."""
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", str(timeout)] + arguments
    if namespace:
        command = ["ip", "netns", "exec", namespace] + command
    result = subprocess.run(command, capture_output=True, input=input, timeout=timeout + 5)
    if result.returncode != 0:
        raise Failure(f"curl {arguments[-1]}: {result.stderr.decode(errors='replace').strip()} (exit code {result.returncode})")
    return result.stdout


def download(options, url, count, namespace=None):
    """Fetches `count` bytes of the pattern and checks every one of them."""
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "80"] + options + [url]
    if namespace:
        command = ["ip", "netns", "exec", namespace] + command
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        digest, length = hashlib.sha256(), 0
        while piece := child.stdout.read(1 << 20):
            digest.update(piece)
            length += len(piece)
        message = child.stderr.read().decode(errors="replace").strip()
        code = child.wait()
    check(code == 0, f"curl {url}: {message} (exit code {code}, {length} bytes received)")
    check_equal(length, count, f"length of {url}")
    check_equal(digest.hexdigest(), pattern_digest(count), f"SHA-256 of {url}")


def pattern_file(directory, count):
    """A file with the test pattern, made once."""
    path = os.path.join(directory, f"pattern-{count}")
    if not os.path.exists(path):
        with open(path, "wb") as file:
            for piece in pattern(count):
                file.write(piece)
        os.chmod(path, 0o644)
    return path


def upload(options, url, path, namespace=None):
    """Sends a file to the origin's /upload, which answers with length and checksum of what it got."""
    size = os.path.getsize(path)
    answer = json.loads(curl(options + ["--upload-file", path, url], namespace=namespace, timeout=80))
    check_equal(answer, {"sha256": pattern_digest(size), "length": size}, f"what arrived of an upload to {url}")
