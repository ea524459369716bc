"""Public S3 buckets, by the standard library alone: nothing is to be signed.

The client library takes half a second to import and set up, as long as this engine takes to move
a gigabyte; docs/adr says more. Requests run in threads, few at a time.
"""

import asyncio
import http.client
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property
from typing import NoReturn
from urllib.parse import quote, unquote_plus, urlencode, urlsplit
from xml.etree import ElementTree as ET

from modelcache_api.errors import (
    AccessDeniedError,
    InvalidSourceError,
    SourceChangedError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from modelcache_api.listing import ObjectGrant
from modelcache_api.manifest import Checksum
from modelcache_api.proxies import Proxies
from modelcache_api.store_codes import shown
from modelcache_node.origins.base import SourceObject, SourceOptions, is_selected
from modelcache_node.origins.keys import tree_path
from modelcache_node.origins.s3_checksums import COMPOSITE, stated_checksum

#: Requests under way at once. Arbitrary; one request lists a thousand objects.
_CONCURRENCY = 16
_TIMEOUT_S = 60.0
#: A page of a listing has at most 1000 keys of at most 1024 bytes each, percent-encoded.
_MAX_BODY_BYTES = 16 << 20
_DEFAULT_REGION = "us-east-1"


class AnonymousS3Origin:
    """One public bucket and prefix. Make it with `open_anonymous_s3`."""

    def __init__(self, options: SourceOptions, threads: ThreadPoolExecutor) -> None:
        parts = urlsplit(options.uri)
        self._options = options
        self._threads = threads
        self._prefix = parts.path.lstrip("/")
        self._proxies = Proxies.from_environment(os.environ)
        region = options.region or _DEFAULT_REGION
        self._base = _base_url(options, parts.netloc, region)
        if (
            urlsplit(self._base).scheme not in ("http", "https")
            or not urlsplit(self._base).hostname
        ):
            raise InvalidSourceError(f"--endpoint {options.endpoint} is not http(s)://host")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made when it is needed: reading the system's authorities takes some 20 ms."""
        return ssl.create_default_context(
            cafile=str(self._options.ca_file) if self._options.ca_file else None
        )

    async def objects(self) -> AsyncIterator[SourceObject]:
        loop = asyncio.get_running_loop()
        token: str | None = None
        while True:
            page = await loop.run_in_executor(self._threads, self._page, token)
            is_encoded = _text(page, "EncodingType") == "url"
            for listed in await asyncio.gather(
                *(
                    loop.run_in_executor(self._threads, self._object, one, is_encoded)
                    for one in _entries(page)
                )
            ):
                if listed is not None:
                    yield listed
            token = _text(page, "NextContinuationToken")
            if _text(page, "IsTruncated") != "true" or not token:
                return

    async def grant(self, listed: SourceObject) -> ObjectGrant:
        return ObjectGrant(url=self._url(listed.key))

    def _url(self, key: str) -> str:
        return f"{self._base}/{quote(key)}"

    def _page(self, token: str | None) -> ET.Element:
        query = {"list-type": "2", "prefix": self._prefix, "encoding-type": "url"}
        if token:
            query["continuation-token"] = token
        _, body = self._ask("GET", f"{self._base}/?{urlencode(query)}")
        try:
            return ET.fromstring(body)  # noqa: S314 - expat bounds entity expansion
        except ET.ParseError as e:
            raise InvalidSourceError(f"{self._base} does not speak S3: {e}") from e

    def _object(self, entry: ET.Element, is_encoded: bool) -> SourceObject | None:  # noqa: FBT001
        key = _text(entry, "Key") or ""
        key = unquote_plus(key) if is_encoded else key
        path = tree_path(key, self._prefix)
        if path is None:
            return None
        etag = _text(entry, "ETag") or ""
        checksum = None
        if (
            is_selected(path, self._options)
            and _text(entry, "ChecksumAlgorithm")
            and _text(entry, "ChecksumType") != COMPOSITE
        ):
            checksum = self._checksum(key, etag)
        return SourceObject(path, key, int(_text(entry, "Size") or 0), etag, checksum)

    def _checksum(self, key: str, etag: str) -> Checksum | None:
        headers = {"If-Match": etag, "x-amz-checksum-mode": "ENABLED"}
        found, _ = self._ask("HEAD", self._url(key), headers)
        return stated_checksum(found)

    def _ask(
        self, method: str, url: str, headers: dict[str, str] | None = None
    ) -> tuple[dict[str, str], bytes]:
        """One request: the answer's headers, names in lower case, and its body."""
        connection, target = self._connection(url)
        try:
            connection.request(method, target, headers=headers or {})
            answer = connection.getresponse()
            body = answer.read(_MAX_BODY_BYTES)
        except (OSError, http.client.HTTPException) as e:
            raise SourceUnavailableError(f"{self._base} does not answer: {e}") from e
        finally:
            connection.close()
        if answer.status >= 300:
            _refuse(answer.status, body, self._options.uri)
        return {name.lower(): value for name, value in answer.getheaders()}, body

    def _connection(self, url: str) -> tuple[http.client.HTTPConnection, str]:
        """Not yet connected, and what to ask for on it."""
        parts = urlsplit(url)
        assert parts.hostname
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        proxy = self._proxies.way_to(parts.scheme, parts.hostname)
        host, port = proxy or (parts.hostname, parts.port)
        if parts.scheme == "http":
            plain = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
            return plain, url if proxy else target
        secure = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=self._tls)
        if proxy:
            secure.set_tunnel(parts.hostname, parts.port or 443)
        return secure, target


@asynccontextmanager
async def open_anonymous_s3(options: SourceOptions) -> AsyncIterator[AnonymousS3Origin]:
    """The origin behind a public ``s3://`` source; the URI was checked.

    Raises:
        InvalidSourceError: the endpoint cannot be used as given.
    """
    threads = ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="s3-listing")
    try:
        yield AnonymousS3Origin(options, threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _base_url(options: SourceOptions, bucket: str, region: str) -> str:
    """Where the bucket is: in the path at an endpoint, unless told; in the host name at AWS.

    AWS's certificates cover no bucket name with a dot in it.
    """
    if not options.endpoint:
        if "." in bucket:
            return f"https://s3.{region}.amazonaws.com/{bucket}"
        return f"https://{bucket}.s3.{region}.amazonaws.com"
    endpoint = options.endpoint.rstrip("/")
    if options.virtual_hosts:
        scheme, _, host = endpoint.partition("://")
        return f"{scheme}://{bucket}.{host}"
    return f"{endpoint}/{bucket}"


def _refuse(status: int, body: bytes, uri: str) -> NoReturn:
    try:
        code = ET.fromstring(body).findtext("Code") or ""  # noqa: S314 - see _page
    except ET.ParseError:
        code = ""
    said = f"{status} {shown(code)}".strip()
    if status == 404:
        raise SourceNotFoundError(f"{uri} does not exist ({said})")
    if status in (401, 403):
        raise AccessDeniedError(f"{uri} may not be read without credentials ({said})")
    if status == 412:
        raise SourceChangedError(f"{uri} changed while it was listed")
    if status >= 500 or status == 429:
        raise SourceUnavailableError(f"{uri}: the store answers {said}")
    raise InvalidSourceError(f"{uri}: the store refuses the request ({said})")


def _entries(page: ET.Element) -> Iterator[ET.Element]:
    return (child for child in page if _local_name(child) == "Contents")


def _text(element: ET.Element, name: str) -> str | None:
    """Text of a child, whichever namespace the store puts it in."""
    return next((child.text for child in element if _local_name(child) == name), None)


def _local_name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
