"""The store after a power cut, or a kill, at every moment of its work."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelcache_api.errors import ModelCacheError
from modelcache_api.manifest import Manifest
from modelcache_node.store.store import Store
from support.power_cuts import Recorder, recording
from support.store_models import (
    BOOT,
    NEXT_BOOT,
    content,
    fetch,
    fetch_blob,
    file_of,
    open_store,
    provider_of,
    tree_of,
    write_chunk,
)

DATA = {"config.json": content(1, 10), "w/1": content(2, 150), "w/2": content(3, 64), "empty": b""}
MODEL = Manifest.of(file_of(path, data, by_content=path == "w/2") for path, data in DATA.items())
#: Shares its large file with the other.
OTHER_DATA = {"new.json": content(4, 20), "weights": DATA["w/1"]}
OTHER = Manifest.of(file_of(path, data) for path, data in OTHER_DATA.items())
BY_REVISION = {MODEL.revision: DATA, OTHER.revision: OTHER_DATA}


@dataclass
class Told:
    """What the store had answered by which moment: it must hold after every later cut."""

    complete_from: dict[str, int] = field(default_factory=dict)
    gone_from: dict[str, int] = field(default_factory=dict)
    damaged_from: int | None = None


def work(store: Store, recorder: Recorder) -> Told:
    """Two revisions that share a blob are fetched, one is mended, one deleted."""
    told = Told()
    fetch(store, MODEL, DATA)
    told.complete_from[MODEL.revision] = recorder.position
    store.revisions.put_manifest(OTHER)
    for file in OTHER.blobs.values():
        fetch_blob(store, file, OTHER_DATA[file.path])
    store.revisions.publish(OTHER.revision)
    told.complete_from[OTHER.revision] = recorder.position
    told.damaged_from = recorder.position
    shared = next(file for file in OTHER.files if file.path == "weights")
    store.blobs.unseal_chunks(shared.blob, shared.size_bytes, [1])
    blob = store.blobs.open_partial(shared.blob, shared.size_bytes, provider_of(shared))
    write_chunk(blob, 1, DATA["w/1"])
    blob.seal(shared.checksum)
    blob.close()
    store.delete(MODEL.revision)
    told.gone_from[MODEL.revision] = recorder.position
    return told


@contextmanager
def reopened(recorder: Recorder, at: int, home: Path, seed: int) -> Iterator[Store]:
    """The store as it comes up after a cut; even seeds are power cuts, odd ones kills."""
    is_kill = bool(seed % 2)
    image = home / "image"
    recorder.image(at, image, random.Random(seed), everything=is_kill)
    store = open_store(image, BOOT if is_kill else NEXT_BOOT)
    try:
        yield store
    finally:
        store.close()
        shutil.rmtree(image)


def check(store: Store, told: Told, at: int) -> None:
    """What counts as there is right, what was promised is there, and the rest can be fetched."""
    for revision, data in BY_REVISION.items():
        known = revision in store.revisions.revisions()
        if known and store.is_complete(revision):
            assert tree_of(store, revision) == data
        was_told = told.complete_from.get(revision, at + 1) <= at
        is_deleting = revision == MODEL.revision and at > (told.damaged_from or 0)
        if was_told and not is_deleting and at <= (told.damaged_from or at):
            assert known
            assert store.is_complete(revision)
        if told.gone_from.get(revision, at + 1) <= at:
            assert not known
    for manifest in (MODEL, OTHER):
        data = BY_REVISION[manifest.revision]
        for file in manifest.blobs.values():
            if store.blobs.is_sealed(file.blob):
                assert store.blobs.data_path(file.blob).read_bytes() == data[file.path]
        fetch(store, manifest, data)
        assert store.is_complete(manifest.revision)
        assert tree_of(store, manifest.revision) == data


def enumerate_cuts(home: Path, seeds: range, forgets: frozenset[str] = frozenset()) -> int:
    """Every moment of `work`, cut once per seed; returns how many moments there were."""
    with recording(home / "store", forgets=forgets) as recorder:
        store = open_store(home / "store")
        told = work(store, recorder)
        store.close()
    for at in range(recorder.position + 1):
        for seed in seeds:
            with reopened(recorder, at, home, seed * 1000 + (seed + at) % 2) as store:
                check(store, told, at)
    return recorder.position


@pytest.mark.timeout(120)
def test_promise_sealed_means_synced(home: Path) -> None:
    assert enumerate_cuts(home, range(2)) > 100


@pytest.mark.parametrize("forgotten", ["fsync", "fdatasync"])
def test_a_store_that_forgot_to_sync_would_be_caught(home: Path, forgotten: str) -> None:
    with pytest.raises((AssertionError, ModelCacheError, FileNotFoundError)):
        enumerate_cuts(home, range(4), frozenset({forgotten}))
