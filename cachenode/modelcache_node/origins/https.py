"""Plain web servers: a file list with sizes and SHA-256, or a single file.

Secret keys: ``HTTP_BEARER_TOKEN``, or ``HTTP_USERNAME`` and ``HTTP_PASSWORD``. They are sent to the
host that the source names, over TLS, and to no other.
"""

import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import aiohttp

from modelcache_api.errors import InvalidSourceError, SourceUnavailableError
from modelcache_api.listing import ObjectGrant
from modelcache_api.pins import MODIFIED
from modelcache_api.schemes import SECRET_KEYS
from modelcache_node.origins.answers import meaning
from modelcache_node.origins.base import SourceObject, SourceOptions
from modelcache_node.origins.credential_files import read_keys, require_keys
from modelcache_node.origins.file_list import MAX_LIST_BYTES, is_list, parse

_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=10, sock_read=60)
_PIECE_BYTES = 1 << 16


class HttpsOrigin:
    """One URL. Make it with `open_https`."""

    def __init__(
        self, options: SourceOptions, client: aiohttp.ClientSession, headers: Mapping[str, str]
    ) -> None:
        self._options = options
        self._client = client
        self._headers = dict(headers)

    async def objects(self) -> AsyncIterator[SourceObject]:
        url = self._options.uri
        if not is_list(urlsplit(url).path):
            yield await self._single_file(url)
            return
        for entry in parse(await self._read_list(url), url):
            checksum = entry.sha256
            yield SourceObject(entry.path, entry.url, entry.size_bytes, str(checksum), checksum)

    async def grant(self, listed: SourceObject) -> ObjectGrant:
        is_same_place = urlsplit(listed.key)[:2] == urlsplit(self._options.uri)[:2]
        return ObjectGrant(url=listed.key, headers=self._headers if is_same_place else {})

    async def _read_list(self, url: str) -> bytes:
        async with self._get(url, {}) as answer:
            raw = bytearray()
            async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                raw += piece
                if len(raw) > MAX_LIST_BYTES:
                    raise InvalidSourceError(f"{url} is longer than {MAX_LIST_BYTES} bytes")
            return bytes(raw)

    async def _single_file(self, url: str) -> SourceObject:
        name = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
        if not name:
            raise InvalidSourceError(
                f"{url} names a directory; name a file, or a file list (modelcache.json) in it"
            )
        async with self._get(url, {"Range": "bytes=0-0"}) as answer:
            stated = _Stated.of(answer)
        return SourceObject(name, url, stated.size_bytes, stated.pin, None)

    @asynccontextmanager
    async def _get(
        self, url: str, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        asked = {"Accept-Encoding": "identity", **self._headers, **headers}
        try:
            async with self._client.get(url, headers=asked) as answer:
                if answer.status >= 400 and not _is_empty_object(answer):
                    retry_after = answer.headers.get("Retry-After")
                    raise meaning(answer.status, url.partition("?")[0], retry_after=retry_after)
                yield answer
        except aiohttp.InvalidURL as e:
            raise InvalidSourceError(f"{url} is not a usable URL") from e
        except aiohttp.TooManyRedirects as e:
            raise InvalidSourceError(f"{url} is redirected in a circle") from e
        except (aiohttp.ClientError, TimeoutError) as e:
            raise SourceUnavailableError(f"{url} does not answer: {e}") from e


@dataclass(frozen=True, slots=True)
class _Stated:
    """What a server says of a single file."""

    size_bytes: int
    pin: str

    @classmethod
    def of(cls, answer: aiohttp.ClientResponse) -> "_Stated":
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status not in (206, 416) or not total.isdecimal():
            raise InvalidSourceError(
                f"{answer.url.host} does not serve ranges, which large files are fetched by"
            )
        etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
        if etag and not etag.startswith("W/"):
            return cls(int(total), etag)
        if modified:
            return cls(int(total), f"{MODIFIED}:{modified}")
        if etag:
            return cls(int(total), etag)
        raise InvalidSourceError(
            f"{answer.url.host} states neither ETag nor Last-Modified, so a change could go "
            "unnoticed; put the file into a file list (modelcache.json) with its sha256"
        )


@asynccontextmanager
async def open_https(options: SourceOptions) -> AsyncIterator[HttpsOrigin]:
    """The origin behind an ``https://`` source; the URI was checked.

    Raises:
        InvalidSourceError: credentials without TLS.
        AccessDeniedError: the Secret lacks keys.
    """
    headers = _authorization(options)
    if headers and not options.uri.startswith("https://"):
        raise InvalidSourceError("credentials are sent over https:// only")
    context = ssl.create_default_context(cafile=str(options.ca_file) if options.ca_file else None)
    async with aiohttp.ClientSession(
        timeout=_TIMEOUT, trust_env=True, connector=aiohttp.TCPConnector(ssl=context)
    ) as client:
        yield HttpsOrigin(options, client, headers)


def _authorization(options: SourceOptions) -> dict[str, str]:
    if options.credentials_dir is None:
        return {}
    keys = read_keys(options, SECRET_KEYS["https"])
    if token := keys.get("HTTP_BEARER_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    require_keys(keys, ("HTTP_USERNAME", "HTTP_PASSWORD"))
    pair = f"{keys['HTTP_USERNAME']}:{keys['HTTP_PASSWORD']}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _is_empty_object(answer: aiohttp.ClientResponse) -> bool:
    return answer.status == 416 and answer.headers.get("Content-Range") == "bytes */0"
