"""Azure Blob Storage: listing and signing by Azure's own SDK.

``abfs://container@account.dfs.core.windows.net/prefix`` (or ``abfss://``), as Spark and adlfs write
it, or ``az://container/prefix`` with the account in the Secret or in the endpoint. Always over TLS,
unless an endpoint says http.

Secret keys: ``AZURE_STORAGE_ACCOUNT_NAME`` (for az:// without an endpoint) and one of
``AZURE_STORAGE_ACCOUNT_KEY``, ``AZURE_STORAGE_SAS_TOKEN``, or ``AZURE_TENANT_ID``,
``AZURE_CLIENT_ID`` and ``AZURE_CLIENT_SECRET``.
"""

import datetime as dt
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob import BlobProperties, UserDelegationKey, generate_blob_sas
from azure.storage.blob.aio import BlobServiceClient, ExponentialRetry

from modelcache_api.errors import (
    AccessDeniedError,
    InvalidSourceError,
    ModelCacheError,
    SourceUnavailableError,
)
from modelcache_api.listing import ObjectGrant
from modelcache_api.manifest import Checksum
from modelcache_api.store_codes import shown
from modelcache_node.origins.answers import meaning
from modelcache_node.origins.azure_identity import Identity, open_identity
from modelcache_node.origins.base import SourceObject, SourceOptions, is_selected
from modelcache_node.origins.keys import tree_path

_SUFFIX = "core.windows.net"
#: Of the Blob service, for requests with a bearer token; any since 2017-11-09 will do.
_API_VERSION = "2023-11-03"
#: The SDK's own pause, 15 s, and then more, would take a minute and a half to say that a store is
#: away; who lists tries again by itself.
_FIRST_PAUSE_S = 1
_RETRIES = 2
_ENTRA_CODE = re.compile(r"AADSTS[0-9]{1,12}")
_BEARER_SCOPE = "https://storage.azure.com/.default"


class Place(NamedTuple):
    """What a URI names. `account_url` is None where only the Secret knows the account."""

    container: str
    prefix: str
    account_url: str | None

    @classmethod
    def parse(cls, options: SourceOptions) -> "Place":
        """Raises InvalidSourceError: no container and account can be read from it."""
        parts = urlsplit(options.uri)
        prefix = parts.path.lstrip("/")
        container, at, host = parts.netloc.partition("@")
        if options.endpoint:
            return cls(container, prefix, options.endpoint.rstrip("/"))
        if parts.scheme == "az" and not at:
            return cls(container, prefix, None)
        account, dot, rest = host.partition(".")
        if not (account and container and dot and rest in (f"dfs.{_SUFFIX}", f"blob.{_SUFFIX}")):
            raise InvalidSourceError(
                f"{options.uri!r} is not abfs://container@account.dfs.{_SUFFIX}/prefix; "
                "of other clouds name the endpoint"
            )
        return cls(container, prefix, f"https://{account}.blob.{_SUFFIX}")


