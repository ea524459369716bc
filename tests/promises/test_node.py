"""Promises that a node keeps, with a real agent over a real store."""

import asyncio
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_node import app
from modelcache_node.app import AgentOptions
from support.agent_process import Agent, Document, command, run_cli, until
from support.fault_origin import FaultOrigin
from support.faults import Fault, Held
from support.s3_source import Source, content_of

Prefetch = Callable[..., Document]
pytestmark = pytest.mark.timeout(120)

MIB = 1 << 20
#: Slow enough to look on: the model of these tests takes four seconds.
SLOWLY = ("--download-limit", "8Mi")


def is_under_way(node: Agent) -> bool:
    return any(
        one["bytesPresent"] >= CHUNK_BYTES and one["state"] != "Ready"
        for one in node.revisions().values()
    )


def begin(node: Agent, source: Source) -> subprocess.Popen[str]:
    """A prefetch that goes on beside the test."""
    words = ("prefetch", *source.flags, "--socket", node.socket, "--model-cache", "model")
    return subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True)


def test_promise_tree_appears_whole(node: Agent) -> None:
    gate = threading.Event()
    files = {"config.json": b"{}", "weights": bytes(2 * CHUNK_BYTES)}
    with FaultOrigin() as origin:
        for name, data in files.items():
            origin.put(f"models/model/{name}", data)
        origin.script(*[Fault()] * 4, Held(gate))  # a probe of each, all but the last chunk
        source = ("s3://models/model", "--endpoint", origin.url, "--anonymous")
        words = ("prefetch", *source, "--socket", node.socket, "--model-cache", "model")
        with subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True) as running:
            until(lambda: is_under_way(node), "a fetch under way")
            [revision] = node.revisions()
            assert not node.tree(revision).exists()
            assert node.lease("v1")["state"] == "Waiting"
            gate.set()
            answer = node.lease("v1", waitS=60)
            assert answer["state"] == "Ready"
            assert content_of(node.data_dir / answer["tree"]) == files
            assert running.wait() == 0


def test_promise_every_user_may_read(node: Agent, source: Source, prefetch: Prefetch) -> None:
    tree = node.tree(prefetch(node, source)["revision"])
    for path in (tree, *tree.rglob("*")):
        expected = 0o555 if path.is_dir() else 0o444
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_promise_integrity_says_what_held(node: Agent, source: Source, prefetch: Prefetch) -> None:
    assert prefetch(node, source)["integrity"] == "StoreChecksum"


def test_promise_corruption_is_found_and_repaired(
    node: Agent, source: Source, prefetch: Prefetch
) -> None:
    revision = prefetch(node, source)["revision"]
    victim = node.tree(revision) / "shards" / "1.safetensors"
    victim.chmod(0o644)  # as a disk would: behind everybody's back
    with victim.open("r+b") as opened:
        opened.seek(CHUNK_BYTES + 5)
        byte = opened.read(1)
        opened.seek(CHUNK_BYTES + 5)
        opened.write(bytes([byte[0] ^ 1]))
    found = node.cli("verify", revision, "--json")
    assert '"corrupt":1' in found.stdout
    prefetch(node, source)
    assert content_of(node.tree(revision)) == source.files()
    assert node.cli("verify", revision).returncode == 0


def test_promise_a_killed_fetch_resumes(
    stopped_node: Agent, source: Source, prefetch: Prefetch
) -> None:
    stopped_node.start(*SLOWLY)
    with begin(stopped_node, source) as interrupted:
        until(lambda: is_under_way(stopped_node), "a fetch under way")
        stopped_node.kill()
        interrupted.kill()
    present = sum(one["bytesPresent"] for one in _revisions_after_restart(stopped_node))
    assert present >= CHUNK_BYTES
    size = sum(map(len, source.files().values()))
    summary = prefetch(stopped_node, source)
    assert summary["bytesFromOrigin"] <= size - present
    assert content_of(stopped_node.tree(summary["revision"])) == source.files()


def _revisions_after_restart(node: Agent) -> list[Document]:
    node.start()
    return list(node.revisions().values())


