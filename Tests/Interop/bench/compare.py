"""Two runs side by side: compare.py OLD.json NEW.json"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.report import number, ratio, table  # noqa: E402


def load(path):
    with open(path) as file:
        return {item["name"]: item for item in json.load(file)}


def verdict(old, new, better):
    """Said only where the rounds of one run all lie beyond those of the other; where one has a single value, they must be a tenth apart."""
    if any(run["min"] == run["max"] for run in (old, new)) and abs(new["median"] - old["median"]) <= 0.1 * abs(old["median"]):
        return ""
    if new["min"] > old["max"]:
        return "better" if better == "higher" else "WORSE"
    if new["max"] < old["min"]:
        return "WORSE" if better == "higher" else "better"
    return ""


def span(figures):
    return f"{number(figures['median'])} ({number(figures['min'])} - {number(figures['max'])})"


def compare(old, new):
    rows = [["figure", "unit", "old", "new", "new / old", ""]]
    for name, item in new.items():
        if name in old:
            before, now = old[name]["ours"], item["ours"]
            change = now["median"] / before["median"] if before["median"] else None
            rows.append([name, item["unit"], span(before), span(now), ratio(change), verdict(before, now, item["better"])])
    return rows


def main():
    if len(sys.argv) != 3:
        print("usage: scripts/bench compare OLD.json NEW.json")
        return 2
    try:
        old, new = load(sys.argv[1]), load(sys.argv[2])
        rows = compare(old, new)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"not two files of `scripts/bench --json`: {type(error).__name__}: {error}")
        return 1
    table(rows, (0, 1, 5))
    for names, where in ((old.keys() - new.keys(), "old"), (new.keys() - old.keys(), "new")):
        if names:
            print(f"only in the {where} one: {', '.join(sorted(names)) if len(names) < 10 else f'{len(names)} figures'}")
    print("better and WORSE: every round of one run lies beyond every round of the other; the rest may be chance.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
