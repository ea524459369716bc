"""Memory that the machine need not fetch from its hypervisor while something is timed.

A virtual machine may give free memory back (free page reporting), in blocks of MiB. The first touch
of such a page then costs µs instead of a fraction of one, which drowns whatever is measured, and
costs most who comes first. One page kept in each block keeps the whole block here.
"""

import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from _flags import say

#: The smallest block that is given back: as Linux has it, a huge page.
_BLOCK_BYTES = 2 << 20
_STEP_BYTES = 1 << 28
#: Pages that one pipe holds: what anybody may set (fs.pipe-max-size).
_PIPE_PAGES = 256
_POPULATE_WRITE = 23  # linux/mman.h, since 5.14


class _Piece(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@contextmanager
def warm_memory(n_bytes: int) -> Iterator[None]:
    """While entered, so much free memory was touched already, and stays."""
    say(f"touching {n_bytes >> 20} MiB of memory, so that all find it warm")
    n_bytes -= n_bytes % _BLOCK_BYTES
    with ExitStack() as stack, mmap.mmap(-1, n_bytes) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for offset in range(0, n_bytes, _STEP_BYTES):
            memory.madvise(_POPULATE_WRITE, offset, min(_STEP_BYTES, n_bytes - offset))
        first = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(first)
        del first
        pages = [start + offset for offset in range(0, n_bytes, _BLOCK_BYTES)]
        for at in range(0, len(pages), _PIPE_PAGES):
            _hold(pages[at : at + _PIPE_PAGES], stack)
        memory.madvise(mmap.MADV_DONTNEED)
        yield


def _hold(pages: list[int], stack: ExitStack) -> None:
    """Hold pages in a pipe: there, unlike in a process, the kernel cannot move them together."""
    for_read, for_write = os.pipe()
    stack.callback(os.close, for_read)
    stack.callback(os.close, for_write)
    fcntl.fcntl(for_write, fcntl.F_SETPIPE_SZ, _PIPE_PAGES * mmap.PAGESIZE)
    pieces = (_Piece * len(pages))(*((page, mmap.PAGESIZE) for page in pages))
    held = ctypes.CDLL(None, use_errno=True).vmsplice(for_write, pieces, len(pieces), 0)
    if held != len(pages) * mmap.PAGESIZE:
        raise OSError(ctypes.get_errno(), "vmsplice")
