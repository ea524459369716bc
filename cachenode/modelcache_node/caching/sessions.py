"""The agent's side of a prefetch session, over any transport.

A session brings a listing and grants, is told the revision that the agent itself found behind
them, and stays until the fetch ends, renewing grants when asked. When it goes, its grants go; the
fetch stays and waits for others.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from modelcache_api.errors import (
    InvalidRequestError,
    ModelCacheError,
    UnavailableError,
)
from modelcache_api.listing import ListedObject, ObjectGrant
from modelcache_api.manifest import MAX_FILES
from modelcache_api.messages import (
    PROTOCOL_VERSION,
    Failed,
    Grants,
    GrantsWanted,
    Hello,
    ListingEnd,
    Message,
    Objects,
    Proved,
)
from modelcache_api.reasons import Reason
from modelcache_node import audit
from modelcache_node.caching.cache import Cache
from modelcache_node.caching.listings import Share

_LOG = logging.getLogger(__name__)

#: Between two progress messages; also what tells a client that its agent lives.
PROGRESS_S = 1.0
#: A client gets this long for each message of its listing. Arbitrary; listing is done by then.
MESSAGE_TIMEOUT_S = 60.0
#: A renewal takes a signing round trip at most. Arbitrary.
RENEWAL_TIMEOUT_S = 60.0


#: Of one object beside its texts, in memory, bytes. Measured: 700 to 900 with CPython 3.11.
_OBJECT_BYTES = 1000


class SessionPort(Protocol):
    """A session's transport."""

    async def receive(self) -> Hello | Objects | ListingEnd | Grants:
        """Raises UnavailableError: the client is gone. InvalidRequestError: malformed."""
        ...

    async def send(self, message: Message) -> None:
        """Raises UnavailableError: the client is gone."""
        ...


async def serve_session(port: SessionPort, cache: Cache, *, namespace: str | None) -> None:
    """Serve one session to its end; the client is told of every failure that it can act on.

    Args:
        port: The transport; closed by the caller.
        cache: The node's cache.
        namespace: Whose session it is, as its token says; None takes the client's word.
    """
    hello: Hello | None = None
    try:
        hello = await _expect_hello(port)
        if namespace is not None:
            hello = hello.model_copy(update={"namespace": namespace})
        audit.session_ended(hello, await _serve(port, cache, hello))
    except ModelCacheError as e:
        audit.session_failed(hello, e.reason, str(e))
        with suppress(UnavailableError):
            await port.send(Failed(reason=e.reason, message=str(e), retryable=e.retryable))
    except Exception:  # noqa: BLE001 - an edge: a bug must not look like a broken connection
        _LOG.exception("prefetch session failed")
        with suppress(UnavailableError):
            await port.send(
                Failed(reason=Reason.INTERNAL, message="a bug; see the agent's log", retryable=True)
            )


async def _serve(port: SessionPort, cache: Cache, hello: Hello) -> str:
    """The revision that the session proved, once its client was told."""
    async with cache.listings.open() as share:
        return await _serve_listing(port, cache, hello, await receive_listing(port, share))


async def _serve_listing(
    port: SessionPort, cache: Cache, hello: Hello, objects: Sequence[ListedObject]
) -> str:
    if hello.renews:
        revision = await cache.renew(hello, objects)
        await port.send(Proved(revision=revision))
        return revision
    joined = await cache.begin(hello, objects)
    fetch, session = joined.fetch, _Session(port)
    listening = asyncio.create_task(session.listen())
    grants = fetch.grants_by_blob(objects)
    if grants:
        fetch.grants.attach(session, grants)
    try:
        ending = asyncio.create_task(fetch.wait())
        while not ending.done():
            await asyncio.wait(
                {ending, listening}, timeout=PROGRESS_S, return_when=asyncio.FIRST_COMPLETED
            )
            if listening.done() and not ending.done():
                ending.cancel()
                await listening  # raises why
            await port.send(fetch.progress())
        done = await ending
        await cache.confirm(hello, joined, objects)
        await port.send(done)
        return fetch.revision
    finally:
        listening.cancel()
        fetch.grants.detach(session)


async def _expect_hello(port: SessionPort) -> Hello:
    async with asyncio.timeout(MESSAGE_TIMEOUT_S):
        hello = await port.receive()
    if not isinstance(hello, Hello):
        raise InvalidRequestError("a session opens with Hello")
    if hello.protocol != PROTOCOL_VERSION:
        raise InvalidRequestError(
            f"protocol {hello.protocol} is not spoken here; this agent speaks {PROTOCOL_VERSION}"
        )
    return hello


async def receive_listing(port: SessionPort, share: Share) -> list[ListedObject]:
    """A session's listing, to its end.

    Raises:
        InvalidRequestError: too many objects, too large, or not what was announced.
        UnavailableError: the client is gone, or other sessions' listings leave no room now.
    """
    objects: list[ListedObject] = []
    while True:
        async with asyncio.timeout(MESSAGE_TIMEOUT_S):
            message = await port.receive()
        if isinstance(message, Objects):
            share.take(sum(map(_size_of, message.objects)))
            objects.extend(message.objects)
            if len(objects) > MAX_FILES:
                raise InvalidRequestError(f"a listing has at most {MAX_FILES} objects")
        elif isinstance(message, ListingEnd):
            if message.n_objects != len(objects):
                raise InvalidRequestError(
                    f"{len(objects)} objects arrived of the {message.n_objects} announced"
                )
            return objects
        else:
            raise InvalidRequestError(f"a listing holds no {message.type}")


def _size_of(listed: ListedObject) -> int:
    """Roughly, in memory: what it says, and what holds it."""
    headers = sum(len(name) + len(value) for name, value in listed.grant.headers.items())
    return len(listed.path) + len(listed.grant.url) + headers + _OBJECT_BYTES


class _Session:
    """Renews grants over the session's transport: one renewal at a time (see GrantPool)."""

    def __init__(self, port: SessionPort) -> None:
        self._port = port
        self._answer: asyncio.Future[Mapping[str, ObjectGrant]] | None = None

    async def listen(self) -> None:
        """Take the client's answers until it goes; always ends by raising."""
        while True:
            message = await self._port.receive()
            if not isinstance(message, Grants):
                raise InvalidRequestError(f"after its listing a session sends no {message.type}")
            if self._answer and not self._answer.done():
                self._answer.set_result(message.grants)

    async def renew(self, paths: Sequence[str]) -> Mapping[str, ObjectGrant]:
        self._answer = asyncio.get_running_loop().create_future()
        await self._port.send(GrantsWanted(paths=list(paths)))
        try:
            async with asyncio.timeout(RENEWAL_TIMEOUT_S):
                return await self._answer
        except TimeoutError as e:
            raise UnavailableError(f"no new grants within {RENEWAL_TIMEOUT_S:.0f} s") from e
