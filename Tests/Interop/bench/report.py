"""What is measured, and how the figures of a run are put together and printed."""

import ctypes
import os
import statistics
import time

from bench.sides import Nginx, Ours
from bench.stock import Stock

# name: (unit, which is better, what it is)
MEASURES = {
    "download-100mb": ("MB/s", "higher", "100 MB over HTTPS, one client"),
    "upload-100mb": ("MB/s", "higher", "100 MB over HTTPS, one client"),
    "https-64": ("requests/s", "higher", "HTTP/1.1 keep-alive, 100 B, 64 connections"),
    "https-1": ("requests/s", "higher", "the same, 1 connection"),
    "https-1-p50": ("ms", "lower", "median latency of https-1"),
    "bulk-down-1": ("MB/s", "higher", "agent to `dial`, plain HTTP inside the tunnel, 1 stream"),
    "bulk-up-1": ("MB/s", "higher", "`dial` to agent, the same way"),
    "bulk-echo": ("MB/s", "higher", "`dial` to `echo` and back, each way at the same time"),
    "startup": ("ms", "lower", "start of the front process to the first answered request"),
    "rss-idle": ("MB", "lower", "resident memory of the front process before load"),
    "rss-peak": ("MB", "lower", "peak memory of the front process over the whole run"),
}
BULK = ("bulk-down-1", "bulk-up-1", "bulk-echo")


def aead_rate():
    """MB/s that one core seals with libsodium's ChaCha20-Poly1305 in packets of 1,420 bytes; None where libsodium is not installed."""
    try:
        sodium = ctypes.CDLL("libsodium.so.23")
    except OSError:
        return None
    sodium.sodium_init()
    size, count = 1420, 50_000
    packet, tag, nonce, key = (ctypes.create_string_buffer(length) for length in (size, 16, 12, 32))
    seal, empty = sodium.crypto_aead_chacha20poly1305_ietf_encrypt_detached, sodium.sodium_library_version_major
    arguments = (packet, tag, None, packet, ctypes.c_ulonglong(size), None, ctypes.c_ulonglong(0), None, nonce, key)

    def seconds(function, arguments):
        start = time.perf_counter()
        for _ in range(count):
            function(*arguments)
        return time.perf_counter() - start

    best = min(seconds(seal, arguments) for _ in range(3))
    # A call from Python costs about as much as a third of the work; what it costs is measured and taken off.
    overhead = min(seconds(empty, arguments) for _ in range(3))
    return size * count / max(best - overhead, 1e-9) / 1e6


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


def results(run, limit):
    listed = []
    for name, (unit, better, _) in MEASURES.items():
        ours = summary(run.values[name].get(Ours.name))
        if not ours or not run.wants(name):
            continue
        peers = {side: summary(values) for side, values in run.values[name].items() if side != Ours.name}
        medians = [peer["median"] for peer in peers.values() if peer["median"]]
        best = (max if better == "higher" else min)(medians) if medians else None
        own_limit = limit if name in BULK else None
        listed.append({
            "name": name, "unit": unit, "better": better, "ours": ours, "peers": peers, "limit": own_limit,
            "ratioToBestPeer": ours["median"] / best if best else None, "ratioToLimit": ours["median"] / own_limit if own_limit else None,
            "cpuSeconds": {side: {process: statistics.median(seconds) for process, seconds in processes.items()}
                           for side, processes in run.processor[name].items()},
        })
    return listed


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def span(figures):
    return f"{number(figures['median'])} ({number(figures['min'])} - {number(figures['max'])})" if figures else "-"


def against(item, peer):
    figures = item["peers"].get(peer)
    return span(figures), number(item["ours"]["median"] / figures["median"] if figures and figures["median"] else None)


def table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for position, row in enumerate(rows):
        print("  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))))
        if position == 0:
            print("  ".join("-" * width for width in widths))


def show(listed, run, limit, rounds):
    print(f"\n{rounds} rounds, interleaved; median (min - max); everything on the {os.cpu_count()} cores of this machine")
    if limit:
        print(f"limit of the tunnel: ChaCha20-Poly1305 seals {limit:.0f} MB/s a core in packets of 1,420 bytes (libsodium)")
    print()
    table([["measurement", "unit", "kakuremichi", "nginx, no tunnel", "ratio", "wireguard-go + nginx", "ratio", "of the limit"]] + [
        [item["name"], item["unit"], span(item["ours"]), *against(item, Nginx.name), *against(item, Stock.name), number(item["ratioToLimit"])]
        for item in listed])
    print()
    rows = []
    for item in listed:
        for side, processes in item["cpuSeconds"].items():
            cells = ", ".join(f"{process} {seconds:.2f}" for process, seconds in processes.items())
            rows.append([item["name"], side, cells])
    if rows:
        table([["CPU seconds of", "side", "process"]] + rows)
        print()
    peaks = [
        [name[5:], side, number(max(values))]
        for name, sides in run.values.items() if name.startswith("peak ") for side, values in sides.items()]
    if peaks:
        table([["peak memory of", "side", "MB"]] + peaks)
        print()
    for item in listed:
        print(f"{item['name']}: {MEASURES[item['name']][2]}")
