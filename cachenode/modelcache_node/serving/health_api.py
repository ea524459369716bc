"""``/healthz`` and ``/metrics`` over plain HTTP: facts about this agent, no names of tenants."""

from aiohttp import web

from modelcache_node.caching.cache import Cache

_CACHE = web.AppKey("cache", Cache)


def build_health_api(cache: Cache) -> web.Application:
    app = web.Application()
    app[_CACHE] = cache
    app.add_routes([web.get("/healthz", _healthz), web.get("/metrics", _metrics)])
    return app


async def _healthz(request: web.Request) -> web.Response:
    report = request.app[_CACHE].report()
    if not report.disk_healthy:
        return web.Response(status=503, text="the disk fails\n")
    return web.Response(text="ok\n")


async def _metrics(request: web.Request) -> web.Response:
    cache = request.app[_CACHE]
    return web.Response(text=metrics_text(cache.metrics()), content_type="text/plain")


def metrics_text(values: dict[str, float]) -> str:
    """Prometheus' text format, version 0.0.4; a name that ends in ``_total`` is a counter."""
    lines: list[str] = []
    for name, value in values.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# TYPE modelcache_{name} {kind}", f"modelcache_{name} {value:g}"]
    return "\n".join(lines) + "\n"
