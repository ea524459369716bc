"""The manifest: what one revision consists of, and the digest that names it.

Canonical form, version 1: UTF-8 JSON without white space, keys sorted, files sorted by the
bytes of their path::

    {"files":[{"blob":"<64 hex>","checksum":"md5:<32 hex>","path":"a/b","size":1}],"version":1}

``checksum`` is left out where the origin states none. Version 2 adds ``"layout"`` (see `layouts`),
and is written only where there is one, so that a plain revision keeps its name. A revision is
``sha256:`` and the SHA-256 of that form; equal listings give equal bytes, on every node.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from modelcache_api.errors import InvalidRequestError
from modelcache_api.file_paths import check_distinct, check_path
from modelcache_api.layouts import HubLayout, presented
from modelcache_api.names import blob_hex

VERSION = 1
VERSION_WITH_LAYOUT = 2
#: Files of one revision. Arbitrary, ten times the largest model repository known to us.
MAX_FILES = 100_000
#: Bytes of one file: S3's largest object is 50 TB; arbitrary, above it.
MAX_FILE_BYTES = 1 << 47


class ChecksumAlgorithm(StrEnum):
    """Full-object checksums that origins state."""

    SHA256 = "sha256"
    CRC64NVME = "crc64nvme"
    CRC32C = "crc32c"
    MD5 = "md5"
    #: Git's name of a blob: SHA-1 of "blob <size>", NUL and the content. Hubs state it of files
    #: that are not in large file storage.
    GIT_SHA1 = "gitsha1"


_HEX_DIGITS = {
    ChecksumAlgorithm.SHA256: 64,
    ChecksumAlgorithm.CRC64NVME: 16,
    ChecksumAlgorithm.CRC32C: 8,
    ChecksumAlgorithm.MD5: 32,
    ChecksumAlgorithm.GIT_SHA1: 40,
}
_CHECKSUM = re.compile(r"([a-z0-9]+):([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Checksum:
    """A full-object checksum; `value` is lower-case hexadecimal, big-endian for CRCs."""

    algorithm: ChecksumAlgorithm
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _CHECKSUM.fullmatch(text)
        if not match or match[1] not in set(ChecksumAlgorithm):
            raise InvalidRequestError(f"not a checksum (algorithm:hex): {text[:100]!r}")
        algorithm = ChecksumAlgorithm(match[1])
        if len(match[2]) != _HEX_DIGITS[algorithm]:
            raise InvalidRequestError(f"a {algorithm} checksum has {_HEX_DIGITS[algorithm]} digits")
        return cls(algorithm, match[2])


@dataclass(frozen=True, slots=True)
class File:
    """One file of a revision."""

    path: str
    size_bytes: int
    blob: str
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a revision, checked and in canonical order. Make it with `of` or `parse`."""

    files: tuple[File, ...]
    layout: HubLayout | None = None

    @classmethod
    def of(cls, files: Iterable[File], layout: HubLayout | None = None) -> Self:
        """Raises InvalidRequestError or UnsafePathError: not a manifest that a node may hold."""
        ordered = tuple(sorted(files, key=lambda f: f.path.encode(errors="surrogatepass")))
        if not 0 < len(ordered) <= MAX_FILES:
            raise InvalidRequestError(f"{len(ordered)} files; a revision has 1 to {MAX_FILES}")
        for file in ordered:
            check_path(file.path)
            blob_hex(file.blob)
            if not 0 <= file.size_bytes <= MAX_FILE_BYTES:
                raise InvalidRequestError(f"{file.path!r} has an impossible size")
        check_distinct(file.path for file in ordered)
        if layout is not None:
            layout.check()
            for path, _ in presented(ordered, layout):
                check_path(path)
        return cls(ordered, layout)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises InvalidRequestError: `raw` is not the canonical form of a manifest."""
        try:
            document = json.loads(raw)
            stated = document.get("layout")
            layout = HubLayout.parse(stated) if stated is not None else None
            manifest = cls.of((_parse_file(entry) for entry in document["files"]), layout)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise InvalidRequestError(f"not a manifest: {e}") from e
        if manifest.canonical() != raw:
            raise InvalidRequestError("not a manifest in canonical form of version 1 or 2")
        return manifest

    def canonical(self) -> bytes:
        document: dict[str, Any] = {"files": [_as_json(file) for file in self.files]}
        document["version"] = VERSION_WITH_LAYOUT if self.layout else VERSION
        if self.layout:
            document["layout"] = self.layout.as_json()
        return json.dumps(
            document,
            ensure_ascii=False,
            sort_keys=True,
            separators=(",", ":"),
        ).encode()

    @property
    def revision(self) -> str:
        return "sha256:" + hashlib.sha256(self.canonical()).hexdigest()

    def tree(self) -> Iterator[tuple[str, File | bytes]]:
        """Every path that a reader sees, with the file that is there, or the bytes."""
        return presented(self.files, self.layout)

    @property
    def size_bytes(self) -> int:
        """Bytes that a reader sees; files of one blob count each."""
        return sum(file.size_bytes for file in self.files)

    @property
    def blobs(self) -> dict[str, File]:
        """One file per distinct blob, in manifest order."""
        found: dict[str, File] = {}
        for file in self.files:
            found.setdefault(file.blob, file)
        return found


def _as_json(file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {"blob": file.blob, "path": file.path, "size": file.size_bytes}
    if file.checksum:
        entry["checksum"] = str(file.checksum)
    return entry


def _parse_file(entry: dict[str, Any]) -> File:
    size = entry["size"]
    if type(size) is not int:
        raise InvalidRequestError("a file's size is an integer")
    checksum = Checksum.parse(entry["checksum"]) if "checksum" in entry else None
    return File(entry["path"], size, entry["blob"], checksum)
