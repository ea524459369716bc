"""The inode table of one mount, made from a manifest alone.

Node ids follow from the manifest's order, so every server of a mount, and every successor, gives
the same ones; nothing has to be remembered, and nothing counted.

A file has two node ids: its own, and `passthrough_node` of it, by which it is known once it is
complete and the kernel may read it without us. The kernel refuses to mix both ways of reading in
one inode. What `stat` shows is the same for both.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass

from modelcache_api.manifest import Manifest
from modelcache_csi.fuse.protocol import ROOT_NODE, Attributes

_DIRECTORY_MODE = stat.S_IFDIR | 0o555
_FILE_MODE = stat.S_IFREG | 0o444
#: Tells the two nodes of a file apart. Far above the number of files of a revision.
_PASSTHROUGH = 1 << 32


@dataclass(frozen=True, slots=True)
class FileNode:
    """A file: where it hangs, and which of the revision's blobs (`Tree.blobs`) its bytes are."""

    node: int
    parent: int
    name: bytes
    size_bytes: int
    blob_index: int


@dataclass(frozen=True, slots=True)
class DirectoryNode:
    """A directory; `children` in the order in which they are listed."""

    node: int
    parent: int
    children: dict[bytes, int]


@dataclass(frozen=True, slots=True)
class Blob:
    """The bytes of one or several files."""

    key: str
    size_bytes: int


def passthrough_node(node: int) -> int:
    return node | _PASSTHROUGH


def is_passthrough(node: int) -> bool:
    return bool(node & _PASSTHROUGH)


class Tree:
    """Immutable. Look-ups raise nothing: what is not there is None."""

    def __init__(self, manifest: Manifest, *, mtime_s: int) -> None:
        self._mtime_s = mtime_s
        self.size_bytes = manifest.size_bytes
        self.blobs = tuple(Blob(b.blob, b.size_bytes) for b in manifest.blobs.values())
        self._blob_index = {blob.key: index for index, blob in enumerate(self.blobs)}
        self._nodes: dict[int, FileNode | DirectoryNode] = {
            ROOT_NODE: DirectoryNode(ROOT_NODE, ROOT_NODE, {})
        }
        self._files_of_blob: dict[int, list[FileNode]] = {}
        for file in manifest.files:
            *folders, name = file.path.encode().split(b"/")
            self._add_file(folders, name, file.size_bytes, self._blob_index[file.blob])

    def _add_file(
        self, folders: Sequence[bytes], name: bytes, size_bytes: int, blob_index: int
    ) -> None:
        directory = self._directory(ROOT_NODE)
        for folder in folders:
            node = directory.children.get(folder)
            if node is None:
                node = len(self._nodes) + 1
                directory.children[folder] = node
                self._nodes[node] = DirectoryNode(node, directory.node, {})
            directory = self._directory(node)
        node = len(self._nodes) + 1
        directory.children[name] = node
        file = FileNode(node, directory.node, name, size_bytes, blob_index)
        self._nodes[node] = file
        self._files_of_blob.setdefault(blob_index, []).append(file)

    def _directory(self, node: int) -> DirectoryNode:
        found = self._nodes[node]
        assert isinstance(found, DirectoryNode)  # a manifest has no name that is both
        return found

    def __len__(self) -> int:
        """Nodes, directories included."""
        return len(self._nodes)

    def find(self, node: int) -> FileNode | DirectoryNode | None:
        """By either of its ids."""
        return self._nodes.get(node & ~_PASSTHROUGH)

    def child(self, parent: int, name: bytes) -> FileNode | DirectoryNode | None:
        directory = self._nodes.get(parent)
        if not isinstance(directory, DirectoryNode):
            return None
        node = directory.children.get(name)
        return None if node is None else self._nodes[node]

    def index_of(self, blob_key: str) -> int | None:
        return self._blob_index.get(blob_key)

    def files_of(self, blob_index: int) -> Sequence[FileNode]:
        """Every file that is made of a blob."""
        return self._files_of_blob.get(blob_index, ())

    def attributes(self, one: FileNode | DirectoryNode) -> Attributes:
        if isinstance(one, FileNode):
            return Attributes(one.node, _FILE_MODE, one.size_bytes, 1, self._mtime_s)
        return Attributes(one.node, _DIRECTORY_MODE, 0, 2, self._mtime_s)
