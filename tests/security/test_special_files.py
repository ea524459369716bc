"""Links and special files: a tree holds plain files of fixed modes, and is made beneath itself.

The class of CVE-2025-59352 (files of the host read through a cache) and of symlink races.
"""

import os
import stat

import pytest

from modelcache_api.errors import DiskFailedError
from modelcache_api.manifest import File, Manifest
from modelcache_node.store.files import Trash
from modelcache_node.store.revisions import RevisionStore

PATHS = ("config.json", "a/b/c.bin", "a/d.bin")
KEY = "ab" * 32


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"weights")
    path.chmod(0o444)
    return path


@pytest.fixture
def revisions(tmp_path, data):
    for name in ("revisions", "trash"):
        (tmp_path / name).mkdir()
    return RevisionStore(tmp_path / "revisions", Trash(tmp_path / "trash"), lambda _: data)


def published(revisions):
    manifest = Manifest.of(File(path, 7, KEY, None) for path in PATHS)
    return revisions.publish(revisions.put_manifest(manifest))


def test_a_tree_has_plain_files_and_fixed_modes(revisions):
    """Modes are ours, whatever an origin or the umask says."""
    old = os.umask(0o077)
    try:
        tree = published(revisions)
    finally:
        os.umask(old)
    found = {p.relative_to(tree).as_posix(): p.lstat().st_mode for p in tree.rglob("*")}
    files = {path for path, mode in found.items() if stat.S_ISREG(mode)}
    assert files == set(PATHS)
    assert {stat.S_IMODE(found[path]) for path in files} == {0o444}
    assert {stat.S_IMODE(found[path]) for path in found.keys() - files} == {0o555}


@pytest.mark.parametrize("kind", ["symlink", "fifo", "writable", "setuid"])
def test_what_is_no_plain_file_becomes_part_of_no_tree(tmp_path, revisions, data, kind):
    """Symlink (CVE-2025-59352): a blob that became a link or a device is not shown to anybody."""
    if kind in {"writable", "setuid"}:
        data.chmod(0o666 if kind == "writable" else 0o4444)
    else:
        data.unlink()
        if kind == "symlink":
            data.symlink_to("/etc/passwd")
        else:
            os.mkfifo(data, 0o444)
    with pytest.raises(DiskFailedError, match="no plain file"):
        published(revisions)
    assert not list(tmp_path.glob("revisions/*/tree"))


def test_a_link_in_the_way_is_not_followed(tmp_path, revisions, monkeypatch):
    """Symlink race: a folder of a tree that was swapped for a link leads nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    mkdir = os.mkdir

    def swapped(path, mode=0o777, *, dir_fd=None):
        if path == "a":
            os.symlink(outside, path, dir_fd=dir_fd)
        else:
            mkdir(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        published(revisions)
    assert list(outside.iterdir()) == []
