"""What the store remembers beside bytes: leases, pins, uses, traffic, proofs. One SQLite file.

``state.db``, schema version 3 (``PRAGMA user_version``); older ones are brought up to it. Every
call is one transaction, synced.
A database that cannot be read is moved aside and begun anew: leases come back by the plugin's
report, proofs by the next Jobs. Usable from several threads.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelcache_api.errors import DiskFailedError, DiskFullError

SCHEMA_VERSION = 3
#: Proofs kept per (namespace, ModelCache uid), the newest; older revisions may still be named.
PROOFS_PER_MODEL_CACHE = 8
#: Proofs in all. Arbitrary, far above what a node's tenants have.
MAX_PROOFS = 10_000

#: SQLite puts details of an error above its lowest byte.
_PRIMARY_CODE = 0xFF
_DISK_CODES = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}

_SCHEMA = """
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
    root TEXT NOT NULL DEFAULT '', renewed_at REAL NOT NULL DEFAULT 0,
    provisional INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (namespace, model_cache, model_cache_uid, request, revision)
) STRICT, WITHOUT ROWID;
"""
_STEPS = {
    1: "ALTER TABLE proofs ADD COLUMN root TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE proofs ADD COLUMN renewed_at REAL NOT NULL DEFAULT 0;",
    2: "ALTER TABLE proofs ADD COLUMN provisional INTEGER NOT NULL DEFAULT 0;",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """A namespace's grants could read every object of a revision.

    Attributes:
        at: When, in Unix seconds.
        root: Where all objects of it were read; empty when they have no place in common.
        renewed_at: When access was last proved again; 0 if never.
        is_provisional: 1: it says what a source is, and does not let the namespace use it yet.
    """

    namespace: str
    model_cache: str
    model_cache_uid: str
    request: str
    revision: str
    at: float
    root: str = ""
    renewed_at: float = 0.0
    is_provisional: int = 0

    @property
    def checked_at(self) -> float:
        return max(self.at, self.renewed_at)


class Index:
    """An open ``state.db``. Reads come from memory; writes go to both."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._lock = threading.Lock()
        self.leases: dict[str, str] = dict(
            connection.execute("SELECT volume_id, revision FROM leases").fetchall()
        )
        self.pins: set[str] = {row[0] for row in connection.execute("SELECT revision FROM pins")}
        self.last_used: dict[str, float] = dict(
            connection.execute("SELECT revision, at FROM uses").fetchall()
        )
        self.moved: dict[str, tuple[int, int]] = {
            revision: (from_origin, from_peers)
            for revision, from_origin, from_peers in connection.execute("SELECT * FROM moved")
        }
        self.proofs: tuple[Proof, ...] = self._read_proofs()

    @classmethod
    def open(cls, path: Path) -> "Index":
        """Open or begin the database at `path`.

        Raises:
            DiskFullError, DiskFailedError: it may be well, and was left alone.
        """
        try:
            with _disk_errors():
                return cls(_connect(path))
        except (sqlite3.DatabaseError, _SchemaError):
            for suffix in ("", "-wal", "-shm"):
                damaged = path.with_name(path.name + suffix)
                if damaged.exists():
                    damaged.replace(path.with_name(f"{path.name}.damaged{suffix}"))
            return cls(_connect(path))

    def close(self) -> None:
        self._db.close()

    def put_lease(
        self,
        volume_id: str,
        *,
        revision: str,
        namespace: str,
        pod_name: str,
        pod_uid: str,
        at: float,
    ) -> None:
        """Record that a volume uses a revision, and that it is used now. Idempotent."""
        with self._lock, self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?)",
                (volume_id, revision, namespace, pod_name, pod_uid, at),
            )
            self._use(revision, at)
        self.leases[volume_id] = revision

    def delete_lease(self, volume_id: str, at: float) -> None:
        """Forget a volume's lease; the revision was used until now. Idempotent."""
        with self._lock:
            revision = self.leases.get(volume_id)
            if revision is None:
                return
            with self._writing():
                self._db.execute("DELETE FROM leases WHERE volume_id = ?", (volume_id,))
                self._use(revision, at)
            del self.leases[volume_id]

    def replace_leases(self, leases: Mapping[str, str], at: float) -> None:
        """These, by volume, are all the leases there are."""
        with self._lock, self._writing():
            self._db.execute("DELETE FROM leases")
            self._db.executemany(
                "INSERT INTO leases VALUES (?, ?, '', '', '', ?)",
                [(volume_id, revision, at) for volume_id, revision in leases.items()],
            )
            for revision in set(leases.values()):
                self._use(revision, at)
        self.leases = dict(leases)

    def touch(self, revision: str, at: float) -> None:
        """The revision is used, or was brought here, now."""
        with self._lock, self._writing():
            self._use(revision, at)

    def add_moved(self, revision: str, *, from_origin: int, from_peers: int) -> None:
        """A fetch of the revision has moved these bytes to this node."""
        with self._lock:
            before = self.moved.get(revision, (0, 0))
            now = (before[0] + from_origin, before[1] + from_peers)
            with self._writing():
                self._db.execute("INSERT OR REPLACE INTO moved VALUES (?, ?, ?)", (revision, *now))
            self.moved[revision] = now

    def set_pinned(self, revision: str, *, pinned: bool) -> None:
        with self._lock, self._writing():
            if pinned:
                self._db.execute("INSERT OR IGNORE INTO pins VALUES (?)", (revision,))
                self.pins.add(revision)
            else:
                self._db.execute("DELETE FROM pins WHERE revision = ?", (revision,))
                self.pins.discard(revision)

    def put_proof(self, proof: Proof) -> None:
        """Record a proof, dropping the oldest beyond the bounds.

        A provisional one leaves the one that is there as it is.
        """
        verb = "IGNORE" if proof.is_provisional else "REPLACE"
        with self._lock:
            with self._writing():
                self._db.execute(
                    f"INSERT OR {verb} INTO proofs"  # noqa: S608 - a constant
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        proof.namespace,
                        proof.model_cache,
                        proof.model_cache_uid,
                        proof.request,
                        proof.revision,
                        proof.at,
                        proof.root,
                        proof.renewed_at,
                        proof.is_provisional,
                    ),
                )
                self._db.execute(
                    "DELETE FROM proofs WHERE (namespace, model_cache, model_cache_uid, at) IN ("
                    " SELECT namespace, model_cache, model_cache_uid, at FROM proofs"
                    " WHERE namespace = ? AND model_cache = ? AND model_cache_uid = ?"
                    " ORDER BY at DESC LIMIT -1 OFFSET ?)",
                    (
                        proof.namespace,
                        proof.model_cache,
                        proof.model_cache_uid,
                        PROOFS_PER_MODEL_CACHE,
                    ),
                )
                self._db.execute(
                    "DELETE FROM proofs WHERE at <= "
                    "(SELECT at FROM proofs ORDER BY at DESC LIMIT 1 OFFSET ?)",
                    (MAX_PROOFS,),
                )
            self.proofs = self._read_proofs()

    def renew_proofs(self, renewals: Iterable[tuple[str, str, float]]) -> None:
        """Note when a namespace's access to a revision was proved again.

        Args:
            renewals: Namespace, revision and time. Those of which there is no proof do nothing.
        """
        with self._lock:
            with self._writing():
                self._db.executemany(
                    "UPDATE proofs SET renewed_at = ?3"
                    " WHERE namespace = ?1 AND revision = ?2 AND max(renewed_at, at) < ?3"
                    " AND NOT provisional",
                    list(renewals),
                )
            self.proofs = self._read_proofs()

    def forget(self, revision: str) -> None:
        """Drop what is remembered of a revision that is gone; proofs stay: they are of access."""
        with self._lock, self._writing():
            for table in ("uses", "pins", "moved"):
                self._db.execute(f"DELETE FROM {table} WHERE revision = ?", (revision,))  # noqa: S608 - a constant
            self.last_used.pop(revision, None)
            self.moved.pop(revision, None)
            self.pins.discard(revision)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction.

        Raises:
            DiskFullError, DiskFailedError: nothing of it was written.
        """
        with _disk_errors(), self._db:
            yield

    def _use(self, revision: str, at: float) -> None:
        self._db.execute("INSERT OR REPLACE INTO uses VALUES (?, ?)", (revision, at))
        self.last_used[revision] = at

    def _read_proofs(self) -> tuple[Proof, ...]:
        rows = self._db.execute(
            "SELECT namespace, model_cache, model_cache_uid, request, revision, at, root,"
            " renewed_at, provisional FROM proofs ORDER BY at"
        )
        return tuple(Proof(*row) for row in rows)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Tell a disk's errors from a damaged database's."""
    try:
        yield
    except sqlite3.OperationalError as e:
        code = e.sqlite_errorcode & _PRIMARY_CODE
        if code == sqlite3.SQLITE_FULL:
            raise DiskFullError("the disk is full: leases and proofs cannot be written") from e
        if code in _DISK_CODES:
            raise DiskFailedError(f"the disk fails: leases and proofs: {e}") from e
        raise


class _SchemaError(Exception):
    """A database of another schema."""


def _connect(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.DatabaseError or _SchemaError: damaged, or not our database."""
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _ensure_schema(connection)
        return connection
    except BaseException:
        connection.close()
        raise


def _ensure_schema(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    elif version in _STEPS:
        steps = "".join(_STEPS[step] for step in range(version, SCHEMA_VERSION))
        connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version != SCHEMA_VERSION:
        raise _SchemaError(f"schema {version}, not {SCHEMA_VERSION}")
