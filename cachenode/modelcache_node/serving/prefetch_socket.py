"""Carries a prefetch session over a WebSocket, for both of the agent's APIs."""

from aiohttp import WSMsgType, web
from pydantic import ValidationError

from modelcache_api.errors import InvalidRequestError, UnavailableError
from modelcache_api.messages import (
    MAX_MESSAGE_BYTES,
    Grants,
    Hello,
    ListingEnd,
    Message,
    Objects,
    from_client,
)
from modelcache_node.caching.cache import Cache
from modelcache_node.caching.sessions import serve_session

#: A client silent for this long is gone; it answers pings by itself.
_HEARTBEAT_S = 20.0


class _SocketPort:
    """A session's messages over one WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def receive(self) -> Hello | Objects | ListingEnd | Grants:
        frame = await self._socket.receive()
        if frame.type is not WSMsgType.TEXT:
            raise UnavailableError("the client is gone")
        try:
            return from_client.validate_json(frame.data)
        except ValidationError as e:
            problems = e.errors(include_input=False, include_url=False)  # input holds grants
            raise InvalidRequestError(f"malformed message: {problems[:3]}") from None

    async def send(self, message: Message) -> None:
        try:
            await self._socket.send_str(message.wire())
        except (ConnectionError, RuntimeError) as e:
            raise UnavailableError("the client is gone") from e


async def serve_prefetch(
    request: web.Request, cache: Cache, *, namespace: str | None
) -> web.StreamResponse:
    """Serve one session; `namespace` None lets the client name it (the node's own socket)."""
    socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES)
    await socket.prepare(request)
    await serve_session(_SocketPort(socket), cache, namespace=namespace)
    await socket.close()
    return socket
