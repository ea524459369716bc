"""Which chunks readers wait for: the newest wish first. Pure."""

from collections import OrderedDict
from collections.abc import Sequence

#: Wishes remembered. Arbitrary: 16 GiB of read-ahead; who still waits asks again.
MAX_WISHES = 1024


class Wishes:
    """A short memory of (blob, chunk), each once; chunk None wishes the blob begun."""

    def __init__(self) -> None:
        self._wishes: OrderedDict[tuple[str, int | None], bool] = OrderedDict()

    def __len__(self) -> int:
        return len(self._wishes)

    def add(self, blob: str, chunks: Sequence[int]) -> None:
        """Before all earlier wishes; among themselves in the order given. The first is urgent:
        a reader is stopped by it, while the rest is what it will come to.
        """
        for place, chunk in reversed(list(enumerate(chunks or (None,)))):
            self._wishes[blob, chunk] = place == 0
            self._wishes.move_to_end((blob, chunk))
        while len(self._wishes) > MAX_WISHES:
            self._wishes.popitem(last=False)

    def put_back(self, blob: str, chunk: int | None, *, is_urgent: bool) -> None:
        """One that was taken too early goes before all others."""
        self._wishes[blob, chunk] = is_urgent
        self._wishes.move_to_end((blob, chunk))

    def take(self) -> tuple[str, int | None, bool] | None:
        """(blob, chunk, whether it is urgent) to be seen to next, and forgotten here."""
        if not self._wishes:
            return None
        (blob, chunk), is_urgent = self._wishes.popitem()
        return blob, chunk, is_urgent
