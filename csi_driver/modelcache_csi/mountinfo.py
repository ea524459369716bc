r"""Reads the mount table: /proc/<pid>/mountinfo as frozen values.

One line per mount, fields between single blanks, blanks inside a field as octal escapes::

    36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    id parent dev root mount_point options [optional fields…] - type source super_options

See proc_pid_mountinfo(5). Knows the format only; what a mount means is `mounts`' business.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ESCAPE = re.compile(rb"\\([0-7]{3})")
#: What the kernel appends to the root of a mount whose directory was removed. Linux, d_path().
DELETED_SUFFIX = "//deleted"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system, or part of one, where it is attached.

    `root` is the directory within the file system that appears at `mount_point`; `source` whatever
    the file system calls its origin.
    """

    mount_id: int
    parent_id: int
    device: str
    root: str
    mount_point: str
    options: frozenset[str]
    optional_fields: tuple[str, ...]
    fs_type: str
    source: str = ""

    @property
    def is_shared(self) -> bool:
        """Whether mounts made beneath appear in the peers' namespaces too."""
        return any(field.startswith("shared:") for field in self.optional_fields)


def parse_mountinfo(raw: bytes) -> Iterator[Mount]:
    """Mounts in the table's order: of those at one point, the last is the one that shows.

    Raises:
        ValueError: a line is not of this format.
    """
    # Not splitlines(): a path may hold a carriage return, which the kernel does not escape.
    for line in raw.removesuffix(b"\n").split(b"\n") if raw else ():
        before, separator, after = line.partition(b" - ")
        fields, type_fields = before.split(b" "), after.split(b" ")
        if not separator or len(fields) < 6:
            raise ValueError(f"not a line of mountinfo: {line[:200]!r}")
        yield Mount(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            device=fields[2].decode("ascii"),
            root=_unescape(fields[3]),
            mount_point=_unescape(fields[4]),
            options=frozenset(fields[5].decode("ascii").split(",")),
            optional_fields=tuple(field.decode("ascii") for field in fields[6:]),
            fs_type=_unescape(type_fields[0]),
            source=_unescape(type_fields[1]) if len(type_fields) > 1 else "",
        )


def _unescape(field: bytes) -> str:
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)
    return raw.decode(errors="surrogateescape")
