"""What each request is answered: a file system's decisions, without any I/O.

`Answerer.handle` turns a request into bytes for the kernel, or into what has to be done to get
them. It keeps nothing of its own but what INIT agreed; whoever takes over begins where we were.
"""

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelcache_csi.fuse import protocol
from modelcache_csi.fuse.decoding import (
    UNANSWERED,
    Init,
    Interrupt,
    Lookup,
    Open,
    Read,
    Request,
    is_too_long,
)
from modelcache_csi.fuse.negotiation import Features, KernelTooOldError, negotiate
from modelcache_csi.fuse.protocol import (
    DirectoryEntry,
    Entry,
    FileSystemSize,
    InitAnswer,
    Opcode,
    OpenFlag,
    answer,
    refusal,
)
from modelcache_csi.fuse.tree import (
    DirectoryNode,
    FileNode,
    LayoutFile,
    Node,
    Tree,
    is_passthrough,
    passthrough_node,
)

#: How long the kernel need not ask again about what never changes: a day. Arbitrary.
VALID_S = 86_400
#: The same for a name whose node changes when its file is complete. The kernel is told then; this
#: is for the case that the message got lost with its sender. Arbitrary.
INCOMPLETE_VALID_S = 60
_FILE_FLAGS = OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH
_DIRECTORY_FLAGS = OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR


