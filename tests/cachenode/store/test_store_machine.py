"""The store against a model of it: fetches, seals, deletions, damage, kills and reboots, any order.

Kills and power cuts *inside* one of the store's calls are `test_power_cuts.py`'s; here they come
between calls, in histories that nobody thought of.
"""

import os
import shutil
import tempfile
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from modelcache_api.chunks import chunk_count, chunk_range
from modelcache_api.errors import IntegrityMismatchError, UnavailableError
from modelcache_api.manifest import File, Manifest
from modelcache_node.store.partial_blob import PartialBlob
from support.store_models import content, file_of, open_store, small_chunks, tree_of, write_chunk

SIZES = (0, 10, 64, 150, 200)
FILES = [
    (file_of(f"f{n}", content(n, size), by_content=bool(n % 2)), content(n, size))
    for n, size in enumerate(SIZES)
]
BYTES = {file.blob: data for file, data in FILES}
#: Any two of them share a file.
MODELS = [Manifest.of(file for file, _ in FILES[n : n + 3]) for n in range(3)]
PROVIDERS = ("aa" * 8, "bb" * 8)

models = st.sampled_from(MODELS)
files = st.sampled_from([file for file, _ in FILES])


class StoreMachine(RuleBasedStateMachine):
    """What the store should hold, beside a real one."""

    blobs = Bundle("blobs")

    def __init__(self) -> None:
        super().__init__()
        self._small = small_chunks()
        self._small.__enter__()
        in_memory = Path("/dev/shm")
        self.home = Path(tempfile.mkdtemp(dir=in_memory if in_memory.is_dir() else None))
        self.boot = 1
        self.known: set[str] = set()
        self.published: set[str] = set()
        self.sealed: set[str] = set()
        #: By directory name, the chunks that were written and noted.
        self.present: dict[str, set[int]] = {}
        self.open: dict[str, PartialBlob] = {}
        self.leases: dict[str, str] = {}

    @initialize()
    def begin(self) -> None:
        self.store = open_store(self.home, UUID(int=self.boot))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self._drop()
        for folder, _, _ in os.walk(self.home):
            Path(folder).chmod(0o700)
        shutil.rmtree(self.home)
        self._small.__exit__(None, None, None)

    # -- fetching

    @rule(model=models)
    def knows(self, model: Manifest) -> None:
        self.store.revisions.put_manifest(model)
        self.known.add(model.revision)

    @rule(model=models, provider=st.sampled_from(PROVIDERS))
    def fetches(self, model: Manifest, provider: str) -> None:
        """What is missing of a revision, from its manifest to its tree."""
        self.knows(model)
        for file in model.blobs.values():
            which = self._open(file, provider)
            self._write_all(*which)
            self._seal(*which)
            if blob := self.open.pop(which[1], None):
                blob.close()
        self.publishes(model)

    def _write_all(self, file: File, name: str) -> None:
        blob = self.open[name]
        for index in list(blob.missing()):
            write_chunk(blob, index, BYTES[file.blob])
            self.present[name].add(index)

    @rule(target=blobs, file=files, provider=st.sampled_from(PROVIDERS))
    def opens(self, file: File, provider: str) -> tuple[File, str]:
        return self._open(file, provider)

    def _open(self, file: File, provider: str) -> tuple[File, str]:
        is_content = file.checksum is not None and file.checksum.value == file.blob
        chosen = provider if is_content else None
        is_there = file.blob in self.sealed or file.blob in self.present
        name = file.blob if chosen is None or is_there else f"{file.blob}.{chosen}"
        if name in self.open:
            with pytest.raises(UnavailableError):
                self.store.blobs.open_partial(file.blob, file.size_bytes, chosen)
        else:
            blob = self.store.blobs.open_partial(file.blob, file.size_bytes, chosen)
            self.open[name] = blob
            everything = set(range(chunk_count(file.size_bytes)))
            if file.blob in self.sealed:
                assert blob.is_sealed
                self.present.setdefault(name, everything)
            there = self.present.setdefault(name, set())
            assert set(blob.missing()) == everything - there
        return file, name

    @rule(which=blobs, data=st.data(), is_right=st.sampled_from([True, True, True, False]))
    def writes(self, which: tuple[File, str], data: st.DataObject, is_right: bool) -> None:
        file, name = which
        blob = self.open.get(name)
        missing = sorted(blob.missing()) if blob else []
        if blob is None or not missing:
            return
        index = data.draw(st.sampled_from(missing))
        right = BYTES[file.blob]
        write_chunk(blob, index, right if is_right else bytes(byte ^ 1 for byte in right))
        self.present[name].add(index)

    @rule(which=blobs)
    def seals(self, which: tuple[File, str]) -> None:
        self._seal(*which)

    def _seal(self, file: File, name: str) -> None:
        blob = self.open.get(name)
        if blob is None:
            return
        try:
            blob.seal(file.checksum)
        except IntegrityMismatchError:
            missing = set(blob.missing())
            assert missing, "a blob that is not sealed says what to fetch"
            self.present[name] -= missing
        else:
            assert not list(blob.missing())
            self.sealed.add(file.blob)
            if name != file.blob:
                self.open.pop(name).close()
                del self.present[name]
                self.present.setdefault(file.blob, set(range(chunk_count(file.size_bytes))))

    @rule(which=consumes(blobs))
    def closes(self, which: tuple[File, str]) -> None:
        if blob := self.open.pop(which[1], None):
            blob.close()

    @rule(model=models)
    def publishes(self, model: Manifest) -> None:
        if model.revision in self.known and model.blobs.keys() <= self.sealed:
            self.store.revisions.publish(model.revision)
            self.published.add(model.revision)

    # -- removing

    @rule(model=models)
    def deletes(self, model: Manifest) -> None:
        self.store.delete(model.revision)
        self.known.discard(model.revision)
        self.published.discard(model.revision)
        self._collected()

    def _collected(self) -> None:
        wanted = {blob for one in MODELS if one.revision in self.known for blob in one.blobs}
        for name in list(self.present):
            key = name.partition(".")[0]
            is_superseded = name != key and key in self.sealed
            if name not in self.open and (key not in wanted or is_superseded):
                del self.present[name]
                if name == key:
                    self.sealed.discard(key)

    # -- leases

    @rule(volume=st.sampled_from("vw"), model=models)
    def leases_(self, volume: str, model: Manifest) -> None:
        self.store.index.put_lease(
            volume, revision=model.revision, namespace="n", pod_name="p", pod_uid="u", at=1.0
        )
        self.leases[volume] = model.revision

    @rule(volume=st.sampled_from("vw"))
    def releases(self, volume: str) -> None:
        self.store.index.delete_lease(volume, 2.0)
        self.leases.pop(volume, None)

    # -- what goes wrong

    @precondition(lambda self: self.sealed)
    @rule(data=st.data(), cut=st.booleans())
    def goes_bad(self, data: st.DataObject, cut: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.sealed)))
        right = BYTES[key]
        if not right or key in self.open:
            return
        index = data.draw(st.integers(0, chunk_count(len(right)) - 1))
        offset, length = chunk_range(index, len(right))
        path = self.store.blobs.data_path(key)
        path.chmod(0o644)
        bad = {index}
        if cut:
            os.truncate(path, offset + length - 1)
            bad = set(range(index, chunk_count(len(right))))
        else:
            with path.open("r+b") as opened:
                opened.seek(offset)
                opened.write(bytes([right[offset] ^ 1]))
        path.chmod(0o444)
        assert set(self.store.blobs.verify(key, len(right))) == bad
        self.store.blobs.unseal_chunks(key, len(right), sorted(bad))
        self.sealed.discard(key)
        self.present[key] = set(range(chunk_count(len(right)))) - bad

    @rule()
    def is_killed(self) -> None:
        self._restart()

    @rule(data=st.data())
    def loses_power(self, data: st.DataObject) -> None:
        """What was never sealed may be gone from the disk; the journal may say otherwise."""
        unsealed = [
            (name, index)
            for name, there in self.present.items()
            for index in sorted(there)
            if name.partition(".")[0] not in self.sealed and not self._is_mended(name)
        ]
        self._drop()
        if unsealed:
            name, index = data.draw(st.sampled_from(unsealed))
            offset, length = chunk_range(index, len(BYTES[name.partition(".")[0]]))
            path = self.home / "blobs" / name[:2] / name / "data"
            with path.open("r+b") as opened:
                opened.seek(offset)
                before = opened.read(length)
                opened.seek(offset)
                opened.write(bytes(byte ^ 0xFF for byte in before))
            self.present[name].discard(index)
        self.boot += 1
        self.store = open_store(self.home, UUID(int=self.boot))
        self._collected()

    def _is_mended(self, name: str) -> bool:
        """A blob that was sealed once keeps its chunks: they were synced."""
        is_content = any(file.blob == name and (n % 2) for n, (file, _) in enumerate(FILES))
        data = self.home / "blobs" / name[:2] / name / "data"
        return (is_content and "." not in name) or data.stat().st_nlink > 1

    def _restart(self) -> None:
        self._drop()
        self.store = open_store(self.home, UUID(int=self.boot))
        self._collected()

    def _drop(self) -> None:
        """As a kill does: nothing is finished, descriptors and locks go."""
        for name, blob in self.open.items():
            blob.journal.close()
            self._unstage(name, blob)
        self.open.clear()
        self.store.close()

    def _unstage(self, name: str, blob: PartialBlob) -> None:
        """What only a mend's staging file holds is gone with it."""
        staged = getattr(blob, "_staged", None)
        if staged is not None:
            self.present[name] -= set(staged)
            os.close(blob._staging_fd)  # type: ignore[attr-defined]
            blob._staging_fd = -1  # type: ignore[attr-defined]

    # -- what holds always

    @invariant()
    def what_is_sealed_is_right(self) -> None:
        if not hasattr(self, "store"):
            return
        for key, right in BYTES.items():
            assert self.store.blobs.is_sealed(key) == (key in self.sealed)
            if key in self.sealed:
                assert self.store.blobs.data_path(key).read_bytes() == right

    @invariant()
    def what_a_pod_may_be_given_is_whole(self) -> None:
        if not hasattr(self, "store"):
            return
        for model in MODELS:
            if model.revision not in self.known:
                continue
            is_whole = model.revision in self.published and model.blobs.keys() <= self.sealed
            assert self.store.is_complete(model.revision) == is_whole
            if is_whole:
                assert tree_of(self.store, model.revision) == {
                    file.path: BYTES[file.blob] for file in model.files
                }

    @invariant()
    def nothing_is_kept_or_forgotten_by_mistake(self) -> None:
        if not hasattr(self, "store"):
            return
        assert set(self.store.revisions.revisions()) == self.known
        assert self.store.blobs.keys() == {name.partition(".")[0] for name in self.present}
        assert self.store.index.leases == self.leases


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
