"""When a worker that ended is started again: pure decisions.

A worker that was killed is back at once; one that keeps dying young is given longer and longer
pauses, because what it lacks is not going to appear in a millisecond.
"""

from dataclasses import dataclass

#: A worker that lived this long was sound: the next one starts at once. Arbitrary.
SOUND_AFTER_S = 10.0
#: Early deaths in a row that are not worth a pause: a worker killed twice by hand, or by a test.
FREE_RESTARTS = 3
FIRST_PAUSE_S = 0.1
#: Below the patience of probes, and far below the kubelet's own back-off of five minutes.
LONGEST_PAUSE_S = 5.0
#: A worker that ends so has made up its mind: done, or called wrongly.
FINAL_EXIT_CODES = frozenset({0, 2})


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended: by itself with a code, or killed by a signal."""

    code: int | None = None
    signal: int | None = None

    @property
    def is_final(self) -> bool:
        return self.code in FINAL_EXIT_CODES

    def as_exit_code(self) -> int:
        """As a shell would report it."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


@dataclass(frozen=True, slots=True)
class Restarts:
    """How many workers in a row died young."""

    n_early_deaths: int = 0

    def after(self, lifetime_s: float) -> "tuple[Restarts, float]":
        """The next state, and the pause in seconds before the next start."""
        if lifetime_s >= SOUND_AFTER_S:
            return Restarts(), 0.0
        n = self.n_early_deaths + 1
        pauses = n - FREE_RESTARTS
        if pauses <= 0:
            return Restarts(n), 0.0
        # The exponent is bounded so that the count may grow for ever.
        return Restarts(n), min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(pauses - 1, 16))
