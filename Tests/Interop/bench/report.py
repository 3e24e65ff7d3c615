"""The table of a run."""

import os

from bench.catalogue import describe
from bench.figures import OURS

COLUMNS = ["figure", "unit", "side", "median", "min", "max", "ours /", "/ limit", "wanted", "CPU seconds and peak memory of each process"]
LEFT = (0, 1, 2, 8, 9)


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(value):
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def table(rows, left=(0,)):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for position, row in enumerate(rows):
        cells = (cell.ljust(width) if column in left else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths)))
        print("  ".join(cells).rstrip())
        if position == 0:
            print("  ".join("-" * width for width in widths))


def spread(figures):
    return [number(figures[key]) for key in ("median", "min", "max")] if figures else ["-", "-", "-"]


def wanted(figures, result):
    words, met = figures.verdict(result)
    return "" if words is None else f"{words}: {'-' if met is None else 'yes' if met else 'NO'}"


def rows_of(result, figures):
    """Ours first; beside each peer the ratio to it."""
    name, ours = result["name"], result["ours"]
    yield [
        name, result["unit"], OURS, *spread(ours), ratio(result["ratioToBestPeer"]), ratio(result["ratioToLimit"]), wanted(figures, result),
        figures.used(name, OURS)]
    for side, peer in result["peers"].items():
        against = ours["median"] / peer["median"] if ours and peer["median"] else None
        yield ["", "", side, *spread(peer), ratio(against), "", "", figures.used(name, side)]


def show(results, figures, rounds):
    print(f"\n{rounds} {'round' if rounds == 1 else 'rounds'}, interleaved; everything on the {os.cpu_count()} cores of this machine, so only ratios mean much.")
    print("'ours /' is our median divided by that peer's; in our own line by the best peer's. '/ limit' is our share of what this machine allows:")
    for name, words in (("bulk-down-1", "ChaCha20-Poly1305 seals {:,.0f} MB/s on one core, packets of 1,420 bytes (bulk and dial)"),
                        ("handshakes", "{:,.0f} times 4 X25519 a second on one core (handshakes)")):
        if figures.limit(name):
            print("  " + words.format(figures.limit(name)))
    print()
    table([COLUMNS] + [row for result in results for row in rows_of(result, figures)], LEFT)
    print()
    meanings = {}
    for result in results:
        meanings.setdefault(describe(result["name"], result["unit"]).meaning, []).append(result["name"])
    for meaning, names in meanings.items():
        print(f"{', '.join(names) if len(names) < 5 else f'{names[0]} to {names[-1]}'}: {meaning}")
