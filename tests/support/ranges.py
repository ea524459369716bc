"""Ranges of a test origin's objects, and limits short enough to be seen at work."""

from pathlib import Path

from modelcache_api.units import MIB
from modelcache_node.transfer.limits import MoverLimits
from modelcache_node.transfer.ranges import Grant, RangeRequest
from support.fault_origin import FaultOrigin

#: Short enough for a test to see the end of, long enough for a busy machine.
LIMITS = MoverLimits(
    connections=4,
    inactivity_timeout_s=1.0,
    min_bytes_per_s=100_000,
    speed_window_s=1.0,
    buffer_bytes=MIB // 4,
)

#: For tests in which nothing stalls on purpose: a busy machine must not look like a stall.
PATIENT = LIMITS._replace(inactivity_timeout_s=50.0, min_bytes_per_s=1, speed_window_s=50.0)


def no_jitter(_low: float, _high: float) -> float:
    """The shortest back-off there is."""
    return 0.0


def request_for(
    origin: FaultOrigin,
    name: str,
    path: Path | None,
    offset: int,
    length: int,
    **kwargs: object,
) -> RangeRequest:
    """A range of an object, pinned to nothing unless told."""
    return RangeRequest(path, offset, length, Grant(f"{origin.url}/{name}"), **kwargs)  # type: ignore[arg-type]
