"""Every figure of `scripts/bench`: its unit, which way is better, what it is, and what is wanted of it."""

from typing import NamedTuple

HIGHER, LOWER = "higher", "lower"


class Figure(NamedTuple):
    unit: str
    better: str
    meaning: str


def latencies(name):
    return {
        f"{name}-p50": Figure("ms", LOWER, f"median latency of {name}"), f"{name}-p99": Figure("ms", LOWER, f"99th percentile of {name}")}


MBS, REQUESTS = "MB/s", "requests/s"
FIGURES = {
    "bulk-down-1": Figure(MBS, HIGHER, "bytes from a listener inside the tunnel to a process that dials, 1 connection; both ends only produce "
                          "and count (ours: the library NIOWireGuard; peer: kernel sockets over wireguard-go)"),
    "bulk-up-1": Figure(MBS, HIGHER, "bulk-down-1 the other way"),
    "bulk-down-1-libcrypto": Figure(MBS, HIGHER, "bulk-down-1 with libcrypto in the place of libsodium"),
    "bulk-up-1-libcrypto": Figure(MBS, HIGHER, "bulk-up-1 with libcrypto in the place of libsodium"),
    "bulk-down-10": Figure(MBS, HIGHER, "bulk-down-1 over 10 connections"),
    "bulk-up-10": Figure(MBS, HIGHER, "bulk-up-1 over 10 connections"),
    "dial-down": Figure(MBS, HIGHER, "plain HTTP through an agent to `dial`; peer: curl over wireguard-go"),
    "dial-up": Figure(MBS, HIGHER, "dial-down the other way"),
    "dial-echo": Figure(MBS, HIGHER, "`dial` to `echo` and back, both ways at the same time"),
    "https-1": Figure(REQUESTS, HIGHER, "HTTP/1.1 over TLS, 100 bytes, keep-alive, 1 connection"),
    **latencies("https-1"),
    "https-16": Figure(REQUESTS, HIGHER, "as https-1 with 16 connections"),
    **latencies("https-16"),
    "https-64": Figure(REQUESTS, HIGHER, "as https-1 with 64 connections"),
    **latencies("https-64"),
    "https-64-cpu": Figure("us", LOWER, "CPU time a request of https-64 in everything between client and origin; peer: nginx and both wireguard-go"),
    "https-256": Figure(REQUESTS, HIGHER, "as https-1 with 256 connections"),
    **latencies("https-256"),
    "h2-16x16": Figure(REQUESTS, HIGHER, "HTTP/2 over TLS, 100 bytes, 16 connections with 16 streams each"),
    **latencies("h2-16x16"),
    "tls-new": Figure("connections/s", HIGHER, "new TLS connections with one request each, whole handshakes, 16 at once"),
    "tls-new-cpu": Figure("us", LOWER, "CPU time of the front for each connection of tls-new"),
    "download-100mb": Figure(MBS, HIGHER, "100 MB over HTTPS, one client"),
    "upload-100mb": Figure(MBS, HIGHER, "100 MB over HTTPS, one client"),
    "small-under-handshakes-p50": Figure("ms", LOWER, "median latency of https-1 while 1,000 WireGuard handshakes a second come to the gateway"),
    "small-under-handshakes-p99": Figure("ms", LOWER, "99th percentile of the same"),
    "handshakes": Figure("a second and core", HIGHER, "handshakes that a responder with 1,000 peers completes in a second of its CPU time, system "
                         "calls included"),
    "startup": Figure("ms", LOWER, "start of the front to the first answered request"),
    "rss-idle": Figure("MB", LOWER, "resident memory of the front after its first request"),
    "rss-256-busy": Figure("MB", LOWER, "peak memory of the front during https-256"),
    "rss-1000-peers": Figure("MB", LOWER, "resident memory of a gateway with 1,000 silent peers; peer: wireguard-go alone"),
    "rss-10000-peers": Figure("MB", LOWER, "the same with 10,000"),
    "rss-10000-idle": Figure("MB", LOWER, "resident memory of `echo` with 10,000 connections in the tunnel that rest"),
    "rss-1000-websockets": Figure("MB", LOWER, "resident memory of the front with 1,000 WebSockets at rest, each of which has carried a message there "
                                  "and back"),
    "websockets-1000-memory": Figure("MB", LOWER, "what they add to it"),
    "websockets-1000-agent": Figure("MB", LOWER, "what they add to the agent's memory"),
    "rss-10000-keepalive": Figure("MB", LOWER, "resident memory of the front with 10,000 clients at rest (HTTP/1.1 over TLS), each of which has had one "
                                  "answer"),
    "keepalive-10000-memory": Figure("MB", LOWER, "what they add to it"),
    "peers-10000-memory": Figure("MB", LOWER, "what 10,000 silent peers add to a gateway's memory"),
    "peers-10000-start": Figure("ms", LOWER, "until a gateway with 10,000 peers listens"),
    "peers-10000-idle": Figure("% of a core", LOWER, "what it uses at rest"),
    "flood-junk": Figure(MBS, HIGHER, "bulk from an agent beside 50,000 initiations a second with a wrong mac1 to its port"),
    "flood-valid-connect": Figure("s", LOWER, "until a new peer is served beside 20,000 initiations a second with a right mac1 from 4,000 addresses"),
    "flood-valid-memory": Figure("MB", LOWER, "what the agent's memory grows by meanwhile"),
}
# Figures of `bench micro` and `bench stack` come with their units; more of these is better.
MORE_IS_BETTER = ("a second", "Gbit/s", "Mbit/s", "MB/s", "segments/s", "of 200 Mbit/s")
# What figures are whose names begin so.
MEANINGS = {
    "goodput-": "what one connection moves at some loss and round-trip time, beside the response functions of Mathis and CUBIC",
    "stack-": "two TCP/IP stacks without crypto in one process, on one core",
    "": "a single operation on one core",
}

