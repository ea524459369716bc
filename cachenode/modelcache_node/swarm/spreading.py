"""How far this node is ahead of its neighbours with what it read from the origin.

A node with a slow uplink must not read what it cannot pass on in time: all others would wait for
it in the end. So it reads one chunk at a time then, and its idle helpers take over the rest.
"""

#: A node may be ahead by so many chunks that nobody took within about one look.
MAX_UNSPREAD = 4


class Spreading:
    """Its mutable state: what was held at the last two looks."""

    def __init__(self, now: float) -> None:
        self._before = self._lately = 0
        self._looked_at = now

    def look(self, held: int, now: float, pause_s: float) -> None:
        """Note what is held, at most every `pause_s` seconds."""
        if now - self._looked_at >= pause_s:
            self._before, self._lately = self._lately, held
            self._looked_at = now

    def allowed(self, held: int, held_by_others: int, most: int) -> int:
        """Chunks to read from the origin at once, at most `most`."""
        aged = self._before & held
        if not aged or not held_by_others:
            return most
        return max(1, min(most, MAX_UNSPREAD - (aged & ~held_by_others).bit_count()))
