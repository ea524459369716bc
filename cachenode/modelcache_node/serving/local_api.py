"""The agent's API for its node: a unix socket that the node's root and this user may open.

Who can open the socket is trusted with the node's store: the CSI plugin, and people with a shell
there. What the requests and answers mean stands in `modelcache_api.messages`.
"""

from aiohttp import web

from modelcache_api.messages import (
    LeaseReport,
    LeaseRequest,
    RevisionList,
    VerifyRequest,
)
from modelcache_node import audit
from modelcache_node.caching.cache import Cache
from modelcache_node.serving.errors import answer, translate_errors
from modelcache_node.serving.prefetch_socket import serve_prefetch

#: A lease report names every volume of a node. Arbitrary, above 10,000 leases.
_MAX_BODY_BYTES = 4 << 20
_CACHE = web.AppKey("cache", Cache)


def build_local_api(cache: Cache) -> web.Application:
    app = web.Application(middlewares=[translate_errors], client_max_size=_MAX_BODY_BYTES)
    app[_CACHE] = cache
    app.add_routes(
        [
            web.get("/v1/status", _status),
            web.get("/v1/revisions", _revisions),
            web.post("/v1/revisions/{revision}/verify", _verify),
            web.post("/v1/revisions/{revision}/evict", _evict),
            web.put("/v1/revisions/{revision}/pin", _pin),
            web.delete("/v1/revisions/{revision}/pin", _unpin),
            web.put("/v1/leases/{volume_id}", _lease),
            web.delete("/v1/leases/{volume_id}", _release),
            web.put("/v1/leases", _replace_leases),
            web.get("/v1/prefetch", _prefetch),
        ]
    )
    return app


async def _status(request: web.Request) -> web.Response:
    return answer(request.app[_CACHE].report())


async def _revisions(request: web.Request) -> web.Response:
    return answer(RevisionList(revisions=request.app[_CACHE].report().revisions))


async def _verify(request: web.Request) -> web.Response:
    wish = VerifyRequest.model_validate_json(await request.read() or b"{}")
    cache = request.app[_CACHE]
    return answer(await cache.verify(request.match_info["revision"], wait_s=wish.wait_s))


async def _evict(request: web.Request) -> web.Response:
    return answer(await request.app[_CACHE].evict(request.match_info["revision"]))


async def _pin(request: web.Request) -> web.Response:
    return answer(await request.app[_CACHE].pin(request.match_info["revision"], pinned=True))


async def _unpin(request: web.Request) -> web.Response:
    return answer(await request.app[_CACHE].pin(request.match_info["revision"], pinned=False))


async def _lease(request: web.Request) -> web.Response:
    wish = LeaseRequest.model_validate_json(await request.read())
    volume_id = request.match_info["volume_id"]
    found = await request.app[_CACHE].lease(volume_id, wish)
    audit.lease_answered(volume_id, wish, found)
    return answer(found)


async def _release(request: web.Request) -> web.Response:
    await request.app[_CACHE].release(request.match_info["volume_id"])
    return web.Response(status=204)


async def _replace_leases(request: web.Request) -> web.Response:
    report = LeaseReport.model_validate_json(await request.read())
    await request.app[_CACHE].replace_leases(report)
    return web.Response(status=204)


async def _prefetch(request: web.Request) -> web.StreamResponse:
    return await serve_prefetch(request, request.app[_CACHE], namespace=None)