# What the value that stands beside ours is, where it is not another side.
WITHOUT_FLOOD, WITHOUT_HANDSHAKES, ONE_PEER = "flood to another socket", "without handshakes", "1 peer"
BESIDE = {"handshakes-": "4 X25519", "stack-lossy": "CUBIC's formula", "": "C"}


class Item:
    """A figure's medians, as goals look at them."""

    def __init__(self, value, peers, limit):
        self.value, self.peers, self.limit = value, peers, limit

    def of(self, peer):
        return self.value / self.peers[peer] if self.peers.get(peer) else None

    def of_limit(self):
        return self.value / self.limit if self.limit else None


STOCK = "wireguard-go + nginx"


def at_least(bound, peer):
    return f">= {bound:g} x {peer}", lambda item: None if item.of(peer) is None else item.of(peer) >= bound


def at_most(bound, peer):
    return f"<= {bound:g} x {peer}", lambda item: None if item.of(peer) is None else item.of(peer) <= bound


def below(bound):
    return f"<= {bound:g}", lambda item: item.value <= bound


def both(first, second):
    def test(item):
        results = [first[1](item), second[1](item)]
        return False if False in results else None if None in results else True

    return f"{first[0]}, {second[0]}", test


def above(bound):
    return f">= {bound:,}", lambda item: item.value >= bound


def limit(bound):
    return f">= {bound:g} of the limit", lambda item: None if item.of_limit() is None else item.of_limit() >= bound


# Name: the words, and whether an Item is as wanted (None if there is nothing to compare with).
WANTED = {
    **{name: limit(0.45) for name in ("bulk-down-1", "bulk-up-1")},
    "https-64": at_least(1.1, STOCK), "https-64-cpu": at_most(0.95, STOCK), "https-1-p50": at_most(0.9, STOCK),
    "h2-16x16": both(at_least(1.2, "caddy"), at_least(0.35, "haproxy")), "download-100mb": at_least(2.8, STOCK), "tls-new-cpu": at_most(0.9, "nginx"),
    "startup": below(100), "rss-idle": below(20), "rss-256-busy": below(80), "rss-1000-peers": below(23),
    "flood-junk": at_least(0.85, WITHOUT_FLOOD), "flood-valid-connect": below(5), "flood-valid-memory": below(1),
    "websockets-1000-memory": below(30), "rss-10000-keepalive": both(below(200), at_most(2, "nginx")),
    "peers-10000-memory": below(25), "peers-10000-start": below(1000), "peers-10000-idle": below(1),
    **{name: at_most(1.05, "C") for name in ("seal-1420", "open-1420")},
    **{f"{name}-allocations": below(0) for name in (
        "seal-1420", "open-1420", "device-out", "device-in", "segment-out-1420", "segment-in-1420", "route-lookup-10", "route-lookup-10000",
        "index-lookup-10", "index-lookup-10000", "flow-lookup-10000", "packet-out", "packet-in", "acknowledgment", "small-request", "stack-bulk",
        "stack-rr")},
    "handshakes-responder": at_least(0.85, "4 X25519"), "stack-bulk": above(10), "stack-rr": above(1_000_000),
    "stack-idle-10000": below(25), "stack-time-wait-100000": below(10), "stack-long-fat": above(0.8),
    "stack-lossy-50ms": at_least(1, "CUBIC's formula"),
}


def describe(name, unit=None):
    """The figure of a name; those of the tool's single operations bring their unit."""
    if name in FIGURES:
        return FIGURES[name]
    return Figure(unit or "", HIGHER if unit in MORE_IS_BETTER else LOWER, by_prefix(MEANINGS, name))


def beside(name):
    """What a single operation stands beside."""
    return by_prefix(BESIDE, name)


def by_prefix(table, name):
    return next(words for prefix, words in table.items() if name.startswith(prefix))
