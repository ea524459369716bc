"""Which chunks of this node's store may be served, read from the journals on disk.

A chunk is served from the moment its journal says present. Each request looks anew: a few system
calls per 16 MiB, and nothing to be told of what was sealed, renamed or evicted meanwhile. Bytes
that a request has open stay readable until it ends.

Not served: what another boot wrote and nobody has checked since, and a blob under repair.
"""

import os
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from modelcache_api import chunks
from modelcache_api.chunks import JournalHeader, chunk_range
from modelcache_api.errors import IntegrityMismatchError
from modelcache_node.peers.requests import ChunkName


class HeldChunk(NamedTuple):
    """A verified chunk, open for reading. Close `fd`."""

    fd: int
    offset: int
    length: int
    total_bytes: int
    crc32c: int


class Holdings:
    """See the module."""

    def __init__(self, blobs: Path, boot_id: UUID) -> None:
        """`blobs` is the store's directory of this name."""
        self._blobs = blobs
        self._boot_id = boot_id

    def open(self, name: ChunkName) -> HeldChunk | None:
        """The chunk, or None where it is not held.

        A partial blob that was sealed meanwhile is found under its key.

        Raises:
            OSError: the disk failed.
        """
        key = name.blob.partition(".")[0]
        for directory in dict.fromkeys((name.blob, key)):
            found = self._open_in(self._blobs / key[:2] / directory, name.number)
            if found is not None:
                return found
        return None

    def _open_in(self, directory: Path, index: int) -> HeldChunk | None:
        try:
            journal = os.open(directory / "chunks", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            header = chunks.unpack_header(os.pread(journal, chunks.HEADER_BYTES, 0))
            if not self._may_serve(header, directory) or index >= header.n_chunks:
                return None
            raw = os.pread(journal, chunks.RECORD_BYTES, chunks.record_offset(index))
        except IntegrityMismatchError:
            return None
        finally:
            os.close(journal)
        if len(raw) < chunks.RECORD_BYTES:
            return None
        record = chunks.unpack_record(raw)
        if not record.is_present:
            return None
        offset, length = chunk_range(index, header.size_bytes)
        try:
            fd = os.open(directory / "data", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # evicted, or renamed by its seal: asked for again it is found
        return HeldChunk(fd, offset, length, header.size_bytes, record.crc32c)

    def _may_serve(self, header: JournalHeader, directory: Path) -> bool:
        """A damaged blob keeps its name while it is mended, and is not sealed then."""
        if header.is_sealed:
            return True
        return header.boot_id == self._boot_id and not (directory / "repair").exists()
