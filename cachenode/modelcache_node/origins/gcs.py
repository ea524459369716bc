"""Google Cloud Storage: listing by its JSON API, reading by generation through its XML API.

``gs://bucket/prefix``. With a service account's key each grant is a signed URL of one object; other
identities (workload identity, federation) cannot sign, and grant their access token.

Secret key: ``GOOGLE_CREDENTIALS``, the JSON of a service account's key or of a federation.
"""

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import google.auth
from google.auth import identity_pool
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from modelcache_api.errors import (
    AccessDeniedError,
    InvalidSourceError,
    SourceUnavailableError,
)
from modelcache_api.listing import ObjectGrant
from modelcache_api.manifest import Checksum
from modelcache_api.pins import GENERATION
from modelcache_api.schemes import SECRET_KEYS
from modelcache_api.store_codes import shown
from modelcache_node.origins.answers import meaning
from modelcache_node.origins.base import SourceObject, SourceOptions, is_selected
from modelcache_node.origins.credential_files import read_keys, require_keys
from modelcache_node.origins.gcs_signing import Signer, sign_url
from modelcache_node.origins.keys import tree_path
from modelcache_node.origins.stated import base64_checksum

GOOGLE = "https://storage.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_FIELDS = "nextPageToken,items(name,size,generation,crc32c,contentEncoding,customerEncryption)"
_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=10, sock_read=60)
#: A token this near its end is renewed before it is granted, seconds. Arbitrary.
_TOKEN_MARGIN_S = 300.0


