"""``/healthz`` and ``/metrics`` over HTTP, for the kubelet's probes and for Prometheus.

Healthy means: the CSI socket answers Probe, and the registration socket still lies where the
kubelet looks for it. The agent and the API server are not asked: restarting this process would
not bring them back.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
from aiohttp import web

from modelcache_csi._proto import csi_pb2, csi_pb2_grpc
from modelcache_csi.metrics import PublishDurations

#: Arbitrary; below a probe's usual timeouts.
PROBE_TIMEOUT_S = 2.0


@asynccontextmanager
async def health_served(
    *,
    host: str,
    port: int,
    csi_socket: Path,
    registration_socket: Path | None,
    durations: PublishDurations,
) -> AsyncIterator[int]:
    """Serve until the block ends. Yields the port, chosen by the system when `port` is 0."""

    async def healthz(_: web.Request) -> web.Response:
        problem = await _problem(stub, registration_socket)
        return web.Response(status=503 if problem else 200, text=problem or "ok")

    async def metrics(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4"}
        return web.Response(text=durations.exposition(), headers=headers)

    # Else gRPC would name the socket's path as authority, which servers may refuse.
    options = [("grpc.default_authority", "localhost")]
    async with grpc.aio.insecure_channel(f"unix:{csi_socket}", options=options) as channel:
        stub = csi_pb2_grpc.IdentityStub(channel)
        app = web.Application()
        app.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield int(runner.addresses[0][1])
        finally:
            await runner.cleanup()


async def _problem(stub: csi_pb2_grpc.IdentityStub, registration_socket: Path | None) -> str | None:
    if registration_socket is not None and not registration_socket.exists():
        return f"{registration_socket} is gone: the kubelet cannot find the driver"
    try:
        await stub.Probe(csi_pb2.ProbeRequest(), timeout=PROBE_TIMEOUT_S)
    except grpc.aio.AioRpcError as e:
        return f"the CSI socket does not answer: {e.code().name}"
    return None
