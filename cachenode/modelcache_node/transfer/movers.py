"""Movers: worker processes that fetch ranges, seen from the process that asks for them.

Guarantees:
- `fetch` answers once, with a range that is whole and written, or with one typed error;
- a mover that dies is replaced, and its ranges are asked for again;
- cancelling a fetch cancels its range at the worker: nothing is written after `fetch` returned;
- redirects are followed by the rules of `redirects`, each hop checked like the first;
- no credential or grant is logged, and none reaches a worker's command line or environment.
"""

import asyncio
import datetime as dt
import os
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from modelcache_api.errors import (
    AccessDeniedError,
    DiskFailedError,
    DiskFullError,
    GrantExpiredError,
    InvalidSourceError,
    ModelCacheError,
    SourceChangedError,
    SourceLiesError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from modelcache_api.peer_auth import ClusterKeys
from modelcache_api.proxies import Proxies
from modelcache_api.retry_after import retry_after_s
from modelcache_node.transfer.addresses import AddressBook, Endpoint, check_name
from modelcache_node.transfer.dispatching import Dispatcher, Ticket
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.http1 import build_request
from modelcache_node.transfer.limits import MoverLimits
from modelcache_node.transfer.memory import memory_limit_bytes
from modelcache_node.transfer.pacing import (
    MAX_MISBEHAVIOURS,
    is_retryable,
    pause_s,
)
from modelcache_node.transfer.peer_fetching import PeerFetcher
from modelcache_node.transfer.peer_ranges import PeerRange
from modelcache_node.transfer.pins import condition
from modelcache_node.transfer.ranges import (
    MoverStats,
    PeerTls,
    RangeRequest,
    RangeResult,
    Traffic,
)
from modelcache_node.transfer.redirects import MAX_HOPS, Hop, Ways, first_hop, next_hop
from modelcache_node.transfer.rules import OpenNetwork, Rules
from modelcache_node.transfer.wire import Assignment, Keys

#: How long `fetch` goes on asking again. Arbitrary: callers that wait longer ask anew.
GIVE_UP_AFTER_S = 120.0
MAX_MOVERS = 8

_ERRORS: dict[FailureKind, type[ModelCacheError]] = {
    FailureKind.CHANGED: SourceChangedError,
    FailureKind.EXPIRED: GrantExpiredError,
    FailureKind.DENIED: AccessDeniedError,
    FailureKind.NOT_FOUND: SourceNotFoundError,
    FailureKind.REFUSED: InvalidSourceError,
    FailureKind.REDIRECTED: InvalidSourceError,
    FailureKind.MISBEHAVED: SourceLiesError,
    FailureKind.DISK_FULL: DiskFullError,
    FailureKind.DISK_FAILED: DiskFailedError,
}
#: What the end of a remembered way may answer when it no longer holds; the way is gone anew then.
_WAY_ENDED = frozenset({
    FailureKind.REDIRECTED, FailureKind.EXPIRED, FailureKind.DENIED, FailureKind.NOT_FOUND,
    FailureKind.REFUSED, FailureKind.CHANGED,
})  # fmt: skip


class Movers:
    """Worker processes and the queue before them. An async context manager.

    Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        count: int | None = None,
        limits: MoverLimits | None = None,
        download_limit_bytes_per_s: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
        rules: Rules | None = None,
        peer_tls: PeerTls | None = None,
    ) -> None:
        """Start nothing yet. Proxies of our environment hold, see `modelcache_api.proxies`.

        Args:
            count: Worker processes; None chooses by the number of cores.
            limits: Bounds inside each worker; None chooses by the memory there is.
            download_limit_bytes_per_s: Bound on all of them together, over seconds; None: none.
            clock: Monotonic seconds.
            uniform: Randomness of back-off.
            rules: Where origins may be; None: anywhere.
            peer_tls: How peers are known over TLS; None speaks plain HTTP to them.
        """
        self._count = count or default_count(os.cpu_count() or 1)
        self._clock = clock
        self._uniform = uniform
        self._rules = rules or OpenNetwork()
        self._book = AddressBook(clock=clock, rules=rules)
        self._proxies = Proxies.from_environment(os.environ)
        self._proxy_book = AddressBook(clock=clock)
        self._ways = Ways(clock)
        self._dispatcher = Dispatcher(
            self._count,
            limits or default_limits(memory_limit_bytes(), self._count),
            bytes_per_s=download_limit_bytes_per_s,
            clock=clock,
            uniform=uniform,
        )
        self._peers = PeerFetcher(self._dispatcher, clock=clock, tls=peer_tls)
        self.from_origins = Traffic()
        self.from_peers = Traffic()

    async def __aenter__(self) -> Self:
        """Start the workers; does not wait until they are up."""
        self._dispatcher.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and reap the workers, so that their CPU time counts as our children's."""
        await self._dispatcher.stop()

    @property
    def max_outstanding(self) -> int:
        """Fetches that keep every connection busy; more wait in the queue."""
        return self._dispatcher.depth * self._count

    @property
    def worker_pids(self) -> list[int]:
        """Processes at work now, for who measures them."""
        return self._dispatcher.worker_pids

    async def fetch(
        self,
        request: RangeRequest,
        *,
        give_up_after_s: float | None = GIVE_UP_AFTER_S,
        on_retry: Callable[[str], None] | None = None,
    ) -> RangeResult:
        """Fetch one range; asks again after failures that may pass.

        Args:
            request: What to fetch.
            give_up_after_s: Since the first failure in a row; None: until cancelled.
            on_retry: Told the reason, for people, each time the range is asked for again.

        Raises:
            GrantExpiredError: get a new grant and call again.
            SourceChangedError: the object is not the one listed; resolve anew.
            SourceNotFoundError, AccessDeniedError, InvalidSourceError: retrying does not help.
            SourceUnavailableError: given up; the origin may be back later.
            DiskFullError, DiskFailedError: our side.
            OSError: the request's file cannot be opened or written.
        """
        first = first_hop(request.grant)
        ask_again_until: float | None = None
        failures = 0
        while True:
            try:
                return await self._follow(request, first)
            except RangeFailedError as e:
                failures += 1
                if not is_retryable(e.kind) or (
                    e.kind is FailureKind.MISBEHAVED and failures >= MAX_MISBEHAVIOURS
                ):
                    raise _to_error(e, first.target) from e
                failure = e
            wait_s = self._pause(failure, failures, first.endpoint)
            now = self._clock()
            if ask_again_until is None and give_up_after_s is not None:
                ask_again_until = now + give_up_after_s
            if ask_again_until is not None and now + wait_s >= ask_again_until:
                raise _to_error(failure, first.target, retry_after_s=wait_s) from failure
            if on_retry is not None:
                on_retry(failure.message)
            await asyncio.sleep(wait_s)

    def use_cluster_keys(self, keys: ClusterKeys, *, asker: str) -> None:
        """Speak to peers as `asker` with these from now on; before the first `fetch_from_peer`."""
        self._dispatcher.use_keys(Keys(asker, [key.decode("latin-1") for key in keys.keys]))

    async def fetch_from_peer(self, wanted: PeerRange) -> RangeResult:
        """Fetch one chunk from one peer, as `PeerFetcher.fetch`."""
        self.from_peers.requests += 1
        result = await self._peers.fetch(wanted)
        self.from_peers.bytes += result.bytes
        return result

    def hurry(self, path: str | os.PathLike[str], offset: int, priority: int) -> None:
        """Let a range that was asked for and still waits go before others."""
        self._dispatcher.hurry(os.fspath(path), offset, priority)

    def stats(self) -> MoverStats:
        return self._dispatcher.stats()

    async def _follow(self, request: RangeRequest, first: Hop) -> RangeResult:
        """One attempt, redirects and all; begins where this grant's way ended lately."""
        known = self._ways.end_of(request.grant)
        if known is not None:
            try:
                return await self._attempt(request, known)
            except RangeFailedError as e:
                self._ways.forget(request.grant)
                if e.kind not in _WAY_ENDED:
                    raise
        hop = first
        for _ in range(MAX_HOPS + 1):
            try:
                result = await self._attempt(request, hop)
            except RangeFailedError as e:
                if e.kind is not FailureKind.REDIRECTED:
                    raise
                hop = next_hop(hop, e.location)
                continue
            if hop is not first:
                self._ways.remember(request.grant, hop)
            return result
        raise RangeFailedError(FailureKind.REFUSED, f"redirected more than {MAX_HOPS} times")

    async def _attempt(self, request: RangeRequest, hop: Hop) -> RangeResult:
        try:
            return await self._ask(request, hop)
        except RangeFailedError as e:
            if e.kind is FailureKind.UNAVAILABLE:
                self._book.forget(hop.endpoint)
            raise

    async def _ask(self, request: RangeRequest, hop: Hop) -> RangeResult:
        endpoint = hop.endpoint
        proxy = self._proxies.way_to(endpoint.scheme, endpoint.host)
        head = _request_head(request, hop, is_proxied=proxy is not None)
        try:
            if proxy is None:
                addresses = await self._book.addresses_of(endpoint)
            else:
                check_name(self._rules, endpoint.host)
                addresses = await self._proxy_book.addresses_of(Endpoint("http", *proxy))
        except SourceUnavailableError as e:
            raise RangeFailedError(FailureKind.UNAVAILABLE, str(e)) from e
        assignment = Assignment(
            id=self._dispatcher.next_id(),
            scheme=endpoint.scheme,
            host=endpoint.host,
            port=endpoint.port,
            trust=self._dispatcher.trust_profile(request.ca_pem),
            addresses=addresses,
            request=head.decode("latin-1"),
            path=None if request.path is None else os.fspath(request.path),
            offset=request.offset,
            length=request.length,
            validator=request.validator,
            total_bytes=request.total_bytes,
            wants_crc64nvme=request.want_crc64nvme,
            proxy_port=proxy.port if proxy else None,
        )
        self.from_origins.requests += 1
        done = await self._dispatcher.carry(Ticket(assignment, request.priority))
        self.from_origins.bytes += request.length
        return RangeResult.of(done, request.length)

    def _pause(self, failure: RangeFailedError, failures: int, endpoint: Endpoint) -> float:
        asked_s = retry_after_s(failure.retry_after, dt.datetime.now(dt.UTC))
        budget_s = self._dispatcher.spend_retry(endpoint)
        return max(pause_s(failures, asked_s, self._uniform), budget_s)


def default_count(n_cores: int) -> int:
    """One mover per two cores: the other half is for the origin's TLS, the disk and the pods.
    Two at least, where there are two cores: one alone cannot decrypt what a fast line brings.
    """
    return max(min(2, n_cores), min(MAX_MOVERS, n_cores // 2))


def default_limits(memory_bytes: int | None, count: int) -> MoverLimits:
    """With a memory limit, an eighth of it may be dirty and a quarter stay cached."""
    if memory_bytes is None:
        return MoverLimits()
    dirty_bytes = min(MoverLimits().dirty_bytes, memory_bytes // 8 // count)
    return MoverLimits(dirty_bytes=dirty_bytes, keep_cached_bytes=memory_bytes // 4 // count)


def _request_head(request: RangeRequest, hop: Hop, *, is_proxied: bool) -> bytes:
    last = request.offset + request.length - 1
    is_asked_whole = is_proxied and hop.endpoint.scheme == "http"
    try:
        return build_request(
            hop.target,
            hop.endpoint.host_header,
            hop.headers,
            span=(request.offset, last) if request.length else None,
            condition=condition(request.validator),
            is_asked_whole=is_asked_whole,
        )
    except ValueError as e:
        raise InvalidSourceError(str(e)) from e


def _to_error(
    failure: RangeFailedError, target: str, *, retry_after_s: float | None = None
) -> Exception:
    """What callers see. The object is named by its path: a query may be a signature."""
    message = f"{target.partition('?')[0]}: {failure.message}"
    if failure.kind is FailureKind.FILE_UNUSABLE:
        return OSError(failure.message)
    if failure.kind in _ERRORS and retry_after_s is None:
        return _ERRORS[failure.kind](message)
    return SourceUnavailableError(message, retry_after_s=retry_after_s)
