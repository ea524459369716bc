"""The store's formats on disk, byte by byte. Whoever changes one gives it a new version."""

import contextlib
import sqlite3
import stat
from pathlib import Path

import pytest

from modelcache_api import chunks
from modelcache_api.errors import IntegrityMismatchError
from modelcache_api.manifest import Manifest
from modelcache_node.store import index, store
from modelcache_node.store.journal import Journal
from support.store_models import BOOT, NEXT_BOOT, PROVIDER, content, fetch, file_of, open_store

DATA = content(1, 100)
FILE = file_of("w/1", DATA)
CONTENT_FILE = file_of("w/2", DATA, by_content=True)

#: A sealed blob of 100 bytes in chunks of 64, with both checksums of the first.
JOURNAL = bytes.fromhex(
    "4d434348554e4b53"  # MCCHUNKS
    "0100" "0100" "40000000"  # version, sealed, chunk size
    "6400000000000000" "0200000000000000"  # blob size, chunks
    "00000000000000000000000000000001"  # boot
    "00000000000000000000000000000000"  # reserved
    "01000000" "44332211" "8877665544332211"  # present, CRC32C, CRC64/NVME
    "01000000" "04030201" "0000000000000000"
)  # fmt: skip


def test_a_journals_bytes_need_a_new_version_to_change(home: Path) -> None:
    journal = Journal.create(home / "chunks", 100, BOOT)
    journal.mark_present(0, 0x11223344, 0x1122334455667788)
    journal.mark_present(1, 0x01020304)
    journal.seal()
    journal.close()
    assert chunks.FORMAT_VERSION == 1
    assert (home / "chunks").read_bytes() == JOURNAL


def test_a_journal_of_version_1_reads_back(home: Path) -> None:
    (home / "chunks").write_bytes(JOURNAL)
    journal = Journal.open(home / "chunks", 100)
    assert journal.header.is_sealed
    assert journal.header.boot_id == BOOT
    assert journal.record(0).crc64nvme == 0x1122334455667788
    assert (list(journal.present()), journal.present_bytes()) == ([0, 1], 100)
    journal.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw[:40],
        lambda raw: b"X" + raw[1:],
        lambda raw: raw[:8] + b"\2" + raw[9:],
        lambda raw: raw[:10] + b"\3" + raw[11:],
        lambda raw: raw[:12] + b"\x80" + raw[13:],
        lambda raw: raw[:24] + b"\3" + raw[25:],
    ],
    ids=["short", "long", "header", "magic", "version", "flags", "chunk-size", "count"],
)
def test_a_journal_that_cannot_be_trusted_is_refused_whole(home: Path, damage) -> None:
    (home / "chunks").write_bytes(damage(JOURNAL))
    with pytest.raises(IntegrityMismatchError):
        Journal.open(home / "chunks", 100)


def test_the_layout_of_a_store_needs_a_new_version_to_change(home: Path) -> None:
    manifest = Manifest.of([FILE, CONTENT_FILE])
    opened = open_store(home / "s")
    fetch(opened, manifest, {"w/1": DATA, "w/2": DATA})
    partial = opened.blobs.open_partial("c" * 64, 70, PROVIDER)
    found = {
        path.relative_to(home / "s").as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (home / "s").rglob("*")
        if path.is_file() and not path.name.startswith("state.db-")
    }
    revision = f"revisions/{manifest.revision.removeprefix('sha256:')}"
    by_place, by_content = (f"blobs/{one.blob[:2]}/{one.blob}" for one in (FILE, CONTENT_FILE))
    assert store.VERSION == "1"
    assert found == {
        "VERSION": 0o644,
        "store_id": 0o644,
        "lock": 0o644,
        "state.db": 0o644,
        f"{by_place}/data": 0o444,
        f"{by_place}/chunks": 0o644,
        f"{by_content}/data": 0o444,
        f"{by_content}/chunks": 0o644,
        f"blobs/cc/{'c' * 64}.{PROVIDER}/data": 0o644,
        f"blobs/cc/{'c' * 64}.{PROVIDER}/chunks": 0o644,
        f"{revision}/manifest.json": 0o444,
        f"{revision}/tree/w/1": 0o444,
        f"{revision}/tree/w/2": 0o444,
    }
    assert (home / "s" / "VERSION").read_text() == "1\n"
    assert (home / "s" / "store_id").read_text() == f"{opened.store_id}\n"
    assert (home / "s" / revision / "tree/w/1").samefile(home / "s" / by_place / "data")
    for folder in ("tree", "tree/w"):
        assert stat.S_IMODE((home / "s" / revision / folder).stat().st_mode) == 0o555
    partial.close()
    opened.close()