class GcsOrigin:
    """One bucket and prefix. Make it with `open_gcs`."""

    def __init__(
        self,
        options: SourceOptions,
        client: aiohttp.ClientSession,
        credentials: Credentials | None,
    ) -> None:
        parts = urlsplit(options.uri)
        self._options = options
        self._client = client
        self._credentials = credentials
        self._endpoint = (options.endpoint or GOOGLE).rstrip("/")
        self._bucket = parts.netloc
        self._prefix = parts.path.lstrip("/")

    async def objects(self) -> AsyncIterator[SourceObject]:
        token: str | None = None
        while True:
            page = await self._page(token)
            for item in page.get("items", ()):
                listed = self._object(item)
                if listed is not None:
                    yield listed
            token = page.get("nextPageToken")
            if not token:
                return

    async def grant(self, listed: SourceObject) -> ObjectGrant:
        query = {"generation": listed.validator.removeprefix(f"{GENERATION}:")}
        if self._options.requester_pays:
            query["userProject"] = self._project()
        path = f"/{self._bucket}/{quote(listed.key, safe='/~')}"
        if isinstance(self._credentials, service_account.Credentials):
            return self._signed(path, query)
        url = f"{self._endpoint}{path}?" + "&".join(f"{n}={quote(v)}" for n, v in query.items())
        if self._credentials is None:
            return ObjectGrant(url=url)
        headers = await self._authorization()
        expiry = self._credentials.expiry
        return ObjectGrant(
            url=url,
            headers=headers,
            expires_at=expiry.replace(tzinfo=dt.UTC).timestamp() if expiry else None,
        )

    def _signed(self, path: str, query: dict[str, str]) -> ObjectGrant:
        credentials = self._credentials
        now = dt.datetime.now(dt.UTC)
        url = sign_url(
            self._endpoint,
            path,
            query,
            Signer(credentials.service_account_email, credentials.sign_bytes),  # type: ignore[union-attr]
            now=now,
            valid_s=self._options.grant_s,
        )
        return ObjectGrant(url=url, expires_at=now.timestamp() + self._options.grant_s)

    async def _page(self, token: str | None) -> dict[str, Any]:
        query = {"prefix": self._prefix, "fields": _FIELDS}
        query["maxResults"] = str(self._options.page_size)
        if token:
            query["pageToken"] = token
        if self._options.requester_pays:
            query["userProject"] = self._project()
        url = f"{self._endpoint}/storage/v1/b/{quote(self._bucket, safe='')}/o"
        try:
            async with self._client.get(
                url, params=query, headers=await self._authorization()
            ) as answer:
                if answer.status >= 400:
                    raise meaning(
                        answer.status,
                        self._options.uri,
                        code=_code(await answer.text(errors="replace")),
                        retry_after=answer.headers.get("Retry-After"),
                    )
                page: dict[str, Any] = await answer.json(content_type=None)
                return page
        except aiohttp.InvalidURL as e:
            raise InvalidSourceError(f"{self._endpoint} is not a usable endpoint") from e
        except (aiohttp.ClientError, TimeoutError) as e:
            raise SourceUnavailableError(f"{self._endpoint} does not answer: {e}") from e
        except (ValueError, AttributeError) as e:
            raise InvalidSourceError(f"{self._endpoint} does not speak GCS: {e}") from e

    def _object(self, item: dict[str, Any]) -> SourceObject | None:
        path = tree_path(item["name"], self._prefix)
        if path is None:
            return None
        if is_selected(path, self._options):
            if item.get("contentEncoding", "identity") not in ("", "identity"):
                raise InvalidSourceError(
                    f"{path} is stored compressed (Content-Encoding {item['contentEncoding']}), "
                    "so its size depends on who asks: store it as it is"
                )
            if "customerEncryption" in item:
                raise InvalidSourceError(
                    f"{path} is encrypted with a customer's key (CSEK), which cannot be read: "
                    "use Google's keys or Cloud KMS"
                )
        checksum: Checksum | None = base64_checksum("crc32c", item.get("crc32c"))
        pin = f"{GENERATION}:{item['generation']}"
        return SourceObject(path, item["name"], int(item["size"]), pin, checksum)

    async def _authorization(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        try:
            await asyncio.to_thread(_refresh, self._credentials)
        except TransportError as e:
            said = str(e).partition("\n")[0]  # what follows repeats the answer
            raise SourceUnavailableError(f"Google's token service does not answer: {said}") from e
        except GoogleAuthError as e:
            raise AccessDeniedError(
                f"Google's token service refuses the credentials ({_oauth_code(e)})"
            ) from e
        return {"Authorization": f"Bearer {self._credentials.token}"}

    def _project(self) -> str:
        project = getattr(self._credentials, "quota_project_id", None) or getattr(
            self._credentials, "project_id", None
        )
        if not project:
            raise InvalidSourceError("requesterPays needs credentials that name a project")
        return str(project)


def _refresh(credentials: Credentials) -> None:
    expiry = credentials.expiry
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    if not credentials.token or (
        expiry is not None and (expiry - now).total_seconds() < _TOKEN_MARGIN_S
    ):
        credentials.refresh(Request())  # type: ignore[no-untyped-call]


def _code(body: str) -> str | None:
    """The code out of an error of Google's."""
    try:
        return str(json.loads(body)["error"]["errors"][0]["reason"])
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _oauth_code(error: GoogleAuthError) -> str:
    """The code out of a token service's refusal: what stands before its description."""
    first, _, _ = str(error.args[0] if error.args else "").partition(":")
    return shown(first.removeprefix("Error code ").strip()) or "no reason that can be shown"


@asynccontextmanager
async def open_gcs(options: SourceOptions) -> AsyncIterator[GcsOrigin]:
    """The origin behind a ``gs://`` source; the URI was checked.

    Raises:
        AccessDeniedError: no usable credentials.
    """
    credentials = None if options.anonymous else await asyncio.to_thread(_credentials, options)
    context = ssl.create_default_context(cafile=str(options.ca_file) if options.ca_file else None)
    async with aiohttp.ClientSession(
        timeout=_TIMEOUT, trust_env=True, connector=aiohttp.TCPConnector(ssl=context)
    ) as client:
        yield GcsOrigin(options, client, credentials)


def _credentials(options: SourceOptions) -> Credentials:
    try:
        if options.credentials_dir is None:
            found, _ = google.auth.default(scopes=[_SCOPE])
            return found
        keys = read_keys(options, SECRET_KEYS["gs"])
        require_keys(keys, SECRET_KEYS["gs"])
        return _from_secret(json.loads(keys["GOOGLE_CREDENTIALS"]))
    except DefaultCredentialsError as e:
        raise AccessDeniedError(
            f"no usable credentials for {options.uri}: {e}; give credentials or --anonymous"
        ) from e
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise AccessDeniedError("GOOGLE_CREDENTIALS is not the JSON of an account") from e


def _from_secret(info: dict[str, Any]) -> Credentials:
    """Only kinds that run nothing: a federation's JSON could name a program to start."""
    kind = info.get("type")
    if kind == "service_account":
        return service_account.Credentials.from_service_account_info(info, scopes=[_SCOPE])  # type: ignore[no-any-return, no-untyped-call]
    if kind == "external_account" and "executable" not in info.get("credential_source", {}):
        return identity_pool.Credentials.from_info(info, scopes=[_SCOPE])  # type: ignore[no-any-return, no-untyped-call]
    raise AccessDeniedError(
        f"GOOGLE_CREDENTIALS is of type {str(kind)[:40]!r}; usable are service_account and "
        "external_account (without a program to start)"
    )