class AzureOrigin:
    """One container and prefix. Make it with `open_azure`."""

    def __init__(
        self, options: SourceOptions, place: Place, service: BlobServiceClient, identity: Identity
    ) -> None:
        self._options = options
        self._place = place
        self._service = service
        self._identity = identity
        self._delegation: UserDelegationKey | None = None
        self._may_delegate = True

    async def objects(self) -> AsyncIterator[SourceObject]:
        container = self._service.get_container_client(self._place.container)
        async with _translated(self._options):
            async for blob in container.list_blobs(
                name_starts_with=self._place.prefix or None,
                include=["metadata"],
                results_per_page=self._options.page_size,
            ):
                listed = self._object(blob)
                if listed is not None:
                    yield listed

    async def grant(self, listed: SourceObject) -> ObjectGrant:
        async with _translated(self._options):
            return await self._grant(listed.key)

    async def _grant(self, key: str) -> ObjectGrant:
        url = self._service.get_blob_client(self._place.container, key).url.partition("?")[0]
        identity = self._identity
        if identity.sas_token:
            return ObjectGrant(url=f"{url}?{identity.sas_token.lstrip('?')}")
        expires_at = _now() + dt.timedelta(seconds=self._options.grant_s)
        if identity.account_key:
            sas = self._sas(key, expires_at, account_key=identity.account_key)
            return ObjectGrant(url=f"{url}?{sas}", expires_at=expires_at.timestamp())
        if identity.credential is None:
            return ObjectGrant(url=url)
        delegation = await self._delegation_key(expires_at)
        if delegation is not None:
            sas = self._sas(key, expires_at, user_delegation_key=delegation)
            return ObjectGrant(url=f"{url}?{sas}", expires_at=expires_at.timestamp())
        token = await identity.credential.get_token(_BEARER_SCOPE)
        return ObjectGrant(
            url=url,
            headers={"Authorization": f"Bearer {token.token}", "x-ms-version": _API_VERSION},
            expires_at=float(token.expires_on),
        )

    def _sas(self, key: str, expires_at: dt.datetime, **by: Any) -> str:
        return generate_blob_sas(
            str(self._service.account_name),
            self._place.container,
            key,
            permission="r",
            expiry=expires_at,
            **by,
        )

    async def _delegation_key(self, expires_at: dt.datetime) -> UserDelegationKey | None:
        """A key that signs in the identity's name; None where it may not have one."""
        if self._delegation is None and self._may_delegate:
            try:
                self._delegation = await self._service.get_user_delegation_key(
                    _now() - dt.timedelta(minutes=5), expires_at
                )
            except HttpResponseError as e:
                if e.status_code != 403:
                    raise
                self._may_delegate = False
        return self._delegation

    def _object(self, blob: BlobProperties) -> SourceObject | None:
        path = tree_path(blob.name, self._place.prefix)
        is_folder = (blob.metadata or {}).get("hdi_isfolder") == "true"
        if path is None or is_folder:
            return None
        if is_selected(path, self._options) and blob.encryption_key_sha256:
            raise InvalidSourceError(
                f"{path} is encrypted with a customer-provided key, which cannot be read: "
                "use Microsoft's keys or a key vault"
            )
        md5 = blob.content_settings.content_md5
        checksum = Checksum.parse(f"md5:{bytes(md5).hex()}") if md5 and len(md5) == 16 else None
        etag = blob.etag if blob.etag.startswith('"') else f'"{blob.etag}"'
        return SourceObject(path, blob.name, blob.size, etag, checksum)


@asynccontextmanager
async def open_azure(options: SourceOptions) -> AsyncIterator[AzureOrigin]:
    """The origin behind an ``abfs://`` or ``az://`` source.

    Raises:
        InvalidSourceError: URI or endpoint cannot be used.
        AccessDeniedError: no usable credentials.
    """
    place = Place.parse(options)
    async with AsyncExitStack() as stack:
        identity = await stack.enter_async_context(open_identity(options))
        account_url = place.account_url
        if account_url is None:
            if not identity.account_name:
                raise InvalidSourceError(
                    f"{options.uri} names no account: write abfs://container@account.dfs.{_SUFFIX}"
                    "/prefix, or give AZURE_STORAGE_ACCOUNT_NAME in the Secret"
                )
            account_url = f"https://{identity.account_name}.blob.{_SUFFIX}"
        async with _translated(options):
            service = await stack.enter_async_context(
                BlobServiceClient(
                    account_url,
                    credential=identity.for_client,
                    retry_policy=ExponentialRetry(
                        initial_backoff=_FIRST_PAUSE_S, increment_base=2, retry_total=_RETRIES
                    ),
                    connection_timeout=10,
                    read_timeout=60,
                    connection_verify=str(options.ca_file) if options.ca_file else True,
                )
            )
        yield AzureOrigin(options, place, service, identity)


@asynccontextmanager
async def _translated(options: SourceOptions) -> AsyncIterator[None]:
    """The one place where the SDK's errors become ours."""
    try:
        yield
    except ClientAuthenticationError as e:
        raise AccessDeniedError(
            f"{options.uri} may not be read with these credentials ({_code(e) or 'HTTP 401'})"
        ) from e
    except HttpResponseError as e:
        raise _meaning(e, options) from e
    except (ServiceRequestError, ServiceResponseError) as e:
        raise SourceUnavailableError(f"{options.uri} does not answer: {_said(e)}") from e
    except (AzureError, ValueError) as e:
        raise InvalidSourceError(f"{options.uri}: {_said(e)}") from e


def _meaning(error: HttpResponseError, options: SourceOptions) -> ModelCacheError:
    answer = error.response
    headers = getattr(answer, "headers", {})
    if not error.status_code:
        return SourceUnavailableError(f"{options.uri}: {_said(error)}")
    return meaning(
        error.status_code, options.uri, code=_code(error), retry_after=headers.get("Retry-After")
    )


def _code(error: HttpResponseError) -> str:
    """The code of Blob Storage, or Entra's, which stands in its text."""
    code = getattr(error, "error_code", None)
    if code:
        return shown(str(getattr(code, "value", code)))
    found = _ENTRA_CODE.search(str(error))
    return found[0] if found else ""


def _said(error: AzureError | ValueError) -> str:
    """The first line of what the SDK itself says, not the store: the rest repeats the request."""
    return str(error).strip().partition("\n")[0]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
