"""From a ModelCache to pods: it becomes ready on every node, and pods of every kind read it."""

from collections.abc import Callable

import pytest

from e2e.cluster import Capability, Cluster, Mount, parse_mount
from e2e.library import Book, Library
from e2e.pods import Fields, claimed, container, inline, mount, persistent, pod
from e2e.readers import Reader
from e2e.release import Release
from e2e.tenants import Tenant
from e2e.watching import conditions, watching

SIZE_MIB = 384
NAME = "model"
FOLDER = "extra/prompts"
USERS = {"root": 0, "user": 1000, "anybody": 1_234_567_890}


@pytest.fixture(scope="module")
def book(library: Library) -> Book:
    return library.book("main", SIZE_MIB)


@pytest.fixture(scope="module")
def ready(tenant: Tenant, book: Book) -> Tenant:
    """A tenant whose model is on every node, and a claim for it."""
    tenant.declare(NAME, book.uri)
    tenant.wait_ready(NAME)
    tenant.cluster.apply(*persistent(f"{tenant.namespace}-{NAME}", tenant.namespace, NAME))
    return tenant


def test_a_model_cache_is_resolved_then_progresses_then_is_ready(
    tenant: Tenant, book: Book, nodes: list[str]
) -> None:
    tenant.declare("watched", book.uri)
    with watching(tenant.cluster, "modelcache", "watched", tenant.namespace) as record:
        status = tenant.wait_ready("watched")
    told = [conditions(state) for state in record.states()]
    resolved_at = first(told, Resolved="True")
    progressing_at = first(told, Resolved="True", Progressing="True", Ready="False")
    ready_at = first(told, Ready="True")
    assert resolved_at <= progressing_at < ready_at, told
    assert told[-1] == {
        "Resolved": "True",
        "Progressing": "False",
        "Ready": "True",
        "Degraded": "False",
        "Redundant": "False",
    }
    assert status["nodes"] == {
        "desired": len(nodes),
        "ready": len(nodes),
        "fetching": 0,
        "failed": 0,
    }
    assert status["sizeBytes"] == book.size_bytes
    assert status["files"] == len(book.files)


def first(told: list[dict[str, str]], **wanted: str) -> int:
    """Where conditions are first so."""
    return next(i for i, found in enumerate(told) if wanted.items() <= found.items())


@pytest.mark.parametrize("kind", ["inline", "claim"])
def test_pods_on_every_node_read_every_file_as_any_user(
    kind: str, ready: Tenant, book: Book, nodes: list[str]
) -> None:
    volume = (
        inline("model", NAME) if kind == "inline" else claimed("model", f"{ready.namespace}-{NAME}")
    )
    mounts = [mount("model", "/whole"), mount("model", "/part", FOLDER)]
    words = ("read_all", "/whole", "/part")
    image = ready.cluster.image
    names = {node: f"{kind}-{node}" for node in nodes}
    for node, name in names.items():
        readers = [container(user, image, words, mounts, uid=uid) for user, uid in USERS.items()]
        ready.start(pod(name, readers, [volume], node=node))
    ready.wait_finished(*names.values())
    part = {
        path.removeprefix(f"{FOLDER}/"): digest
        for path, digest in book.sums.items()
        if path.startswith(f"{FOLDER}/")
    }
    assert part
    for name in names.values():
        for user, uid in USERS.items():
            found = ready.report(name, user)
            assert found == {"uid": uid, "sums": {"/whole": book.sums, "/part": part}}, name
    ready.remove(*names.values(), wait=False)


def test_safetensors_loads_every_tensor_on_every_node(
    ready: Tenant, book: Book, nodes: list[str]
) -> None:
    words = ("load_tensors", "/model")
    loader = container("loader", ready.cluster.test_image, words, [mount("model")])
    names = [f"loader-{node}" for node in nodes]
    for node, name in zip(nodes, names, strict=True):
        ready.start(pod(name, [loader], [inline("model", NAME)], node=node))
    ready.wait_finished(*names)
    shards = {path: facts for path, facts in book.files.items() if path.endswith(".safetensors")}
    for name in names:
        found = ready.report(name)
        assert found.keys() == shards.keys()
        loaded_bytes = sum(sum(tensors.values()) for tensors in found.values())
        assert loaded_bytes == SIZE_MIB << 20
    ready.remove(*names, wait=False)


