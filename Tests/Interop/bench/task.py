"""What a run is made of."""

from typing import Callable, NamedTuple

ROUNDS, ONCE, ASKED = "each round", "once a run", "only when it is named"


class Task(NamedTuple):
    """One measurement: the figures that it gives, about how long it takes (with a list of sides: on each), and when it is done."""

    name: str
    figures: tuple
    seconds: float
    action: Callable
    # Makes the list of sides that take turns; None for a measurement that has no sides.
    sides: Callable | None = None
    when: str = ROUNDS

    def is_named(self, only):
        return self.name in only or any(name in only for name in self.figures)
