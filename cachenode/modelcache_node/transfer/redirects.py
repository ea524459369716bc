"""Where a redirect leads, and what goes along: pure rules, and a memory of where URLs led.

Guarantees:
- a grant's headers go to the host that the grant names and to no other, also not back to it after
  a detour;
- a request over TLS is never continued without it;
- at most MAX_HOPS in a row; each hop's address is checked like the first (by who connects);
- where one grant led is used for that grant alone: another tenant's way may not be borrowed.
"""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urldefrag, urljoin

from modelcache_api.errors import InvalidSourceError
from modelcache_node.transfer.addresses import Endpoint, parse_url
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.ranges import Grant

#: Hugging Face takes two: to the file's present place, then to its CDN. Arbitrary, above it.
MAX_HOPS = 5
#: How long the end of a way is used without asking its beginning, seconds. Signed addresses of
#: CDNs hold for an hour; hubs limit how often one may ask. Arbitrary, far below the former.
REMEMBERED_S = 300.0
#: Ways remembered at once; the oldest goes first. Arbitrary, above one large model's files.
MAX_REMEMBERED = 4096
MAX_LOCATION_CHARS = 8192  # as for a grant's own URL


class Hop(NamedTuple):
    """A request's next place. `headers` are a grant's, as long as they may go along."""

    endpoint: Endpoint
    target: str
    headers: tuple[tuple[str, str], ...]
    url: str


def first_hop(grant: Grant) -> Hop:
    """Where a grant leads at first.

    Raises:
        InvalidSourceError: not a usable URL.
    """
    endpoint, target = parse_url(grant.url)
    return Hop(endpoint, target, grant.headers, grant.url)


def next_hop(hop: Hop, location: str | None) -> Hop:
    """Where a redirect leads.

    Raises:
        RangeFailedError: nowhere that may be gone to.
    """
    if not location or len(location) > MAX_LOCATION_CHARS:
        raise RangeFailedError(FailureKind.REFUSED, "redirected to nowhere")
    try:
        url = urldefrag(urljoin(hop.url, location)).url
        endpoint, target = parse_url(url)
    except (ValueError, InvalidSourceError):
        raise RangeFailedError(FailureKind.REFUSED, "redirected to no usable URL") from None
    if hop.endpoint.scheme == "https" and endpoint.scheme != "https":
        raise RangeFailedError(
            FailureKind.REFUSED, f"redirected from https to http (host {endpoint.host[:80]})"
        )
    return Hop(endpoint, target, hop.headers if endpoint == hop.endpoint else (), url)


class Ways:
    """Where grants' URLs led lately. Its mutable state is that one bounded map."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._known: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, Hop]] = {}

    def end_of(self, grant: Grant) -> Hop | None:
        """The last hop of this grant's way, if it was gone lately."""
        found = self._known.get((grant.url, grant.headers))
        if found is None or self._clock() - found[0] > REMEMBERED_S:
            return None
        return found[1]

    def remember(self, grant: Grant, end: Hop) -> None:
        """A range was fetched there. What is known already keeps its age."""
        key = grant.url, grant.headers
        if self.end_of(grant) == end:
            return
        self._known.pop(key, None)
        while len(self._known) >= MAX_REMEMBERED:
            self._known.pop(next(iter(self._known)))
        self._known[key] = self._clock(), end

    def forget(self, grant: Grant) -> None:
        """It did not lead to the bytes: go from its beginning next time."""
        self._known.pop((grant.url, grant.headers), None)
