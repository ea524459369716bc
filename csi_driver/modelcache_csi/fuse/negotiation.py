"""What is agreed with a kernel in INIT: what it offers, less what was switched off. Pure."""

from dataclasses import dataclass

from modelcache_csi.fuse import protocol
from modelcache_csi.fuse.decoding import Init
from modelcache_csi.fuse.protocol import InitAnswer, InitFlag

# Not ASYNC_DIO: a direct read would then wait where no signal, and no kill, reaches it.
_ALWAYS_WANTED = (
    InitFlag.ASYNC_READ
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.INIT_EXT
)
#: Pages of one READ: 1 MiB. The kernel's own bound unless an administrator raised it.
MAX_PAGES = 256
#: Read-ahead requests under way at once. Those that wait for bytes count too, and must not keep
#: the others from being asked: hence far above the kernel's 12. Arbitrary.
MAX_BACKGROUND = 1024
#: From here on the kernel reads ahead no more.
CONGESTION_THRESHOLD = 768
#: Nobody writes; the kernel wants at least a page.
MAX_WRITE_BYTES = 4096
#: The backing files of passthrough are on a plain file system, not on one stacked on another.
MAX_STACK_DEPTH = 1


#: Where the kernel makes no lazy mounts at all; else `Features.missing` names what it lacks.
ALL_MISSING = ("fuse",)


class KernelTooOldError(Exception):
    """The kernel speaks no version of the protocol that we speak."""


@dataclass(frozen=True, slots=True)
class Features:
    """What newer kernels have, and a mount may be made without.

    Attributes:
        passthrough: The kernel reads complete files itself (Linux 6.9).
        resend: The kernel repeats what a dead server left unanswered (Linux 6.9).
    """

    passthrough: bool = True
    resend: bool = True

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of those that are not there."""
        return tuple(name for name in ("passthrough", "resend") if not getattr(self, name))


def features_of(flags: InitFlag) -> Features:
    """What was agreed, by the flags of the answer."""
    return Features(
        passthrough=bool(flags & InitFlag.PASSTHROUGH), resend=bool(flags & InitFlag.HAS_RESEND)
    )


def negotiate(init: Init, allowed: Features) -> InitAnswer:
    """The answer to INIT.

    A kernel of a later major version is answered with ours, and asks again by that.

    Raises:
        KernelTooOldError: nothing in common.
    """
    if init.major < protocol.MAJOR or (
        init.major == protocol.MAJOR and init.minor < protocol.MIN_MINOR
    ):
        raise KernelTooOldError(
            f"the kernel speaks FUSE {init.major}.{init.minor},"
            f" lazy mounts need {protocol.MAJOR}.{protocol.MIN_MINOR} (Linux 5.4)"
        )
    wanted = _ALWAYS_WANTED
    if allowed.passthrough:
        wanted |= InitFlag.PASSTHROUGH
    if allowed.resend:
        wanted |= InitFlag.HAS_RESEND
    flags = init.flags & wanted
    if not flags & InitFlag.INIT_EXT:
        flags &= InitFlag(0xFFFFFFFF)
    return InitAnswer(
        minor=min(init.minor, protocol.MAX_MINOR),
        flags=flags,
        max_readahead_bytes=init.max_readahead_bytes,
        max_background=MAX_BACKGROUND,
        congestion_threshold=CONGESTION_THRESHOLD,
        max_write_bytes=MAX_WRITE_BYTES,
        max_pages=MAX_PAGES if flags & InitFlag.MAX_PAGES else 0,
        max_stack_depth=MAX_STACK_DEPTH if flags & InitFlag.PASSTHROUGH else 0,
    )
