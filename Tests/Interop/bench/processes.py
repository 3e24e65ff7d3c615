"""What processes use, read from outside: CPU seconds and memory, their children included."""

import resource
import subprocess
import time

from interop.system import Failure, wait_until


def tree(pid):
    """A process and all that it started."""
    result = [pid]
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            for child in file.read().split():
                result += tree(int(child))
    except OSError:
        pass
    return result


def processor_seconds(pid):
    """CPU time to the nanosecond: Linux' clock of another process (clock_getcpuclockid(3))."""
    total = 0
    for member in tree(pid):
        try:
            total += time.clock_gettime_ns((~member << 3) | 2)
        except OSError:
            pass
    return total / 1e9


def memory(pid, field="VmRSS"):
    """A field of /proc/PID/status in MB, summed over the process and its children."""
    total = 0
    for member in tree(pid):
        try:
            with open(f"/proc/{member}/status") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith(f"{field}:"))
        except OSError:
            pass
    return total / 1024


def settled_memory(pid, timeout=5):
    """VmRSS once it has stood still for half a second, or after so many seconds."""
    seen = []

    def still():
        seen.append(memory(pid))
        return len(seen) > 5 and max(seen[-6:]) - min(seen[-6:]) < 0.1

    try:
        wait_until(still, timeout, "the memory stands still", interval=0.1)
    except Failure:
        pass
    return seen[-1]


def forget_peak(pid):
    """VmHWM counts from now on, as proc(5) says of clear_refs."""
    for member in tree(pid):
        try:
            with open(f"/proc/{member}/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass


def busy_share(seconds=1):
    """How much of all cores everything together uses just now, 0 to 1."""

    def read():
        with open("/proc/stat") as file:
            times = [int(field) for field in file.readline().split()[1:9]]
        return sum(times), times[3] + times[4]

    total, idle = read()
    # Nothing to wait for: it is what passes meanwhile that counts.
    time.sleep(seconds)
    later, later_idle = read()
    return 1 - (later_idle - idle) / max(1, later - total)


class Meter:
    """What processes use between its making and `read`."""

    def __init__(self, processes):
        self.processes = dict(processes)
        self.before = {name: processor_seconds(pid) for name, pid in self.processes.items()}
        for pid in self.processes.values():
            forget_peak(pid)

    def read(self):
        """CPU seconds and peak MB by name."""
        return {
            name: (processor_seconds(pid) - self.before[name], memory(pid, "VmHWM")) for name, pid in self.processes.items()}


def run(command, timeout, **options):
    """A client's output and its CPU seconds; a RuntimeError with its last words if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        raise RuntimeError(f"{command[0]}: {(result.stdout + result.stderr).strip()[-300:]}")
    return result.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
