"""The inode table of one mount, made from a manifest alone: the very tree that a node publishes.

Node ids follow from the order of `Manifest.tree`, so every server of a mount, and every successor,
gives the same ones; nothing has to be remembered, and nothing counted. They are a format: mounts
outlive upgrades. As in a published tree, paths of one blob are hard links: one node.

A file has two node ids: its own, and `passthrough_node` of it, by which it is known once it is
complete and the kernel may read it without us. The kernel refuses to mix both ways of reading in
one inode. What `stat` shows is the same for both.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from modelcache_api.manifest import Manifest
from modelcache_csi.fuse.protocol import ROOT_NODE, Attributes

_DIRECTORY_MODE = stat.S_IFDIR | 0o555
_FILE_MODE = stat.S_IFREG | 0o444
#: Tells the two nodes of a file apart. Far above the number of files of a revision.
_PASSTHROUGH = 1 << 32


@dataclass(frozen=True, slots=True)
class FileNode:
    """A file: which of the revision's blobs (`Tree.blobs`) its bytes are.

    `names`: every (parent, name) at which it hangs.
    """

    node: int
    size_bytes: int
    blob_index: int
    names: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LayoutFile:
    """A small file that is the layout's own, not the source's."""

    node: int
    content: bytes


@dataclass(frozen=True, slots=True)
class DirectoryNode:
    """A directory; `children` in the order in which they are listed."""

    node: int
    parent: int
    children: dict[bytes, int]


Node: TypeAlias = FileNode | LayoutFile | DirectoryNode


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
        self._nodes: dict[int, Node] = {ROOT_NODE: DirectoryNode(ROOT_NODE, ROOT_NODE, {})}
        self._file_of_blob: dict[int, FileNode] = {}
        for path, content in manifest.tree():
            *folders, name = path.encode().split(b"/")
            directory = self._made(folders)
            if isinstance(content, bytes):
                node = len(self._nodes) + 1
                self._nodes[node] = LayoutFile(node, content)
            else:
                index = self._blob_index[content.blob]
                node = self._linked(index, content.size_bytes, directory.node, name)
            directory.children[name] = node

    def _made(self, folders: Sequence[bytes]) -> DirectoryNode:
        directory = self._directory(ROOT_NODE)
        for folder in folders:
            node = directory.children.get(folder)
            if node is None:
                node = len(self._nodes) + 1
                directory.children[folder] = node
                self._nodes[node] = DirectoryNode(node, directory.node, {})
            directory = self._directory(node)
        return directory

    def _linked(self, blob_index: int, size_bytes: int, parent: int, name: bytes) -> int:
        file = self._file_of_blob.get(blob_index)
        if file is None:
            file = FileNode(len(self._nodes) + 1, size_bytes, blob_index)
            self._nodes[file.node] = self._file_of_blob[blob_index] = file
        file.names.append((parent, name))
        return file.node

    def _directory(self, node: int) -> DirectoryNode:
        found = self._nodes[node]
        assert isinstance(found, DirectoryNode)  # a manifest has no name that is both
        return found

    def __len__(self) -> int:
        """Nodes, directories included."""
        return len(self._nodes)

    def find(self, node: int) -> Node | None:
        """By either of its ids."""
        return self._nodes.get(node & ~_PASSTHROUGH)

    def child(self, parent: int, name: bytes) -> Node | None:
        directory = self._nodes.get(parent)
        if not isinstance(directory, DirectoryNode):
            return None
        node = directory.children.get(name)
        return None if node is None else self._nodes[node]

    def index_of(self, blob_key: str) -> int | None:
        return self._blob_index.get(blob_key)

    def names_of(self, blob_index: int) -> Sequence[tuple[int, bytes]]:
        """(parent, name) of every path that is made of a blob."""
        return self._file_of_blob[blob_index].names

    def attributes(self, one: Node) -> Attributes:
        if isinstance(one, DirectoryNode):
            return Attributes(one.node, _DIRECTORY_MODE, 0, 2, self._mtime_s)
        if isinstance(one, LayoutFile):
            return Attributes(one.node, _FILE_MODE, len(one.content), 1, self._mtime_s)
        return Attributes(one.node, _FILE_MODE, one.size_bytes, len(one.names), self._mtime_s)
