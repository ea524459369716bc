"""The cluster's keys from a file, read again as it changes: so a rotation needs no restart."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from modelcache_api.errors import InvalidRequestError
from modelcache_api.peer_auth import ClusterKeys

_LOG = logging.getLogger(__name__)

#: How soon a changed file is noticed. The kubelet itself takes up to a minute to write one.
LOOK_AGAIN_S = 30.0
#: Two keys and some white space. Arbitrary bound on what is read.
_MAX_CHARS = 4096


def read_keys(path: Path) -> ClusterKeys:
    """Raises InvalidRequestError: the file cannot be read, or holds no usable keys."""
    try:
        with path.open(encoding="latin-1") as opened:
            return ClusterKeys.parse(opened.read(_MAX_CHARS))
    except (OSError, InvalidRequestError) as e:
        raise InvalidRequestError(f"--cluster-key-file {path}: {e}") from e


async def follow_keys(
    path: Path,
    keys: ClusterKeys,
    use: Callable[[ClusterKeys], None],
    *,
    look_again_s: float = LOOK_AGAIN_S,
) -> None:
    """Have changed keys used, until cancelled. A file that went bad changes nothing."""
    while True:
        await asyncio.sleep(look_again_s)
        try:
            found = await asyncio.to_thread(read_keys, path)
        except InvalidRequestError as e:
            _LOG.warning("going on with the cluster keys there were: %s", e)
            continue
        if found != keys:
            keys = found
            _LOG.info("using changed cluster keys")
            use(keys)
