"""A small S3 client with Signature Version 4, for filling a store by unix socket or by URL."""

import base64
import hashlib
import hmac
import http.client
import socket
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

BLOCK_BYTES = 1 << 20  # sent at a time; arbitrary
TIMEOUT_S = 120.0  # for one answer, the store's own checksum of a large object included
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class S3Error(Exception):
    """The store refused a request."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(f"{status} {code}: {text}")
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Credentials:
    """An access key and its secret."""

    access_key: str
    secret_key: str = field(repr=False)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Address:
    """Where a store listens, and the name it is asked by."""

    connect: Callable[[], http.client.HTTPConnection]
    host: str


def at_socket(path: Path) -> Address:
    """A store behind a unix socket."""
    return Address(lambda: _UnixConnection(path), "localhost")


def at_url(url: str) -> Address:
    """A store at `http(s)://host[:port]`."""
    parts = urllib.parse.urlsplit(url)
    secured = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secured else http.client.HTTPConnection
    return Address(
        lambda: kind(parts.netloc, timeout=TIMEOUT_S, blocksize=BLOCK_BYTES), parts.netloc
    )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S, blocksize=BLOCK_BYTES)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


class S3Client:
    """Requests as one user; a connection each, for this is no path that must be fast."""

    def __init__(
        self,
        address: Address,
        region: str,
        credentials: Credentials,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._address = address
        self._region = region
        self._credentials = credentials
        self._clock = clock

    def list_buckets(self) -> list[str]:
        root = ET.fromstring(self._request("GET", "/"))
        return [element.text or "" for element in root.iter() if element.tag.endswith("}Name")]

    def create_bucket(self, bucket: str) -> None:
        """Make a bucket; it may be there already."""
        try:
            self._request("PUT", f"/{bucket}")
        except S3Error as error:
            if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    def put_file(
        self, bucket: str, key: str, file: Path, sha256: str, *, states_sha256: bool = False
    ) -> None:
        """Upload a file whose content is known to have this checksum.

        With `states_sha256` the store keeps it, and states it to who asks for checksums.
        """
        headers = {"content-length": str(file.stat().st_size)}
        if states_sha256:
            stated = base64.b64encode(bytes.fromhex(sha256)).decode()
            headers["x-amz-checksum-sha256"] = stated
        with file.open("rb") as body:
            self._request("PUT", f"/{bucket}/{key}", sha256=sha256, headers=headers, body=body)

    def put_bytes(self, bucket: str, key: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self._request("PUT", f"/{bucket}/{key}", sha256=digest, body=content)

    def get(self, bucket: str, key: str) -> bytes:
        return self._request("GET", f"/{bucket}/{key}")

    def delete(self, bucket: str, key: str) -> None:
        self._request("DELETE", f"/{bucket}/{key}")

    def list_keys(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys of a bucket, up to the thousand of one answer."""
        query = {"list-type": "2", "prefix": prefix}
        root = ET.fromstring(self._request("GET", f"/{bucket}", query=query))
        return [element.text or "" for element in root.iter() if element.tag.endswith("}Key")]

    def put_policy(self, bucket: str, policy: str) -> None:
        """Say who may do what in a bucket."""
        content = policy.encode()
        digest = hashlib.sha256(content).hexdigest()
        self._request("PUT", f"/{bucket}", query={"policy": ""}, sha256=digest, body=content)

    def create_user(self, user: Credentials) -> None:
        """Add an account that may do nothing until a policy names it; versitygw's own call."""
        content = (
            f"<Account><Access>{user.access_key}</Access><Secret>{user.secret_key}</Secret>"
            "<Role>user</Role></Account>"
        ).encode()
        digest = hashlib.sha256(content).hexdigest()
        self._request("PATCH", "/create-user", sha256=digest, body=content)

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        sha256: str = EMPTY_SHA256,
        headers: Mapping[str, str] | None = None,
        body: object = None,
    ) -> bytes:
        path = urllib.parse.quote(path, safe="/-_.~")
        pairs = [f"{_quote(name)}={_quote(value)}" for name, value in sorted((query or {}).items())]
        query_text = "&".join(pairs)
        signed = signed_headers(
            (method, path, query_text, self._address.host),
            sha256,
            self._region,
            self._credentials,
            self._clock(),
            {name: value for name, value in (headers or {}).items() if name.startswith("x-amz-")},
        )
        connection = self._address.connect()
        try:
            target = f"{path}?{query_text}" if query_text else path
            connection.request(method, target, body=body, headers={**signed, **(headers or {})})  # type: ignore[arg-type]
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise _refusal(answer.status, content)
        return content


def signed_headers(
    asked: tuple[str, str, str, str],
    sha256: str,
    region: str,
    credentials: Credentials,
    now: datetime,
    stated: Mapping[str, str],
) -> dict[str, str]:
    """The headers of one request (method, path, query, host), with its Signature Version 4.

    `stated` are further headers that are signed.
    """
    method, path, query, host = asked
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": sha256, "x-amz-date": stamp, **stated}
    headers = dict(sorted(headers.items()))
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = "\n".join([method, path, query, lines, names, sha256])
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")


def _refusal(status: int, content: bytes) -> S3Error:
    try:
        root = ET.fromstring(content)
    except ET.ParseError:
        return S3Error(status, "Unknown", content.decode(errors="replace")[:200])
    found = {element.tag.rpartition("}")[2]: element.text or "" for element in root.iter()}
    return S3Error(status, found.get("Code", "Unknown"), found.get("Message", ""))