def schema_of(path: Path) -> tuple[int, dict[str, list[tuple[str, str, int]]]]:
    """Version, and by table its columns' names, types and whether they must be there."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        columns = {
            name: [row[1:4] for row in database.execute(f"PRAGMA table_info({name})")]
            for (name,) in tables
        }
        return database.execute("PRAGMA user_version").fetchone()[0], columns


def test_the_schema_of_the_index_needs_a_new_version_to_change(home: Path) -> None:
    index.Index.open(home / "state.db").close()
    version, columns = schema_of(home / "state.db")
    text, real, whole = ("TEXT", 1), ("REAL", 1), ("INTEGER", 1)
    assert version == index.SCHEMA_VERSION == 3
    assert columns == {
        "uses": [("revision", *text), ("at", *real)],
        "pins": [("revision", *text)],
        "leases": [
            *((name, *text) for name in ("volume_id", "revision", "namespace")),
            *((name, *text) for name in ("pod_name", "pod_uid")),
            ("at", *real),
        ],
        "moved": [("revision", *text), ("from_origin", *whole), ("from_peers", *whole)],
        "proofs": [
            *((name, *text) for name in ("namespace", "model_cache", "model_cache_uid")),
            *((name, *text) for name in ("request", "revision")),
            *(("at", *real), ("root", *text), ("renewed_at", *real), ("provisional", *whole)),
        ],
    }


#: What the first version wrote; `modelcache_node.store.index` in its history.
INDEX_VERSION_1 = """
CREATE TABLE uses (revision TEXT PRIMARY KEY, at REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pins (revision TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE leases (
    volume_id TEXT PRIMARY KEY, revision TEXT NOT NULL, namespace TEXT NOT NULL,
    pod_name TEXT NOT NULL, pod_uid TEXT NOT NULL, at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE moved (
    revision TEXT PRIMARY KEY, from_origin INTEGER NOT NULL, from_peers INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE proofs (
    namespace TEXT NOT NULL, model_cache TEXT NOT NULL, model_cache_uid TEXT NOT NULL,
    request TEXT NOT NULL, revision TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (namespace, model_cache, model_cache_uid, request, revision)
) STRICT, WITHOUT ROWID;
INSERT INTO leases VALUES ('v', 'r', 'team', 'pod', 'uid', 5.0);
INSERT INTO proofs VALUES ('team', 'model', 'uid', 'request', 'r', 7.0);
PRAGMA user_version = 1;
"""


def test_an_index_of_version_1_is_brought_up_to_date_with_all_it_holds(home: Path) -> None:
    with contextlib.closing(sqlite3.connect(home / "state.db")) as database:
        database.executescript(INDEX_VERSION_1)
    opened = index.Index.open(home / "state.db")
    assert opened.leases == {"v": "r"}
    assert opened.proofs == (index.Proof("team", "model", "uid", "request", "r", 7.0),)
    opened.close()
    index.Index.open(home / "new.db").close()
    assert schema_of(home / "state.db") == schema_of(home / "new.db")
    assert not (home / "state.db.damaged").exists()


def test_another_boot_is_another_boot_in_the_journal(home: Path) -> None:
    journal = Journal.create(home / "chunks", 100, BOOT)
    journal.begin_boot(NEXT_BOOT)
    journal.close()
    assert (home / "chunks").read_bytes()[32:48] == NEXT_BOOT.bytes
