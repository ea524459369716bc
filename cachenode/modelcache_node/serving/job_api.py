"""The agent's API for prefetch Jobs: TLS, and a token that says whose pod is calling.

A Job may open a prefetch session for the namespace of its own token, nothing else. The token must
have been made for agents (its audience), and be bound to a pod that runs on this node.
"""

from typing import Protocol

from aiohttp import web

from modelcache_api.errors import AccessDeniedError, UnavailableError
from modelcache_api.messages import REFUSAL_HEADER
from modelcache_node import audit
from modelcache_node.caching.cache import Cache
from modelcache_node.serving.prefetch_socket import serve_prefetch

#: A token is under 2 KiB; arbitrary bound on what is sent for review.
_MAX_TOKEN_CHARS = 16 << 10


class TokenReview(Protocol):
    """Says which namespace's pod on this node a token belongs to."""

    async def namespace_of(self, token: str) -> str:
        """Raises AccessDeniedError (not such a token) or UnavailableError (cannot be asked)."""
        ...


_CACHE = web.AppKey("cache", Cache)
_REVIEW: web.AppKey[TokenReview] = web.AppKey("review")


def build_job_api(cache: Cache, review: TokenReview) -> web.Application:
    app = web.Application()
    app[_CACHE] = cache
    app[_REVIEW] = review
    app.add_routes([web.get("/v1/prefetch", _prefetch)])
    return app


async def _prefetch(request: web.Request) -> web.StreamResponse:
    try:
        namespace = await request.app[_REVIEW].namespace_of(_bearer_token(request))
    except AccessDeniedError as e:
        audit.caller_refused(e.reason, _one_line(str(e)))
        raise web.HTTPUnauthorized(headers={REFUSAL_HEADER: _one_line(str(e))}) from e
    except UnavailableError as e:
        raise web.HTTPServiceUnavailable(headers={REFUSAL_HEADER: _one_line(str(e))}) from e
    return await serve_prefetch(request, request.app[_CACHE], namespace=namespace)


def _bearer_token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= _MAX_TOKEN_CHARS:
        raise AccessDeniedError("no bearer token")
    return token.strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
