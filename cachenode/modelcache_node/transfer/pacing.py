"""When to ask again, and how much at once. Sans I/O: time and randomness are passed in.

All times are monotonic seconds, except where a date from an origin is read.
"""

from collections.abc import Callable

from modelcache_node.transfer.failures import FailureKind

BACKOFF_BASE_S = 0.2  # arbitrary
BACKOFF_CAP_S = 20.0  # AWS SDKs' cap
#: How often an answer that does not fit its request is asked for again: one broken server behind
#: a load balancer is passed over, a broken store is told from it. Arbitrary.
MAX_MISBEHAVIOURS = 4

RETRY_SHARE = 0.1  # of requests: in an outage we add at most a tenth to the store's load
RETRY_BURST = 64.0  # arbitrary: every connection of a large node may fail at once
RETRY_TRICKLE_PER_S = 2.0  # arbitrary: with no success at all we still look whether it is back

#: A window shrinks at most once in this time: answers under way tell of the same overload.
SHRINK_PAUSE_S = 1.0

_RETRYABLE = frozenset({FailureKind.THROTTLED, FailureKind.UNAVAILABLE, FailureKind.MISBEHAVED})


def is_retryable(kind: FailureKind) -> bool:
    """Whether the same request may succeed later."""
    return kind in _RETRYABLE


def backoff_s(failures: int, uniform: Callable[[float, float], float]) -> float:
    """Pause after the n-th failure in a row: full jitter below a doubling, capped ceiling."""
    ceiling_s = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(failures - 1, 32))
    return uniform(0.0, ceiling_s)


def pause_s(
    failures: int, asked_s: float | None, uniform: Callable[[float, float], float]
) -> float:
    """Pause before asking again: what the origin asked for, if it did, plus jitter."""
    return (asked_s or 0.0) + backoff_s(failures, uniform)


class RetryBudget:
    """Tokens for retries: each success earns a part of one, time earns a trickle."""

    def __init__(self, now: float) -> None:
        self._tokens = RETRY_BURST
        self._at = now

    def earn(self) -> None:
        self._tokens = min(RETRY_BURST, self._tokens + RETRY_SHARE)

    def spend(self, now: float) -> float:
        """Take one token; returns how long to wait until it is there, in seconds."""
        self._tokens = min(RETRY_BURST, self._tokens + (now - self._at) * RETRY_TRICKLE_PER_S)
        self._at = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / RETRY_TRICKLE_PER_S)


class Window:
    """How many ranges of one origin may be under way: additive increase, halved when throttled."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = float(ceiling)
        self._limit = float(ceiling)
        self._shrunk_at = -SHRINK_PAUSE_S
        self.in_flight = 0

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    @property
    def has_room(self) -> bool:
        return self.in_flight < self.limit

    def succeeded(self) -> None:
        self._limit = min(self._ceiling, self._limit + 1.0 / self._limit)

    def throttled(self, now: float) -> None:
        if now - self._shrunk_at >= SHRINK_PAUSE_S:
            self._shrunk_at = now
            self._limit = max(1.0, self._limit / 2.0)


class RateLimit:
    """A token bucket over bytes. A range larger than the bucket passes and leaves a debt."""

    def __init__(self, bytes_per_s: float | None, now: float) -> None:
        self._rate = bytes_per_s
        self._level = 0.0
        self._at = now

    def wait_s(self, now: float) -> float:
        """How long until the next range may start."""
        if self._rate is None:
            return 0.0
        # At most one second's worth is saved up.
        self._level = min(self._rate, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, -self._level / self._rate)

    def change(self, bytes_per_s: float | None, now: float) -> None:
        """Go on at another rate."""
        if bytes_per_s != self._rate:
            self._rate, self._level, self._at = bytes_per_s, 0.0, now

    def take(self, n_bytes: int) -> None:
        self._level -= n_bytes
