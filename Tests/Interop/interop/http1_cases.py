"""HTTP/1.1 requests byte by byte, with the answer that each has to get, and what the web service may see of it."""

OPEN, CLOSED, EITHER = "open", "closed", "either"
APP = b"app.example.com"
HOST = b"Host: " + APP + b"\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"

# What the gateway says of the client.
FORWARDED = [
    ("forwarded", "for=127.0.0.1;host=app.example.com;proto=https"), ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-host", "app.example.com"),
    ("x-forwarded-proto", "https"), ("x-real-ip", "127.0.0.1"),
]


class Refused:
    """Answered by the gateway itself: no byte of it reaches the web service."""

    def __init__(self, name, request, statuses, fate=CLOSED, holds=b"", fields=()):
        self.name, self.request, self.fate, self.holds, self.fields = name, request, fate, holds, fields
        self.statuses = [statuses] if isinstance(statuses, int) else statuses


class Passed:
    """Forwarded: the request line, all fields but those of `FORWARDED`, body and trailers at the web service."""

    def __init__(self, name, request, line, fields=(), body=b"", trailers=(), fate=OPEN, forwarded=FORWARDED, host="app.example.com", method="GET"):
        self.name, self.request, self.line, self.body, self.fate, self.method = name, request, line, body, fate, method
        self.fields = sorted([("host", host), *fields, *forwarded], key=lambda field: field[0])
        self.trailers = list(trailers)


def get(fields=b"", target=b"/", method=b"GET", version=b"HTTP/1.1", host=HOST):
    return method + b" " + target + b" " + version + b"\r\n" + host + fields + b"\r\n"


def post(fields, body, target=b"/post"):
    return b"POST " + target + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"
EMPTY = b"0\r\n\r\n"


def chunked(body):
    return post(CHUNKED, body + SMUGGLED)


FRAMING = [
    Refused("Content-Length and Transfer-Encoding", post(b"Content-Length: 5\r\n" + CHUNKED, EMPTY + SMUGGLED), 400),
    Refused("Transfer-Encoding and Content-Length", post(CHUNKED + b"Content-Length: 5\r\n", EMPTY + SMUGGLED), 400),
    Refused("Transfer-Encoding and Content-Length 0", post(CHUNKED + b"Content-Length: 0\r\n", EMPTY + SMUGGLED), 400),
    Refused("two equal Content-Lengths", post(b"Content-Length: 4\r\nContent-Length: 4\r\n", b"abcd" + SMUGGLED), 400),
    Refused("two differing Content-Lengths", post(b"Content-Length: 4\r\nContent-Length: 0\r\n", SMUGGLED), 400),
    Refused("a list as Content-Length", post(b"Content-Length: 4, 4\r\n", b"abcd" + SMUGGLED), 400),
    Refused("an empty Content-Length", post(b"Content-Length: \r\n", SMUGGLED), 400),
    Refused("a signed Content-Length", post(b"Content-Length: +4\r\n", b"abcd" + SMUGGLED), 400),
    Refused("a negative Content-Length", post(b"Content-Length: -1\r\n", SMUGGLED), 400),
    Refused("a hexadecimal Content-Length", post(b"Content-Length: 0x4\r\n", b"abcd" + SMUGGLED), 400),
    Refused("a Content-Length with a blank inside", post(b"Content-Length: 1 0\r\n", b"abcdefghij" + SMUGGLED), 400),
    Refused("a Content-Length beyond every integer", post(b"Content-Length: 18446744073709551617\r\n", b"a" + SMUGGLED), [400, 413]),
    Refused("Content_Length beside Transfer-Encoding is no framing", post(b"Content-Length: 4\r\nTransfer_Encoding: x\r\nContent-Length: 4\r\n", b""), 400),
    Refused("Transfer-Encoding on HTTP/1.0", b"POST /post HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n" + EMPTY + SMUGGLED, 400),
    Refused("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", EMPTY + SMUGGLED), 501),
    Refused("gzip alone", post(b"Transfer-Encoding: gzip\r\n", EMPTY + SMUGGLED), [400, 501]),
    Refused("chunked, identity", post(b"Transfer-Encoding: chunked, identity\r\n", EMPTY + SMUGGLED), [400, 501]),
    Refused("chunked twice in one field", post(b"Transfer-Encoding: chunked, chunked\r\n", EMPTY + SMUGGLED), [400, 501]),
    Refused("chunked in two fields", post(CHUNKED + CHUNKED, EMPTY + SMUGGLED), [400, 501]),
    Refused("xchunked", post(b"Transfer-Encoding: xchunked\r\n", EMPTY + SMUGGLED), [400, 501]),
    Refused("chunked in quotes", post(b'Transfer-Encoding: "chunked"\r\n', EMPTY + SMUGGLED), [400, 501]),
    Refused("chunked behind a vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n", EMPTY + SMUGGLED), [400, 501]),
    Refused("an empty Transfer-Encoding", post(b"Transfer-Encoding: \r\n", SMUGGLED), [400, 501]),
    Refused("a blank before the colon of Transfer-Encoding", post(b"Transfer-Encoding : chunked\r\n", EMPTY + SMUGGLED), 400),
]

