"""Which chunks readers wait for: the newest wish first. Pure."""

from collections import OrderedDict
from collections.abc import Sequence

#: Wishes remembered. Arbitrary: 16 GiB of read-ahead; who still waits asks again.
MAX_WISHES = 1024


class Wishes:
    """A short memory of (blob, chunk), each once; chunk None wishes the blob begun."""

    def __init__(self) -> None:
        self._wishes: OrderedDict[tuple[str, int | None], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._wishes)

    def add(self, blob: str, chunks: Sequence[int]) -> None:
        """Before all earlier wishes; among themselves in the order given."""
        for chunk in reversed(chunks or (None,)):
            self._wishes[blob, chunk] = None
            self._wishes.move_to_end((blob, chunk))
        while len(self._wishes) > MAX_WISHES:
            self._wishes.popitem(last=False)

    def take(self) -> tuple[str, int | None] | None:
        """The most urgent wish, no longer remembered; None: there is none."""
        return self._wishes.popitem()[0] if self._wishes else None
