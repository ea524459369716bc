"""S3 and stores that speak its API: listing, checksums and signed URLs, by aiobotocore.

Secret keys, one file each in `SourceOptions.credentials_dir`: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY`` and, for temporary credentials, ``AWS_SESSION_TOKEN``.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError as BotoConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from modelcache_api.errors import (
    AccessDeniedError,
    InvalidSourceError,
    ModelCacheError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from modelcache_api.listing import ObjectGrant
from modelcache_api.manifest import Checksum
from modelcache_api.schemes import SECRET_KEYS
from modelcache_api.store_codes import shown
from modelcache_node.origins.base import SourceObject, SourceOptions, is_selected
from modelcache_node.origins.credential_files import read_keys, require_keys
from modelcache_node.origins.keys import tree_path
from modelcache_node.origins.s3_checksums import COMPOSITE, stated_checksum

#: HEAD requests under way at once while checksums are read. Arbitrary, far below throttling.
HEAD_CONCURRENCY = 32

_NOT_FOUND = {"NoSuchBucket", "NoSuchKey", "404", "NotFound"}
_DENIED = {
    "AccessDenied",
    "403",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "AllAccessDisabled",
}


class S3Origin:
    """One bucket and prefix. Make it with `open_s3`."""

    def __init__(self, options: SourceOptions, client: Any, bucket: str, prefix: str) -> None:
        self._options = options
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._payer = {"RequestPayer": "requester"} if options.requester_pays else {}
        self._heads = asyncio.Semaphore(HEAD_CONCURRENCY)

    async def objects(self) -> AsyncIterator[SourceObject]:
        async with _translated(self._options):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket,
                Prefix=self._prefix,
                PaginationConfig={"PageSize": self._options.page_size},
                **self._payer,
            )
            async for page in pages:
                for listed in await asyncio.gather(
                    *(self._object(entry) for entry in page.get("Contents", ()))
                ):
                    if listed is not None:
                        yield listed

    async def _object(self, entry: dict[str, Any]) -> SourceObject | None:
        path = tree_path(entry["Key"], self._prefix)
        if path is None:
            return None
        checksum = None
        wanted = is_selected(path, self._options)
        if wanted and entry.get("ChecksumAlgorithm") and entry.get("ChecksumType") != COMPOSITE:
            async with self._heads:
                checksum = await self._checksum(entry["Key"], entry["ETag"])
        return SourceObject(path, entry["Key"], entry["Size"], entry["ETag"], checksum)

    async def _checksum(self, key: str, etag: str) -> Checksum | None:
        head = await self._client.head_object(
            Bucket=self._bucket, Key=key, IfMatch=etag, ChecksumMode="ENABLED", **self._payer
        )
        return stated_checksum(head["ResponseMetadata"]["HTTPHeaders"])

    async def grant(self, listed: SourceObject) -> ObjectGrant:
        async with _translated(self._options):
            url = await self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": listed.key, **self._payer},
                ExpiresIn=self._options.grant_s,
            )
        # botocore signs who pays as a header, which each request must then carry
        headers = {"x-amz-request-payer": "requester"} if self._options.requester_pays else {}
        expires_at = _now().timestamp() + self._options.grant_s
        return ObjectGrant(url=url, headers=headers, expires_at=expires_at)


@asynccontextmanager
async def open_s3(options: SourceOptions) -> AsyncIterator[S3Origin]:
    """The origin behind an ``s3://`` source.

    Raises:
        InvalidSourceError: the URI, endpoint, region or credentials cannot be used as given.
    """
    parts = urlsplit(options.uri)
    config: dict[str, Any] = {
        # said explicitly: for a custom endpoint the default is the old query signature
        "signature_version": "s3v4",
        "retries": {"mode": "standard", "max_attempts": 4},
        "max_pool_connections": HEAD_CONCURRENCY,
        "connect_timeout": 10,
        "read_timeout": 60,
    }
    if options.endpoint:
        config["s3"] = {"addressing_style": "virtual" if options.virtual_hosts else "path"}
    async with AsyncExitStack() as stack:
        async with _translated(options):
            client = await stack.enter_async_context(
                get_session().create_client(
                    "s3",
                    endpoint_url=options.endpoint,
                    region_name=options.region or "us-east-1",
                    verify=str(options.ca_file) if options.ca_file else None,
                    config=AioConfig(**config),
                    **_credentials(options),
                )
            )
        yield S3Origin(options, client, parts.netloc, parts.path.lstrip("/"))


def _credentials(options: SourceOptions) -> dict[str, str]:
    """Keys from the credentials directory, by the client's parameter names."""
    if not options.credentials_dir:
        return {}
    found = read_keys(options, SECRET_KEYS["s3"])
    require_keys(found, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    return {name.lower(): value for name, value in found.items()}


@asynccontextmanager
async def _translated(options: SourceOptions) -> AsyncIterator[None]:
    """The one place where botocore's errors become ours."""
    try:
        yield
    except ClientError as e:
        raise _meaning(e, options) from e
    except (NoCredentialsError, PartialCredentialsError) as e:
        raise AccessDeniedError(
            f"no usable credentials for {options.uri}: {e}; give credentials or --anonymous"
        ) from e
    except CredentialRetrievalError as e:  # its text repeats the answer, as the next one's does
        raise SourceUnavailableError(
            f"no credentials for {options.uri}: the identity service did not give any"
        ) from e
    except ResponseParserError as e:
        raise SourceUnavailableError(
            f"{options.uri}: the store, or its identity service, does not speak Amazon's XML"
        ) from e
    except (BotoConnectionError, HTTPClientError) as e:
        raise SourceUnavailableError(
            f"{options.endpoint or options.uri} does not answer: {e}"
        ) from e
    except (BotoCoreError, ValueError) as e:
        raise InvalidSourceError(f"{options.uri}: {e}") from e


def _meaning(error: ClientError, options: SourceOptions) -> ModelCacheError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = shown(code) or f"HTTP {status}"
    if code in _NOT_FOUND or status == 404:
        return SourceNotFoundError(f"{options.uri} does not exist ({said})")
    if code in _DENIED or status in (401, 403):
        return AccessDeniedError(f"{options.uri} may not be read with these credentials ({said})")
    if status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout"):
        return SourceUnavailableError(f"{options.uri}: the store answers {status} {shown(code)}")
    return InvalidSourceError(f"{options.uri}: the store refuses the request ({said})")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