# A chunked body is judged while it is sent on, so what came of it may be there already; never the request behind it.
CHUNKS = [
    Refused("a chunk size with 0x", chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("a chunk size with a sign", chunked(b"+5\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("a negative chunk size", chunked(b"-5\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("a chunk size with an underscore", chunked(b"0_5\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("an empty chunk size", chunked(b"\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("a blank before the chunk size", chunked(b" 5\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("a chunk size beyond every integer", chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("a chunk size that is no number", chunked(b"five\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("a chunk size behind a bare LF", chunked(b"5\nhello\r\n0\r\n\r\n"), 400),
    Refused("a chunk extension with a LF", chunked(b"5;a=\nb\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("a chunk extension with a bare CR", chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("no line end behind a chunk", chunked(b"5\r\nhelloX0\r\n\r\n"), 400),
    Refused("a bare LF behind a chunk", chunked(b"5\r\nhello\n0\r\n\r\n"), 400),
    Refused("a trailer with a NUL", chunked(b"5\r\nhello\r\n0\r\nX-A: a\x00b\r\n\r\n"), 400),
    Refused("a folded trailer", chunked(b"5\r\nhello\r\n0\r\nX-A: a\r\n b\r\n\r\n"), 400),
    Refused("a trailer with a blank before its colon", chunked(b"5\r\nhello\r\n0\r\nX-A : a\r\n\r\n"), 400),
    Refused("a trailer without a colon", chunked(b"5\r\nhello\r\n0\r\nX-A\r\n\r\n"), 400),
    Refused("trailers beyond every bound", chunked(b"5\r\nhello\r\n0\r\n" + b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 5000 + b"\r\n"), [400, 431]),
]

HEADS = [
    Refused("no Host", get(host=b"") + SMUGGLED, 400),
    Refused("two Hosts", get(b"Host: other.example.com\r\n") + SMUGGLED, 400),
    Refused("two equal Hosts", get(HOST) + SMUGGLED, 400),
    Refused("an empty Host", get(host=b"Host: \r\n"), [400, 404], EITHER),
    Refused("a Host with a path", get(host=b"Host: app.example.com/x\r\n"), [400, 404], EITHER),
    Refused("a Host with user information", get(host=b"Host: a@app.example.com\r\n"), [400, 404], EITHER),
    Refused("a Host list", get(host=b"Host: app.example.com, other.example.com\r\n"), [400, 404], EITHER),
    Refused("a Host with a bad port", get(host=b"Host: app.example.com:99x\r\n"), [400, 404], EITHER),
    Refused("a folded field", get(b"X-A: 1\r\n folded\r\n") + SMUGGLED, 400),
    Refused("a folded field with a tab", get(b"X-A: 1\r\n\tfolded\r\n") + SMUGGLED, 400),
    Refused("a first field that is folded", b"GET / HTTP/1.1\r\n X-A: 1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
    Refused("a NUL in a value", get(b"X-A: a\x00b\r\n") + SMUGGLED, 400),
    Refused("a NUL in a name", get(b"X\x00A: b\r\n") + SMUGGLED, 400),
    Refused("a control character in a value", get(b"X-A: a\x01b\r\n") + SMUGGLED, 400),
    Refused("DEL in a value", get(b"X-A: a\x7fb\r\n") + SMUGGLED, 400),
    Refused("a bare CR in a value", get(b"X-A: a\rb\r\n") + SMUGGLED, 400),
    Refused("a bare CR at the end of a value", get(b"X-A: a\r\r\n") + SMUGGLED, 400),
    Refused("a bare CR in the request line", b"GET /\r HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
    Refused("a bare LF behind a field", get(b"X-A: 1\nX-B: 2\r\n") + SMUGGLED, 400),
    Refused("a bare LF behind the request line", b"GET / HTTP/1.1\n" + HOST + b"\r\n" + SMUGGLED, 400),
    Refused("a bare LF as the last line", b"GET / HTTP/1.1\r\n" + HOST + b"\n" + SMUGGLED, 400),
    Refused("bare LFs alone", b"GET / HTTP/1.1\nHost: app.example.com\n\n" + SMUGGLED, 400),
    Refused("a blank before the colon", get(b"X-A : 1\r\n") + SMUGGLED, 400),
    Refused("a tab before the colon", get(b"X-A\t: 1\r\n") + SMUGGLED, 400),
    Refused("a blank before the colon of Host", get(host=b"Host : app.example.com\r\n") + SMUGGLED, 400),
    Refused("a blank in a name", get(b"X A: 1\r\n") + SMUGGLED, 400),
    Refused("an empty name", get(b": 1\r\n") + SMUGGLED, 400),
    Refused("a line without a colon", get(b"X-A\r\n") + SMUGGLED, 400),
    Refused("a name with a slash", get(b"X/A: 1\r\n") + SMUGGLED, 400),
    Refused("a name that is no ASCII", get(b"X-\xc3\xa4: 1\r\n") + SMUGGLED, 400),
    Refused("no version", b"GET /\r\n" + HOST + b"\r\n", [400, 505]),
    Refused("version 3.7", get(version=b"HTTP/3.7"), [400, 505]),
    Refused("version 2.0", get(version=b"HTTP/2.0"), [400, 505]),
    Refused("a version in lower case", get(version=b"http/1.1"), [400, 505]),
    Refused("a version with two digits", get(version=b"HTTP/1.10"), [400, 505]),
    Refused("two blanks in the request line", b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
    Refused("a tab in the request line", b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
    Refused("a blank behind the version", b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n" + SMUGGLED, 400),
    Refused("a blank in the target", get(target=b"/a b") + SMUGGLED, 400),
    Refused("a control character in the target", get(target=b"/a\x01b") + SMUGGLED, 400),
    Refused("a fragment in the target", get(target=b"/a#b") + SMUGGLED, 400, EITHER),
    Refused("a target without a slash", get(target=b"a/b"), 400, EITHER),
    Refused("an asterisk of GET", get(target=b"*"), 400, EITHER),
    Refused("a method with a bracket", get(method=b"GE(T"), [400, 501]),
    Refused("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400, 505]),
    Refused("65 KB in one field", get(b"X-A: " + b"a" * 66_000 + b"\r\n") + SMUGGLED, 431),
    Refused("2,000 fields", get(b"".join(b"X-%d: 1\r\n" % number for number in range(2000))) + SMUGGLED, 431),
    Refused("65 options in Connection", get(b"Connection: " + b", ".join(b"x-%d" % number for number in range(65)) + b"\r\n") + SMUGGLED, 400),
    Refused("8,000 options in Connection", get(b"Connection: " + b"a," * 8000 + b"\r\n") + SMUGGLED, 400),
    Refused("a very long target", get(target=b"/" + b"a" * 70_000) + SMUGGLED, 414),
]

ROUTING = [
    Refused("an unknown host", get(host=b"Host: nobody.example.net\r\n"), 404, EITHER, b"Tunnel not found"),
    Refused("an absolute target of an unknown host", get(target=b"https://nobody.example.net/"), 404, EITHER, b"Tunnel not found"),
    Refused("a disabled tunnel", get(host=b"Host: off.example.com\r\n"), [421, 503], EITHER),
    Refused("a host that the certificate does not cover", get(host=b"Host: other.example.com\r\n"), 421, EITHER),
    Refused("an absolute target that the certificate does not cover", get(target=b"https://other.example.com/"), 421, EITHER),
    Refused("TRACE", get(method=b"TRACE"), 405, EITHER, fields=("allow",)),
    Refused("CONNECT", b"CONNECT app.example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 405, fields=("allow",)),
    Refused("CONNECT of another target", b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 405, fields=("allow",)),
    Refused("CONNECT with a path", b"CONNECT / HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, [400, 405]),
    Refused("CONNECT with Content-Length", b"CONNECT app.example.com:443 HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc" + SMUGGLED, 405, fields=("allow",)),
    Refused("an unknown expectation", get(b"Expect: miracles\r\n"), 417, EITHER),
]

PATHS = [b"/a%2Fb?x;y", b"/a/../b//c", b"/%2e%2e/%00/%zz", b"//double", b"/?", b"/a;p=1/b?q=%20&q", b"/caf%C3%A9", b"/a|b{c}^`\"<>", b"/a\\b", b"/%41%2f"]
METHODS = [b"HEAD", b"DELETE", b"PATCH", b"PROPFIND", b"QUERY", b"M-SEARCH", b"BREW", b"get", b"PURGE", b"X" * 20]

FORWARDS = [
    Passed("a plain request", get(), b"GET / HTTP/1.1"),
    Passed("an upper-case Host", get(host=b"Host: APP.Example.COM\r\n"), b"GET / HTTP/1.1"),
    Passed("a Host with a port", get(host=b"Host: app.example.com:8443\r\n"), b"GET / HTTP/1.1"),
    Passed("a Host with a trailing dot", get(host=b"Host: app.example.com.\r\n"), b"GET / HTTP/1.1"),
    Passed("a Host with both", get(host=b"Host: aPP.example.com.:443\r\n"), b"GET / HTTP/1.1"),
    Passed("a Host name in upper case", get(host=b"HOST:app.example.com\r\n"), b"GET / HTTP/1.1"),
    Passed("an absolute target wins over Host", get(target=b"https://app.example.com/x?y", host=b"Host: other.example.com\r\n"), b"GET /x?y HTTP/1.1"),
    Passed("an absolute target of http", get(target=b"http://app.example.com/x"), b"GET /x HTTP/1.1"),
    Passed("an absolute target without a path", get(target=b"https://app.example.com"), b"GET / HTTP/1.1"),
    Passed("an absolute target with a query alone", get(target=b"https://app.example.com?a=b"), b"GET /?a=b HTTP/1.1"),
    Passed("OPTIONS *", get(target=b"*", method=b"OPTIONS"), b"OPTIONS * HTTP/1.1"),
    Passed("HTTP/1.0", get(version=b"HTTP/1.0"), b"GET / HTTP/1.1", fate=CLOSED),
    Passed("HTTP/1.0 with keep-alive", get(b"Connection: keep-alive\r\n", version=b"HTTP/1.0"), b"GET / HTTP/1.1"),
    Passed("Connection: close", get(b"Connection: close\r\n"), b"GET / HTTP/1.1", fate=CLOSED),
    Passed("Connection: CLOSE in a list", get(b"Connection: x, CLOSE\r\n"), b"GET / HTTP/1.1", fate=CLOSED),
    Passed("an empty line before the request line", b"\r\n" + get(), b"GET / HTTP/1.1"),
    Passed("blanks around a value", get(b"X-A: \t a  b \t\r\n"), b"GET / HTTP/1.1", [("x-a", "a  b")]),
    Passed("an empty value", get(b"X-A:\r\n"), b"GET / HTTP/1.1", [("x-a", "")]),
    Passed("bytes above ASCII in a value", get(b"X-A: caf\xc3\xa9\r\n"), b"GET / HTTP/1.1", [("x-a", "caf\xc3\xa9")]),
    Passed("repeated fields in their order", get(b"X-A: 2\r\nX-A: 1\r\nCookie: a=1\r\nX-A: 3\r\n"), b"GET / HTTP/1.1", [
        ("x-a", "2"), ("x-a", "1"), ("x-a", "3"), ("cookie", "a=1")]),
    Passed("every sign of a token", get(b"!#$%&'*+-.^`|~09Az: 1\r\n"), b"GET / HTTP/1.1", [("!#$%&'*+-.^`|~09az", "1")]),
    Passed("a Content-Length", post(b"Content-Length: 5\r\n", b"hello"), b"POST /post HTTP/1.1", [("content-length", "5")], b"hello"),
    Passed("a Content-Length with leading zeros", post(b"Content-Length: 0005\r\n", b"hello"), b"POST /post HTTP/1.1", [("content-length", "5")], b"hello"),
    Passed("Content-Length: 0", post(b"Content-Length: 0\r\n", b""), b"POST /post HTTP/1.1", [("content-length", "0")]),
    Passed("a body of GET", get(b"Content-Length: 5\r\n") + b"hello", b"GET / HTTP/1.1", [("content-length", "5")], b"hello"),
    Passed("chunks", post(CHUNKED, b"5\r\nhello\r\n06\r\n world\r\n000\r\n\r\n"), b"POST /post HTTP/1.1", [("transfer-encoding", "chunked")], b"hello world"),
    Passed("Transfer-Encoding: CHUNKED", post(b"Transfer-Encoding: CHUNKED\r\n", b"A\r\n0123456789\r\n0\r\n\r\n"), b"POST /post HTTP/1.1", [
        ("transfer-encoding", "chunked")], b"0123456789"),
    Passed("chunk extensions", post(CHUNKED, b'5;a=b;c="d;e"\r\nhello\r\n0;x\r\n\r\n'), b"POST /post HTTP/1.1", [("transfer-encoding", "chunked")], b"hello"),
    Passed("request trailers", post(CHUNKED + b"Trailer: X-Sum\r\n", b"5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-B: a  b\r\n\r\n"), b"POST /post HTTP/1.1", [
        ("transfer-encoding", "chunked"), ("trailer", "X-Sum")], b"hello", [("x-sum", "42"), ("x-b", "a  b")]),
    Passed("trailers that route are dropped", post(CHUNKED, b"5\r\nhello\r\n0\r\nX-Sum: 42\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"),
        b"POST /post HTTP/1.1", [("transfer-encoding", "chunked")], b"hello", [("x-sum", "42")]),
    Passed("Expect: 100-continue", post(b"Content-Length: 5\r\nExpect: 100-continue\r\n", b"hello"), b"POST /post HTTP/1.1", [
        ("content-length", "5"), ("expect", "100-continue")], b"hello"),
    Passed("what a client says of itself is replaced", get(
        b"X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n"
        b"X-Forwarded-Port: 1\r\nx-forwarded-for: 7.7.7.7\r\n"), b"GET / HTTP/1.1"),
    Passed("names with _ that equal a forwarded field", get(
        b"X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nX-Real_IP: 6.6.6.6\r\nX_Forwarded_Proto: http\r\nX_Kept: 1\r\n"),
        b"GET / HTTP/1.1", [("x_kept", "1")]),
    Passed("Proxy", get(b"Proxy: http://evil\r\nPROXY: x\r\n"), b"GET / HTTP/1.1"),
    Passed("hop-by-hop fields", get(
        b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nX-Kept: 1\r\n"),
        b"GET / HTTP/1.1", [("x-kept", "1")]),
    Passed("fields that Connection names", get(b"Connection: X-Hop, x-other ,, keep-alive\r\nX-Hop: 1\r\nX-Other: 2\r\nX-Kept: 3\r\nConnection: x-third\r\nX-Third: 4\r\n"),
        b"GET / HTTP/1.1", [("x-kept", "3")]),
    Passed("Connection cannot name our fields", get(
        b"Connection: X-Forwarded-For, X-Real-IP, Forwarded, X-Forwarded-Proto, X-Forwarded-Host, Host\r\nX-Real-IP: 6.6.6.6\r\n"), b"GET / HTTP/1.1"),
    Passed("Connection cannot name framing", post(b"Connection: Content-Length\r\nContent-Length: 5\r\n", b"hello"), b"POST /post HTTP/1.1", [
        ("content-length", "5")], b"hello"),
    Passed("Connection cannot name Transfer-Encoding", post(b"Connection: Transfer-Encoding\r\n" + CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"), b"POST /post HTTP/1.1", [
        ("transfer-encoding", "chunked")], b"hello"),
    Passed("an upgrade to h2c", get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"),
        b"GET / HTTP/1.1", fate=EITHER),
    Passed("HTTP2-Settings alone", get(b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"), b"GET / HTTP/1.1"),
    Passed("an upgrade to TLS", get(b"Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n"), b"GET / HTTP/1.1", fate=EITHER),
    Passed("an upgrade to anything", get(b"Connection: upgrade\r\nUpgrade: foo/2\r\n"), b"GET / HTTP/1.1", fate=EITHER),
    Passed("Upgrade that Connection does not name", get(b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        b"GET / HTTP/1.1", [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")], fate=EITHER),
]
FORWARDS += [Passed(f"path {path.decode()}", get(target=path), b"GET " + path + b" HTTP/1.1") for path in PATHS]
FORWARDS += [Passed(f"method {method.decode()}", get(method=method), method + b" / HTTP/1.1", method=method.decode()) for method in METHODS]

WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

# Handshakes that are none: the request goes on without them.
NO_WEBSOCKETS = [
    ("of POST", post(WEBSOCKET + b"Content-Length: 0\r\n", b"", b"/websocket")),
    ("with a body", get(WEBSOCKET + b"Content-Length: 5\r\n", b"/websocket") + b"hello"),
    ("with chunks", get(WEBSOCKET + CHUNKED, b"/websocket") + b"5\r\nhello\r\n0\r\n\r\n"),
    ("of version 8", get(WEBSOCKET.replace(b"13", b"8"), b"/websocket")),
    ("without a version", get(WEBSOCKET.replace(b"Sec-WebSocket-Version: 13\r\n", b""), b"/websocket")),
    ("without a key", get(b"".join(WEBSOCKET.splitlines(True)[:3]), b"/websocket")),
    ("on HTTP/1.0", get(WEBSOCKET, b"/websocket", version=b"HTTP/1.0")),
    ("that Connection does not name", get(WEBSOCKET.replace(b"Connection: Upgrade\r\n", b""), b"/websocket")),
    ("to websocket2", get(WEBSOCKET.replace(b"websocket\r\n", b"websocket2\r\n"), b"/websocket")),
]

OK = b"HTTP/1.1 200 OK\r\n"
BODY = b"Content-Length: 2\r\n\r\nok"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"

# path: (answer of the web service, whether its connection ends, what it must become)
FAULTS = {
    "/length-and-chunked": (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", False),
    "/two-lengths": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!", False),
    "/signed-length": (OK + b"Content-Length: +2\r\n\r\nok", False),
    "/empty-length": (OK + b"Content-Length: \r\n\r\nok", False),
    "/gzip-chunked": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", False),
    "/chunked-twice": (OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", False),
    "/no-http": (b"hello, I am no web server\r\n\r\n", True),
    "/nothing": (b"", True),
    "/half-a-head": (OK + b"Content-Le", True),
    "/nul": (OK + b"X-A: a\x00b\r\n" + BODY, False),
    "/folded": (OK + b"X-A: a\r\n b\r\n" + BODY, False),
    "/bare-lf": (OK + b"X-A: a\nX-B: b\r\n" + BODY, False),
    "/bare-cr": (OK + b"X-A: a\rX-B: b\r\n" + BODY, False),
    "/blank-before-colon": (OK + b"Content-Length : 2\r\n\r\nok", False),
    "/empty-name": (OK + b": x\r\n" + BODY, False),
    "/huge-head": (OK + b"X-A: " + b"a" * 300_000 + b"\r\n" + BODY, False),
    "/many-fields": (OK + b"".join(b"X-%d: 1\r\n" % number for number in range(20_000)) + BODY, False),
    "/unasked-101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", False),
    "/unasked-101-h2c": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", False),
    "/bare-101": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", False),
    "/status-99": (b"HTTP/1.1 99 What\r\n" + BODY, False),
    "/status-999999": (b"HTTP/1.1 999999 What\r\n" + BODY, False),
    "/status-word": (b"HTTP/1.1 two OK\r\n" + BODY, False),
    "/version-2": (b"HTTP/2.0 200 OK\r\n" + BODY, False),
    "/many-connection-options": (OK + b"Connection: " + b"a," * 8000 + b"\r\n" + BODY, False),
    "/17-informational": (HINT * 17 + OK + BODY, False),
}

# The head may have gone out before the fault shows: then the answer must not be complete.
TORN = {
    "/bad-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", False),
    "/0x-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", False),
    "/chunk-extension-lf": (OK + b"Transfer-Encoding: chunked\r\n\r\n2;a\nb\r\nok\r\n0\r\n\r\n", False),
    "/chunk-without-end": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nokX0\r\n\r\n", False),
    "/short": (OK + b"Content-Length: 100\r\n\r\nok", True),
    "/chunked-cut": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", True),
    "/last-chunk-cut": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", True),
    "/huge-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n0\r\n\r\n", False),
}
