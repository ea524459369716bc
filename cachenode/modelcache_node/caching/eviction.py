"""Which revisions go to make room. Pure.

Never one that is leased, pinned or being fetched; those that nobody asks this node to keep first,
then the least recently used. A blob that several revisions share is freed with the last of them.
Where even all of it would not be enough, nothing goes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelcache_api.errors import InsufficientCapacityError


@dataclass(frozen=True, slots=True)
class Held:
    """A revision on this node.

    Attributes:
        blobs: Bytes on disk by blob key.
        is_wished: The operator asks this node to keep it.
        is_held: Leased, pinned or being fetched.
    """

    revision: str
    blobs: Mapping[str, int]
    last_used_at: float
    is_wished: bool = False
    is_held: bool = False


def choose_evictions(held: Iterable[Held], *, needed_bytes: int) -> list[str]:
    """Revisions to remove, in order, so that `needed_bytes` become free.

    Raises:
        InsufficientCapacityError: all that may go is not enough; remove nothing.
    """
    every = list(held)
    users = Counter(key for one in every for key in one.blobs)
    chosen: list[Held] = []
    freed_bytes = 0
    candidates = sorted(
        (one for one in every if not one.is_held),
        key=lambda one: (one.is_wished, one.last_used_at, one.revision),
    )
    for one in candidates:
        if freed_bytes >= needed_bytes:
            break
        chosen.append(one)
        users.subtract(one.blobs.keys())
        freed_bytes += sum(size for key, size in one.blobs.items() if users[key] == 0)
    if freed_bytes < needed_bytes:
        raise InsufficientCapacityError(
            f"{needed_bytes - freed_bytes} bytes more are needed than could be freed"
        )
    # One whose every blob others keep frees nothing: its going would only make it unusable.
    return [one.revision for one in chosen if any(users[key] == 0 for key in one.blobs)]
