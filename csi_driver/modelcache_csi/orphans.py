"""Mounts whose pods are gone, in case the kubelet lost track of them.

A mount is an orphan only when its pod's directory beneath the kubelet's root is gone, seen twice.
The API server is not asked: its word alone must never cost a running pod its files.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from modelcache_api.errors import ModelCacheError
from modelcache_csi.mounts import Mounts
from modelcache_csi.publishing import Publisher
from modelcache_csi.volume_context import TargetPath

#: Between two looks. Arbitrary; an orphan costs disk space only.
SWEEP_INTERVAL_S = 60.0

log = logging.getLogger(__name__)


def orphans_among(
    targets: Iterable[TargetPath],
    *,
    suspects: frozenset[TargetPath],
    has_pod_directory: Callable[[TargetPath], bool],
) -> tuple[frozenset[TargetPath], frozenset[TargetPath]]:
    """(orphans, suspects for the next look), by the suspects of the look before."""
    gone = frozenset(target for target in targets if not has_pod_directory(target))
    return gone & suspects, gone - suspects


async def sweep_forever(mounts: Mounts, publisher: Publisher) -> None:
    """Unpublish orphans, for ever. Errors are logged and tried again."""
    suspects: frozenset[TargetPath] = frozenset()
    while True:
        try:
            suspects = await sweep(mounts, publisher, suspects)
        except (OSError, ValueError) as e:
            log.warning("orphaned mounts cannot be looked for: %s", e)
        await asyncio.sleep(SWEEP_INTERVAL_S)


async def sweep(
    mounts: Mounts, publisher: Publisher, suspects: frozenset[TargetPath]
) -> frozenset[TargetPath]:
    """One look. Returns the suspects for the next."""
    published = await asyncio.to_thread(mounts.published)
    orphans, suspects = orphans_among(
        (mount.target for mount in published),
        suspects=suspects,
        has_pod_directory=mounts.has_pod_directory,
    )
    for target in orphans:
        log.warning("the pod of a mount is gone, unmounting", extra={"target_path": str(target)})
        try:
            await publisher.unpublish(target)
        except (ModelCacheError, OSError) as e:
            log.warning("%s stays mounted: %s", target, e)
    return suspects
