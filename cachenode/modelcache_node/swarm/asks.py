"""What the policy asks its shell to do, and how that may fail. Plain values."""

from dataclasses import dataclass
from enum import Enum, auto

from modelcache_node.swarm.origin_duty import ClaimAsk

__all__ = ["Ask", "ClaimAsk", "Failure", "Outcome"]


@dataclass(frozen=True, slots=True)
class Ask:
    """Fetch one slot. The shell answers every ask once: with its bytes' checksum or a failure.

    Attributes:
        number: Names this ask.
        slot: What to fetch.
        peer: From whom; None = the origin.
        asked_at: When, in the policy's clock.
        timeout_s: Not answered by then, it has failed; None: the shell knows better.
    """

    number: int
    slot: int
    peer: str | None
    asked_at: float
    timeout_s: float | None = None


class Failure(Enum):
    """Why a peer's chunk did not come."""

    BUSY = auto()
    """It has enough to do; another may have the chunk."""
    LACKS = auto()
    """It does not have what its map says."""
    APART = auto()
    """It may have the chunk of another origin only, which it keeps apart until it is sealed."""
    UNAVAILABLE = auto()
    """No answer, a broken one, or too slow."""
    MISBEHAVED = auto()
    """An answer that is none: too long, unsigned, of another revision."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do with bytes that came.

    Attributes:
        is_accepted: They are those announced; mark them present.
        is_late: Somebody else's came first; there is nothing to do.
        superseded: Other asks for the same slot: cancel them before it counts as present.
    """

    is_accepted: bool
    is_late: bool = False
    superseded: tuple[Ask, ...] = ()
