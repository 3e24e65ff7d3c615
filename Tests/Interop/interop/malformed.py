"""Requests that must not reach a web service as they are, and the status codes that answer them."""

HOST = b"Host: app.example.com\r\n"
END = b"Connection: close\r\n\r\n"
SMUGGLED = b"POST /upload/smuggled HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 1\r\n\r\nx"


def get(fields=b"", target=b"/", method=b"GET", version=b"HTTP/1.1", host=HOST):
    return method + b" " + target + b" " + version + b"\r\n" + host + fields + END


def post(fields, body):
    return b"POST /upload HTTP/1.1\r\n" + HOST + fields + END + body


REQUESTS = [
    ("no Host", get(host=b""), [400]),
    ("two Hosts", get(b"Host: other.example.com\r\n"), [400]),
    ("two equal Hosts", get(HOST), [400]),
    ("Content-Length and Transfer-Encoding", post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED), [400]),
    ("Transfer-Encoding and Content-Length", post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n" + SMUGGLED), [400]),
    ("two equal Content-Lengths", post(b"Content-Length: 4\r\nContent-Length: 4\r\n", b"abcd"), [400]),
    ("two differing Content-Lengths", post(b"Content-Length: 4\r\nContent-Length: 5\r\n", b"abcde"), [400]),
    ("a list as Content-Length", post(b"Content-Length: 4, 4\r\n", b"abcd"), [400]),
    ("a signed Content-Length", post(b"Content-Length: +4\r\n", b"abcd"), [400]),
    ("a Content-Length beyond every integer", post(b"Content-Length: 99999999999999999999999\r\n", b"abcd"), [400, 413]),
    ("Transfer-Encoding on HTTP/1.0", b"POST /upload HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    ("Transfer-Encoding: gzip, chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), [501]),
    ("Transfer-Encoding: chunked, identity", post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"), [400, 501]),
    ("Transfer-Encoding: xchunked", post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), [400, 501]),
    ("a chunk size with 0x", post(b"Transfer-Encoding: chunked\r\n", b"0x5\r\nhello\r\n0\r\n\r\n"), [400]),
    ("a negative chunk size", post(b"Transfer-Encoding: chunked\r\n", b"-5\r\nhello\r\n0\r\n\r\n"), [400]),
    ("a chunk size beyond every integer", post(b"Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), [400]),
    ("a folded field", get(b"X-A: 1\r\n folded\r\n"), [400]),
    ("a NUL in a value", get(b"X-A: a\x00b\r\n"), [400]),
    ("a bare CR in a value", get(b"X-A: a\rb\r\n"), [400]),
    ("a blank before the colon", get(b"X-A : 1\r\n"), [400]),
    ("a blank in a name", get(b"X A: 1\r\n"), [400]),
    ("an empty name", get(b": 1\r\n"), [400]),
    ("bare LFs in the head", b"GET / HTTP/1.1\nHost: app.example.com\n\n", [400, 505]),
    ("an unknown version", get(version=b"HTTP/3.7"), [400, 505]),
    ("no version", b"GET /\r\n" + HOST + END, [400, 505]),
    ("a blank in the target", get(target=b"/a b"), [400]),
    ("a control character in the target", get(target=b"/a\x01b"), [400]),
    ("CONNECT", get(target=b"app.example.com:443", method=b"CONNECT"), [405]),
    ("TRACE", get(method=b"TRACE"), [405]),
    ("65 KB in one field", get(b"X-A: " + b"a" * 66_000 + b"\r\n"), [431]),
    ("2,000 fields", get(b"".join(b"X-%d: 1\r\n" % number for number in range(2000))), [431]),
    ("a very long target", get(target=b"/" + b"a" * 70_000), [400, 414, 431]),
    ("an absolute target of another tunnel", get(target=b"http://nobody.example.net/"), [404, 421]),
    ("a Host with a path", get(host=b"Host: app.example.com/x\r\n"), [400, 404]),
    ("a Host with user information", get(host=b"Host: a@app.example.com\r\n"), [400, 404]),
]
