"""A store that holds most of a very large model: right in every record, its data sparse."""

import hashlib
import os
from pathlib import Path

from modelcache_api.chunks import chunk_count
from modelcache_api.manifest import File, Manifest
from modelcache_node.store.journal import Journal
from modelcache_node.store.store import Store, read_boot_id

FILE_BYTES = 5 * 10**9  # as the hub's shards of large models are


def make_store(root: Path, n_bytes: int, *, missing_of: int) -> str:
    """Make the store of a model of `n_bytes`; one chunk of `missing_of` is missing, evenly.

    Returns:
        The model's revision.
    """
    store = Store.open(root, allow_any_disk=True)
    try:
        manifest = Manifest.of(
            File(f"model-{i:05d}.safetensors", FILE_BYTES, _key(i), None)
            for i in range(n_bytes // FILE_BYTES)
        )
        store.revisions.put_manifest(manifest)
        for file in manifest.files:
            _make_blob(root / "blobs" / file.blob[:2] / file.blob, file, missing_of)
        return manifest.revision
    finally:
        store.close()


def _make_blob(directory: Path, file: File, missing_of: int) -> None:
    directory.mkdir(parents=True)
    with (directory / "data").open("wb") as data:
        os.truncate(data.fileno(), file.size_bytes)
    journal = Journal.create(directory / "chunks", file.size_bytes, read_boot_id())
    for index in range(chunk_count(file.size_bytes)):
        if index % missing_of:
            journal.mark_present(index, crc32c=index)
    journal.close()


def _key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()
