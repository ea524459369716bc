"""gRPC servers on unix sockets: the files come and go with the server."""

import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from modelcache_csi.errors import PreconditionError

#: Calls in progress; a waiting publish is one. Arbitrary, several times the pods of a node; above
#: it callers get RESOURCE_EXHAUSTED, which the kubelet tries again.
MAX_CONCURRENT_CALLS = 1024
#: Time for calls in progress when we are asked to stop. Waiting ones are cut off: the kubelet asks
#: again, and the next worker waits on.
STOP_GRACE_S = 1.0
#: Linux, unix(7): sun_path with its closing NUL.
_MAX_SOCKET_PATH_BYTES = 107


@asynccontextmanager
async def serving(
    path: Path, add_services: Callable[[grpc.aio.Server], None]
) -> AsyncIterator[None]:
    """Serve on `path`; a socket left behind by a killed predecessor is replaced.

    Raises:
        PreconditionError: the path is too long, or something that is no socket lies there.
    """
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
        raise PreconditionError(f"longer than {_MAX_SOCKET_PATH_BYTES} bytes: {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    server = grpc.aio.server(maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS)
    add_services(server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    path.chmod(0o600)
    try:
        yield
    finally:
        await server.stop(STOP_GRACE_S)
        path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise PreconditionError(f"{path} exists and is not a socket")
    path.unlink()
