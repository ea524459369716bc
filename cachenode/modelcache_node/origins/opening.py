"""Which origin stands behind a URI's scheme."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from modelcache_api.errors import InvalidSourceError
from modelcache_node.origins.base import Origin, SourceOptions

SCHEMES = ("s3",)


def check_uri(uri: str) -> None:
    """Raises InvalidSourceError: no origin stands behind such a URI."""
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        said = f"{parts.scheme}://" if parts.scheme else "in"
        raise InvalidSourceError(f"unknown scheme {said} {uri!r}; supported: {known}")
    if not parts.netloc or parts.query or parts.fragment:
        raise InvalidSourceError(f"{uri!r} is not s3://bucket/prefix")


@asynccontextmanager
async def open_origin(options: SourceOptions) -> AsyncIterator[Origin]:
    """The origin of a source; libraries are imported only where they are needed."""
    check_uri(options.uri)
    if options.anonymous:
        from modelcache_node.origins.s3_anonymous import (  # noqa: PLC0415
            open_anonymous_s3,
        )

        async with open_anonymous_s3(options) as anonymous:
            yield anonymous
        return
    from modelcache_node.origins.s3 import open_s3  # noqa: PLC0415 - half a second to import

    async with open_s3(options) as origin:
        yield origin