def test_promise_leased_is_never_evicted(node: Agent, source: Source, prefetch: Prefetch) -> None:
    revision = prefetch(node, source)["revision"]
    assert node.lease("v1")["state"] == "Ready"
    node.report_leases({"v1": revision})
    refused = node.cli("evict", revision)
    assert refused.returncode == 2
    assert "leased" in refused.stderr
    node.kill()
    node.start()
    assert node.cli("evict", revision).returncode == 2  # a lease is on disk
    assert node.ask("DELETE", "/v1/leases/v1")[0] == 204
    assert node.cli("evict", revision).returncode == 0
    assert not node.tree(revision).exists()


def test_promise_pinned_is_never_evicted(node: Agent, source: Source, prefetch: Prefetch) -> None:
    revision = prefetch(node, source)["revision"]
    node.report_leases({})
    assert node.cli("pin", revision).returncode == 0
    assert "pinned" in node.cli("evict", revision).stderr
    assert node.tree(revision).is_dir()
    assert node.cli("pin", revision, "--off").returncode == 0
    assert node.cli("evict", revision).returncode == 0


def _another(source: Source, mebibytes: int) -> tuple[str, ...]:
    """Another model in the same bucket; the flags that name it."""
    folder = source.folder.parent / f"another-{mebibytes}"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(mebibytes * MIB))
    return (f"s3://models/{folder.name}", *source.flags[1:])


@pytest.mark.looptime(False)
async def test_promise_nothing_is_evicted_before_the_report(
    node: Agent, source: Source, prefetch: Prefetch
) -> None:
    old = await asyncio.to_thread(prefetch, node, source)
    node.stop()
    another = ("prefetch", *_another(source, 34))
    async with AsyncExitStack() as stack:
        options = AgentOptions(
            data_dir=node.data_dir,
            socket=node.socket,
            listen=("127.0.0.1", 0),
            capacity_bytes=50 * MIB,
            movers=1,
            allow_any_disk=True,
            node_name="n1",  # in a cluster, where a plugin mounts
        )
        cache = (await app._open_agent(options, stack)).cache
        await app._serve_local(options, cache, stack)
        refused = await asyncio.to_thread(node.cli, *another)
        assert refused.returncode == 75
        assert "before the CSI plugin has reported" in refused.stderr
        assert node.tree(old["revision"]).is_dir()
        await asyncio.to_thread(node.report_leases, {})
        accepted = await asyncio.to_thread(node.cli, *another)
        assert accepted.returncode == 0, accepted.stderr
        assert not node.tree(old["revision"]).exists()


def test_promise_a_model_too_large_evicts_nothing(
    stopped_node: Agent, source: Source, prefetch: Prefetch
) -> None:
    stopped_node.start("--capacity", "50Mi")
    old = prefetch(stopped_node, source)["revision"]
    stopped_node.report_leases({})
    refused = stopped_node.cli("prefetch", *_another(source, 80))
    assert refused.returncode == 75
    assert "InsufficientCapacity" in refused.stderr
    assert stopped_node.tree(old).is_dir()


@pytest.mark.root
def test_promise_a_full_disk_fails_no_reader(
    stopped_node: Agent, source: Source, prefetch: Prefetch, small_disk: Callable[[Path, int], None]
) -> None:
    stopped_node.data_dir.mkdir()
    small_disk(stopped_node.data_dir, 60)
    stopped_node.start("--capacity", "1Gi")  # believes in more than there is
    old = prefetch(stopped_node, source)["revision"]
    assert stopped_node.lease("v1")["state"] == "Ready"
    words = command("prefetch", *_another(source, 34), "--socket", stopped_node.socket)
    with (
        (stopped_node.tree(old) / "shards" / "1.safetensors").open("rb") as reader,
        subprocess.Popen(words, stdout=subprocess.DEVNULL) as paused,
    ):
        until(lambda: "full" in stopped_node.log.read_text(), "a full disk")
        assert reader.read() == source.files()["shards/1.safetensors"]
        assert content_of(stopped_node.tree(old)) == source.files()
        small_disk(stopped_node.data_dir, 120)
        assert paused.wait() == 0


