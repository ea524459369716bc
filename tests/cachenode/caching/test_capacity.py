"""Room on the disk: reservations, and evictions for them, over a real store."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from modelcache_api.errors import InsufficientCapacityError
from modelcache_api.manifest import Manifest
from modelcache_node.caching.capacity import HIGH_WATERMARK, LOW_WATERMARK, Capacity
from modelcache_node.caching.eviction import Held
from modelcache_node.caching.removing import Removals
from modelcache_node.store.store import Store
from support.store_models import content, fetch, fetch_blob, file_of, open_store

pytestmark = pytest.mark.looptime(False)

BLOCK = 4096
DATA = {name: content(n, 3 * BLOCK) for n, name in enumerate("abcd")}
MODELS = {name: Manifest.of([file_of(name, data)]) for name, data in DATA.items()}


@pytest.fixture
def store() -> Iterator[Store]:
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as home:
        opened = open_store(Path(home) / "s")
        yield opened
        opened.close()


class Node:
    """A capacity over a store, with what holds its revisions."""

    def __init__(self, store: Store, n_blocks: int | None) -> None:
        self.store = store
        self.is_held: set[str] = set()
        limit_bytes = None if n_blocks is None else n_blocks * BLOCK
        self.removals = Removals(store, lambda revision: revision in self._held_revisions())
        self.capacity = Capacity(
            store, limit_bytes=limit_bytes, held=self._held, remove=self.removals.remove
        )
        self.capacity.allow_evictions()

    def _held(self) -> Iterator[Held]:
        for at, name in enumerate(MODELS):
            model = MODELS[name]
            if model.revision in self.store.revisions.revisions():
                sizes = {key: self.store.blobs.allocated_bytes(key) for key in model.blobs}
                yield Held(model.revision, sizes, float(at), is_held=name in self.is_held)

    def _held_revisions(self) -> set[str]:
        return {MODELS[name].revision for name in self.is_held}

    def brings(self, *names: str) -> None:
        for name in names:
            fetch(self.store, MODELS[name], DATA)

    def reserved(self, name: str):
        model = MODELS[name]
        self.store.revisions.put_manifest(model)
        return self.capacity.reserved(model.revision, model)

    @property
    def complete(self) -> set[str]:
        return {name for name, one in MODELS.items() if self.store.is_complete(one.revision)}


async def test_what_fits_evicts_nothing(store: Store) -> None:
    node = Node(store, 9)
    node.brings("a", "b")
    async with node.reserved("c"):
        assert node.capacity.reserved_bytes == 3 * BLOCK
    assert node.complete == {"a", "b"}
    assert node.capacity.reserved_bytes == 0


async def test_the_least_recently_used_goes_for_what_does_not_fit(store: Store) -> None:
    node = Node(store, 8)
    node.brings("a", "b")
    async with node.reserved("c"):
        assert node.complete == {"b"}
        assert node.capacity.used_bytes == 3 * BLOCK


async def test_what_is_held_stays_and_the_next_goes(store: Store) -> None:
    node = Node(store, 8)
    node.is_held = {"a"}
    node.brings("a", "b")
    async with node.reserved("c"):
        assert node.complete == {"a"}


async def test_a_model_that_cannot_fit_evicts_nothing_and_says_what_to_do(store: Store) -> None:
    node = Node(store, 5)
    node.is_held = {"a"}
    node.brings("a")
    with pytest.raises(InsufficientCapacityError) as refused:
        await node.reserved("b").__aenter__()
    assert str(refused.value) == (
        "the model has 12288 bytes, 12288 of them not on this node, where 12288 of 20480 bytes are "
        "taken: 4096 bytes more are needed than could be freed; give the node more disk, or unpin "
        "or delete models"
    )
    assert node.complete == {"a"}
    assert node.capacity.reserved_bytes == 0


async def test_nothing_goes_before_the_report_of_mounts(store: Store) -> None:
    node = Node(store, 5)
    node.capacity.evictions_allowed = False
    node.brings("a")
    with pytest.raises(InsufficientCapacityError, match="before the CSI plugin has reported"):
        await node.reserved("b").__aenter__()
    node.capacity.allow_evictions()
    async with node.reserved("b"):
        assert node.complete == set()


async def test_fetches_at_once_never_get_more_than_there_is(store: Store) -> None:
    node = Node(store, 7)
    async with AsyncExitStack() as stack:
        for name in "ab":
            node.is_held.add(name)
            await stack.enter_async_context(node.reserved(name))
        node.is_held.add("c")
        with pytest.raises(InsufficientCapacityError):
            await node.reserved("c").__aenter__()
    async with node.reserved("c"):
        pass


async def test_what_is_on_the_disk_already_is_not_reserved_again(store: Store) -> None:
    node = Node(store, 3)
    node.is_held = {"a"}
    store.revisions.put_manifest(MODELS["a"])
    [file] = MODELS["a"].files
    fetch_blob(store, file, DATA["a"])
    async with node.reserved("a"):
        assert node.capacity.reserved_bytes == 0
        assert node.capacity.used_bytes == 3 * BLOCK


async def test_a_file_that_two_revisions_share_is_reserved_once(store: Store) -> None:
    node = Node(store, 7)
    node.is_held = {"a"}
    small = content(9, 100)
    sibling = Manifest.of([*MODELS["a"].files, file_of("new.json", small)])
    async with node.reserved("a"), node.capacity.reserved(sibling.revision, sibling):
        assert node.capacity.reserved_bytes == 3 * BLOCK + len(small)


async def test_relief_goes_on_to_the_low_watermark(store: Store) -> None:
    node = Node(store, None)
    node.brings(*"abcd")
    before = node.capacity.used_bytes
    await node.capacity.relieve()
    assert node.complete == set("bcd")
    assert node.capacity.used_bytes <= before * LOW_WATERMARK / HIGH_WATERMARK


async def test_relief_that_finds_nothing_to_evict_is_no_error(store: Store) -> None:
    node = Node(store, None)
    node.is_held = set("a")
    node.brings("a")
    await node.capacity.relieve()
    assert node.complete == {"a"}


async def test_without_a_limit_a_share_of_the_disk_is_ours(store: Store) -> None:
    disk = os.statvfs(store.root)
    expected = int(HIGH_WATERMARK * disk.f_frsize * disk.f_blocks)
    assert Node(store, None).capacity.capacity_bytes == expected
