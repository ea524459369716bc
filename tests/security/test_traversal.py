"""Path traversal: no name that somebody else chose leads out of where it belongs.

The class of CVE-2026-3864 (a volume's subDir), CVE-2026-3865, CVE-2020-8567 (secrets-store),
csi-hostpath #644 (volume ids) and CVE-2025-59352 (files of a peer).
"""

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from modelcache_api.errors import InvalidRequestError, UnsafePathError
from modelcache_api.manifest import File, Manifest
from modelcache_api.messages import Hello
from modelcache_api.names import blob_hex, revision_hex
from modelcache_csi.volume_context import TargetPath, parse_publish
from modelcache_node.store.store import Store
from support.caches import Clock, listing_of, open_node
from support.csi_plugin import publish_request
from support.peers import Holder, ask_for, exchange, serving

KUBELET = PurePosixPath("/var/lib/kubelet")
TARGET = "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/model/mount"


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(
    "name",
    ["../../escape", "/etc/cron.d/escape", "a/../../escape", "a/./b", "a//b", "a\\..\\b", "a\0b"],
)
async def test_by_object_key(tmp_path, source, name):
    """Traversal by key: a hostile listing writes nothing, inside or outside of the store."""
    async with open_node(tmp_path / "node" / "data", Clock()) as node:
        before = everything_below(tmp_path)
        objects = [replace(one, path=name) for one in await listing_of(source)][:1]
        with pytest.raises(UnsafePathError):
            await node.serve(Hello(namespace="team", model_cache="model"), objects)
        assert everything_below(tmp_path) == before
        assert node.cache.report().proofs == []


@pytest.mark.parametrize(
    "attributes",
    [
        {"modelCache": "../../kube-system/model"},
        {"modelCache": "kube-system/model"},
        {"modelCache": "model", "revision": "../../../etc"},
        {"modelCache": "model", "revision": "sha256:../../../../etc"},
        {"modelCache": "model", "revision": f"sha256:{'a' * 64}/../../x"},
        {"modelCache": "model", "subDir": "../../.."},
        {"modelCache": "model", "path": "/etc"},
    ],
)
def test_by_volume_attribute(attributes):
    """Traversal by volume attribute (CVE-2026-3864): no attribute holds a path."""
    with pytest.raises(InvalidRequestError):
        parse_publish(publish_request(TARGET, attributes=attributes), KUBELET)


@pytest.mark.parametrize("volume_id", ["../../escape", "a/../../b", "/etc/passwd", "a\nb"])
def test_by_volume_id(volume_id):
    """Traversal by volume id (csi-hostpath #644): an id is in no path, and in no lease's name."""
    publish = parse_publish(publish_request(TARGET, volume_id=volume_id), KUBELET)
    lease_id = publish.target.lease_id
    assert lease_id.removeprefix("mount-").isalnum()
    assert lease_id == TargetPath.parse(TARGET, KUBELET).lease_id


@pytest.mark.parametrize(
    "target",
    [
        "/etc/cron.d",
        "/var/lib/kubelet",
        "/var/lib/kubelet/../../../etc",
        "/var/lib/kubelet/pods/../../../../etc",
        "/var/lib/kubelet-evil/pods/x",
        "pods/x",
    ],
)
def test_by_target_path(target):
    """Traversal by target path: a volume appears beneath the kubelet's root only."""
    with pytest.raises(InvalidRequestError):
        TargetPath.parse(target, KUBELET)


@pytest.mark.parametrize("name", ["..", "../../escape", "a/../../escape", "/etc/passwd", ""])
def test_by_manifest(name):
    """Traversal by manifest: one with a hostile path is none, whoever made it."""
    with pytest.raises((InvalidRequestError, UnsafePathError)):
        Manifest.parse(_manifest(name, "a" * 64))


@pytest.mark.parametrize("key", ["../../../etc/shadow", "a" * 63, "A" * 64, "a" * 64 + "/x"])
def test_by_blob_key(key):
    """Traversal by blob key: it is 64 hexadecimal digits before it is a path."""
    with pytest.raises(InvalidRequestError):
        blob_hex(key)
    with pytest.raises(InvalidRequestError):
        Manifest.parse(_manifest("ok", key))
    with pytest.raises(InvalidRequestError):
        revision_hex(f"sha256:{key}")


def test_by_manifest_on_the_disk(tmp_path):
    """Traversal by manifest: a store takes up no manifest whose paths lead out of it."""
    Store.open(tmp_path / "data", allow_any_disk=True).close()
    raw = _manifest("../../../escape", "a" * 64)
    folder = tmp_path / "data" / "revisions" / hashlib.sha256(raw).hexdigest()
    folder.mkdir()
    (folder / "manifest.json").write_bytes(raw)
    store = Store.open(tmp_path / "data", allow_any_disk=True)
    assert store.revisions.revisions() == []
    assert not folder.exists()
    store.close()


@pytest.mark.looptime(False)
@pytest.mark.parametrize(
    "target",
    [
        "/peer/v1/chunks/../../../../etc/passwd/0",
        "/peer/v1/chunks/..%2f..%2f..%2fetc%2fpasswd/0",
        f"/peer/v1/chunks/{'ab' * 32}/../../state.db",
        f"/peer/v1/chunks/{'ab' * 32}.{'../' * 5}/0",
        f"/peer/v1/chunks/{'ab' * 32}/-1",
        "/peer/v1/../../state.db",
    ],
)
async def test_by_peer(tmp_path, target):
    """Traversal by peer id or path (CVE-2025-59352): a peer with the key reads chunks alone."""
    holder = Holder(tmp_path / "holder")
    holder.put(b"weights")
    async with serving(holder) as server:
        answer = await asyncio.to_thread(exchange, server.address, ask_for(target))
    holder.store.close()
    assert answer.status in {400, 404}
    assert b"root:" not in answer.body


def _manifest(path: str, blob: str) -> bytes:
    """A manifest of this path and blob, as canonical as a forger can make it."""
    genuine = json.loads(
        Manifest.of([_file("ok", "b" * 64)]).canonical(),
    )
    text = json.dumps(genuine, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace(json.dumps("ok"), json.dumps(path)).replace("b" * 64, blob).encode()


def _file(path: str, blob: str):
    return File(path, 3, blob, None)
