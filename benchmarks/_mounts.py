"""The same file, mounted in every way that is compared. Needs root.

Native, our bind mount, our lazy mount of a complete file with and without passthrough, and two
rivals over an S3 store on loopback: rclone mount with its full VFS cache, and s3fs with its cache.
The rivals' caches are filled by one read before anything is measured.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from _installing import MissingToolError, debian_program
from _servers import BUCKET, nginx_store

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from modelcache_api.chunks import ChunkRecord, JournalHeader, pack_header, pack_record
from modelcache_csi import mount_syscalls
from modelcache_csi.fuse.blobs import this_boot
from modelcache_csi.fuse.negotiation import Features
from support.lazy_mount import GrowingBlob, LazyMount, mounted
from support.mount_namespace import detach

#: A rival that is not mounted after this long will not be. Arbitrary.
_MOUNT_S = 20.0


class CompleteBlob(GrowingBlob):
    """A file that is there already, as a sealed blob by a hard link."""

    def __init__(self, folder: Path, file: Path) -> None:
        folder.mkdir(parents=True)
        self.data, self.journal = folder / "data", folder / "chunks"
        os.link(file, self.data)
        header = JournalHeader(file.stat().st_size, is_sealed=True, boot_id=this_boot())
        self._header = header
        records = pack_record(ChunkRecord(True)) * header.n_chunks
        self.journal.write_bytes(pack_header(header) + records)


@contextmanager
def every_mount(bucket: Path, state: Path, *, with_rivals: bool) -> Iterator[dict[str, Path]]:
    """Directories that show the bucket's files, by the name of how they do."""
    with ExitStack() as stack:
        found = {"native": bucket, "bind": stack.enter_context(_bind(bucket, state / "bind"))}
        for name, features in (
            ("lazy", Features()),
            ("lazy, served", Features(passthrough=False)),
        ):
            found[name] = stack.enter_context(
                _lazy(bucket, state / name.replace(", ", "-"), features)
            )
        if with_rivals:
            (state / "nginx").mkdir()
            store = stack.enter_context(nginx_store(bucket, state / "nginx"))
            found["rclone"] = stack.enter_context(_rclone(store.http_url, state / "rclone"))
            found["s3fs"] = stack.enter_context(_s3fs(store.http_url, state / "s3fs"))
        yield found


@contextmanager
def _bind(bucket: Path, point: Path) -> Iterator[Path]:
    point.mkdir()
    fds = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (bucket, point)]
    clone = mount_syscalls.clone_read_only(fds[0])
    mount_syscalls.attach(clone, fds[1])
    for fd in (*fds, clone):
        os.close(fd)
    try:
        yield point
    finally:
        detach(point)


@contextmanager
def _lazy(bucket: Path, root: Path, features: Features) -> Iterator[Path]:
    root.mkdir()
    blobs = {file.name: CompleteBlob(root / "blobs" / file.name, file) for file in bucket.iterdir()}
    with mounted(LazyMount(root, blobs, features=features)) as mount:
        if features.passthrough:
            for file in bucket.iterdir():
                _await(lambda file=file: mount.backing_id(mount.point / file.name), "passthrough")
        yield mount.point


@contextmanager
def _rclone(url: str, state: Path) -> Iterator[Path]:
    debian_program("fusermount3", "fuse3")
    program = debian_program("rclone", "rclone")
    point = _made(state)
    command = [
        *(program, "mount", f":s3,provider=Other,endpoint='{url}',env_auth=false:{BUCKET}"),
        *(str(point), "--read-only", "--allow-other", "--vfs-cache-mode", "full"),
        *("--cache-dir", str(state / "cache"), "--config", str(state / "rclone.conf")),
        *("--s3-force-path-style", "--dir-cache-time", "1h", "--vfs-cache-max-age", "1h"),
    ]
    with _process(command, point):
        yield point


@contextmanager
def _s3fs(url: str, state: Path) -> Iterator[Path]:
    program = debian_program("s3fs", "s3fs")
    point = _made(state)
    (state / "cache").mkdir()
    options = [
        *("-o", f"url={url}", "-o", "use_path_request_style", "-o", "public_bucket=1"),
        *("-o", f"use_cache={state / 'cache'}", "-o", "ro", "-o", "allow_other", "-f"),
    ]
    with _process([program, BUCKET, str(point), *options], point):
        yield point


def _made(state: Path) -> Path:
    point = state / "mnt"
    point.mkdir(parents=True)
    return point


@contextmanager
def _process(command: list[str], point: Path) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # The store is plain HTTP on loopback; rclone stumbles over a CA bundle.
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
    )
    try:
        _await(point.is_mount, command[0])
        yield
    finally:
        if point.is_mount():
            detach(point)
        process.terminate()
        process.wait()


def _await(condition, what: str) -> None:
    give_up_at = time.monotonic() + _MOUNT_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise MissingToolError(f"{what} does not mount here")
        time.sleep(0.05)
