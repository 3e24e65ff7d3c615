"""A normal client that is served while others misbehave, and how long it waits."""

import threading
import time

from .h2raw import H2
from .system import check, wait_until
from .wire import Wire


class Bystander:
    """Asks again and again in a thread, by turns on a kept connection, a fresh one and over HTTP/2."""

    def __init__(self, edge, domain, path="/", source="127.0.0.1", with_h2=True, limit=10):
        self.edge, self.domain, self.path, self.source, self.with_h2, self.limit = edge, domain, path, source, with_h2, limit
        self.times, self.problems = [], []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.answers(1)
        return self

    def answers(self, count):
        """Until it has had so many more answers."""
        most = len(self.times) + count
        wait_until(lambda: len(self.times) >= most, self.limit * count, f"{count} more answers to a normal client")

    def __exit__(self, *_):
        self.done.set()
        self.thread.join(15)

    def run(self):
        request = f"GET {self.path} HTTP/1.1\r\nHost: {self.domain}\r\n\r\n".encode()
        kept, turn = None, 0
        # A pause between requests, so that the floods have the processor: the length is no condition of anything.
        while not self.done.wait(0.02):
            turn += 1
            start = time.monotonic()
            try:
                if turn % 3 == 0 and self.with_h2:
                    with H2(self.edge, self.domain, timeout=self.limit, source=self.source) as h2:
                        status = h2.get(self.path).status
                elif turn % 3 == 1:
                    with Wire(self.edge, self.domain, self.limit, self.source) as wire:
                        wire.send(request)
                        status = wire.answer().status
                else:
                    kept = kept or Wire(self.edge, self.domain, self.limit, self.source)
                    kept.send(request)
                    status = kept.answer().status
                if status != 200:
                    self.problems.append(f"status {status}")
            except Exception as error:
                self.problems.append(repr(error)[:200])
                kept = None
            self.times.append(time.monotonic() - start)
        if kept:
            kept.close()

    def check(self, most, share=1.0):
        """So many of its requests were answered within `most` seconds, and all were answered."""
        check(not self.problems, f"a normal client: {len(self.problems)} of {len(self.times)} failed: {self.problems[:3]}")
        ordered = sorted(self.times)
        slowest = ordered[min(len(ordered) - 1, int(len(ordered) * share))]
        check(slowest < most, f"a normal client waited {slowest:.2f} s (longest {ordered[-1]:.2f} s, of {len(ordered)})")
