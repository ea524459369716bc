"""A repository in Hugging Face's own layout: its library finds everything, offline."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache

from modelcache_api.errors import InvalidRequestError, InvalidSourceError
from modelcache_api.layouts import HUB, HubLayout, presented
from modelcache_api.manifest import Checksum, File, Manifest
from modelcache_node.patience import Patience
from modelcache_node.pulling import Puller

pytestmark = [pytest.mark.looptime(False), pytest.mark.timeout(180)]

COMMIT = "ab" * 20
LAYOUT = HubLayout("models", "org/name", COMMIT, ("main", "v1"))
SHA256 = Checksum.parse("sha256:" + "cd" * 32)
GIT = Checksum.parse("gitsha1:" + "ef" * 20)
FILES = (
    File("config.json", 2, "11" * 32, GIT),
    File("copy.json", 2, "11" * 32, GIT),
    File("sub/weights", 9, "cd" * 32, SHA256),
)
#: A change of the form needs a new version.
CANONICAL = (
    b'{"files":[{"blob":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",'
    b'"checksum":"sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",'
    b'"path":"w","size":9}],"layout":{"commit":"abababababababababababababababababababab",'
    b'"kind":"models","refs":["main","v1"],"repository":"org/name"},"version":2}'
)


@pytest.fixture
def hub(stores):
    return stores.get("hf")


async def pull(store, folder, movers, **changes):
    options = replace(store.options(), layout=HUB, **changes)
    return await Puller(
        options,
        folder,
        movers,
        now=time.time,
        patience=Patience(30.0, clock=time.monotonic),
        on_progress=lambda _: None,
    ).run()


async def test_promise_the_hubs_library_finds_a_hub_layout(hub, movers, tmp_path):
    files = {"config.json": b"{}", "model.safetensors": os.urandom(5000), "sub/a.txt": b"hello"}
    for path, data in files.items():
        hub.put(path, data)
    cache = tmp_path / "cache"
    await pull(hub, cache, movers)
    trees = list(cache.glob(".modelcache/revisions/*/tree"))
    assert len(trees) == 1, "the tree that pods get, read-only"
    found = snapshot_download(hub.repository, cache_dir=trees[0], local_files_only=True)
    for path, data in files.items():
        with open(f"{found}/{path}", "rb") as opened:
            assert opened.read() == data
    config = try_to_load_from_cache(hub.repository, "config.json", cache_dir=trees[0])
    assert config == f"{found}/config.json"
    (repository,) = scan_cache_dir(trees[0]).repos
    assert (repository.repo_id, {one.refs for one in repository.revisions}) == (
        hub.repository,
        {frozenset({"main"})},
    )
    assert not any(path.is_symlink() for path in trees[0].rglob("*"))


async def test_it_is_found_by_the_environment_alone_as_servers_do(hub, movers, tmp_path):
    hub.put("config.json", b'{"model_type": "x"}')
    await pull(hub, tmp_path, movers)
    (tree,) = tmp_path.glob(".modelcache/revisions/*/tree")
    script = (
        "import sys; from huggingface_hub import hf_hub_download;"
        "print(open(hf_hub_download(sys.argv[1], 'config.json')).read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, hub.repository],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tree)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.strip() == '{"model_type": "x"}', done.stderr


async def test_a_tag_is_found_under_its_name_and_as_main(hub, movers, tmp_path):
    hub.put("config.json", b"{}")
    hub.hub.tags[hub.repository, "v1"] = hub.hub.commits[hub.repository][-1][0]
    hub.put("config.json", b"{}later")
    await pull(hub, tmp_path, movers, uri=f"{hub.uri}@v1")
    (tree,) = tmp_path.glob(".modelcache/revisions/*/tree")
    for revision in ("v1", "main"):
        found = snapshot_download(
            hub.repository, revision=revision, cache_dir=tree, local_files_only=True
        )
        with open(f"{found}/config.json", "rb") as opened:
            assert opened.read() == b"{}"


async def test_a_part_of_a_repository_has_no_such_layout(hub, movers, tmp_path):
    hub.put("sub/config.json", b"{}")
    with pytest.raises(InvalidSourceError, match="whole repositories"):
        await pull(hub, tmp_path, movers, uri=f"{hub.uri}/sub")


async def test_other_sources_have_no_such_layout(stores, movers, tmp_path):
    web = stores.get("https")
    web.put("config.json", b"{}")
    with pytest.raises(InvalidSourceError, match="hf:// sources alone"):
        await pull(web, tmp_path, movers)


def test_a_manifest_with_a_layout_is_version_2_and_reads_back():
    manifest = Manifest.of([File("w", 9, "cd" * 32, SHA256)], LAYOUT)
    assert manifest.canonical() == CANONICAL
    assert Manifest.parse(CANONICAL) == manifest


def test_every_path_of_a_layout_is_there_once():
    paths = [path for path, _ in presented(FILES, LAYOUT)]
    root = "models--org--name"
    assert sorted(paths) == [
        f"{root}/blobs/{'cd' * 32}",
        f"{root}/blobs/{'ef' * 20}",
        f"{root}/refs/main",
        f"{root}/refs/v1",
        f"{root}/snapshots/{COMMIT}/config.json",
        f"{root}/snapshots/{COMMIT}/copy.json",
        f"{root}/snapshots/{COMMIT}/sub/weights",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "spaces"},
        {"repository": "../name"},
        {"repository": "org/na/me"},
        {"commit": "main"},
        {"refs": ()},
        {"refs": ("main", "main")},
        {"refs": ("main", "../../evil")},
        {"refs": ("/evil",)},
    ],
)
def test_a_layout_leads_nowhere_else(changes):
    with pytest.raises((InvalidRequestError, InvalidSourceError)):
        Manifest.of(FILES, replace(LAYOUT, **changes))


def test_a_file_that_no_hub_names_has_no_place_in_the_layout():
    with pytest.raises(InvalidRequestError, match="no digest"):
        Manifest.of([File("a", 1, "11" * 32, None)], LAYOUT)
