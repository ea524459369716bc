"""Volumes as mounts: the only place that attaches and detaches them.

A published volume is a read-only bind mount of a complete revision's tree, or a lazy mount of one
that is on its way. Guarantees:

- Both ends are opened step by step without following a symbolic link, and mounted by descriptor:
  neither the unprivileged agent, which owns the data directory, nor a pod can redirect a mount.
- `ensure_mounted` and `ensure_unmounted` are idempotent, also when killed between two steps:
  the mount table is the only state.
- Everything here blocks for microseconds to milliseconds; callers on an event loop use a thread.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelcache_api.errors import ModelCacheError
from modelcache_api.names import tree_path
from modelcache_csi import mount_syscalls
from modelcache_csi.errors import AlreadyPublishedError, PreconditionError, VolumeBusyError
from modelcache_csi.fuse import mounting
from modelcache_csi.mountinfo import DELETED_SUFFIX, Mount, parse_mountinfo
from modelcache_csi.volume_context import TargetPath

#: Mounts stacked on one path before we give up. Arbitrary: more than one is already a mishap.
MAX_STACKED_MOUNTS = 64
#: Mode of a target directory; as the kubelet's own. The mount covers it.
_DIRECTORY_MODE = 0o750
_MOUNTINFO = Path("/proc/self/mountinfo")
_OPEN_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TREE_ROOT = re.compile(r"(?:.*/)?revisions/([0-9a-f]{64})/tree")
#: Where the kubelet binds what pods mount with subPath: copies of our mounts, its own to undo.
_SUBPATHS = "volume-subpaths"


@dataclass(frozen=True, slots=True)
class PublishedMount:
    """A revision that is mounted beneath the kubelet's root.

    `lazy_device`: of a lazy mount, its number as in the mount table.
    """

    target: TargetPath
    revision: str
    lazy_device: str | None = None


class Mounts:
    """Attaches trees of `data_dir` beneath `kubelet_root`. Holds no state; any thread may call."""

    def __init__(self, *, kubelet_root: PurePosixPath, data_dir: Path) -> None:
        self._kubelet_root = kubelet_root
        # The mount table knows no symbolic links.
        self._mounted_root = PurePosixPath(os.path.realpath(kubelet_root))
        self._data_dir = data_dir

    def ensure_mounted(self, target: TargetPath, revision: str) -> None:
        """Mount the revision's tree at `target`, which is created if it is not there.

        Raises:
            AlreadyPublishedError: something else is mounted there.
            PreconditionError: the target's parent or the tree is missing, or the kernel is too old.
        """
        self.ensure_attached(target, revision, lambda: self._clone_of_tree(revision))

    def ensure_attached(
        self, target: TargetPath, revision: str, detached: Callable[[], int]
    ) -> bool:
        """The same, with a mount of the revision that `detached` makes; whether it was needed.

        Raises what `detached` raises, and as `ensure_mounted`.
        """
        with contextlib.ExitStack() as opened:
            try:
                parent_fd = opened.enter_context(self._parent_of(target))
            except FileNotFoundError as e:
                raise PreconditionError(f"the parent directory of {target} does not exist") from e
            try:
                target_fd = opened.enter_context(_created(parent_fd, target.parts[-1]))
            except NotADirectoryError as e:
                raise PreconditionError(f"{target} exists and is not a directory") from e
            present = _topmost(parent_fd, target_fd)
            if present is not None:
                if _revision_of(present) != revision:
                    raise AlreadyPublishedError(f"{target} already holds {_describe(present)}")
                return False
            _attach(detached(), target_fd)
            return True

    def ensure_unmounted(self, target: TargetPath) -> None:
        """Unmount whatever is mounted at `target` and remove the directory.

        Raises:
            VolumeBusyError: a process still uses the mount; try again.
        """
        name = target.parts[-1]
        try:
            with self._parent_of(target) as parent_fd:
                for _ in range(MAX_STACKED_MOUNTS):
                    with _opened(name, parent_fd) as target_fd:
                        if mount_syscalls.mount_id(target_fd) == mount_syscalls.mount_id(parent_fd):
                            break
                    _unmount(parent_fd, name)
                else:
                    raise ModelCacheError(f"more than {MAX_STACKED_MOUNTS} mounts on {target}")
                os.rmdir(name, dir_fd=parent_fd)
        except FileNotFoundError:
            return

    def revision_at(self, target: TargetPath) -> str | None:
        """The revision mounted at `target`; None when nothing is, or the path does not exist.

        Raises:
            AlreadyPublishedError: something that is no revision is mounted there.
        """
        try:
            with (
                self._parent_of(target) as parent_fd,
                _opened(target.parts[-1], parent_fd) as target_fd,
            ):
                present = _topmost(parent_fd, target_fd)
        except (FileNotFoundError, NotADirectoryError, PreconditionError):
            return None
        if present is None:
            return None
        revision = _revision_of(present)
        if revision is None:
            raise AlreadyPublishedError(f"{target} holds {_describe(present)}, not a model")
        return revision

    def published(self) -> tuple[PublishedMount, ...]:
        """Every mount of a revision beneath the kubelet's root, by the mount table alone."""
        found: dict[TargetPath, PublishedMount] = {}
        for mount in parse_mountinfo(_MOUNTINFO.read_bytes()):
            revision = _revision_of(mount)
            path = PurePosixPath(mount.mount_point)
            if revision is None or self._mounted_root not in path.parents:
                continue
            target = TargetPath(self._kubelet_root, path.relative_to(self._mounted_root).parts)
            if _SUBPATHS not in target.parts:
                is_lazy = mount.fs_type == mounting.FS_TYPE
                found[target] = PublishedMount(target, revision, mount.device if is_lazy else None)
        return tuple(found.values())

    def is_shared(self) -> bool:
        """Whether what is mounted beneath the kubelet's root shows in other namespaces."""
        with _walked(str(self._kubelet_root), ()) as fd:
            return _mount_by_id(mount_syscalls.mount_id(fd)).is_shared

    def has_pod_directory(self, target: TargetPath) -> bool:
        """Whether the pod that a target belongs to is still known to the kubelet."""
        directory = target.pod_directory
        return directory is None or os.path.lexists(directory)

    @contextlib.contextmanager
    def _parent_of(self, target: TargetPath) -> Iterator[int]:
        with _walked(str(self._kubelet_root), target.parts[:-1]) as fd:
            yield fd

    def _clone_of_tree(self, revision: str) -> int:
        with self._tree(revision) as tree_fd:
            try:
                return mount_syscalls.clone_read_only(tree_fd)
            except OSError as e:
                if e.errno == errno.ENOSYS:
                    raise PreconditionError(
                        "the kernel is too old: Linux 5.12 or newer is needed"
                    ) from e
                raise

    @contextlib.contextmanager
    def _tree(self, revision: str) -> Iterator[int]:
        try:
            with _walked(str(self._data_dir), PurePosixPath(tree_path(revision)).parts) as fd:
                yield fd
        except (FileNotFoundError, NotADirectoryError) as e:
            raise PreconditionError(
                f"{self._data_dir / tree_path(revision)} is not a directory:"
                " do the agent and the plugin use the same data directory?"
            ) from e


