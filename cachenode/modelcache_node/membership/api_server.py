"""The five calls that an agent makes of the Kubernetes API server, over aiohttp.

Not a client library: JSON in, JSON out, one watch. The token is read anew because the kubelet
rotates it; an answer other than 2xx is an `ApiServerError` that carries its status.
"""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp

from modelcache_api.errors import UnavailableError

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")

#: One request, seconds. A healthy API server answers in milliseconds.
_REQUEST_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 10.0
#: A watch is renewed after this long, seconds.
_WATCH_S = 600
#: The API server sends bookmarks about once a minute; a watch silent for longer is dead.
_WATCH_SILENCE_S = 90.0
#: One event is one object, which etcd bounds at 1.5 MB; JSON escapes may lengthen it.
_MAX_EVENT_BYTES = 4 << 20


class ApiServerError(UnavailableError):
    """The API server refused or could not be reached.

    Attributes:
        status: HTTP status; 0 when there was no answer.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ApiServer:
    """A connection to one API server; safe for concurrent use within one event loop."""

    def __init__(
        self, url: str, *, token: Callable[[], str], tls: ssl.SSLContext | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True),
            timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            read_bufsize=_MAX_EVENT_BYTES // 2,  # aiohttp takes lines of twice this
        )

    @classmethod
    def in_cluster(cls, folder: Path = SERVICE_ACCOUNT_DIR) -> Self:
        """As a pod finds it. Needs a running event loop.

        Raises:
            UnavailableError: not in a pod that may talk to the API server.
        """
        try:
            host, port = (
                os.environ["KUBERNETES_SERVICE_HOST"],
                os.environ["KUBERNETES_SERVICE_PORT"],
            )
            tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        except (KeyError, OSError) as e:
            raise UnavailableError(f"not in a Kubernetes pod with a service account: {e}") from e
        host = f"[{host}]" if ":" in host else host
        token_file = folder / "token"
        return cls(f"https://{host}:{port}", token=lambda: token_file.read_text().strip(), tls=tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await asyncio.sleep(0)  # aiohttp's sockets close at the loop's next turn

    async def get(self, path: str) -> dict[str, Any]:
        return await self._request("GET", path)

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._request("POST", path, body, "application/json")

    async def merge(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge patch: maps are merged, lists and scalars replaced."""
        return await self._request("PATCH", path, body, "application/merge-patch+json")

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """Events as they come, until the server ends the watch.

        Raises:
            ApiServerError: refused, or the connection was lost or silent for too long.
        """
        timeout = aiohttp.ClientTimeout(connect=_CONNECT_TIMEOUT_S, sock_read=_WATCH_SILENCE_S)
        query = {
            **params,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_S),
        }
        try:
            async with self._session.get(
                self._url + path, params=query, headers=self._headers(), timeout=timeout
            ) as answer:
                await _check(answer)
                async for line in answer.content:
                    yield json.loads(line)
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise ApiServerError(f"watch of {path} broke off: {e}") from e

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = ""
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers() | ({"Content-Type": kind} if kind else {})
        try:
            async with self._session.request(
                method, self._url + path, data=data, headers=headers
            ) as answer:
                await _check(answer)
                found: dict[str, Any] = await answer.json()
                return found
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise ApiServerError(f"API server does not answer {method} {path}: {e}") from e

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}", "Accept": "application/json"}


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 300:
        return
    text = await answer.text(errors="replace")
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text[:200]
    raise ApiServerError(f"API server says {answer.status}: {message}", status=answer.status)
