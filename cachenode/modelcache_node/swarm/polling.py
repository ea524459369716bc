"""When each neighbour is asked for its map."""

from collections.abc import Iterable

#: A neighbour is asked every few chunk times of this node, within bounds in seconds.
POLL_CHUNK_TIMES, MIN_POLL_S, MAX_POLL_S = 4.0, 0.1, 2.0
_ASKED = float("inf")


class Polls:
    """Its mutable state: when each neighbour is due; one that was asked is not till it answers."""

    def __init__(self) -> None:
        self._due_at: dict[str, float] = {}

    def take(self, names: Iterable[str]) -> None:
        """These are the neighbours now; new ones are due at once."""
        self._due_at = {name: self._due_at.get(name, 0.0) for name in names}

    def due(self, now: float) -> list[str]:
        """Who is to be asked now; `again_at` must follow for each."""
        names = [name for name, at in self._due_at.items() if at <= now]
        self._due_at.update(dict.fromkeys(names, _ASKED))
        return names

    def again_at(self, name: str, when: float) -> None:
        """It answered, or did not."""
        if name in self._due_at:
            self._due_at[name] = when

    def hasten(self, name: str, now: float) -> None:
        """It has something new, as others say."""
        if self._due_at.get(name, _ASKED) != _ASKED:
            self._due_at[name] = now


def poll_pause_s(chunk_s: float, requests: int) -> float:
    """Between two maps of one neighbour, where chunks take `chunk_s` with `requests` at a time."""
    return min(max(POLL_CHUNK_TIMES * chunk_s / requests, MIN_POLL_S), MAX_POLL_S)
