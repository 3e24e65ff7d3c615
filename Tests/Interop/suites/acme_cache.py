"""The files in which certificates are kept: those of other programs, damaged ones, a full disk, and what is left at the end. 30 s."""

import os
import re
import signal
import subprocess
import time

from interop.autocert import Cache, Issuer
from interop.certified import SECRETS, Certified, serial_in, thumbprint
from interop.pebble import TOOLS, Pebble, Silence
from interop.runner import Suite, test
from interop.system import check, check_equal, free_port, is_root, wait_until

APP = "app.example.test"
PATH = "/.well-known/acme-challenge/"


class SUITE(Suite):
    tools = TOOLS
    modules = ["cryptography"]

    def set_up(self):
        self.pebble = Pebble(self.lab)
        self.issuer = Issuer()

    def site(self, name, domains, **options):
        return Certified(self.program, self.lab, self.pebble, name, domains, **options)

    def elsewhere(self, name, domains, **options):
        """A gateway that the CA does not see."""
        return self.site(name, domains, https=free_port(), http=free_port(), **options)

    @test
    def a_cache_of_autocert_is_served_whole(self):
        """At once, with a CA that nobody reaches."""
        for name, account, kind in (
                ("cache", "acme_account+key", None), ("cache-legacy", "acme_account.key", None), ("cache-rsa", "acme_account+key", "rsa2048")):
            cache = Cache(self.lab, name)
            key, chain = self.issuer.leaf(APP, rsa=kind is not None)
            cache.write(APP + ("+rsa" if kind else ""), key + chain)
            expected = cache.account(account)
            token, authorization = cache.token(expected)
            before = cache.snapshot()
            settings = {"directory": f"https://127.0.0.1:{free_port()}/dir", **({"key-type": kind} if kind else {})}
            with self.elsewhere(name + "-site", [APP], settings=settings, cache=cache.directory) as site:
                check_equal(site.shown_by(self.issuer, APP).serial_number, serial_in(chain), f"{name}: serial number")
                check(expected in site.certs("account"), f"{name}: the account's key is another one")
                answer = site.edge.raw(f"GET {PATH}{token} HTTP/1.1\r\nHost: {APP}\r\nConnection: close\r\n\r\n".encode())
                check(answer.endswith(authorization.encode()), f"{name}: a stray token is answered by {answer}")
                check_equal(site.entry(APP)["state"], "valid", f"{name}: state")
                check_equal(site.said("Ordering a certificate"), [], f"{name}: orders")
                site.gateway.process.stop(signal.SIGKILL)
            check_equal(cache.snapshot(), before, f"{name}: the files afterwards")

    @test
    def a_cache_of_autocert_makes_no_account_and_no_order(self):
        cache = Cache(self.lab, "quiet")
        key, chain = self.issuer.leaf(APP)
        cache.write(APP, key + chain)
        cache.account()
        before = len(self.pebble.log)
        with self.elsewhere("quiet-site", [APP], cache=cache.directory) as site:
            site.shown_by(self.issuer, APP)
            site.certs("list")
            time.sleep(1.5)
            asked = re.findall(r"(?:GET|HEAD|POST) /\S+", self.pebble.log[before:])
            check_equal(asked, [], "requests")

    @test
    def sigterm_does_not_wait_for_a_ca_that_nobody_reaches(self):
        settings = {"directory": f"https://127.0.0.1:{free_port()}/dir"}
        with self.elsewhere("leaving", [APP], settings=settings) as site:
            begin = time.monotonic()
            site.gateway.process.stop(timeout=6)
            seconds = time.monotonic() - begin
        check(seconds < 3, f"it took {seconds:.1f} s")

    @test
    def an_order_that_is_given_up_leaves_no_challenge_behind(self):
        """At the end of the process, and of a route."""
        with Silence(self.pebble.http), self.elsewhere("leftover", ["given.example.test", "up.example.test"], settings={"challenges": ["http-01"]}) as site:
            wait_until(lambda: len(site.said("Challenge presented")) == 2, 10, "both challenges are presented")
            site.reload(["given.example.test"])
            site.wait_for_line("Configuration reloaded: 0 tunnels added, 1 removed, 0 changed, 1 unchanged")
            time.sleep(0.5)
            files = len([name for name in os.listdir(site.cache) if name.endswith("+http-01")])
            site.stop()
            left = [name for name in os.listdir(site.cache) if name.endswith("+http-01")]
            check_equal((files, len(left)), (1, 0), "files of challenges when one route has gone, and after the end")

    @test
    def damaged_files_are_kept_told_and_replaced(self):
        key, chain = self.issuer.leaf("any.example.test")
        other_key, _ = self.issuer.leaf("any.example.test")
        old_key, expired = self.issuer.leaf("expired.example.test", begin=-90, end=-1)
        damage = {
            "truncated": key + chain[:400], "mismatched": other_key + chain, "foreign": key + chain, "binary": os.urandom(3000), "empty": b"",
            "large": b"x" * (2 << 20), "keyless": chain, "expired": old_key + expired}
        cache = Cache(self.lab, "damaged")
        names = {what: f"{what}.example.test" for what in damage}
        for what, content in damage.items():
            cache.write(names[what], content)
        cache.write("acme_account+key", b"no key at all\n")
        os.mkdir(os.path.join(cache.directory, "folder.example.test"))
        with self.site("damaged-site", [*names.values(), "folder.example.test"], cache=cache.directory) as site:
            for name in [*names.values(), "folder.example.test"]:
                site.wait_for_certificate(name)
                site.shown(name)
            after, faults = cache.snapshot(), []
            complaints = [line for line in site.log.splitlines() if re.search('"level":"(WARN|ERR)', line)]
            damage["acme_account+key"] = b"no key at all\n"
            # Nothing is wrong with a certificate that has expired.
            del damage["expired"]
            for what, content in damage.items():
                name = names.get(what, what)
                if not any(other.startswith(name) and kept == content for other, kept in after.items()):
                    faults.append(f"the content of {name} is gone")
                if not any(name in line for line in complaints):
                    faults.append(f"nothing is said of {name}")
                if what in names and after.get(name, b"").count(b"BEGIN CERTIFICATE") != 2:
                    faults.append(f"{name} is not replaced")
            check(any(os.path.isdir(site.path(entry)) for entry in os.listdir(site.cache)), "the directory is gone")
            check_equal(faults, [], "faults")
            check(thumbprint(site.file("acme_account+key")) in site.certs("account"), "the new account's key is not the one in the file")

    @test
    def a_new_certificate_is_served_though_the_disk_is_full_and_stored_later(self):
        directory, is_mounted = self.lab.private_directory("disk"), False
        if is_root():
            is_mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", directory], capture_output=True).returncode == 0
            if is_mounted:
                self.lab.on_close(lambda: subprocess.run(["umount", directory], capture_output=True))
                self.lab.own(directory, 0o700)
        name, late = "full.example.test", "late.example.test"
        with self.site("full", [name], cache=directory) as site:
            site.shown(name)
            cache = Cache(self.lab, "disk")
            before = cache.snapshot()
            self.fill(directory, is_mounted)
            old = site.shown(name).serial_number
            site.certs("renew", name, "--wait")
            check(site.shown(name).serial_number != old, "the new certificate is not served")
            line, *_ = site.said("A new certificate is served but could not be stored; it is tried again every minute", domain=name)
            check(re.search("No space|Permission", line["error"]), f"error: {line['error']}")
            left = {path: content for path, content in cache.snapshot().items() if path != "filler"}
            check_equal(left, before, "the files while there is no room")
            if is_mounted:
                os.unlink(os.path.join(directory, "filler"))
            else:
                os.chmod(directory, 0o700)
            # Whatever it does next, it tries to store first.
            site.reload([name, late])
            site.wait_for_line("A certificate that could not be stored is stored now", domain=name)
            check_equal(serial_in(site.file(name)), site.shown(name).serial_number, "serial number in the file")

    @staticmethod
    def fill(directory, is_mounted):
        if not is_mounted:
            os.chmod(directory, 0o500)
            return
        with open(os.path.join(directory, "filler"), "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass

    @test
    def no_key_is_told_anywhere(self):
        SECRETS.check_untold(self.lab)
