"""What testssl.sh finds at a gateway with a certificate of the test CA. 3 minutes."""

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
# What is found because of the test's set-up, and not because of the gateway: finding, and why it is there.
OF_THE_SET_UP = {
}
GOOD = {"OK", "INFO", "DEBUG", "WARN"}
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
        with open("/tmp/testssl-output", "w") as f: f.write(result.stdout+result.stderr)
        with open(path) as file:
            findings = json.load(file)
        with open("/tmp/testssl-json", "w") as f: json.dump(findings, f, indent=1)
        check(len(findings) > 50, f"only {len(findings)} findings: {result.stdout[-500:]} {result.stderr[-500:]}")
