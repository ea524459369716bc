"""Lazy mounts of this node: made, kept alive, and ended.

The mount table says which there are, the keeper has their descriptors, their own processes replace
each other (see `fuse.serving`). What is left to do here is to start a mount's first process, and
another one when all of them died at once.

Guarantees:
- a mount is at the keeper before anybody can see it;
- this process may die at any time: its successor adopts what it finds;
- a mount that nobody has served for `lost_after_s` is aborted, so that readers get an error instead
  of waiting for ever.
"""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelcache_api.errors import InvalidRequestError, UnavailableError
from modelcache_api.manifest import Manifest
from modelcache_csi.fuse import fd_passing, ledger, mounting
from modelcache_csi.fuse.about import MountAbout
from modelcache_csi.fuse.keeper_client import KeeperAwayError, KeeperClient
from modelcache_csi.fuse.negotiation import Features, features_of
from modelcache_csi.mounts import PublishedMount

#: How long a mount may be without a server before it is given up. Arbitrary: above the restart of
#: a container, the pull of an image not included.
LOST_AFTER_S = 120.0
#: Between two starts of one mount's process. Arbitrary; it takes a tenth of it.
RESTART_PAUSE_S = 1.0
#: A start takes a tenth of a second. Arbitrary.
START_TIMEOUT_S = 20.0

log = logging.getLogger(__name__)


class KeeperMissingError(UnavailableError):
    """There is no keeper on this node, so nothing can be mounted lazily. Ask again."""


@dataclass(slots=True)
class LazyProcess:
    """One mount's descriptors, and what this process did for it.

    Attributes:
        about: What it shows, and for whom.
        fds: Device, ledger, description.
        started_at_s: When a process was last started; None: never by us.
        is_lost: It was aborted.
    """

    about: MountAbout
    fds: tuple[int, int, int]
    started_at_s: float | None = None
    is_lost: bool = False

    @property
    def watcher_pid(self) -> int | None:
        return ledger.holder_pid(self.fds[1], ledger.WATCHER)

    @property
    def seen_ns(self) -> int:
        """When a server was last seen at work, or the mount was made: CLOCK_MONOTONIC, ns."""
        return ledger.seen_ns(self.fds[1])

    @property
    def missing_features(self) -> tuple[str, ...]:
        """What the kernel has not, or was told to do without; empty as long as it did not say."""
        flags = ledger.agreed_flags(self.fds[1])
        return () if flags is None else features_of(flags).missing


