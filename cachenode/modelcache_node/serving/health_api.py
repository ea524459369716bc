"""``/healthz`` and ``/metrics`` over plain HTTP: facts about this agent, no names of tenants."""

from collections.abc import Callable

from aiohttp import web

from modelcache_node.caching.cache import Cache

Metrics = Callable[[], dict[str, float]]


class Health:
    """What may be told to anybody: (HTTP status, text)."""

    def __init__(self, cache: Cache, more_metrics: Metrics = dict) -> None:
        """`more_metrics` are those of who serves beside the cache."""
        self._cache = cache
        self.more_metrics = more_metrics

    def healthz(self) -> tuple[int, str]:
        if not self._cache.report().disk_healthy:
            return 503, "the disk fails\n"
        return 200, "ok\n"

    def metrics(self) -> tuple[int, str]:
        return 200, metrics_text(self._cache.metrics() | self.more_metrics())


_HEALTH = web.AppKey("health", Health)


def build_health_api(health: Health) -> web.Application:
    app = web.Application()
    app[_HEALTH] = health
    app.add_routes([web.get("/healthz", _healthz), web.get("/metrics", _metrics)])
    return app


async def _healthz(request: web.Request) -> web.Response:
    status, text = request.app[_HEALTH].healthz()
    return web.Response(status=status, text=text)


async def _metrics(request: web.Request) -> web.Response:
    status, text = request.app[_HEALTH].metrics()
    return web.Response(status=status, text=text, content_type="text/plain")


def metrics_text(values: dict[str, float]) -> str:
    """Prometheus' text format, version 0.0.4; a name that ends in ``_total`` is a counter."""
    lines: list[str] = []
    for name, value in values.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# TYPE modelcache_{name} {kind}", f"modelcache_{name} {value}"]
    return "\n".join(lines) + "\n"
