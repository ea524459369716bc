"""How every worker process begins: ``python -m MODULE FD PARENT_PID OPTIONS``."""

import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def begin(argv: Sequence[str]) -> tuple[socket.socket, dict[str, Any]]:
    """The socket to the parent, with whom this process will die, and the options."""
    die_with(int(argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent
    return socket.socket(fileno=int(argv[1])), json.loads(argv[3])


def wall_clock() -> float:
    """Seconds of the Unix epoch."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it ended before we asked
        sys.exit(0)
