"""The one place where errors become HTTP statuses, for both of the agent's APIs."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import BaseModel, ValidationError

from modelcache_api.errors import (
    AccessDeniedError,
    InsufficientCapacityError,
    InvalidRequestError,
    InvalidSourceError,
    ModelCacheError,
    NotProvedError,
    UnavailableError,
)
from modelcache_api.messages import ErrorBody
from modelcache_api.reasons import Reason

_LOG = logging.getLogger(__name__)

# Most specific first.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (InvalidRequestError, 400),
    (AccessDeniedError, 403),
    (NotProvedError, 403),
    (InvalidSourceError, 422),
    (InsufficientCapacityError, 507),
    (UnavailableError, 503),
    (ModelCacheError, 409),
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def translate_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """End a request with the status and body its error maps to."""
    try:
        return await handler(request)
    except ModelCacheError as e:
        status = next(code for kind, code in _STATUS if isinstance(e, kind))
        return answer(ErrorBody(reason=e.reason, message=str(e)), status)
    except ValidationError as e:
        return answer(ErrorBody(reason=Reason.INVALID_REQUEST, message=_problems(e)), 400)
    except web.HTTPRequestEntityTooLarge:
        body = ErrorBody(reason=Reason.INVALID_REQUEST, message="the request's body is too large")
        return answer(body, 413)
    except web.HTTPException:
        raise
    except Exception:  # noqa: BLE001 - the edge that reports it
        _LOG.exception("%s %s failed", request.method, request.path)
        return answer(ErrorBody(reason=Reason.INTERNAL, message="a bug; see the agent's log"), 500)


def answer(body: BaseModel, status: int = 200) -> web.Response:
    return web.Response(
        text=body.model_dump_json(by_alias=True, exclude_none=True),
        status=status,
        content_type="application/json",
    )


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)[:5]
    )