class LazyProcesses:
    """See the module's text. Methods block for milliseconds; used by one thread at a time.

    Mutable state: `_mounts`, by name.
    """

    def __init__(
        self,
        *,
        keeper_socket: Path,
        files_socket: Path,
        allowed: Features,
        clock: Callable[[], float],
        lost_after_s: float = LOST_AFTER_S,
    ) -> None:
        """`files_socket` is the agent's (`modelcache_api.file_access`); `clock` is monotonic."""
        self._keeper_socket = keeper_socket
        self._files_socket = files_socket
        self._allowed = allowed
        self._clock = clock
        self._lost_after_s = lost_after_s
        self._mounts: dict[str, LazyProcess] = {}

    def make(
        self, name: str, manifest: Manifest, *, mtime_s: int, volume: Mapping[str, str]
    ) -> int:
        """A detached mount, being served; its descriptor.

        Raises:
            KeeperMissingError: ask again.
        """
        about = MountAbout(name, manifest, mtime_s, self._allowed, volume)
        fds: list[int] = []
        try:
            fds.append(mounting.open_device())
            fds.append(ledger.create(len(manifest.blobs), now_ns=int(self._clock() * 1e9)))
            fds.append(about.write())
            with KeeperClient(self._keeper_socket) as keeper:
                keeper.put(name, fds)
            mount_fd = mounting.detached_mount(fds[0], manifest.revision)
        except KeeperAwayError as e:
            fd_passing.close_all(fds)
            raise KeeperMissingError(
                f"lazy mounts need the keeper of this node, which is away: {e}"
            ) from e
        except BaseException:
            fd_passing.close_all(fds)
            raise
        made = LazyProcess(about, (fds[0], fds[1], fds[2]))
        self._forget(name)
        self._mounts[name] = made
        self._start(made)
        return mount_fd

    def forget(self, name: str) -> None:
        """The mount is gone: let go of it, here and at the keeper. Idempotent."""
        self._forget(name)
        try:
            with KeeperClient(self._keeper_socket) as keeper:
                keeper.drop(name)
        except KeeperAwayError as e:
            log.info("the keeper is away, and drops a mount later: %s", e)

    def close(self) -> None:
        """Let go of everything; the mounts go on."""
        for name in list(self._mounts):
            self._forget(name)

    def adopt(self, mounts: Iterable[PublishedMount]) -> None:
        """Take the mount table's word for which mounts there are.

        Raises:
            KeeperAwayError: some are not known here yet; try again.
        """
        names = {mount.target.lease_id for mount in mounts if mount.lazy_device}
        for name in self._mounts.keys() - names:
            self.forget(name)
        lacking = names - self._mounts.keys()
        if not lacking:
            return
        with KeeperClient(self._keeper_socket) as keeper:
            for name in lacking:
                fds = keeper.get(name)
                if fds is not None:
                    self._adopt(name, fds)

    def drop_leftovers(self, mounts: Iterable[PublishedMount]) -> None:
        """Have the keeper forget mounts that never became visible, or are gone.

        Not only at the start: a server that has not noticed yet that its mount is gone puts it to
        a new keeper once more.

        Raises:
            KeeperAwayError: try again.
        """
        names = {mount.target.lease_id for mount in mounts if mount.lazy_device}
        with KeeperClient(self._keeper_socket) as keeper:
            for name in [one for one in keeper.names() if one not in names]:
                keeper.drop(name)

    def revive(self) -> None:
        """Start a process for each mount that has none."""
        for one in self._mounts.values():
            if one.is_lost or one.watcher_pid is not None:
                continue
            now_s = self._clock()
            if one.started_at_s is None or now_s - one.started_at_s >= RESTART_PAUSE_S:
                self._start(one)

    def lost(self, mounts: Iterable[PublishedMount]) -> list[LazyProcess]:
        """Abort the mounts that nobody has served for long; those of them that are news."""
        devices = {mount.target.lease_id: mount.lazy_device for mount in mounts}
        found = []
        for name, one in self._mounts.items():
            silent_s = self._clock() - one.seen_ns / 1e9
            device = devices.get(name)
            if one.is_lost or device is None or silent_s < self._lost_after_s:
                continue
            one.is_lost = True
            found.append(one)
            log.error("nobody serves a lazy mount, aborting", extra={"device": device})
            try:
                mounting.abort(device)
            except OSError as e:
                log.warning("a mount is gone already: %s", e)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._mounts

    def mounts(self) -> tuple[LazyProcess, ...]:
        return tuple(self._mounts.values())

    def _adopt(self, name: str, fds: list[int]) -> None:
        try:
            device_fd, ledger_fd, about_fd = fds
            about = MountAbout.read(about_fd)
        except (ValueError, InvalidRequestError) as e:
            fd_passing.close_all(fds)
            log.error("the keeper holds a mount that makes no sense: %s", e)  # noqa: TRY400
            return
        self._mounts[name] = LazyProcess(about, (device_fd, ledger_fd, about_fd))
        log.info("lazy mount adopted", extra={"revision": about.manifest.revision})

    def _start(self, one: LazyProcess) -> None:
        device_fd, ledger_fd, about_fd = one.fds
        one.started_at_s = self._clock()
        command = [
            *(sys.executable, "-m", "modelcache_csi.fuse.serving"),
            *("--device", str(device_fd), "--ledger", str(ledger_fd)),
            *("--about", str(about_fd), "--agent-socket", str(self._files_socket)),
            *("--keeper-socket", str(self._keeper_socket)),
        ]
        try:
            subprocess.run(
                command,
                pass_fds=one.fds,
                stdin=subprocess.DEVNULL,
                timeout=START_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as e:
            log.error("a lazy mount's process does not start: %s", e)  # noqa: TRY400

    def _forget(self, name: str) -> None:
        one = self._mounts.pop(name, None)
        if one is not None:
            fd_passing.close_all(one.fds)
