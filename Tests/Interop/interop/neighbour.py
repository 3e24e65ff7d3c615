"""Who uses another service behind the same agent: answers that are under way all the time, and new requests one after the other."""

import itertools

from .bystander import Bystander
from .h2raw import H2
from .system import check, check_equal
from .wire import Wire

SIZE = 300_000
NAMES = (f"neighbour-{number}" for number in itertools.count())


class Neighbour:
    """`service` is its `H2Service`. When the block has ended by itself, all its answers must be whole."""

    def __init__(self, edge, domain, service, most=3):
        self.edge, self.domain, self.service, self.most, self.name = edge, domain, service, most, next(NAMES)

    def __enter__(self):
        self.connections = self.service.opened
        path = f"/slow/{self.name}"
        self.h2 = H2(self.edge, self.domain, timeout=15)
        self.stream = self.h2.request(path)
        self.h2.until(lambda: self.h2.head(self.stream).body == b"first\n", "half of an answer")
        self.wire = Wire(self.edge, self.domain, timeout=15)
        self.wire.send(f"GET {path} HTTP/1.1\r\nHost: {self.domain}\r\n\r\n".encode())
        check_equal(self.wire.head().status, 200, "status of a slow answer")
        self.wire.until(b"first\n")
        self.bystander = Bystander(self.edge, self.domain).__enter__()
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.bystander.answers(6)
            self.bystander.__exit__()
            if kind is None:
                self.finish()
        finally:
            self.service.release(self.name)
            self.h2.close()
            self.wire.close()

    def finish(self):
        self.bystander.check(self.most)
        # The connection's windows are open in both directions.
        upload = self.h2.request("/upload", "POST", end=False)
        self.h2.upload(upload, bytes(SIZE))
        check_equal(self.h2.response(upload).body, b"%d" % SIZE, "length of an upload at the service")
        check_equal(len(self.h2.get(f"/bytes/{SIZE}").body), SIZE, "length of a download")
        self.service.release(self.name)
        response = self.h2.response(self.stream)
        check(response.ended and response.body == b"first\nsecond\n", f"an answer that was under way: {response}, {response.body[-50:]!r}")
        self.wire.until(b"second\n")
        check_equal(self.wire.until(b"0\r\n\r\n"), b"\r\n", "the end of an answer that was under way")
