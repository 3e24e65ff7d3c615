"""Prometheus' text format, read strictly."""

import re

from .system import check, check_equal

SAMPLE = re.compile(r'^([a-z_:][a-z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\d+(?:\.\d+)?)$')
OF_HISTOGRAMS = ("_bucket", "_sum", "_count")


def parse(text):
    """(name, labels) -> value; labels as they are written, "" if there are none."""
    samples, kinds = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            check(name not in kinds, f"{name} is begun twice")
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            check(match, f"not a sample: {line!r}")
            name, labels = match[1], match[2] or ""
            family = next((name.removesuffix(end) for end in OF_HISTOGRAMS if kinds.get(name.removesuffix(end)) == "histogram"), name)
            check(family in kinds, f"{name} has no TYPE")
            check((name, labels) not in samples, f"twice: {line}")
            samples[(name, labels)] = float(match[3]) if "." in match[3] else int(match[3])
    return samples


def metrics(program, lab, node):
    """What a node tells by its admin socket."""
    result = program.run(lab, ["status", "--metrics", "--state", node.state])
    check_equal(result.returncode, 0, f"exit code ({result.stderr.strip()})")
    return parse(result.stdout)
