"""Lazy volumes: the pods' side of lazy mounts, over `lazy_processes`.

Guarantees:
- all work on lazy mounts is done by one call at a time, and never on the event loop;
- an incomplete mount's lease is asked for again and again, so that the operator keeps Jobs running
  for it, whoever was restarted meanwhile.
"""

import asyncio
import json
import logging
from pathlib import Path

import pydantic

from modelcache_api.errors import ModelCacheError
from modelcache_api.messages import LeaseRequest, LeaseState
from modelcache_csi.events import PodEvents
from modelcache_csi.fuse import mounting
from modelcache_csi.fuse.about import MountAbout
from modelcache_csi.fuse.keeper_client import KeeperAwayError
from modelcache_csi.lazy_processes import LazyProcess, LazyProcesses
from modelcache_csi.leases import LeaseBook
from modelcache_csi.manifests import read_manifest
from modelcache_csi.mounts import Mounts
from modelcache_csi.volume_context import Mode, Pod, Publish, TargetPath

#: Between two looks for mounts that all processes of died. A look costs microseconds. Arbitrary.
REVIVE_S = 0.1
#: Between two comparisons with the mount table and the keeper. Arbitrary.
COMPARE_S = 2.0
#: Between two requests for the lease of an incomplete mount. Arbitrary; far below the time after
#: which the agent takes a volume for gone.
RENEW_S = 15.0

log = logging.getLogger(__name__)


class LazyVolumes:
    """See the module's text. For one event loop.

    Mutable state: `_complete`, names of mounts whose revision is complete.
    """

    def __init__(
        self,
        processes: LazyProcesses,
        *,
        mounts: Mounts,
        leases: LeaseBook,
        events: PodEvents,
        data_dir: Path,
    ) -> None:
        self._processes = processes
        self._mounts = mounts
        self._leases = leases
        self._events = events
        self._data_dir = data_dir
        self._lock = asyncio.Lock()
        self._complete: set[str] = set()

    async def mount(self, publish: Publish, revision: str, lease: LeaseRequest) -> None:
        """Make the lazy mount of a leased revision appear.

        Raises:
            KeeperMissingError: ask again.
            ModelCacheError: as `Mounts.ensure_attached`.
        """
        async with self._lock:
            await asyncio.to_thread(self._mount, publish, revision, lease)

    async def forget(self, target: TargetPath) -> None:
        """The volume was unmounted. Idempotent."""
        self._complete.discard(target.lease_id)
        if target.lease_id in self._processes:
            async with self._lock:
                await asyncio.to_thread(self._processes.forget, target.lease_id)

    async def watch_forever(self) -> None:
        """See to it that every lazy mount is served and leased. Errors are logged, then tried
        again.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._revive_forever())
            tasks.create_task(self._compare_forever())
            tasks.create_task(self._renew_forever())

    # -- in threads, one at a time

    def _mount(self, publish: Publish, revision: str, lease: LeaseRequest) -> None:
        manifest = read_manifest(self._data_dir, revision)
        mtime_s = int((self._data_dir).stat().st_mtime)
        volume = {"publish": _as_json(publish), "lease": lease.wire()}
        is_new = self._mounts.ensure_attached(
            publish.target,
            revision,
            lambda: self._processes.make(
                publish.target.lease_id, manifest, mtime_s=mtime_s, volume=volume
            ),
        )
        if is_new:
            for mount in self._mounts.published():
                if mount.target == publish.target and mount.lazy_device:
                    mounting.read_far_ahead(mount.lazy_device)

    def _compare(self) -> list[LazyProcess]:
        published = self._mounts.published()
        self._processes.adopt(published)
        self._processes.drop_leftovers(published)
        return self._processes.lost(published)

    # -- on the loop

    async def _revive_forever(self) -> None:
        while True:
            if self._processes.mounts():
                async with self._lock:
                    await asyncio.to_thread(self._processes.revive)
            await asyncio.sleep(REVIVE_S)

    async def _compare_forever(self) -> None:
        is_away = False
        while True:
            try:
                async with self._lock:
                    lost = await asyncio.to_thread(self._compare)
                for one in lost:
                    self._events.lost(_publish_of(one.about))
                is_away = False
            except KeeperAwayError as e:
                if not is_away:
                    log.warning("lazy mounts are not compared: %s", e)
                is_away = True
            except (OSError, ValueError) as e:
                log.warning("lazy mounts are not compared: %s", e)
            await asyncio.sleep(COMPARE_S)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            for one in self._processes.mounts():
                if one.about.name not in self._complete:
                    await self._renew(one)

    async def _renew(self, one: LazyProcess) -> None:
        try:
            publish = _publish_of(one.about)
            lease = LeaseRequest.model_validate_json(one.about.volume["lease"])
            request = lease.model_copy(
                update={"wait_s": 0.0, "revision": one.about.manifest.revision}
            )
            answer = await self._leases.acquire(one.about.name, request)
        except (KeyError, ValueError, pydantic.ValidationError) as e:
            log.error("a lazy mount is of another version: %s", e)  # noqa: TRY400
            return
        except ModelCacheError as e:
            log.info("a lease is not renewed: %s", e)
            return
        if one.missing_features:
            self._events.lazy(publish, one.missing_features)
        if answer.state is LeaseState.READY:
            self._complete.add(one.about.name)
            self._events.ready(publish, one.about.manifest.revision)
        else:
            self._events.waiting(publish, answer, None)


def _as_json(publish: Publish) -> str:
    return json.dumps(
        {
            "volume_id": publish.volume_id,
            "root": str(publish.target.root),
            "parts": publish.target.parts,
            "namespace": publish.pod.namespace,
            "pod": publish.pod.name,
            "uid": publish.pod.uid,
            "service_account": publish.pod.service_account,
            "model_cache": publish.model_cache,
            "revision": publish.revision,
            "is_ephemeral": publish.is_ephemeral,
        }
    )


def _publish_of(about: MountAbout) -> Publish:
    """Who a mount was made for. Raises KeyError or ValueError: of another version."""
    said = json.loads(about.volume["publish"])
    return Publish(
        volume_id=said["volume_id"],
        target=TargetPath.of(said["root"], said["parts"]),
        pod=Pod(said["namespace"], said["pod"], said["uid"], said["service_account"]),
        model_cache=said["model_cache"],
        mode=Mode.LAZY,
        revision=said["revision"],
        is_ephemeral=said["is_ephemeral"],
    )
