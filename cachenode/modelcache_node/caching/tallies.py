"""How far a download is."""

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """How far a download is; written by it alone, read by anyone on the loop."""

    bytes_total: int = 0
    bytes_present: int = 0
    bytes_from_origin: int = 0
    bytes_from_peers: int = 0
    retries: int = 0
    note: str | None = None
