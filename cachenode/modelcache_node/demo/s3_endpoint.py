"""A read-only S3 endpoint over a directory, for demonstrations: anonymous, loopback, plain HTTP.

``<root>/<bucket>/<key>`` is served as object <key> of <bucket>: ListObjectsV2, HEAD and GET with
ranges, If-Match and full-object CRC64/NVME. It counts what it hands out. Not for production: no
authentication, and a file must not change while it is served.
"""

import base64
import os
import threading
from collections.abc import Iterator
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from awscrt import checksums

from modelcache_api.errors import UnsafePathError
from modelcache_api.file_paths import check_path
from modelcache_api.units import MIB

_PAGE = 1000  # S3's largest page of a listing
#: sendfile(2) sends at most 0x7ffff000 bytes a call; arbitrary, well below.
_SENDFILE_BYTES = 64 * MIB


class Served:
    """What an endpoint has handed out. Written by its threads, under `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.body_bytes = 0
        self.requests = 0

    def count(self, n_bytes: int) -> None:
        with self.lock:
            self.body_bytes += n_bytes
            self.requests += 1


class S3Endpoint:
    """Serves `root` on loopback inside its ``with`` block."""

    def __init__(self, root: Path, *, port: int = 0) -> None:
        self.served = Served()
        handler = type("Handler", (_Handler,), {"root": root, "served": self.served})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "S3Endpoint":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    root: Path
    served: Served
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a head leaves in one segment

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            folder = self.root / check_path(bucket)
            if not folder.is_dir():
                self._refuse(HTTPStatus.NOT_FOUND, "NoSuchBucket")
            elif key:
                self._object(folder / check_path(key))
            else:
                self._list(folder, bucket, query)
        except UnsafePathError:
            self._refuse(HTTPStatus.BAD_REQUEST, "InvalidURI")
        except ConnectionError:
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815 - the name is the library's

    def _list(self, folder: Path, bucket: str, query: dict[str, str]) -> None:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        keys = sorted(key for key in _keys(folder) if key.startswith(prefix) and key > after)
        page = keys[:_PAGE]
        more = len(keys) > _PAGE
        entries = "".join(_entry(folder / key, key) for key in page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        self._answer(
            HTTPStatus.OK,
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
            f"<Name>{escape(bucket)}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{_PAGE}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>",
        )

    def _object(self, path: Path) -> None:
        if not path.is_file():
            self._refuse(HTTPStatus.NOT_FOUND, "NoSuchKey")
            return
        size, etag = path.stat().st_size, _etag(path)
        if self.headers.get("If-Match") not in (None, etag):
            self._refuse(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
            return
        span = _span(self.headers.get("Range"), size)
        if span is None:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "InvalidRange", size)
            return
        first, end = span
        is_part = "Range" in self.headers
        self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
        self.send_header("Content-Length", str(end - first))
        self.send_header("ETag", etag)
        if is_part:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        if self.headers.get("x-amz-checksum-mode") == "ENABLED" and not is_part:
            self.send_header("x-amz-checksum-crc64nvme", _crc64nvme(path))
            self.send_header("x-amz-checksum-type", "FULL_OBJECT")
        self.end_headers()
        self.wfile.flush()
        if self.command == "GET":
            self._send(path, first, end)

    def _send(self, path: Path, first: int, end: int) -> None:
        with path.open("rb") as opened:
            while first < end:
                sent = os.sendfile(
                    self.connection.fileno(),
                    opened.fileno(),
                    first,
                    min(_SENDFILE_BYTES, end - first),
                )
                self.served.count(sent)
                first += sent

    def _answer(self, status: HTTPStatus, body: str, extra: str | None = None) -> None:
        raw = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(raw)))
        if extra:
            self.send_header("Content-Range", extra)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(raw)

    def _refuse(self, status: HTTPStatus, code: str, size: int | None = None) -> None:
        self._answer(
            status,
            f"<Error><Code>{code}</Code><Message>{status.phrase}</Message></Error>",
            f"bytes */{size}" if size is not None else None,
        )

    def log_message(self, *_: Any) -> None:
        """Stay silent: the demonstration's own output is what a person reads."""


def _keys(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def _entry(path: Path, key: str) -> str:
    return (
        f"<Contents><Key>{escape(key)}</Key><Size>{path.stat().st_size}</Size>"
        f"<ETag>{escape(_etag(path))}</ETag><StorageClass>STANDARD</StorageClass>"
        "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
        "</Contents>"
    )


def _etag(path: Path) -> str:
    status = path.stat()
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """(first, end) of the bytes to send; None when the range lies outside the object."""
    if header is None:
        return 0, size
    first_text, _, last_text = header.removeprefix("bytes=").partition("-")
    first = int(first_text)
    end = min(int(last_text) + 1, size) if last_text else size
    return (first, end) if first < end else None


def _crc64nvme(path: Path) -> str:
    return _crc64nvme_of(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _crc64nvme_of(path: Path, _mtime_ns: int) -> str:
    value = 0
    with path.open("rb") as opened:
        while block := opened.read(MIB):
            value = checksums.crc64nvme(block, value)
    return base64.b64encode(value.to_bytes(8, "big")).decode()
