"""The edge to gRPC: the only status table, and one log line per call.

CSI 1.12, "Error Scheme": a message for people, no details. What matters most is whether a code is
final to the kubelet (v1.34, pkg/volume/csi/csi_client.go, isFinalError): after CANCELLED,
DEADLINE_EXCEEDED, UNAVAILABLE, RESOURCE_EXHAUSTED and ABORTED it knows that something may have
been left behind, and unpublishes the volume when the pod goes; so whatever may have left a lease
or a wish at the agent gets one of these.

Requests are never logged whole: a few fields are picked by name.
"""

import asyncio
import errno
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc

from modelcache_api.errors import (
    DiskFullError,
    InsufficientCapacityError,
    InvalidRequestError,
    InvalidSourceError,
    ModelCacheError,
    ModelCacheNotFoundError,
    UnavailableError,
)
from modelcache_csi.errors import (
    AlreadyPublishedError,
    NotReadyError,
    PreconditionError,
    VolumeBusyError,
    VolumeNotFoundError,
)

# The first that fits counts.
_STATUS: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (PreconditionError, grpc.StatusCode.FAILED_PRECONDITION),
    (AlreadyPublishedError, grpc.StatusCode.ALREADY_EXISTS),
    (VolumeNotFoundError, grpc.StatusCode.NOT_FOUND),
    (ModelCacheNotFoundError, grpc.StatusCode.NOT_FOUND),
    (InvalidSourceError, grpc.StatusCode.FAILED_PRECONDITION),
    (VolumeBusyError, grpc.StatusCode.ABORTED),
    (NotReadyError, grpc.StatusCode.ABORTED),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (InsufficientCapacityError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (DiskFullError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (TimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
)
#: Fields of requests, and keys of `volume_context`, that may appear in the log.
_LOGGED_FIELDS = ("volume_id", "target_path", "volume_path")
_LOGGED_CONTEXT = {
    "modelCache": "model_cache",
    "csi.storage.k8s.io/pod.namespace": "pod_namespace",
    "csi.storage.k8s.io/pod.name": "pod_name",
}
#: Characters of a message. gRPC's clients take 8 KiB of headers, and a character may become nine.
_MAX_MESSAGE = 800
#: Asked every few seconds; logged at DEBUG.
_QUIET = ("Probe", "NodeGetVolumeStats", "NodeGetCapabilities")

Response = TypeVar("Response")
log = logging.getLogger(__name__)


def status_of(error: Exception) -> grpc.StatusCode:
    for kind, code in _STATUS:
        if isinstance(error, kind):
            return code
    if isinstance(error, ModelCacheError) and error.retryable:
        return grpc.StatusCode.ABORTED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return grpc.StatusCode.INTERNAL


def rpc(
    method: Callable[[Any, Any, Any], Awaitable[Response]],
) -> Callable[[Any, Any, Any], Awaitable[Response]]:
    """Run a servicer's method; end the call with the status that its error maps to."""

    @functools.wraps(method)
    async def wrapper(self: Any, request: Any, context: Any) -> Response:
        begun_s = time.monotonic()
        try:
            response = await method(self, request, context)
        except asyncio.CancelledError:
            _log(method.__name__, request, begun_s, grpc.StatusCode.CANCELLED, None)
            raise
        except Exception as e:  # noqa: BLE001  # the edge: whatever it is, the caller gets a status
            _log(method.__name__, request, begun_s, status_of(e), e)
            await _abort(context, e)
        _log(method.__name__, request, begun_s, grpc.StatusCode.OK, None)
        return response

    return wrapper


async def _abort(context: Any, error: Exception) -> NoReturn:
    await context.abort(status_of(error), (str(error) or type(error).__name__)[:_MAX_MESSAGE])
    raise AssertionError("abort() always raises") from error


def _log(
    name: str, request: Any, begun_s: float, code: grpc.StatusCode, error: Exception | None
) -> None:
    fields = {
        "rpc": name,
        "code": code.name,
        "duration_ms": round((time.monotonic() - begun_s) * 1000, 2),
        **_summary(request),
    }
    if code is grpc.StatusCode.INTERNAL:
        log.error("%s failed: %s", name, error, extra=fields, exc_info=error)
    elif error is not None:
        log.warning("%s refused: %s", name, error, extra=fields)
    else:
        log.log(logging.DEBUG if name in _QUIET else logging.INFO, "%s done", name, extra=fields)


def _summary(request: Any) -> dict[str, str]:
    fields = {name: getattr(request, name, "")[:512] for name in _LOGGED_FIELDS}
    context = getattr(request, "volume_context", {})
    fields |= {name: context.get(key, "")[:253] for key, name in _LOGGED_CONTEXT.items()}
    return {name: value for name, value in fields.items() if value}
