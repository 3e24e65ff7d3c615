"""All values of a run, and what is made of them."""

import statistics

from bench.catalogue import WANTED, Item, describe

OURS = "kakuremichi"


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


class Figures:
    """Values by figure and side, CPU seconds and peak memory of the processes that took part, limits."""

    def __init__(self):
        self.values = {}
        self.units = {}
        self.usage = {}
        self.limits = {}

    def add(self, name, side, value, unit=None):
        self.units[name] = unit
        self.values.setdefault(name, {}).setdefault(side, []).append(value)

    def add_usage(self, name, side, processes):
        """`processes`: by name the CPU seconds and the peak memory in MB, or None for what is not known."""
        for process, used in processes.items():
            self.usage.setdefault(name, {}).setdefault(side, {}).setdefault(process, []).append(used)

    def add_limit(self, names, value):
        for name in names:
            self.limits.setdefault(name, []).append(value)

    def limit(self, name):
        """The greatest of all rounds: what else the machine does lowers it, and that must not flatter."""
        return max(self.limits[name]) if name in self.limits else None

    def results(self):
        """One dictionary a figure, in the order in which they were measured; `ours` is None where only peers were."""
        return [self.result(name) for name in self.values]

    def result(self, name):
        sides = self.values[name]
        figure = describe(name, self.units[name])
        ours = summary(sides.get(OURS))
        peers = {side: summary(values) for side, values in sides.items() if side != OURS}
        medians = [peer["median"] for peer in peers.values() if peer["median"]]
        best = (max if figure.better == "higher" else min)(medians) if medians else None
        limit = self.limit(name)
        return {
            "name": name, "unit": figure.unit, "better": figure.better, "ours": ours, "peers": peers, "limit": limit,
            "ratioToBestPeer": ours["median"] / best if ours and best else None,
            "ratioToLimit": ours["median"] / limit if ours and limit else None,
        }

    def verdict(self, result):
        """The words of what is wanted, and whether it is so; None where that cannot be told."""
        if result["name"] not in WANTED or not result["ours"]:
            return None, None
        words, test = WANTED[result["name"]]
        peers = {side: peer["median"] for side, peer in result["peers"].items()}
        return words, test(Item(result["ours"]["median"], peers, result["limit"]))

    def used(self, name, side):
        """What each process used, as words: median CPU seconds, and the most memory."""
        words = []
        for process, used in self.usage.get(name, {}).get(side, {}).items():
            seconds = statistics.median(cpu for cpu, _ in used)
            peaks = [peak for _, peak in used if peak is not None]
            words.append(f"{process} {seconds:.2f} s" + (f" {max(peaks):.0f} MB" if peaks else ""))
        return ", ".join(words)
