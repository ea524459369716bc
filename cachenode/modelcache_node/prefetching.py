"""The prefetch client: lists and signs where the credentials are, and has an agent fetch.

It holds the session open until the revision is complete on the agent's node, renews grants when
asked, and starts over with a new listing when the source changed. Credentials never leave this
process; only grants do.

Where an administrator named mirrors of the source, they are tried in their order, and the source
itself last. A mirror that fails, stalls, or has another revision than is known, is left for the
next.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import aiohttp
from pydantic import ValidationError

from modelcache_api.errors import (
    AccessDeniedError,
    InvalidRequestError,
    ModelCacheError,
    SourceUnavailableError,
    UnavailableError,
    error_of,
)
from modelcache_api.listing import MAX_OBJECTS_PER_MESSAGE, ListedObject
from modelcache_api.messages import (
    MAX_MESSAGE_BYTES,
    REFUSAL_HEADER,
    Done,
    Failed,
    Grants,
    GrantsWanted,
    Hello,
    ListingEnd,
    Message,
    Objects,
    Progress,
    Proved,
    from_agent,
)
from modelcache_node.origins.base import SourceOptions
from modelcache_node.origins.granting import GrantedSource
from modelcache_node.patience import Patience

#: A session silent for this long is dead; the agent sends progress every second.
HEARTBEAT_S = 20.0


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """Where the agent listens: a unix socket, or a URL with what it takes to be let in.

    Attributes:
        socket: Path of the node's unix socket; the rest is for `url`.
        server_name: Name the agent's certificate must bear; None takes the URL's host.
        token_file: Read anew at each attempt: the kubelet rotates it.
    """

    socket: Path | None = None
    url: str | None = None
    server_name: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None


class Prefetch:
    """One prefetch, from the first listing to the last byte."""

    def __init__(
        self,
        options: SourceOptions,
        agent: AgentAddress,
        hello: Hello,
        *,
        on_progress: Callable[[Progress], None],
        patience: Patience,
        mirrors: Sequence[SourceOptions] = (),
        resolved: str | None = None,
    ) -> None:
        """`resolved`: the revision that the source is known to have; a mirror must have it."""
        self._options = options
        self._mirrors = mirrors
        self._resolved = resolved
        self._agent = agent
        self._hello = hello
        self._on_progress = on_progress
        self._patience = patience
        self._stall = patience
        self._furthest: tuple[str | None, int] = (None, 0)

    async def run(self) -> Done:
        """The end of it.

        Raises:
            InvalidSourceError and its kind: the source must be changed.
            ModelCacheError: patience is over; its text is the last failure's.
        """
        ended = await self._run()
        assert isinstance(ended, Done)  # a proof alone was not asked for
        return ended

    async def prove(self) -> None:
        """Have access proved, where Hello `renews` a revision. Raises as `run`."""
        await self._run()

    async def _run(self) -> Done | Proved:
        while True:
            for mirror in self._mirrors:
                try:
                    return await self._attempt(mirror, self._hello.expected or self._resolved)
                except ModelCacheError as e:
                    where = mirror.endpoint or mirror.uri
                    self._on_progress(Progress(note=f"mirror {where}: {e}; trying the next"))
            try:
                return await self._attempt(self._options, self._hello.expected)
            except ModelCacheError as e:
                self._on_progress(Progress(note=f"{e}; trying again"))
                await self._patience.pause_after(e)

    async def _attempt(self, options: SourceOptions, expected: str | None) -> Done | Proved:
        source = GrantedSource(options)
        self._stall = self._patience.anew() if self._mirrors else self._patience
        objects = await source.objects()
        async with _connect(self._agent) as socket:
            named = f"{self._options.endpoint or ''} {self._options.uri}" if self._mirrors else None
            hello = self._hello.model_copy(
                update={"layout": source.layout, "expected": expected, "mirrored": named}
            )
            await socket.send_str(hello.wire())
            for batch in _batches(objects):
                await socket.send_str(Objects(objects=batch).wire())
            await socket.send_str(ListingEnd(n_objects=len(objects)).wire())
            return await self._serve(socket, source)

    async def _serve(
        self, socket: aiohttp.ClientWebSocketResponse, source: GrantedSource
    ) -> Done | Proved:
        async for message in _messages(socket):
            match message:
                case Done() | Proved():
                    return message
                case Failed():
                    raise error_of(message.reason, message.message)
                case Progress():
                    self._note(message)
                case GrantsWanted():
                    grants = await source.renew(message.paths)
                    await socket.send_str(Grants(grants=grants).wire())
                case _:
                    raise InvalidRequestError(f"the agent sent an unexpected {message!r}")
        raise UnavailableError("the agent closed the session before the fetch was done")

    def _note(self, progress: Progress) -> None:
        reached = (progress.revision, progress.bytes_present)
        if reached != self._furthest:
            self._furthest = reached
            self._patience.progressed()
            self._stall.progressed()
        self._on_progress(progress)
        if self._stall.is_over:
            raise SourceUnavailableError(
                f"no progress for {self._stall.give_up_s:.0f} s: "
                f"{progress.note or 'the agent waits'}"
            )


def _batches(objects: list[ListedObject]) -> list[list[ListedObject]]:
    rest = iter(objects)
    return [
        list(islice(rest, MAX_OBJECTS_PER_MESSAGE))
        for _ in range(-(-len(objects) // MAX_OBJECTS_PER_MESSAGE))
    ]


@asynccontextmanager
async def _connect(agent: AgentAddress) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A session's connection.

    Raises:
        UnavailableError: the agent does not answer.
        ModelCacheError: it answered with this refusal.
    """
    try:
        async with _client(agent) as client, _upgrade(client, agent) as socket:
            yield socket
    except aiohttp.WSServerHandshakeError as e:
        raise _refusal(e) from e
    except (aiohttp.ClientError, OSError) as e:
        where = agent.socket or agent.url
        raise UnavailableError(f"the agent at {where} does not answer: {e}") from e


@asynccontextmanager
async def _upgrade(
    client: aiohttp.ClientSession, agent: AgentAddress
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers = {}
    if agent.token_file:
        headers["Authorization"] = f"Bearer {agent.token_file.read_text().strip()}"
    base = agent.url.rstrip("/") if agent.url else "http://agent"
    async with client.ws_connect(
        f"{base}/v1/prefetch",
        headers=headers,
        heartbeat=HEARTBEAT_S,
        max_msg_size=MAX_MESSAGE_BYTES,
        server_hostname=agent.server_name,
    ) as socket:
        yield socket


def _client(agent: AgentAddress) -> aiohttp.ClientSession:
    if agent.socket:
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(agent.socket)))
    if not (agent.url or "").startswith("https://"):
        raise InvalidRequestError("--agent takes an https:// URL")
    context = ssl.create_default_context(cafile=str(agent.ca_file) if agent.ca_file else None)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


def _refusal(error: aiohttp.WSServerHandshakeError) -> ModelCacheError:
    if error.status in (401, 403):
        said = error.headers.get(REFUSAL_HEADER) if error.headers else None
        return AccessDeniedError(f"the agent refuses this token: {said or error.message}")
    return UnavailableError(f"the agent answers {error.status}: {error.message}")


async def _messages(socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[Message]:
    async for frame in socket:
        if frame.type is aiohttp.WSMsgType.ERROR:
            raise UnavailableError(f"the session broke off: {socket.exception()}")
        try:
            yield from_agent.validate_json(frame.data)
        except ValidationError as e:
            raise InvalidRequestError(f"the agent speaks another protocol: {e}") from e
