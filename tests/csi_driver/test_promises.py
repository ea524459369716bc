"""Promises of docs/SEMANTICS.md that the plugin keeps, on real mounts."""

import errno
import mmap
import os

import grpc
import pytest

from modelcache_api.names import tree_path
from support.csi_plugin import NO_WAIT_S, Plugin
from support.mount_namespace import mounts_at

pytestmark = [pytest.mark.root, pytest.mark.looptime(False)]


async def test_promise_volumes_are_read_only(plugin: Plugin) -> None:
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    file, folder = target / "config.json", target / "w"
    attempts = (
        lambda: file.write_bytes(b""),
        lambda: os.truncate(file, 0),
        lambda: file.rename(target / "other"),
        file.unlink,
        lambda: file.chmod(0o777),
        lambda: os.chown(file, 1, 1),
        lambda: os.utime(file),
        (target / "new").touch,
        (target / "new").mkdir,
        lambda: os.link(file, target / "new"),
        lambda: folder.chmod(0o777),
    )
    for attempt in attempts:
        with pytest.raises(OSError, match="Read-only file system") as refused:
            attempt()
        assert refused.value.errno == errno.EROFS
    [mount] = mounts_at(target)
    assert {"ro", "nosuid", "nodev"} <= mount.options


async def test_promise_mounts_are_native(plugin: Plugin) -> None:
    revision = await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    stored = plugin.settings.data_dir / tree_path(revision) / "config.json"
    seen = target / "config.json"
    assert os.path.samestat(stored.stat(), seen.stat())
    with seen.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == stored.read_bytes()


async def test_promise_a_mount_never_changes(plugin: Plugin) -> None:
    await plugin.cached("llama")
    target = plugin.target()
    await plugin.publish(target)
    before = {path: path.stat().st_ino for path in target.rglob("*")}
    newer = plugin.agent.add({"config.json": b"of the next revision"})
    made = await plugin.declare("llama", revision=newer.revision)
    uid = made["metadata"]["uid"]
    plugin.agent.prove(newer.revision, namespace="team", model_cache="llama", uid=uid)
    await plugin.publish(target)  # the kubelet may ask again
    assert {path: path.stat().st_ino for path in target.rglob("*")} == before
    assert (target / "config.json").read_bytes() == b"llama"
    another = plugin.target("uid-2")
    await plugin.publish(another)
    assert (another / "config.json").read_bytes() == b"of the next revision"


async def test_promise_own_namespace_only(plugin: Plugin) -> None:
    revision = await plugin.cached("llama", namespace="team")
    target = plugin.target()
    with pytest.raises(grpc.aio.AioRpcError, match="no ModelCache 'llama' in namespace 'rival'"):
        await plugin.publish(target, namespace="rival")
    await plugin.declare("llama", namespace="rival", revision=revision)  # knows the digest
    with pytest.raises(grpc.aio.AioRpcError) as waiting:
        await plugin.publish(target, namespace="rival", timeout_s=NO_WAIT_S)
    assert waiting.value.code() is grpc.StatusCode.ABORTED
    assert mounts_at(target) == []


@pytest.mark.parametrize(
    "name", ["endpoint", "uri", "secretName", "path", "namespace", "modelcache", "uid"]
)
async def test_promise_a_volume_names_nothing_else(plugin: Plugin, name: str) -> None:
    await plugin.cached()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await plugin.publish(plugin.target(), attributes={"modelCache": "llama", name: "x"})
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"unknown volume attribute {name!r}" in (refused.value.details() or "")