def test_promise_a_mount_needs_a_proof(node: Agent, source: Source, prefetch: Prefetch) -> None:
    revision = prefetch(node, source, "--namespace", "team")["revision"]
    assert node.lease("v1", namespace="team")["state"] == "Ready"
    for wish in ({}, {"revision": revision}):
        answer = node.lease("v2", namespace="rival", **wish)
        assert answer["state"] == "Waiting"
        assert answer["reason"] == "NotProved"
        assert "tree" not in answer


def test_promise_credentials_stay_with_the_job(node: Agent, source: Source) -> None:
    secrets = {"AWS_ACCESS_KEY_ID": "AKIDCANARY", "AWS_SECRET_ACCESS_KEY": "secretcanary"}
    flags = [flag for flag in source.flags if flag != "--anonymous"]
    done = run_cli("prefetch", *flags, "--socket", node.socket, environment=secrets)
    assert done.returncode == 0, done.stderr
    node.stop()
    kept = [path for path in node.data_dir.rglob("*") if path.is_file()]
    assert len(kept) > 4
    for path in (*kept, node.log):
        raw = path.read_bytes()
        for canary in (b"AKIDCANARY", b"secretcanary", b"X-Amz-Signature"):
            assert canary not in raw, path


@pytest.mark.looptime(False)
@pytest.mark.parametrize(
    "lie", [{"sizeBytes": 12}, {"sizeBytes": 1 << 40}, {"validator": '"another"'}]
)
async def test_promise_the_agent_believes_the_origin(
    node: Agent, source: Source, lie: dict[str, object]
) -> None:
    url = f"{source.endpoint.url}/models/model/config.json"
    async with aiohttp.ClientSession() as http, http.head(url) as head:
        truth = {
            "sizeBytes": int(head.headers["Content-Length"]),
            "validator": head.headers["ETag"],
        }
    listed = {"path": "config.json", "grant": {"url": url}, **truth, **lie}
    connector = aiohttp.UnixConnector(str(node.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as local,
        local.ws_connect("http://localhost/v1/prefetch") as session,
    ):
        await session.send_json({"type": "Hello", "modelCache": "model"})
        await session.send_json({"type": "Objects", "objects": [listed]})
        await session.send_json({"type": "ListingEnd", "nObjects": 1})
        async with asyncio.timeout(60):
            answer = await session.receive_json()
    assert answer["type"] == "Failed"
    assert answer["reason"] in {"SourceChanged", "SourceLies"}
    _, report = node.ask("GET", "/v1/status")
    assert report["revisions"] == report["proofs"] == []


def test_promise_summaries_are_stable(
    node: Agent, source: Source, prefetch: Prefetch, tmp_path: Path
) -> None:
    summary = prefetch(node, source)
    assert {"revision", "bytes", "bytesFromOrigin", "bytesFromPeers", "seconds", "integrity"} <= (
        summary.keys()
    )
    assert content_of(node.tree(summary["revision"])) == source.files()
    pulled = run_cli("pull", *source.flags, "--to", tmp_path / "pulled", "--json")
    assert pulled.returncode == 0, pulled.stderr
    for field in ("revision", "bytes", "seconds", "cpu_seconds", "retries", "integrity"):
        assert f'"{field}": ' in pulled.stdout


@pytest.mark.parametrize(
    ("code", "uri"),
    [
        (42, "s3://no-such-bucket/model"),
        (42, "s3://models/no-such-prefix"),
        (42, "ftp://models/model"),
        (2, ""),
    ],
)
def test_promise_exit_codes_are_stable(source: Source, tmp_path: Path, code: int, uri: str) -> None:
    words = (uri, *source.flags[1:]) if uri else ("s3://models/model", "--no-such-flag")
    done = run_cli("pull", *words, "--to", tmp_path / "pulled", "--give-up", "1")
    assert done.returncode == code, done.stderr


def test_promise_exit_codes_are_stable__a_store_that_is_away(
    source: Source, tmp_path: Path
) -> None:
    away = ("--endpoint", "http://127.0.0.1:9", "--anonymous")  # discard: nobody listens
    done = run_cli(
        "pull", "s3://models/model", *away, "--to", tmp_path / "pulled", "--give-up", "1"
    )
    assert done.returncode == 75, done.stderr
