"""Models of a few bytes for a store, written as a fetch writes them."""

import hashlib
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from awscrt import checksums

from modelcache_api import chunks
from modelcache_api.chunks import chunk_range
from modelcache_api.manifest import Checksum, ChecksumAlgorithm, File, Manifest
from modelcache_node.store.partial_blob import PartialBlob
from modelcache_node.store.store import Store

#: In place of 16 MiB.
SMALL_CHUNK_BYTES = 64
PROVIDER = "ab" * 8
BOOT, NEXT_BOOT = UUID(int=1), UUID(int=2)


@contextmanager
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", SMALL_CHUNK_BYTES)
        yield


def open_store(root: Path, boot: UUID = BOOT) -> Store:
    return Store.open(root, allow_any_disk=True, boot_id=lambda: boot)


def content(seed: int, n_bytes: int) -> bytes:
    return random.Random(seed).randbytes(n_bytes)


def file_of(path: str, data: bytes, *, by_content: bool = False) -> File:
    """A file; kept under its SHA-256, or under a key by place with the CRC stated."""
    if by_content:
        digest = hashlib.sha256(data).hexdigest()
        return File(path, len(data), digest, Checksum(ChecksumAlgorithm.SHA256, digest))
    place = hashlib.sha256(b"place of " + data).hexdigest()
    crc = f"{checksums.crc32c(data):08x}"
    return File(path, len(data), place, Checksum(ChecksumAlgorithm.CRC32C, crc))


def provider_of(file: File) -> str | None:
    is_content = file.checksum is not None and file.checksum.value == file.blob
    return PROVIDER if is_content else None


def write_chunk(blob: PartialBlob, index: int, data: bytes) -> None:
    """As a mover does: the bytes at their offset, then the note that they are there."""
    offset, length = chunk_range(index, len(data))
    piece = data[offset : offset + length]
    fd = os.open(blob.data_path, os.O_RDWR)
    try:
        os.pwrite(fd, piece, offset)
    finally:
        os.close(fd)
    blob.mark_present(index, checksums.crc32c(piece))


def fetch_blob(store: Store, file: File, data: bytes) -> None:
    """Whatever is missing of one blob, and its seal."""
    blob = store.blobs.open_partial(file.blob, file.size_bytes, provider_of(file))
    try:
        for index in list(blob.missing()):
            write_chunk(blob, index, data)
        blob.seal(file.checksum)
    finally:
        blob.close()


def fetch(store: Store, manifest: Manifest, data: Mapping[str, bytes]) -> None:
    """A whole revision; `data` by path."""
    store.revisions.put_manifest(manifest)
    for file in manifest.blobs.values():
        fetch_blob(store, file, data[file.path])
    store.revisions.publish(manifest.revision)


def tree_of(store: Store, revision: str) -> dict[str, bytes]:
    tree = store.root / "revisions" / revision.removeprefix("sha256:") / "tree"
    return {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file()
    }
