"""Asks the node's agent, over its unix socket (the API that `modelcache_api.messages` describes).

Every call ends: in an answer, in the error that the agent named, or in `AgentAwayError` after a
bounded time. An agent that is away costs one refused connection, hence microseconds.
"""

from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import aiohttp
import pydantic

from modelcache_api.errors import ModelCacheError, error_of
from modelcache_api.messages import (
    MAX_MESSAGE_BYTES,
    ErrorBody,
    LeaseAnswer,
    LeaseReport,
    LeaseRequest,
    Message,
    NodeReport,
)
from modelcache_csi.errors import AgentAwayError

#: An agent on the same node that does not answer for this long is treated as away. Arbitrary;
#: far above a restart's pause.
ANSWER_TIMEOUT_S = 5.0

_Answer = TypeVar("_Answer", bound=Message)


class AgentClient:
    """A pool of connections to one agent. Cancelling a call closes its connection.

    Raises from every method, beside the errors that the agent itself names:
        AgentAwayError: the agent is away, does not answer in time, or makes no sense.
    """

    def __init__(self, socket: Path) -> None:
        # A publish that waits holds a connection; gRPC's limit on calls bounds their number.
        self._session = aiohttp.ClientSession(
            base_url="http://agent",
            connector=aiohttp.UnixConnector(str(socket), limit=0),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def status(self) -> NodeReport:
        return _parsed(NodeReport, await self._call("GET", "/v1/status"))

    async def lease(self, lease_id: str, request: LeaseRequest) -> LeaseAnswer:
        """Ask for a lease; the agent answers after at most `request.wait_s`."""
        body = await self._call("PUT", _lease_path(lease_id), request, wait_s=request.wait_s)
        return _parsed(LeaseAnswer, body)

    async def release(self, lease_id: str) -> None:
        await self._call("DELETE", _lease_path(lease_id))

    async def report_leases(self, report: LeaseReport) -> None:
        await self._call("PUT", "/v1/leases", report)

    async def _call(
        self, method: str, path: str, message: Message | None = None, *, wait_s: float = 0.0
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=wait_s + ANSWER_TIMEOUT_S)
        headers = {"Content-Type": "application/json"} if message else None
        body = message.wire() if message else None
        try:
            async with self._session.request(
                method, path, data=body, headers=headers, timeout=timeout
            ) as answer:
                raw = await _read_bounded(answer)
        except TimeoutError as e:
            raise AgentAwayError("the cache agent of this node does not answer") from e
        except aiohttp.ClientError as e:
            raise AgentAwayError(f"the cache agent of this node is away: {e}") from e
        if answer.status >= 400:
            raise _error_in(answer.status, raw)
        return raw


def _lease_path(lease_id: str) -> str:
    return f"/v1/leases/{quote(lease_id, safe='')}"


async def _read_bounded(answer: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for piece in answer.content.iter_any():
        raw += piece
        if len(raw) > MAX_MESSAGE_BYTES:
            raise AgentAwayError("the cache agent's answer is too long")
    return bytes(raw)


def _error_in(status: int, raw: bytes) -> ModelCacheError:
    try:
        body = ErrorBody.model_validate_json(raw)
    except pydantic.ValidationError:
        return AgentAwayError(f"the cache agent of this node answers {status}")
    return error_of(body.reason, body.message)


def _parsed(kind: type[_Answer], raw: bytes) -> _Answer:
    try:
        return kind.model_validate_json(raw)
    except pydantic.ValidationError as e:
        raise AgentAwayError(
            f"the cache agent's {kind.__name__} makes no sense; is it of another version?"
        ) from e