@contextlib.contextmanager
def _opened(name: str, directory_fd: int | None = None) -> Iterator[int]:
    fd = os.open(name, _OPEN_FLAGS, dir_fd=directory_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _walked(root: str, parts: Sequence[str]) -> Iterator[int]:
    """The directory `parts` beneath `root`; only `root` itself may be reached by links."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            below_fd = os.open(part, _OPEN_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = below_fd
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _created(parent_fd: int, name: str) -> Iterator[int]:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent_fd)
    with _opened(name, parent_fd) as fd:
        yield fd


def _topmost(parent_fd: int, target_fd: int) -> Mount | None:
    """What is mounted on the opened target; None when it lies on its parent's own mount."""
    target_mount_id = mount_syscalls.mount_id(target_fd)
    if target_mount_id == mount_syscalls.mount_id(parent_fd):
        return None
    return _mount_by_id(target_mount_id)


def _mount_by_id(mount_id: int) -> Mount:
    for mount in parse_mountinfo(_MOUNTINFO.read_bytes()):
        if mount.mount_id == mount_id:
            return mount
    raise ModelCacheError(f"mount {mount_id} is not in {_MOUNTINFO}")


def _revision_of(mount: Mount) -> str | None:
    if mount.fs_type == mounting.FS_TYPE:
        return mounting.revision_of_source(mount.source)
    match = _TREE_ROOT.fullmatch(mount.root.removesuffix(DELETED_SUFFIX))
    return f"sha256:{match[1]}" if match else None


def _describe(mount: Mount) -> str:
    return _revision_of(mount) or f"{mount.root} of a file system of type {mount.fs_type}"


def _attach(clone_fd: int, target_fd: int) -> None:
    try:
        mount_syscalls.attach(clone_fd, target_fd)
    finally:
        os.close(clone_fd)


def _unmount(parent_fd: int, name: str) -> None:
    try:
        mount_syscalls.unmount(parent_fd, name)
    except OSError as e:
        if e.errno == errno.EBUSY:
            raise VolumeBusyError(f"the volume is still in use: {e.strerror}") from e
        raise
