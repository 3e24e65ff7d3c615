"""Certificates as their operator sees them: `certs` commands, the responder of HTTP-01, settings. 25 s."""

import os
import pty
import re
import socket
import subprocess

from interop.autocert import Cache, Issuer
from interop.certified import SECRETS, Certified, serial_in, thumbprint
from interop.client import Edge, first_status
from interop.nodes import Gateway, Origin
from interop.pebble import TOOLS, Pebble, openssl
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port

APP, SECOND = "app.example.test", "second.example.test"
PATH = "/.well-known/acme-challenge/"


class SUITE(Suite):
    tools = TOOLS
    modules = ["cryptography"]

    def set_up(self):
        self.origin = Origin(self.lab)
        self.pebble = Pebble(self.lab)
        self.issuer = Issuer()
        self.main = self.site("main", [APP, SECOND], target=self.origin.target)
        self.main.wait_for_certificate(APP)
        self.main.wait_for_certificate(SECOND)

    def site(self, name, domains, **options):
        return Certified(self.program, self.lab, self.pebble, name, domains, **options)

    # Commands

    @test
    def list_show_and_account_say_what_is_so(self):
        shown = self.main.shown(APP)
        issuer = shown.issuer.rfc4514_string().removeprefix("CN=")
        listed, text = self.main.certs("list"), self.main.certs("show", APP)
        check(re.search(rf"^{re.escape(APP)} +valid +{re.escape(issuer)} ", listed, re.MULTILINE), f"certs list: {listed}")
        for part in (issuer, shown.not_valid_after.strftime("%Y-%m-%dT%H:%M:%SZ"), shown.not_valid_before.strftime("%Y-%m-%dT%H:%M:%SZ"), "valid"):
            check(part in text, f"certs show lacks {part}: {text}")
        account = self.main.certs("account")
        check(thumbprint(self.main.file("acme_account+key")) in account, f"certs account: {account}")
        check("me@example.org" in account and f"https://127.0.0.1:{self.pebble.port}/my-account/" in account, f"certs account: {account}")
        for arguments in (["show", "nobody.example.test"], ["renew", "nobody.example.test"], ["export", "nobody.example.test"]):
            message = self.main.certs(*arguments, code=None)
            check(re.search("no (certificate|route)", message), f"certs {arguments[0]} of an unknown name: {message}")

    @test
    def trust_tells_of_the_internal_ca_and_that_there_is_none_with_acme(self):
        message = self.main.certs("trust", code=None)
        check("not there" in message, f"with ACME: {message}")
        directory = self.lab.private_directory("internal-conf")
        self.program.run(self.lab, ["init", "--domain", APP, "--endpoint", f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}", "--out", directory])
        gateway = Gateway(self.program, self.lab, os.path.join(directory, "gateway.conf"), [f"{APP}=10.1.0.2"], name="internal")
        result = self.program.run(self.lab, ["certs", "trust", "--state", gateway.state])
        check(result.returncode == 0 and os.path.join(gateway.state, "internal-ca.pem") in result.stdout, f"without: {result.stdout} {result.stderr}")
        result = self.program.run(self.lab, ["certs", "renew", APP, "--state", gateway.state])
        check(result.returncode == 1 and re.search("certs list|ACME is off", result.stderr), f"certs renew without ACME: {result.stderr}")
        gateway.process.stop()

    @test
    def a_revoked_certificate_is_revoked_and_followed(self):
        before = self.main.shown(SECOND).serial_number
        check_equal(self.pebble.status_of(before), "Valid", "status before")
        self.main.certs("revoke", SECOND, "--reason", "keyCompromise")
        check_equal(self.pebble.status_of(before), "Revoked", "status afterwards")
        after = self.main.shown(SECOND)
        check(after.serial_number != before, "the revoked certificate is shown")
        aside = [name for name in os.listdir(self.main.cache) if name.startswith(f"{SECOND}.revoked-")]
        check_equal(len(aside), 1, "files of the revoked certificate")
        check_equal(serial_in(self.main.file(SECOND)), after.serial_number, "serial number in the file")

    @test
    def export_writes_private_files_and_no_terminal(self):
        path = os.path.join(self.lab.private_directory("exported"), "app.pem")
        self.main.certs("export", APP, "--out", path)
        check_equal(os.stat(path).st_mode & 0o777, 0o600, "mode of the exported file")
        with open(path, "rb") as file:
            exported = file.read()
        check_equal(exported, self.main.file(APP), "what was exported")
        check_equal(serial_in(exported), self.main.shown(APP).serial_number, "serial number of what was exported")
        check(openssl("pkey", "-pubout", input=exported) == openssl("x509", "-pubkey", "-noout", input=exported), "key and certificate differ")
        self.main.certs("export", APP, "--out", path, code=None)
        check_equal(self.main.certs("export", APP).encode(), exported, "what was exported to a pipe")
        leader, follower = pty.openpty()
        # As the tests' own user: the terminal is what counts.
        result = subprocess.run(
            [self.program.path, "certs", "export", APP, "--state", self.main.state], stdout=follower, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env=self.program.environment(), timeout=20)
        os.close(follower)
        os.set_blocking(leader, False)
        try:
            written = os.read(leader, 65536)
        except OSError:
            written = b""
        os.close(leader)
        check_equal((result.returncode != 0, written), (True, b""), "export to a terminal")
        check(b"--out" in result.stderr, f"message: {result.stderr}")

    @test
    def an_imported_certificate_is_served_until_it_is_renewed(self):
        key, chain = self.issuer.leaf(SECOND)
        key_path, path = self.lab.write("import.key", key.decode()), self.lab.write("import.pem", chain.decode())
        check(SECOND in self.main.certs("import", path, "--key", key_path), "what certs import prints")
        check_equal(self.main.shown_by(self.issuer, SECOND).serial_number, serial_in(chain), "serial number that is shown")
        both = self.lab.write("both.pem", (chain + key).decode())
        self.main.certs("import", both)
        remarks = "".join(f"remark {number}: what openssl x509 -text writes in front\n" for number in range(2_000))
        self.main.certs("import", self.lab.write("long.pem", remarks + (chain + key).decode()))
        check("Offline Intermediate" in self.main.certs("list"), "certs list does not name the issuer")
        self.main.certs("renew", SECOND, "--wait")
        check(self.main.shown(SECOND).serial_number != serial_in(chain), "the imported certificate is shown after renewal")

    @test
    def what_cannot_be_served_is_not_imported(self):
        before = self.main.shown(APP).serial_number
        key, chain = self.issuer.leaf(APP)
        other_key, foreign = self.issuer.leaf("foreign.example.test")
        old_key, expired = self.issuer.leaf(APP, begin=-90, end=-1)
        cases = {
            "expired": (expired + old_key, "expired"), "of another name": (foreign + other_key, "foreign.example.test"),
            "with another key": (chain + other_key, "key"), "without a key": (chain, "key"), "a key alone": (key, "certificate"),
            "garbage": (b"garbage\n", "key|PEM|certificate"), "empty": (b"", "key|PEM|certificate"),
            "cut off": (key + chain[:300], "certificate"),
        }
        for number, (what, (content, words)) in enumerate(cases.items()):
            path = self.lab.write(f"bad-{number}.pem", content.decode())
            message = self.main.certs("import", path, code=None)
            check(re.search(words, message) and len(message) < 500, f"{what}: {message!r}")
        message = self.main.certs("import", self.lab.write("vast.pem", "remark\n" * 40_000), code=None)
        check("larger than 262144 bytes" in message, f"a file beyond the limit: {message}")
        message = self.main.certs("import", os.path.join(self.lab.directory, "missing.pem"), code=None)
        check("missing.pem" in message, f"a missing file: {message}")
        check_equal(self.main.shown(APP).serial_number, before, "serial number afterwards")

    @test
    def the_account_gets_a_new_key(self):
        old = thumbprint(self.main.file("acme_account+key"))
        url = re.search(r"https://\S+/my-account/\w+", self.main.certs("account"))[0]
        message = self.main.certs("rollover")
        new = thumbprint(self.main.file("acme_account+key"))
        check(new != old and new in message, f"certs rollover: {message}")
        account = self.main.certs("account")
        check(new in account and url in account, f"certs account afterwards: {account}")
        before = self.main.shown(APP).serial_number
        self.main.certs("renew", APP, "--wait")
        check(self.main.shown(APP).serial_number != before, "no renewal with the new key")
        check("acme_account+key.next" not in os.listdir(self.main.cache), "the next key is left behind")

    # The responder

    def plain(self, path, host=APP, method="GET"):
        return self.main.edge.raw(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())

    @test
    def challenges_of_http_01_are_answered_where_they_belong(self):
        cache = Cache(self.lab, os.path.relpath(self.main.cache, self.lab.directory))
        token, authorization = cache.token(thumbprint(self.main.file("acme_account+key")))
        answer = self.plain(PATH + token)
        check_equal((first_status(answer), answer.partition(b"\r\n\r\n")[2]), (200, authorization.encode()), "answer")
        head = self.plain(PATH + token, method="HEAD")
        check_equal((first_status(head), head.partition(b"\r\n\r\n")[2]), (200, b""), "answer to HEAD")
        check(f"content-length: {len(authorization)}" in head.decode().lower(), f"length in the answer to HEAD: {head}")
        check_equal(first_status(self.plain(PATH + token, "unknown.example.test")), 404, "status for a host without a tunnel")
        for what, path, method in (
                ("an unknown token", PATH + "A" * 43, "GET"), ("a short token", PATH + "x", "GET"), ("POST", PATH + token, "POST"),
                ("another path", PATH + "../" + token, "GET"), ("a query", PATH + token + "/", "GET")):
            answer = self.plain(path, method=method)
            check(first_status(answer) in (301, 308) and authorization.encode() not in answer, f"{what}: {answer[:300]}")
        os.unlink(self.main.path(f"{token}+http-01"))

    @test
    def an_unknown_token_over_https_is_the_web_services_business(self):
        self.main.wait_until_served(APP)
        status, _, body = self.main.edge.request(APP, path=PATH + "B" * 43)
        check_equal((status, body), (404, b"no such page\n"), "status and answer to an unknown token over HTTPS")

    # Settings

    def check_settings(self, arguments=(), environment=None, text=None, code=0):
        """What --check prints."""
        command = ["gateway", "--check", "--state", os.path.join(self.lab.directory, "none"), *arguments]
        if text is None:
            command += ["--wg", os.path.join(self.main.directory, "gateway.conf"), "--route", f"{APP}=10.1.0.2"]
        else:
            path = self.lab.write("main-conf/checked.toml", f'[wireguard]\nconfig = "gateway.conf"\n[[tunnel]]\ndomain = "{APP}"\nagent = "10.1.0.2"\n' + text)
            command += ["--config", path]
        result = self.program.run(self.lab, command, environment=environment)
        check_equal(result.returncode, code, f"exit code of {arguments} {environment} {text} ({result.stdout} {result.stderr})")
        return result.stdout + result.stderr

    @test
    def settings_come_from_flags_variables_and_files_and_check_prints_them(self):
        url = self.pebble.url
        directories = {"": "https://acme-v02.api.letsencrypt.org/directory", "true": "https://acme-staging-v02.api.letsencrypt.org/directory"}
        for arguments, environment, text, expected in (
                (["--acme-email", "me@example.org"], {}, None, [directories[""], "tls-alpn-01, http-01", "/none/certificates"]),
                ([], {"ACME_EMAIL": "me@example.org", "ACME_STAGING": "true"}, None, [directories["true"]]),
                (["-acme-email", "me@example.org", "-acme-staging"], {}, None, [directories["true"]]),
                (["-acme-email=me@example.org", "-acme-staging=true"], {}, None, [directories["true"]]),
                (["-acme-email", "me@example.org", "-acme-staging=false", "-acme-cache-dir", "/tmp/c"], {"ACME_STAGING": "true"}, None, [directories[""], "cache /tmp/c"]),
                ([], {"ACME_DIRECTORY": url, "ACME_CA_FILE": self.pebble.ca_file, "ACME_CHALLENGES": "http-01", "ACME_CACHE_DIR": "/tmp/d"}, None, [url, "challenges http-01,", "cache /tmp/d"]),
                ([], {}, f'[acme]\nemail = "me@example.org"\ndirectory = "{url}"\nchallenges = ["http-01"]\ncache-dir = "/tmp/e"\n', [url, "challenges http-01,", "cache /tmp/e"]),
                (["--acme-challenges", "tls-alpn-01"], {"ACME_CHALLENGES": "http-01"}, f'[acme]\ndirectory = "{url}"\n', [url, "challenges tls-alpn-01,"])):
            printed = self.check_settings(arguments, environment, text)
            for part in ["OK", *expected]:
                check(part in printed, f"{arguments} {environment} {text}: no {part} in {printed}")
        check("internal CA" in self.check_settings(), "without any setting")

    @test
    def the_placeholder_address_and_wrong_settings_are_refused_with_their_place(self):
        placeholder, mail = "admin@example.com", ["--acme-email", "me@example.org"]
        key = self.lab.write("hmac", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")
        for arguments, environment, text, words in (
                (["--acme-email", placeholder], {}, None, f"--acme-email: .*{placeholder}.*placeholder"),
                ([], {"ACME_EMAIL": placeholder}, None, f"ACME_EMAIL: .*{placeholder}"),
                ([], {}, f'[acme]\nemail = "{placeholder}"\n', rf"checked\.toml:7:\d+.*{placeholder}"),
                ([], {"ACME_EMAIL": "Admin@Example.COM"}, None, "ACME_EMAIL: .*placeholder"),
                ([*mail, "--acme-challenges", "http-02"], {}, None, '--acme-challenges: "http-02"'),
                ([], {}, '[acme]\nemail = "me@example.org"\nchallenges = ["http-01", "carrier-pigeon"]\n', r'checked\.toml:8:\d+.*"carrier-pigeon"'),
                (["--acme-directory", "http://ca.example.org/dir"], {}, None, "--acme-directory: .*https"),
                ([], {"ACME_DIRECTORY": "nonsense"}, None, "ACME_DIRECTORY: .*URL"),
                ([*mail, "--acme-eab-key-id", "kid"], {}, None, "--acme-eab-key-id: .*both"),
                ([*mail, "--acme-eab-key-file", key], {}, None, "--acme-eab-key-file: .*both"),
                ([], {}, '[acme]\nemail = "me@example.org"\n[cluster]\npeers = [{ address = "192.0.2.2", account_thumbprint = "short" }]\n', r"checked\.toml:9:\d+.*thumbprint"),
                ([], {}, '[acme]\nemail = "me@example.org"\ncolour = "red"\n', r"checked\.toml:8:\d+.*colour")):
            printed = self.check_settings(arguments, environment, text, code=1)
            check(re.search(words, printed), f"{arguments} {environment} {text}: no {words} in {printed}")

    @test
    def flags_alone_bring_a_certificate(self):
        self.main.stop()
        gateway = Gateway(
            self.program, self.lab, os.path.join(self.main.directory, "gateway.conf"), [f"flags.{APP}=10.1.0.2"], name="flags",
            https=self.pebble.tls, http=self.pebble.http,
            options=["--acme-directory", self.pebble.url, "--acme-ca-file", self.pebble.ca_file, "--acme-email", "me@example.org"])
        try:
            Edge(self.pebble.tls, self.pebble.http, self.pebble.root_file).open_tls(f"flags.{APP}").close()
        finally:
            gateway.process.stop()
            self.main.start()

    @test
    def a_file_with_roots_that_is_missing_is_found_by_check(self):
        arguments = ["--acme-directory", self.pebble.url, "--acme-ca-file", "/nowhere/ca.pem"]
        check("/nowhere/ca.pem" in self.check_settings(arguments, code=1), "the file is not named")

    @test
    def one_wrong_challenge_is_one_error(self):
        printed = self.check_settings(["--acme-email", "me@example.org", "--acme-challenges", "http-02"], code=1)
        check_equal(printed.count("error: "), 1, f"errors in {printed}")

    @test
    def no_key_is_told_anywhere(self):
        SECRETS.check_untold(self.lab)

