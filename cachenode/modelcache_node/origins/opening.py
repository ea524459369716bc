"""Which origin stands behind a URI's scheme. Libraries are imported only where they are needed."""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

from modelcache_api.errors import InvalidSourceError
from modelcache_api.schemes import SCHEMES
from modelcache_node.origins.base import Origin, SourceOptions

#: Libraries that log what a service answered, which may repeat a secret of the request. What can be
#: said of it is in the errors that their callers raise.
_TALKATIVE = ("azure", "botocore", "aiobotocore", "google", "httpx", "huggingface_hub", "urllib3")


def check_uri(uri: str) -> None:
    """Raises InvalidSourceError: no origin stands behind such a URI."""
    try:
        parts = urlsplit(uri)
        has_user = parts.username is not None and parts.scheme not in ("abfs", "abfss")
        _ = parts.port if parts.scheme in ("http", "https") else None
    except ValueError as e:
        raise InvalidSourceError(f"{uri!r} is malformed: {e}") from e
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        said = f"{parts.scheme}://" if parts.scheme else "in"
        raise InvalidSourceError(f"unknown scheme {said} {uri!r}; supported: {known}")
    is_web = parts.scheme in ("http", "https")
    if not parts.netloc or parts.fragment or (parts.query and not is_web):
        form = "https://host/path" if is_web else f"{parts.scheme}://bucket/prefix"
        raise InvalidSourceError(f"{uri!r} is not {form}")
    if has_user and parts.scheme != "hf":
        raise InvalidSourceError("credentials belong into a Secret, not into the URI")


@asynccontextmanager
async def open_origin(options: SourceOptions) -> AsyncIterator[Origin]:
    """The origin of a source.

    Raises:
        InvalidSourceError: it cannot be used as named.
        AccessDeniedError: no usable credentials.
    """
    check_uri(options.uri)
    _silence_libraries()
    async with _opener(options) as origin:
        yield origin


def _silence_libraries() -> None:
    for logger in map(logging.getLogger, _TALKATIVE):
        if logger.propagate:
            logger.propagate = False
            logger.addHandler(logging.NullHandler())


def _opener(options: SourceOptions) -> AbstractAsyncContextManager[Origin]:
    match urlsplit(options.uri).scheme:
        case "gs":
            from modelcache_node.origins.gcs import open_gcs  # noqa: PLC0415

            return open_gcs(options)
        case "abfs" | "abfss" | "az":
            from modelcache_node.origins.azure import open_azure  # noqa: PLC0415

            return open_azure(options)
        case "hf":
            from modelcache_node.origins.huggingface import open_huggingface  # noqa: PLC0415

            return open_huggingface(options)
        case "http" | "https":
            from modelcache_node.origins.https import open_https  # noqa: PLC0415

            return open_https(options)
    if options.anonymous:
        from modelcache_node.origins.s3_anonymous import open_anonymous_s3  # noqa: PLC0415

        return open_anonymous_s3(options)
    from modelcache_node.origins.s3 import open_s3  # noqa: PLC0415

    return open_s3(options)
