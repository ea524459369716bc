"""Chunks from peers, by the same workers and queues as those from origins.

A peer's address is the operator's word, or the administrator's, so it may be a private one: the
rules for what tenants name do not apply.
"""

import datetime as dt
import os
from collections.abc import Callable

from modelcache_api.errors import (
    DiskFailedError,
    DiskFullError,
    InvalidSourceError,
    SourceUnavailableError,
)
from modelcache_api.retry_after import retry_after_s
from modelcache_node.transfer.addresses import AddressBook, Endpoint, parse_url
from modelcache_node.transfer.dispatching import Dispatcher, Ticket
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.http1 import build_request
from modelcache_node.transfer.peer_ranges import (
    BUSY_PAUSE_S,
    PeerBusyError,
    PeerError,
    PeerLacksError,
    PeerMisbehavedError,
    PeerRange,
    PeerRefusedError,
    PeerUnavailableError,
    blob_validator,
)
from modelcache_node.transfer.ranges import PeerTls, RangeResult
from modelcache_node.transfer.wire import SYSTEM_TRUST, Assignment

#: Whatever else happens to a peer's chunk is that peer's misbehaviour.
_PEER_ERRORS: dict[FailureKind, type[PeerError]] = {
    FailureKind.UNAVAILABLE: PeerUnavailableError,
    FailureKind.REFUSED: PeerUnavailableError,  # its certificate
    FailureKind.PEER_LACKS: PeerLacksError,
    FailureKind.PEER_REFUSED: PeerRefusedError,
}
_OWN_FAULTS: dict[FailureKind, type[Exception]] = {
    FailureKind.DISK_FULL: DiskFullError,
    FailureKind.DISK_FAILED: DiskFailedError,
    FailureKind.FILE_UNUSABLE: OSError,
}


class PeerFetcher:
    """Asks once: who to ask next is the caller's to choose."""

    def __init__(
        self, dispatcher: Dispatcher, *, clock: Callable[[], float], tls: PeerTls | None
    ) -> None:
        """Without `tls` it speaks plain HTTP; `clock` is monotonic seconds."""
        self._dispatcher = dispatcher
        self._book = AddressBook(clock=clock)
        self._tls = tls

    async def fetch(self, wanted: PeerRange) -> RangeResult:
        """Fetch one chunk from one peer; checked and written when it returns.

        Raises:
            PeerError: see its kinds; nothing of the answer counts.
            DiskFullError, DiskFailedError: our side.
            OSError: the range's file cannot be opened or written.
        """
        scheme = "http" if self._tls is None else "https"
        try:
            endpoint, _ = parse_url(f"{scheme}://{wanted.peer}")
            addresses = await self._book.addresses_of(endpoint)
            done = await self._dispatcher.carry(
                Ticket(self._assignment(wanted, endpoint, addresses), wanted.priority)
            )
        except (SourceUnavailableError, InvalidSourceError) as e:
            raise PeerUnavailableError(wanted.peer, str(e)) from e
        except RangeFailedError as e:
            raise _to_error(e, wanted) from e
        return RangeResult.of(done, wanted.span[1])

    def _assignment(
        self, wanted: PeerRange, endpoint: Endpoint, addresses: list[str]
    ) -> Assignment:
        offset, length = wanted.span
        span = (offset, offset + length - 1)
        head = build_request(wanted.target, endpoint.host_header, span=span, condition=None)
        tls = self._tls
        return Assignment(
            id=self._dispatcher.next_id(),
            scheme=endpoint.scheme,
            host=endpoint.host,
            port=endpoint.port,
            trust=SYSTEM_TRUST if tls is None else self._dispatcher.trust_profile(tls.ca_pem),
            addresses=addresses,
            request=head.decode("latin-1"),
            path=os.fspath(wanted.path),
            offset=offset,
            length=length,
            validator=blob_validator(wanted.blob),
            total_bytes=wanted.total_bytes,
            wants_crc64nvme=wanted.want_crc64nvme,
            is_peer=True,
            crc32c=wanted.crc32c,
            server_name=None if tls is None else tls.server_name,
        )


def _to_error(failure: RangeFailedError, wanted: PeerRange) -> Exception:
    """What callers see of a chunk that a peer did not give."""
    if failure.kind in _OWN_FAULTS:
        return _OWN_FAULTS[failure.kind](f"{wanted.target}: {failure.message}")
    if failure.kind is FailureKind.PEER_BUSY:
        asked_s = retry_after_s(failure.retry_after, dt.datetime.now(dt.UTC))
        return PeerBusyError(
            wanted.peer,
            retry_after_s=max(BUSY_PAUSE_S, asked_s or 0.0),
            hints=failure.hints,
        )
    return _PEER_ERRORS.get(failure.kind, PeerMisbehavedError)(wanted.peer, failure.message)