@dataclass(frozen=True, slots=True)
class Answer:
    """Send these bytes."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class Agreed:
    """Send these bytes, and hold to what they say from here on."""

    raw: bytes
    init: InitAnswer


@dataclass(frozen=True, slots=True)
class ReadBytes:
    """Answer with that range of a blob, as soon as it is here."""

    unique: int
    blob_index: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class OpenBacking:
    """Answer with the blob's backing id, so that the kernel reads it without us."""

    unique: int
    blob_index: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Whoever waits for that request waits no longer."""

    unique: int


Outcome = Answer | Agreed | ReadBytes | OpenBacking | GiveUp | None


class Answerer:
    """One mount's answers.

    `is_complete(blob_index)` says whether a blob is whole and checked; asked at every look-up.
    """

    def __init__(
        self, tree: Tree, allowed: Features, *, is_complete: Callable[[int], bool]
    ) -> None:
        self._tree = tree
        self._allowed = allowed
        self._is_complete = is_complete
        #: What INIT agreed; a successor sets it from what its predecessor left.
        self.features = Features(passthrough=False, resend=False)
        self._by_opcode: dict[int, Callable[[Request], bytes]] = {
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: lambda request: refusal(request.unique, errno.EINVAL),
            Opcode.STATFS: self._statfs,
            Opcode.RELEASE: lambda request: answer(request.unique),
            Opcode.RELEASEDIR: lambda request: answer(request.unique),
            Opcode.DESTROY: lambda request: answer(request.unique),
        }

    def handle(self, request: Request) -> Outcome:
        """What to do about one request; None: nothing."""
        if isinstance(request, Read):
            return self._read(request)
        if isinstance(request, Lookup):
            return Answer(self._lookup(request))
        if isinstance(request, Open):
            return self._open(request)
        if isinstance(request, Interrupt):
            return GiveUp(request.interrupted)
        if isinstance(request, Init):
            return self._init(request)
        return self._other(request)

    def _other(self, request: Request) -> Outcome:
        known = self._by_opcode.get(request.opcode)
        if known is not None:
            return Answer(known(request))
        if request.opcode in UNANSWERED:
            return None
        is_mutation = request.opcode in protocol.MUTATIONS
        return Answer(refusal(request.unique, errno.EROFS if is_mutation else errno.ENOSYS))

    def _init(self, request: Init) -> Outcome:
        try:
            init = negotiate(request, self._allowed)
        except KernelTooOldError:
            return Answer(refusal(request.unique, errno.EPROTO))
        return Agreed(answer(request.unique, protocol.pack_init(init)), init)

    def _lookup(self, request: Lookup) -> bytes:
        if is_too_long(request.name):
            return refusal(request.unique, errno.ENAMETOOLONG)
        if not isinstance(self._tree.find(request.node), DirectoryNode):
            return refusal(request.unique, errno.ENOTDIR)
        found = self._tree.child(request.node, request.name)
        if found is None:
            return refusal(request.unique, errno.ENOENT)
        return answer(request.unique, protocol.pack_entry(self._entry(found)))

    def _entry(self, one: Node) -> Entry:
        attributes = self._tree.attributes(one)
        if not isinstance(one, FileNode) or not self.features.passthrough:
            return Entry(one.node, attributes, VALID_S)
        if self._is_complete(one.blob_index):
            return Entry(passthrough_node(one.node), attributes, VALID_S)
        return Entry(one.node, attributes, INCOMPLETE_VALID_S)

    def _getattr(self, request: Request) -> bytes:
        found = self._tree.find(request.node)
        if found is None:
            return refusal(request.unique, errno.ENOENT)
        attributes = self._tree.attributes(found)
        return answer(request.unique, protocol.pack_attr_out(attributes, VALID_S))

    def _statfs(self, request: Request) -> bytes:
        size = FileSystemSize(self._tree.size_bytes, len(self._tree))
        return answer(request.unique, protocol.pack_statfs(size))

    def _open(self, request: Open) -> Outcome:
        found = self._tree.find(request.node)
        if found is None:
            return Answer(refusal(request.unique, errno.ENOENT))
        if request.opcode == Opcode.OPENDIR:
            return Answer(answer(request.unique, protocol.pack_open(_DIRECTORY_FLAGS)))
        if isinstance(found, DirectoryNode):
            return Answer(refusal(request.unique, errno.EISDIR))
        if request.flags & os.O_ACCMODE != os.O_RDONLY:
            return Answer(refusal(request.unique, errno.EROFS))
        if not isinstance(found, FileNode):
            return Answer(plain_open(request.unique))
        if is_passthrough(request.node) and self.features.passthrough:
            return OpenBacking(request.unique, found.blob_index)
        return Answer(plain_open(request.unique))

    def _read(self, request: Read) -> Outcome:
        found = self._tree.find(request.node)
        if found is None:
            return Answer(refusal(request.unique, errno.ENOENT))
        if isinstance(found, DirectoryNode):
            return self._list(request, found)
        if request.opcode != Opcode.READ:
            return Answer(refusal(request.unique, errno.ENOTDIR))
        if isinstance(found, LayoutFile):
            end = request.offset + request.size
            return Answer(answer(request.unique, found.content[request.offset : end]))
        size = min(request.size, max(0, found.size_bytes - request.offset))
        if size == 0:
            return Answer(answer(request.unique))
        return ReadBytes(request.unique, found.blob_index, request.offset, size)

    def _list(self, request: Read, directory: DirectoryNode) -> Outcome:
        if request.opcode == Opcode.READ:
            return Answer(refusal(request.unique, errno.EISDIR))
        is_plus = request.opcode == Opcode.READDIRPLUS
        entries = self._entries(directory, request.offset)
        body = protocol.pack_directory(entries, request.size, with_attributes=is_plus)
        return Answer(answer(request.unique, body))

    def _entries(self, directory: DirectoryNode, begin: int) -> Iterator[DirectoryEntry]:
        """From the entry at `begin` on. The first two are not to be remembered: node 0."""
        dots = ((b".", directory.node), (b"..", directory.parent))
        named = itertools.chain(dots, directory.children.items())
        for offset, (name, node) in enumerate(itertools.islice(named, begin, None), begin):
            found = self._tree.find(node)
            assert found is not None
            if offset < len(dots):
                entry = Entry(0, self._tree.attributes(found), 0)
            else:
                entry = self._entry(found)
            yield DirectoryEntry(offset + 1, name, entry)


def plain_open(unique: int) -> bytes:
    """Opened, and to be read through us."""
    return answer(unique, protocol.pack_open(_FILE_FLAGS))


def passthrough_open(unique: int, backing_id: int) -> bytes:
    """Opened, and to be read by the kernel from that backing file."""
    flags = OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH
    return answer(unique, protocol.pack_open(flags, backing_id))
