"""Runs one worker, again and again.

The loop sleeps in `sigtimedwait` with its signals blocked, so no signal is lost between a look
and a sleep, and no handler ever runs in the middle of anything. As PID 1 it also reaps whatever
orphans the worker's children become.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence

from modelcache_supervisor.restarts import Exit, Restarts

#: Passed on to the worker. The first two also end the supervisor, once the worker has ended.
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_FORWARDED = (*_STOPPING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_WAITED_FOR = frozenset({*_FORWARDED, signal.SIGCHLD})
#: A look at the children even when no signal came. Arbitrary; a safeguard only.
_IDLE_WAIT_S = 60.0


class Supervisor:
    """Keeps `command` running until it ends on purpose or we are asked to stop.

    Mutable state: `_worker_pid`, None between two workers; `_is_stopping`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._worker_pid: int | None = None
        self._is_stopping = False

    def run(self) -> int:
        """Returns the exit code that the last worker leaves to us."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        restarts = Restarts()
        while True:
            begun_s = time.monotonic()
            try:
                self._worker_pid = _spawn(self._command)
            except OSError as e:
                _say("cannot start", error=str(e))
                return 127
            ended = self._until_worker_ends()
            lifetime_s = time.monotonic() - begun_s
            if self._is_stopping or ended.is_final:
                _say("worker ended", **_how(ended))
                return 0 if self._is_stopping and ended.signal else ended.as_exit_code()
            restarts, pause_s = restarts.after(lifetime_s)
            _say("worker died, restarting", pause_s=pause_s, **_how(ended))
            if pause_s and self._is_stopped_during(pause_s):
                return ended.as_exit_code()

    def _until_worker_ends(self) -> Exit:
        while True:
            if ended := self._reap():
                return ended
            self._handle_signal(_IDLE_WAIT_S)

    def _is_stopped_during(self, pause_s: float) -> bool:
        until_s = time.monotonic() + pause_s
        while not self._is_stopping and (left_s := until_s - time.monotonic()) > 0:
            self._handle_signal(left_s)
            self._reap()
        return self._is_stopping

    def _handle_signal(self, timeout_s: float) -> None:
        info = signal.sigtimedwait(_WAITED_FOR, timeout_s)
        if info is None or info.si_signo not in _FORWARDED:
            return
        self._is_stopping = self._is_stopping or info.si_signo in _STOPPING
        if self._worker_pid is not None:
            os.kill(self._worker_pid, info.si_signo)

    def _reap(self) -> Exit | None:
        """Collect every child that ended; the worker's end, if it is among them.

        Until it is collected here, the worker's pid cannot go to another process.
        """
        ended: Exit | None = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            if pid == self._worker_pid:
                self._worker_pid = None
                code = os.waitstatus_to_exitcode(status)
                ended = Exit(code=code) if code >= 0 else Exit(signal=-code)


def _spawn(command: list[str]) -> int:
    """Start a worker with signals as a process expects them, whatever we have blocked."""
    return os.posix_spawnp(
        command[0], command, os.environ, setsigmask=(), setsigdef=(signal.SIGPIPE,)
    )


def _how(ended: Exit) -> dict[str, object]:
    if ended.signal is not None:
        return {"signal": ended.signal}
    return {"code": ended.code}


def _say(message: str, **fields: object) -> None:
    """One line of JSON, as the workers log."""
    line = {"level": "warning", "logger": "supervisor", "message": message, **fields}
    sys.stderr.write(json.dumps(line) + "\n")
    sys.stderr.flush()