@pytest.fixture(scope="module")
def intruder(ready: Tenant, nodes: list[str]) -> Fields:
    """What became of a root that tried to change the volume, and the mounts that it saw."""
    words = ("try_to_write", "/model")
    writer = container("writer", ready.cluster.image, words, [mount("model")], uid=0)
    ready.start(pod("writer", [writer], [inline("model", NAME)], node=nodes[0]))
    ready.wait_finished("writer")
    found: Fields = ready.report("writer")
    return found


def test_a_volume_cannot_be_written_not_even_by_root(intruder: Fields) -> None:
    assert intruder["errors"]
    assert set(intruder["errors"].values()) == {"EROFS"}, intruder["errors"]


def test_a_volume_is_a_bind_mount_of_a_local_tree(intruder: Fields, ready: Tenant) -> None:
    mounts = map(parse_mount, intruder["mountinfo"].splitlines())
    [mounted] = [found for found in mounts if found.target == "/model"]
    assert_is_local_tree(mounted, ready.status(NAME)["revision"])
    assert "ro" in mounted.options


@pytest.mark.needs(Capability.NODES)
def test_on_the_node_a_volume_has_neither_set_user_id_nor_devices(
    ready: Tenant, book: Book, nodes: list[str]
) -> None:
    reader = Reader(ready, "mounted", NAME, nodes[0])
    reader.start(book)
    uid = ready.pod(reader.name)["metadata"]["uid"]
    mounts = ready.cluster.mounts(nodes[0])
    [mounted] = [
        found
        for found in mounts
        if f"/pods/{uid}/volumes/" in found.target and "/revisions/" in found.root
    ]
    assert_is_local_tree(mounted, ready.status(NAME)["revision"])
    assert {"ro", "nosuid", "nodev"} <= mounted.options, mounted
    reader.remove()


def assert_is_local_tree(mounted: Mount, revision: str) -> None:
    digest = revision.removeprefix("sha256:")
    assert mounted.root.endswith(f"/revisions/{digest}/tree"), mounted
    assert not mounted.fs_type.startswith(("fuse", "nfs", "overlay")), mounted


def test_a_pod_outside_the_placement_gets_its_model_too(
    tenant: Tenant, library: Library, nodes: list[str]
) -> None:
    placed, other = nodes[:2]
    book = library.book("elsewhere", 32)
    tenant.declare("elsewhere", book.uri, node=placed)
    reader = container("reader", tenant.cluster.image, ("read_all", "/model"), [mount("model")])
    tenant.start(pod("outside", [reader], [inline("model", "elsewhere")], node=other))
    tenant.wait_finished("outside")
    assert tenant.report("outside")["sums"] == {"/model": book.sums}
    status = tenant.wait_ready("elsewhere")
    assert status["nodes"]["desired"] == status["nodes"]["ready"] == 1


def test_a_pod_of_another_namespace_does_not_get_it(
    ready: Tenant, new_tenant: Callable[..., Tenant], cluster: Cluster, nodes: list[str]
) -> None:
    stranger = new_tenant("stranger")
    revision = ready.status(NAME)["revision"]
    reader = container("reader", cluster.image, ("read_all", "/model"), [mount("model")])
    volume = inline("model", NAME, revision=revision)
    stranger.start(pod("thief", [reader], [volume], node=nodes[0]))
    event = stranger.wait_event("thief", "ModelCacheNotFound")
    assert NAME in event["message"]
    stranger.remove("thief")


def test_the_charts_own_test_passes(release: Release) -> None:
    assert "Succeeded" in release.test()
