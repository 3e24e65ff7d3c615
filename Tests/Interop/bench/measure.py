"""Interleaved rounds of every measurement on all sides, printed as one table:
measure.py [--rounds N] [--json FILE] [--only NAME,...] [--tool BENCH] PROGRAM"""

import argparse
import json
import os
import sys
import time
from contextlib import closing

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.bulk import Bulk  # noqa: E402
from bench.crowds import Crowds  # noqa: E402
from bench.dial import Dial  # noqa: E402
from bench.figures import Figures  # noqa: E402
from bench.floods import Floods  # noqa: E402
from bench.goodput import Goodput  # noqa: E402
from bench.handshakes import Handshakes  # noqa: E402
from bench.https import HTTPS  # noqa: E402
from bench.micro import Micro  # noqa: E402
from bench.peers import Peers  # noqa: E402
from bench.processes import busy_share  # noqa: E402
from bench.report import show  # noqa: E402
from bench.sides import FAULTS, Sides  # noqa: E402
from bench.task import ASKED, ONCE  # noqa: E402
from interop.product import Program  # noqa: E402
from interop.system import Lab  # noqa: E402


class Notes:
    """What has to be said beside the figures, each once; behind the table again, so that it is not lost."""

    def __init__(self):
        self.said = []

    def __call__(self, text):
        if text not in self.said:
            self.said.append(text)


class MissingTool:
    """In the place of the program `bench`: what needs it fails with these words, and becomes a note."""

    def __getattr__(self, _):
        raise RuntimeError("the program `bench` is missing beside the one that is measured")

    def close(self):
        pass


class Run:
    def __init__(self, program, tool, lab, only, rounds):
        self.only, self.rounds = only, rounds
        self.note, self.figures = Notes(), Figures()
        sides = Sides(program, lab, self.note)
        self.https = HTTPS(tool, lab, sides, self.figures, self.note)
        self.micro = Micro(tool, self.figures)
        self.sides = sides
        groups = (
            Bulk(program, tool, lab, sides, self.figures), Dial(program, lab, sides, self.figures), self.https,
            Handshakes(program, tool, lab, sides, self.figures, self.note), Peers(program, tool, lab, sides, self.figures),
            Crowds(program, lab, sides, self.figures),
            Floods(program, tool, lab, sides, self.figures, self.note), self.micro,
            Goodput(program, tool, lab, sides, self.figures, self.note))
        self.tasks = [task for group in groups for task in group.tasks()]

    def names(self):
        return [name for task in self.tasks for name in (task.name, *task.figures)]

    def tasks_of(self, number):
        """The tasks of a round, counted from 0."""
        for task in self.tasks:
            if self.only:
                if task.is_named(self.only):
                    yield task
            elif task.when != ASKED and (task.when != ONCE or number == 0):
                yield task

    def measure(self):
        busy = busy_share()
        if busy > 0.1:
            self.note(f"other programs used {busy:.0%} of this machine at the start: the figures are lower than they could be, and wander")
        print("starting everything", flush=True)
        seconds = 5
        sides = {}
        for task in self.tasks_of(0):
            if task.sides:
                sides[task.name] = []
                self.guarded(task.name, lambda task=task: sides[task.name].extend(task.sides()))
        if sides.get("startup"):
            for side in self.sides.web:
                self.https.add_idle(side)
        for number in range(self.rounds):
            seconds += sum(task.seconds * len(sides.get(task.name, [None])) for task in self.tasks_of(number))
        minutes = max(1, round(seconds / 60))
        print(f"this takes about {minutes} {'minute' if minutes == 1 else 'minutes'}", flush=True)
        for number in range(self.rounds):
            start = time.monotonic()
            print(f"round {number + 1} of {self.rounds}:", end="", flush=True)
            self.guarded("limits", self.micro.limits)
            for task in self.tasks_of(number):
                print(f" {task.name}", end="", flush=True)
                for side in self.turns(sides.get(task.name), number):
                    self.guarded(f"{task.name} on {side.name}", lambda task=task, side=side: task.action(side))
                if not task.sides:
                    self.guarded(task.name, task.action)
            print(f" ({time.monotonic() - start:.0f} s)", flush=True)

    @staticmethod
    def turns(sides, number):
        """In the other order every second round, so that nobody is always the first."""
        return list(sides or []) if number % 2 == 0 else list(sides or [])[::-1]

    def guarded(self, what, action):
        """A failure is a note."""
        try:
            action()
        except FAULTS as error:
            self.note(f"{what}: {error}")

    def results(self):
        """In the order of the tasks; without what was measured along with what was asked for."""
        results = [result for result in self.figures.results() if not self.only or self.is_asked_for(result["name"])]
        order = {name: position for position, name in enumerate(self.names())}
        return sorted(results, key=lambda result: order.get(result["name"], len(order)))

    def is_asked_for(self, name):
        return name not in self.names() or name in self.only or any(
            task.name in self.only and name in task.figures for task in self.tasks)

    def write(self, path, results):
        with open(path, "w") as file:
            json.dump([result for result in results if result["ours"]], file, indent=2)
            file.write("\n")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--only", default="")
    parser.add_argument("--tool")
    parser.add_argument("--names", action="store_true")
    parser.add_argument("program", nargs="?")
    arguments = parser.parse_args()
    if arguments.names:
        print(" ".join(Run(None, None, None, [], 0).names()))
        return 0
    only = [name for name in arguments.only.split(",") if name]
    tool = Program(arguments.tool) if arguments.tool and os.access(arguments.tool, os.X_OK) else MissingTool()
    with closing(Program(arguments.program)) as program, closing(tool), closing(Lab("bench")) as lab:
        try:
            run = Run(program, tool, lab, only, max(1, arguments.rounds))
            unknown = [name for name in only if name not in run.names()]
            if unknown:
                print(f"unknown: {', '.join(unknown)}; names: {' '.join(run.names())}")
                return 0
            run.measure()
            results = run.results()
            show(results, run.figures, run.rounds)
            for text in run.note.said:
                print(f"note: {text}")
            if arguments.json:
                run.write(arguments.json, results)
        except FAULTS as error:
            print(f"no figures: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
