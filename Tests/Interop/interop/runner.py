"""Runs suites and prints one line a test."""

import importlib
import importlib.util
import os
import shutil
import signal
import sys
import time
import traceback

from .product import Program
from .system import Failure, Lab, is_root

SUITES = [
    "http1_table", "http2_conformance", "http2_floods", "http2_shared", "http2_traffic", "http_clients", "http_limits",
    "http_failures", "http_failures_relay", "http_drain_reload",
    "gateway_to_stock_peer", "stock_peer_to_agent", "end_to_end", "full_form", "odd_origins", "recovery", "rough_link", "bad_input",
    "observability", "access_log", "capture", "wg_tools", "cookies", "names", "several_loops", "udp", "kernel_tcp", "kernel_flow",
    "kernel_load", "kernel_faults", "acme_pebble", "acme_certs", "acme_cache", "acme_gateways", "acme_cluster", "acme_stub", "acme_dns",
]
SLOW_SUITES = ["http_clients_slow", "http2_shared_load", "acme_testssl", "rekey", "kernel_minute", "kernel_outages"]
TEST_TIMEOUT = 90


def test(function):
    """Marks a method of a suite as a test; its order is that of the file."""
    function.is_test = True
    return function


class Suite:
    """One set-up shared by several tests, which run in the order they are written in."""

    needs_root = False
    # Seconds that one test may take.
    timeout = TEST_TIMEOUT
    tools = []
    # Python packages beyond the standard library.
    modules = []

    def __init__(self, program, lab):
        self.program = program
        self.lab = lab

    def set_up(self):
        pass

    @classmethod
    def test_names(cls):
        names = dict.fromkeys(name for part in reversed(cls.__mro__) for name in vars(part))
        return [name for name in names if getattr(getattr(cls, name), "is_test", False)]


class Expired(Exception):
    pass


class Report:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        # What failed: the name and the text that was shown with it, told again behind the last suite.
        self.problems = []

    def line(self, name, outcome, seconds=None, note=""):
        duration = "" if seconds is None else f"{seconds:7.2f} s"
        print(f"{name:<66} {outcome:<8}{duration}{'  ' + note if note else ''}", flush=True)
        if outcome == "ok":
            self.passed += 1
        elif outcome == "FAILED":
            self.failed += 1
        else:
            self.skipped += 1

    def problem(self, name, problem, lab):
        """Shows why a test failed and the last lines of the processes that stood around it."""
        lines = [f"    {line[:1000]}" for line in problem.splitlines()[:40]]
        lines += [text for process in lab.processes[-4:] if (text := process.last_lines())]
        text = "\n".join(lines)
        print(text, flush=True)
        self.problems.append((name, text))

    def end(self):
        for name, text in self.problems:
            print(f"\nFAILED {name}\n{text}")
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)


def limited(action, timeout):
    """Runs `action` with a deadline; returns the seconds and the text of its failure, or None."""

    def expire(*_):
        raise Expired(f"no end within {timeout} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(timeout)
    start = time.monotonic()
    problem = None
    try:
        action()
    except Failure as failure:
        problem = str(failure)
    except Exception as error:
        trace = "".join(traceback.format_tb(error.__traceback__)[-3:])
        problem = f"{type(error).__name__}: {error}\n{trace}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    return time.monotonic() - start, problem


def run_suite(name, wanted, program, report):
    cls = importlib.import_module(f"suites.{name}").SUITE
    tests = [test for test in cls.test_names() if wanted(f"{name}.{test}")]
    if not tests:
        return
    missing = [tool for tool in cls.tools if shutil.which(tool, path=os.environ["PATH"]) is None]
    missing += [f"{module} of Python" for module in cls.modules if importlib.util.find_spec(module) is None]
    if cls.needs_root and not is_root():
        reason = "needs root: network namespaces and a TUN device"
    elif missing:
        reason = f"not installed: {', '.join(missing)}"
    else:
        reason = None
    if reason:
        for test in tests:
            report.line(f"{name}.{test}", "skipped", note=reason)
        return
    lab = Lab(name)
    try:
        suite = cls(program, lab)
        seconds, problem = limited(suite.set_up, cls.timeout)
        if problem:
            report.line(f"{name} (set-up)", "FAILED", seconds)
            report.problem(f"{name} (set-up)", problem, lab)
            for test in tests:
                report.line(f"{name}.{test}", "skipped", note="the set-up failed")
            return
        for test in tests:
            seconds, problem = limited(getattr(suite, test), cls.timeout)
            dead = lab.dead_processes()
            for process in dead:
                process.expected_to_run = False
                problem = (problem or "") + f"\n{process.name} ended by itself with code {process.child.returncode}"
            report.line(f"{name}.{test}", "FAILED" if problem else "ok", seconds)
            if problem:
                report.problem(f"{name}.{test}", problem.strip(), lab)
    finally:
        lab.close()


def main(arguments):
    only = []
    suites = SUITES
    if arguments[:1] == ["--slow"]:
        suites = SLOW_SUITES
        arguments = arguments[1:]
    if arguments[:1] == ["--only"] and len(arguments) > 1:
        only = arguments[1].split(",")
        arguments = arguments[2:]
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: Tests/Interop/run [--slow] [--only SUITE[.TEST],...] PATH-TO-kakuremichi", file=sys.stderr)
        return 2
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def wanted(name):
        return not only or any(name == entry or name.startswith(entry + ".") for entry in only)

    report = Report()
    program = Program(arguments[0])
    try:
        for suite in suites:
            run_suite(suite, wanted, program, report)
    except KeyboardInterrupt:
        return 130
    finally:
        program.close()
    report.end()
    return 1 if report.failed or not report.passed else 0
