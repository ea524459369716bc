"""A lazy mount shows the tree that a node publishes in the end, also in the hub's layout."""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.layouts import HubLayout
from modelcache_api.manifest import File, Manifest
from modelcache_api.names import tree_path
from modelcache_csi.fuse.tree import Tree
from support.lazy_mount import LazyMount, lazy_mount, pattern
from support.store_models import fetch, file_of, open_store

pytestmark = pytest.mark.root

LAYOUT = HubLayout("models", "org/name", "ab" * 20, ("main", "refs/pr/1"))
BIG = pattern(CHUNK_BYTES + 1_000_001)
CONTENTS = {
    "config.json": b"{}",
    "model.safetensors": BIG,
    "original/consolidated.safetensors": BIG,
    "sub/a.txt": b"hello",
}


def manifest_of(layout: HubLayout | None) -> Manifest:
    return Manifest.of(
        (file_of(path, data, by_content=True) for path, data in CONTENTS.items()), layout
    )


@pytest.fixture
def mount(lazy_root: Path) -> Iterator[LazyMount]:
    with lazy_mount(lazy_root, CONTENTS, manifest=manifest_of(LAYOUT)) as made:
        yield made


def test_promise_the_hubs_library_finds_a_hub_layout__while_it_comes(mount: LazyMount) -> None:
    mount.blobs["config.json"].seal()
    found = snapshot_download("org/name", cache_dir=mount.point, local_files_only=True)
    by_ref = snapshot_download(
        "org/name", revision="refs/pr/1", cache_dir=mount.point, local_files_only=True
    )
    assert by_ref == found
    config = try_to_load_from_cache("org/name", "config.json", cache_dir=mount.point)
    assert Path(str(config)).read_bytes() == b"{}"
    (repository,) = scan_cache_dir(mount.point).repos
    assert repository.repo_id == "org/name"
    read: list[bytes] = []
    weights = Path(found, "model.safetensors")
    reading = threading.Thread(target=lambda: read.append(weights.read_bytes()))
    reading.start()
    assert mount.agent.wanted.wait(20)
    assert not read
    mount.agent.blobs[mount.keys["model.safetensors"]].seal()
    reading.join(20)
    assert read == [BIG]


@pytest.mark.parametrize("layout", [None, LAYOUT], ids=["plain", "hf"])
def test_a_lazy_mount_has_the_names_sizes_and_links_of_the_published_tree(
    lazy_root: Path, layout: HubLayout | None
) -> None:
    manifest = manifest_of(layout)
    with closing(open_store(lazy_root / "store")) as store:
        fetch(store, manifest, CONTENTS)
        published = seen(store.root / tree_path(manifest.revision))
    with lazy_mount(lazy_root, CONTENTS, manifest=manifest) as mount:
        assert seen(mount.point) == published


def seen(root: Path) -> dict[str, tuple[int, int, int, str]]:
    """By path: mode, links, size, and the first path of the same inode."""
    first: dict[int, str] = {}
    found = {}
    for path in sorted(root.rglob("*")):
        status, name = os.lstat(path), path.relative_to(root).as_posix()
        is_file = stat.S_ISREG(status.st_mode)
        # a blob of the store has one link of its own beside those of the tree
        links = len(links_of(root, status.st_ino)) if is_file else 0
        same = first.setdefault(status.st_ino, name) if is_file else ""
        found[name] = (status.st_mode, links, status.st_size if is_file else 0, same)
    return found


def links_of(root: Path, inode: int) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.stat().st_ino == inode]


def test_a_file_in_two_places_is_read_by_the_kernel_in_both_once_it_is_complete(
    mount: LazyMount,
) -> None:
    folder = mount.point / "models--org--name"
    digest = mount.keys["model.safetensors"]
    places = [
        folder / "snapshots" / LAYOUT.commit / "model.safetensors",
        folder / "snapshots" / LAYOUT.commit / "original/consolidated.safetensors",
        folder / "blobs" / digest,
    ]
    assert len({place.stat().st_ino for place in places}) == 1
    mount.agent.blobs[digest].seal()
    assert [place.read_bytes() == BIG for place in places] == [True] * 3


def test_node_ids_are_a_format() -> None:
    """Mounts outlive upgrades: a successor must give every path the id that the kernel knows."""

    def ids(manifest: Manifest) -> dict[str, int]:
        tree = Tree(manifest, mtime_s=0)
        found = {}
        for path, _ in manifest.tree():
            node = 1
            for name in path.encode().split(b"/"):
                child = tree.child(node, name)
                assert child
                node = child.node
            found[path] = node
        return found

    files = [File("a/b", 1, "1" * 64), File("a/c", 1, "1" * 64), File("d", 0, "2" * 64)]
    assert ids(Manifest.of(files)) == {"a/b": 3, "a/c": 3, "d": 4}
    layout = HubLayout("models", "o/n", "ab" * 20, ("main",))
    one = Manifest.of([file_of("w", b"x", by_content=True)], layout)
    assert list(ids(one).values()) == [5, 5, 8]
