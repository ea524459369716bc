"""The models of a run: made once, and put into the store under as many names as scenarios want."""

from dataclasses import dataclass
from pathlib import Path

from e2e.models import Model, make_model
from e2e.store import Store

BUCKET = "models"
MIB = 1 << 20


@dataclass(frozen=True)
class Book:
    """One model in the store."""

    uri: str
    files: Model

    @property
    def sums(self) -> dict[str, str]:
        """SHA-256 of every file, by path."""
        return {path: facts.sha256 for path, facts in self.files.items()}

    @property
    def size_bytes(self) -> int:
        return sum(facts.size_bytes for facts in self.files.values())


class Library:
    """Makes models beneath a directory and uploads them.

    Two prefixes are two models to a node, whatever they hold: over plain HTTP nobody vouches that
    equal bytes are equal.
    """

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._made: dict[int, tuple[Path, Model]] = {}
        self._uploaded: dict[tuple[str, int], Book] = {}

    def book(self, prefix: str, mebibytes: int) -> Book:
        """A model of this size beneath a prefix; made and uploaded when first asked for."""
        key = (prefix, mebibytes)
        if key not in self._uploaded:
            folder, files = self._model(mebibytes)
            uri = self._store.upload(BUCKET, prefix, folder, files)
            self._uploaded[key] = Book(uri, files)
        return self._uploaded[key]

    @property
    def total_bytes(self) -> int:
        """What the store holds of them all."""
        return sum(book.size_bytes for book in self._uploaded.values())

    def _model(self, mebibytes: int) -> tuple[Path, Model]:
        if mebibytes not in self._made:
            folder = self._directory / f"{mebibytes}"
            made = make_model(folder, seed=mebibytes, weight_bytes=mebibytes * MIB)
            self._made[mebibytes] = (folder, made)
        return self._made[mebibytes]
