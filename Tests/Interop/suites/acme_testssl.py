"""What testssl.sh finds at a gateway with a certificate of the test CA. 90 s."""

import json
import os
import re
import subprocess

from interop.certified import Certified
from interop.nodes import Origin
from interop.pebble import TOOLS, Pebble
from interop.runner import Suite, test
from interop.system import check, check_equal

NAME = "app.example.test"
# Findings above LOW that are not about the gateway, and why they are there.
OF_THE_SET_UP = {
    "cert_revocation": "pebble's certificates name neither a CRL nor OCSP",
    "security_headers": "they are the web service's: the gateway adds none to its answers",
}
LEVELS = ["LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"]


class SUITE(Suite):
    tools = [*TOOLS, "testssl"]
    modules = ["cryptography"]
    timeout = 600

    def set_up(self):
        self.origin = Origin(self.lab)
        self.pebble = Pebble(self.lab, chain=2)
        self.site = Certified(self.program, self.lab, self.pebble, "site", [NAME], target=self.origin.target)
        self.site.wait_until_served(NAME)

    @test
    def testssl_finds_nothing_at_the_gateway(self):
        path = os.path.join(self.lab.directory, "testssl.json")
        result = subprocess.run(
            ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--add-ca", self.pebble.root_file, "--ip", "127.0.0.1", "--jsonfile", path,
             f"{NAME}:{self.site.https}"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=560,
            env={"PATH": os.environ["PATH"], "HOME": self.lab.directory, "LANG": "C.UTF-8", "TERM": "dumb"})
        with open(path) as file:
            findings = json.load(file)
        check(len(findings) > 100, f"only {len(findings)} findings: {result.stdout[-500:]} {result.stderr[-500:]}")
        counts = {}
        for finding in findings:
            counts[finding["severity"]] = counts.get(finding["severity"], 0) + 1
        print(f"    testssl: {', '.join(f'{count} {level}' for level, count in sorted(counts.items()))}")
        for line in re.findall(r"(?:Overall Grade|Final Score).*", result.stdout):
            print(f"    testssl: {line}")
        bad = [f"{one['id']} {one['severity']}: {one['finding']}" for one in findings if one["severity"] in LEVELS]
        print("\n".join(f"    testssl: {line}" for line in bad))
        bad = [line for line in bad if line.split()[0] not in OF_THE_SET_UP and " LOW: " not in line]
        check_equal(bad, [], "findings above LOW")
        by_id = {finding["id"]: finding["finding"] for finding in findings}
        for name, words in (("cert_chain_of_trust", "passed"), ("TLS1", "not offered"), ("TLS1_2", "offered"), ("TLS1_3", "offered"), ("ALPN_HTTP2", "h2")):
            check(any(key.split(" ")[0] == name and words in value for key, value in by_id.items()), f"{name}: no {words} in {by_id.get(name)}")
