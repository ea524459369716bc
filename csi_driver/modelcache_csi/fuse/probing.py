"""What this node's kernel lacks for lazy mounts, asked of it by a mount that nobody ever sees."""

import logging
import os

from modelcache_csi.fuse import decoding, mounting
from modelcache_csi.fuse.decoding import Init, MalformedRequestError
from modelcache_csi.fuse.device import Device, UnmountedError
from modelcache_csi.fuse.ledger import INBOX_BYTES
from modelcache_csi.fuse.negotiation import (
    ALL_MISSING,
    Features,
    KernelTooOldError,
    features_of,
    negotiate,
)

#: No revision has this digest.
_NOTHING = "sha256:" + "0" * 64

log = logging.getLogger(__name__)


def missing_features(allowed: Features) -> tuple[str, ...]:
    """Names of what lazy mounts made here will do without: `Features.missing` of what would be
    agreed, or `ALL_MISSING` where no lazy mount can be made.

    Blocks for a millisecond. Leaves nothing behind: the kernel introduces itself as soon as there
    is a mount, and the mount goes with its descriptors, unattached and unanswered.
    """
    try:
        init = _introduction()
        return features_of(negotiate(init, allowed).flags).missing
    except (OSError, UnmountedError, MalformedRequestError, KernelTooOldError) as e:
        log.warning("lazy mounts cannot be made on this node: %s", e)
        return ALL_MISSING


def _introduction() -> Init:
    device = Device(mounting.open_device())
    try:
        mount_fd = mounting.detached_mount(device.fd, _NOTHING)
        inbox = memoryview(bytearray(INBOX_BYTES))
        n_bytes = device.read_into(inbox)
    finally:
        os.close(device.fd)  # first: who unmounts then waits for no answer
    os.close(mount_fd)
    request = decoding.parse(inbox[: n_bytes or 0])
    if not isinstance(request, Init):
        raise MalformedRequestError("the kernel does not introduce itself", request.unique)
    return request
