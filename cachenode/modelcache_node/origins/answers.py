"""What an HTTP answer to a listing means, whoever asked. Texts hold no secret."""

import datetime as dt

from modelcache_api.errors import (
    AccessDeniedError,
    InvalidSourceError,
    ModelCacheError,
    SourceChangedError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from modelcache_api.retry_after import retry_after_s
from modelcache_api.store_codes import shown


def meaning(
    status: int, uri: str, *, code: str | None = None, retry_after: str | None = None
) -> ModelCacheError:
    """The error that a refusal stands for.

    Args:
        status: HTTP status, 400 or above.
        uri: The source, as its user names it.
        code: The store's own, shown if it looks like one.
        retry_after: The header of that name, as it came.
    """
    told = f"HTTP {status} {shown(code)}".strip()
    if status in (404, 410):
        return SourceNotFoundError(f"{uri} does not exist ({told})")
    if status in (401, 403):
        return AccessDeniedError(f"{uri} may not be read with these credentials ({told})")
    if status == 412:
        return SourceChangedError(f"{uri} changed while it was listed")
    if status in (408, 425, 429) or status >= 500:
        asked_s = retry_after_s(retry_after, dt.datetime.now(dt.UTC))
        return SourceUnavailableError(f"{uri}: the store answers {told}", retry_after_s=asked_s)
    return InvalidSourceError(f"{uri}: the store refuses the request ({told})")
