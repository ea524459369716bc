"""Directories that a store is opened in, and what is said of those that are none."""

import os
import sqlite3
from pathlib import Path

import pytest

from modelcache_api.errors import DiskFullError, InvalidRequestError
from modelcache_api.manifest import Manifest
from modelcache_node.store.index import MAX_PROOFS, PROOFS_PER_MODEL_CACHE, Index, Proof
from modelcache_node.store.store import Store
from support.small_disks import small_disks
from support.store_models import content, fetch, file_of, open_store, tree_of

DATA = {"a": content(1, 100)}
MODEL = Manifest.of([file_of("a", DATA["a"])])


def proof(at: float, *, namespace: str = "team", request: str = "r", revision: str = "") -> Proof:
    return Proof(namespace, "model", "uid", request, revision or MODEL.revision, at)


def test_a_store_keeps_its_id_and_an_emptied_directory_gets_another(home: Path) -> None:
    first = open_store(home / "s")
    first.close()
    again = open_store(home / "s")
    other = open_store(home / "t")
    assert first.store_id == again.store_id != other.store_id
    again.close()
    other.close()


def test_a_directory_of_somebody_elses_files_is_left_alone(home: Path) -> None:
    (home / "photos").mkdir()
    with pytest.raises(InvalidRequestError, match="is no store and holds 'photos'; use an empty"):
        open_store(home)
    assert sorted(os.listdir(home)) == ["lock", "photos"]


def test_a_store_of_another_version_says_which_and_what_to_do(home: Path) -> None:
    open_store(home).close()
    (home / "VERSION").write_text("7\n")
    with pytest.raises(InvalidRequestError, match=r"version '7', this is for 1; empty it, or run"):
        open_store(home)


def test_a_store_in_use_names_the_process(home: Path) -> None:
    first = open_store(home)
    with pytest.raises(InvalidRequestError, match=f"in use by process {os.getpid()}; stop it"):
        open_store(home)
    first.close()
    open_store(home).close()


def test_the_disk_of_the_root_file_system_is_refused(tmp_path: Path) -> None:
    if os.stat(tmp_path).st_dev != os.stat("/").st_dev:
        pytest.skip("temporary files are on a disk of their own here")
    with pytest.raises(InvalidRequestError, match=r"root file system.*use a local disk, or say"):
        Store.open(tmp_path / "s")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database" * 1000),
        lambda path: path.write_bytes(path.read_bytes()[:5000] + os.urandom(9000)),
        lambda path: sqlite3.connect(path).executescript("PRAGMA user_version = 9;").close(),
    ],
    ids=["overwritten", "torn", "of-another-version"],
)
def test_a_damaged_index_is_moved_aside_and_the_models_stay(home: Path, damage) -> None:
    store = open_store(home)
    fetch(store, MODEL, DATA)
    store.index.put_proof(proof(1.0))
    store.close()
    for name in ("state.db-wal", "state.db-shm"):
        (home / name).unlink(missing_ok=True)
    damage(home / "state.db")
    raw = (home / "state.db").read_bytes()
    again = open_store(home)
    assert again.is_complete(MODEL.revision)
    assert tree_of(again, MODEL.revision) == DATA
    assert again.index.proofs == ()
    again.index.put_proof(proof(2.0))
    again.close()
    assert (home / "state.db.damaged").read_bytes() == raw
    kept = Index.open(home / "state.db")
    assert [one.at for one in kept.proofs] == [2.0]
    kept.close()


def test_a_manifest_that_is_not_what_its_name_says_is_thrown_away(home: Path) -> None:
    store = open_store(home)
    fetch(store, MODEL, DATA)
    store.close()
    [manifest] = (home / "revisions").glob("*/manifest.json")
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes().replace(b'"size":100', b'"size":101'))
    again = open_store(home)
    assert again.revisions.revisions() == []
    assert again.blobs.keys() == frozenset(), "nor is what only it named kept"
    again.close()


def test_what_is_remembered_survives(home: Path) -> None:
    store = open_store(home)
    store.index.put_lease("v", revision="r1", namespace="n", pod_name="p", pod_uid="u", at=1.0)
    store.index.set_pinned("r2", pinned=True)
    store.index.add_moved("r1", from_origin=10, from_peers=5)
    store.index.add_moved("r1", from_origin=1, from_peers=1)
    store.close()
    again = open_store(home)
    assert again.index.leases == {"v": "r1"}
    assert again.index.pins == {"r2"}
    assert again.index.last_used == {"r1": 1.0}
    assert again.index.moved == {"r1": (11, 6)}
    again.close()


def test_a_report_replaces_all_leases(home: Path) -> None:
    index = Index.open(home / "state.db")
    index.put_lease("old", revision="r", namespace="n", pod_name="p", pod_uid="u", at=1.0)
    index.replace_leases({"new": "r", "other": "q"}, 5.0)
    index.close()
    again = Index.open(home / "state.db")
    assert again.leases == {"new": "r", "other": "q"}
    assert again.last_used == {"r": 5.0, "q": 5.0}
    again.close()


def test_old_proofs_of_one_model_cache_go_and_those_of_others_stay(home: Path) -> None:
    index = Index.open(home / "state.db")
    index.put_proof(proof(0.0, namespace="other"))
    for at in range(PROOFS_PER_MODEL_CACHE + 5):
        index.put_proof(proof(float(at + 1), request=f"r{at}"))
    mine = [one.at for one in index.proofs if one.namespace == "team"]
    assert mine == [float(at + 1) for at in range(5, PROOFS_PER_MODEL_CACHE + 5)]
    assert [one.at for one in index.proofs if one.namespace == "other"] == [0.0]
    index.close()


def test_proofs_are_bounded(home: Path) -> None:
    index = Index.open(home / "state.db")
    rows = [("n", f"m{at}", f"uid{at}", "r", "rev", float(at)) for at in range(MAX_PROOFS)]
    with index._db:
        index._db.executemany(
            "INSERT INTO proofs (namespace, model_cache, model_cache_uid, request, revision, at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )
    index.put_proof(proof(float(MAX_PROOFS)))
    assert len(index.proofs) == MAX_PROOFS
    assert index.proofs[0].at == 1.0
    index.close()


@pytest.mark.root
def test_a_full_disk_is_told_from_a_damaged_index(home: Path) -> None:
    with small_disks() as disk:
        disk(home, 1)
        index = Index.open(home / "state.db")
        index.put_lease("kept", revision="r", namespace="n", pod_name="p", pod_uid="u", at=1.0)
        (home / "filler").write_bytes(bytes(_free_bytes(home)))
        with pytest.raises(DiskFullError, match="leases and proofs cannot be written"):
            _lease_many(index)
        n_leases = len(index.leases)
        index.close()
        (home / "filler").unlink()
        again = Index.open(home / "state.db")
        assert len(again.leases) == n_leases, "what was refused is not there, the rest is"
        assert not (home / "state.db.damaged").exists()
        again.close()


def _lease_many(index: Index) -> None:
    for volume in map(str, range(1000)):
        index.put_lease(volume, revision="r", namespace="n", pod_name="p", pod_uid="u", at=2.0)


def _free_bytes(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize
