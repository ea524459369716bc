"""The mount table's format."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from modelcache_csi.mountinfo import parse_mountinfo

# Whatever a path may hold: any bytes but NUL.
PATHS = st.binary(min_size=1, max_size=40).map(lambda raw: b"/" + raw.replace(b"\0", b"0"))
OPTIONAL = st.lists(
    st.sampled_from([b"shared:7", b"master:3", b"propagate_from:2", b"unbindable"]), unique=True
)


def _escape(path: bytes) -> bytes:
    # Linux, fs/proc_namespace.c: blank, tab, newline and backslash, as three octal digits.
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in path)


@given(root=PATHS, mount_point=PATHS, optional=OPTIONAL)
def test_any_path_survives_the_tables_escapes(root, mount_point, optional):
    line = b" ".join(
        [b"36 35 98:0", _escape(root), _escape(mount_point), b"ro,noatime", *optional, b"-"]
    )
    (mount,) = parse_mountinfo(line + b" ext4 /dev/x rw\n")
    assert mount.root.encode(errors="surrogateescape") == root
    assert mount.mount_point.encode(errors="surrogateescape") == mount_point
    assert mount.options == {"ro", "noatime"}
    assert (mount.mount_id, mount.parent_id, mount.device) == (36, 35, "98:0")
    assert mount.is_shared == (b"shared:7" in optional)
    assert mount.fs_type == "ext4"


@given(st.binary(max_size=200))
def test_other_bytes_are_a_value_error_or_mounts_and_nothing_else(raw):
    with contextlib.suppress(ValueError):
        list(parse_mountinfo(raw))


def test_this_machines_table_is_understood():
    mounts = list(parse_mountinfo(Path("/proc/self/mountinfo").read_bytes()))
    assert "/" in [mount.mount_point for mount in mounts]


@pytest.mark.parametrize("line", [b"", b"36 35 98:0 / /mnt rw", b"36 35 98:0 / - ext4 x rw"])
def test_a_line_that_lacks_fields_is_refused(line):
    with pytest.raises(ValueError, match="not a line of mountinfo"):
        list(parse_mountinfo(b"36 35 98:0 / / rw - ext4 x rw\n" + line + b"\n"))
