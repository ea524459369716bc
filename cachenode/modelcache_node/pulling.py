"""``pull``: fetch a source into a directory, by the agent's engine and without an agent.

``DIR/.modelcache`` is a store; the files in DIR are hard links into it. So a pull that was killed
goes on where it was, and one of an unchanged source moves nothing.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelcache_api.errors import ModelCacheError, SourceChangedError, SourceUnavailableError
from modelcache_api.listing import Integrity, ListedObject
from modelcache_api.manifest import Manifest
from modelcache_node.caching.downloads import Download
from modelcache_node.caching.grants import GrantPool
from modelcache_node.caching.integrity import integrity_of
from modelcache_node.caching.resolving import Resolution, resolve
from modelcache_node.caching.swarms import Swarms
from modelcache_node.caching.tallies import Tally
from modelcache_node.origins.base import SourceOptions
from modelcache_node.origins.granting import GrantedSource
from modelcache_node.origins.opening import check_uri
from modelcache_node.patience import Patience
from modelcache_node.store.store import Store
from modelcache_node.transfer.limits import MoverLimits
from modelcache_node.transfer.movers import Movers

STATE_DIR = ".modelcache"
#: How often progress is shown and its absence noticed.
_LOOK_S = 0.2
#: Fewer bytes than this are no progress until a chunk is whole, else an origin that trickles would
#: hold a pull for ever. What the slowest connection that movers bear brings in one speed window.
LEAST_ARRIVED_BYTES = int(MoverLimits().min_bytes_per_s * MoverLimits().speed_window_s)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull did. `bytes` are the revision's; `bytes_from_origin` were moved now."""

    revision: str
    bytes: int
    bytes_from_origin: int
    files: int
    retries: int
    integrity: Integrity


class Puller:
    """One pull. Its parts are passed in, so that a test can drive it."""

    def __init__(
        self,
        options: SourceOptions,
        to: Path,
        movers: Movers,
        *,
        now: Callable[[], float],
        patience: Patience,
        on_progress: Callable[[Tally], None],
    ) -> None:
        """`now` is the wall clock, in seconds."""
        check_uri(options.uri)
        self._options = options
        self._to = to
        self._movers = movers
        self._now = now
        self._patience = patience
        self._on_progress = on_progress

    async def run(self) -> Pulled:
        """Fetch, check and link every file; a source that changes is listed anew.

        Raises:
            InvalidSourceError and its kind: the source must be changed.
            ModelCacheError: patience is over; its text is the last failure's.
        """
        source = GrantedSource(self._options)
        self._to.mkdir(parents=True, exist_ok=True)
        store = await asyncio.to_thread(Store.open, self._to / STATE_DIR, allow_any_disk=True)
        try:
            while True:
                try:
                    return await self._attempt(store, source)
                except ModelCacheError as e:
                    await self._patience.pause_after(e)
        finally:
            store.close()

    async def _attempt(self, store: Store, source: GrantedSource) -> Pulled:
        objects = await source.objects()
        ca_file = self._options.ca_file
        ca_pem = ca_file.read_text() if ca_file else None
        resolution = await resolve(
            objects,
            self._movers,
            namespace="",
            ca_pem=ca_pem,
            layout=source.layout,
            expected=self._options.expected,
        )
        manifest = resolution.manifest
        revision = store.revisions.put_manifest(manifest)
        try:
            tally = await self._fetch(store, resolution, source, objects)
        except SourceChangedError:
            await asyncio.to_thread(store.abandon, revision)
            raise
        await asyncio.to_thread(self._present, store, manifest)
        return Pulled(
            revision=revision,
            bytes=manifest.size_bytes,
            bytes_from_origin=tally.bytes_from_origin,
            files=len(manifest.files),
            retries=tally.retries,
            integrity=integrity_of(manifest),
        )

    async def _fetch(
        self,
        store: Store,
        resolution: Resolution,
        source: GrantedSource,
        objects: Sequence[ListedObject],
    ) -> Tally:
        pool = GrantPool(self._now, resolution.is_of_blob)
        blob_of = {file.path: file.blob for file in resolution.manifest.files}
        pool.attach(
            source,
            {blob_of[one.path]: (one.path, one.grant) for one in objects},
        )
        download = Download(
            resolution,
            blobs=store.blobs,
            movers=self._movers,
            grants=pool,
            swarms=Swarms(store, clock=time.monotonic),
            clock=time.monotonic,
        )
        running = asyncio.create_task(download.run())
        try:
            await self._watch(running, download.tally)
        finally:
            running.cancel()
            await asyncio.wait({running})
        return download.tally

    async def _watch(self, running: asyncio.Task[None], tally: Tally) -> None:
        reached = (0, self._movers.stats().bytes_received)
        while not running.done():
            self._on_progress(tally)
            received_bytes = self._movers.stats().bytes_received
            arrived_bytes = received_bytes - reached[1]
            if tally.bytes_present != reached[0] or arrived_bytes >= LEAST_ARRIVED_BYTES:
                reached = (tally.bytes_present, received_bytes)
                self._patience.progressed()
            elif self._patience.is_over:
                raise SourceUnavailableError(
                    f"no progress for {self._patience.give_up_s:.0f} s: {tally.note or 'no answer'}"
                )
            await asyncio.wait({running}, timeout=_LOOK_S)
        running.result()
        self._on_progress(tally)

    def _present(self, store: Store, manifest: Manifest) -> None:
        """Link every file of the published tree to its place in the directory."""
        tree = store.revisions.publish(manifest.revision)
        for path, _ in manifest.tree():
            _link(tree / path, self._to / path)


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, replacing another file in one step."""
    with contextlib.suppress(FileNotFoundError):
        if target.samefile(source):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name[:100]}.modelcache-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        staged.unlink()
    os.link(source, staged)
    staged.replace(target)
