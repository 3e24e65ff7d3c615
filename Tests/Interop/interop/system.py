"""Processes, ports, deadlines and directories. Whatever is started here ends with the run, by its own id."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time


class Failure(AssertionError):
    """A test's expectation that was not met."""


def check(condition, message):
    if not condition:
        raise Failure(message)


def check_equal(got, expected, what):
    if got != expected:
        raise Failure(f"{what}: expected {expected!r}, got {got!r}")


def wait_until(condition, timeout, what, interval=0.05):
    """Polls until `condition()` is truthy and returns its value; a Failure that says `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"not within {timeout} s: {what}")
        time.sleep(interval)


def free_port(kind=socket.SOCK_STREAM, address="127.0.0.1"):
    """A port nobody listens on now. Drawn below the range that the kernel gives to outgoing connections."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((address, port))
                return port
            except OSError:
                continue


def is_root():
    return os.geteuid() == 0


def unused_uid():
    """A user id that is neither in the password file nor used by a process."""
    used = {entry.pw_uid for entry in pwd.getpwall()}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                used.add(os.stat(f"/proc/{name}").st_uid)
            except OSError:
                pass
    while True:
        uid = random.randrange(40000, 60000)
        if uid not in used:
            return uid


class Process:
    """A child process with its output in files."""

    def __init__(self, name, arguments, directory, uid=None, namespace=None, environment=None, stdin=subprocess.DEVNULL, stdout=None):
        self.name = name
        count = len([entry for entry in os.listdir(directory) if entry.startswith(f"{name}-")])
        self.output_path = os.path.join(directory, f"{name}-{count}.out")
        self.error_path = os.path.join(directory, f"{name}-{count}.err")
        self.expected_to_run = True
        command = ["setpriv", "--pdeathsig", "KILL"]
        if uid is not None and is_root():
            command += [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        command += arguments
        if namespace is not None:
            command = ["ip", "netns", "exec", namespace] + command
        output = open(self.output_path, "wb") if stdout is None else stdout
        with open(self.error_path, "wb") as errors:
            self.child = subprocess.Popen(
                command, stdin=stdin, stdout=output, stderr=errors, cwd=directory, env=environment, start_new_session=True)
        if stdout is None:
            output.close()

    @property
    def pid(self):
        return self.child.pid

    @property
    def is_running(self):
        return self.child.poll() is None

    def output(self):
        """What it wrote, if nobody else reads that."""
        if not os.path.exists(self.output_path):
            return ""
        with open(self.output_path, errors="replace") as file:
            return file.read()

    def errors(self):
        with open(self.error_path, errors="replace") as file:
            return file.read()

    def wait(self, timeout):
        self.expected_to_run = False
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} still runs after {timeout} s") from None

    def send_signal(self, number):
        if self.is_running:
            self.child.send_signal(number)

    def stop(self, number=signal.SIGTERM, timeout=10):
        """Ends the process and returns its exit code; killed when it does not end by itself."""
        self.expected_to_run = False
        self.send_signal(number)
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()

    def peak_memory(self):
        """VmHWM in MB."""
        return self.status_line("VmHWM")

    def memory(self):
        """VmRSS in MB."""
        return self.status_line("VmRSS")

    def status_line(self, name):
        with open(f"/proc/{self.pid}/status") as file:
            for line in file:
                if line.startswith(f"{name}:"):
                    return int(line.split()[1]) / 1024
        return 0.0

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def processor_time(self):
        """User and system seconds so far."""
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def last_lines(self, count=6):
        lines = (self.output() + self.errors()).splitlines()
        return "\n".join(f"    {self.name}: {line[:300]}" for line in lines[-count:])


class Lab:
    """What one suite has running: a directory that others can look into, the user for unprivileged programs, processes, clean-up."""

    def __init__(self, name):
        self.directory = tempfile.mkdtemp(prefix=f"kakuremichi-{name}-")
        os.chmod(self.directory, 0o755)
        self.uid = unused_uid() if is_root() else os.geteuid()
        self.logs = os.path.join(self.directory, "logs")
        os.mkdir(self.logs, 0o755)
        self.processes = []
        self.cleanups = []

    def own(self, path, mode=None):
        if mode is not None:
            os.chmod(path, mode)
        if is_root():
            os.chown(path, self.uid, self.uid)
        return path

    def private_directory(self, name):
        path = os.path.join(self.directory, name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        return self.own(path, 0o700)

    def write(self, path, text, mode=0o600):
        """A file of the unprivileged user."""
        path = os.path.join(self.directory, path)
        with open(path, "w") as file:
            file.write(text)
        return self.own(path, mode)

    def start(self, name, arguments, unprivileged=True, **options):
        process = Process(name, arguments, self.logs, uid=self.uid if unprivileged else None, **options)
        self.processes.append(process)
        return process

    def on_close(self, action):
        self.cleanups.append(action)

    def dead_processes(self):
        return [process for process in self.processes if process.expected_to_run and not process.is_running]

    def close(self):
        for process in reversed(self.processes):
            if process.is_running:
                process.stop(timeout=3)
        for action in reversed(self.cleanups):
            action()
        if os.environ.get("KEEP_INTEROP_FILES"):
            print(f"    kept: {self.directory}")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
