"""Which origin stands behind a URI's scheme."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from modelcache_api.errors import InvalidSourceError
from modelcache_node.origins.base import Origin, SourceOptions

SCHEMES = ("s3",)


def check_scheme(uri: str) -> None:
    """Raises InvalidSourceError: the URI's scheme is none that an origin stands behind."""
    scheme = urlsplit(uri).scheme
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise InvalidSourceError(
            f"unknown scheme {scheme + '://' if scheme else 'in'} {uri!r}; supported: {known}"
        )


@asynccontextmanager
async def open_origin(options: SourceOptions) -> AsyncIterator[Origin]:
    """The origin of a source; libraries are imported only for the scheme in use."""
    check_scheme(options.uri)
    from modelcache_node.origins.s3 import open_s3  # noqa: PLC0415 - half a second to import

    async with open_s3(options) as origin:
        yield origin
