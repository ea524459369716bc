"""Requests to this node's agent, from the command line."""

import asyncio
from pathlib import Path
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from modelcache_api.errors import UnavailableError, error_of
from modelcache_api.messages import ErrorBody, Message

Answer = TypeVar("Answer", bound=BaseModel)
#: Reading a terabyte again takes minutes at NVMe speed; arbitrary, above that.
_TIMEOUT_S = 3600.0


def ask(
    socket: Path, method: str, path: str, answer: type[Answer], body: Message | None = None
) -> Answer:
    """One request.

    Raises:
        UnavailableError: no agent listens at `socket`.
        ModelCacheError: the agent's refusal.
    """
    return asyncio.run(_ask(socket, method, path, answer, body.wire() if body else None))


async def _ask(
    socket: Path, method: str, path: str, answer: type[Answer], data: str | None
) -> Answer:
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=str(socket)),
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S, connect=5.0),
            ) as client,
            client.request(method, f"http://agent{path}", data=data) as response,
        ):
            body = await response.read()
            status = response.status
    except (aiohttp.ClientError, OSError) as e:
        raise UnavailableError(f"no agent answers at {socket}: {e}") from e
    try:
        if status < 400:
            return answer.model_validate_json(body)
        refusal = ErrorBody.model_validate_json(body)
    except ValidationError as e:
        raise UnavailableError(f"the agent's answer ({status}) cannot be read: {e}") from e
    raise error_of(refusal.reason, refusal.message)
