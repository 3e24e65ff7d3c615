"""What the program `bench` measures by itself: single operations, and what the machine allows."""

import re

from bench.bulk import LIMITED
from bench.catalogue import beside
from bench.figures import OURS
from bench.processes import run
from bench.task import ONCE, Task


class Micro:
    def __init__(self, tool, figures):
        self.tool, self.figures = tool, figures

    def tasks(self):
        return [Task(name, (), seconds, lambda name=name: self.operations(name), when=ONCE) for name, seconds in (("micro", 3), ("stack", 8))]

    def lines(self, command):
        """Name, value, unit, and the value beside it if there is one."""
        output, _ = run([self.tool.path, command], 300, env=self.tool.environment())
        for line in output.splitlines():
            match = re.fullmatch(r"(\S+) ([\d.e+-]+) (.*?)(?: baseline ([\d.e+-]+) ratio \S+)?", line)
            if not match:
                raise RuntimeError(f"{command}: {line}")
            yield match[1], float(match[2]), match[3], float(match[4]) if match[4] else None

    def operations(self, command):
        for name, value, unit, other in self.lines(command):
            self.figures.add(name, OURS, value, unit)
            if other is not None:
                self.figures.add(name, beside(name), other, unit)

    def limits(self):
        """The rate at which one core seals, and at which it could shake hands."""
        values = {name: value for name, value, _, _ in self.lines("limits")}
        self.figures.add_limit(LIMITED, values["aead"])
        self.figures.add_limit(["handshakes"], 1e9 / (4 * values["x25519"]))
