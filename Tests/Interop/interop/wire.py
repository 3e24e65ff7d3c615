"""HTTP/1.1 connections of which a test writes every byte itself; answers are read by their framing."""

import ssl


class Ended(Exception):
    """The connection ended before the answer was complete."""


class Answer:
    """`informational` holds the 1xx answers that came before."""

    def __init__(self, head):
        self.head = head
        line, *rest = head.split(b"\r\n")
        self.version, _, status = line.partition(b" ")
        self.status = int(status[:3])
        self.fields = [(name.lower().decode("latin-1"), value.strip().decode("latin-1")) for name, _, value in (one.partition(b":") for one in rest)]
        self.informational, self.body, self.trailers = [], b"", []

    def get(self, name):
        values = [value for field, value in self.fields if field == name]
        return ", ".join(values) if values else None

    def __repr__(self):
        return f"{self.head[:300]!r} {self.body[:200]!r}"


class Wire:
    def __init__(self, edge, domain, timeout=8, source=None, alpn=()):
        self.connection = edge.open_tls(domain, timeout, alpn, source)
        self.buffer = b""
        # Whether it ended otherwise than in order: by a reset, or without TLS saying so.
        self.broken = False
        self.connection.suppress_ragged_eofs = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.connection.close()

    def send(self, data):
        """False when the other side has closed already: what it answered can still be read."""
        try:
            self.connection.sendall(data)
            return True
        except (ConnectionError, ssl.SSLError):
            return False

    def more(self):
        try:
            piece = self.connection.recv(65536)
        except (ConnectionError, ssl.SSLError):
            piece, self.broken = b"", True
        if not piece:
            raise Ended(f"after {self.buffer[:200]!r}")
        self.buffer += piece

    def until(self, end):
        while end not in self.buffer:
            self.more()
        taken, _, self.buffer = self.buffer.partition(end)
        return taken

    def exactly(self, count):
        while len(self.buffer) < count:
            self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def head(self):
        """The next head, of whatever kind."""
        return Answer(self.until(b"\r\n\r\n"))

    def answer(self, method="GET"):
        """The next final answer with its body; `Ended` if there is none, or no complete one."""
        informational = []
        while True:
            answer = self.head()
            if answer.status >= 200 or answer.status == 101:
                break
            informational.append(answer)
        answer.informational = informational
        if method == "HEAD" or answer.status in (101, 204, 304):
            return answer
        if "chunked" in (answer.get("transfer-encoding") or "").lower():
            while size := int(self.until(b"\r\n").split(b";")[0], 16):
                answer.body += self.exactly(size)
                if self.exactly(2) != b"\r\n":
                    raise Ended("no line end behind a chunk")
            while line := self.until(b"\r\n"):
                name, _, value = line.partition(b":")
                answer.trailers.append((name.lower().decode("latin-1"), value.strip().decode("latin-1")))
        elif (length := answer.get("content-length")) is not None:
            answer.body = self.exactly(int(length))
        else:
            try:
                while True:
                    self.more()
            except Ended:
                answer.body, self.buffer = self.buffer, b""
        return answer

    def ends(self, timeout=8):
        """Whether the other side ends the connection within this time, with nothing more said."""
        self.connection.settimeout(timeout)
        try:
            self.more()
        except Ended:
            return True
        except TimeoutError:
            return False
        return False
