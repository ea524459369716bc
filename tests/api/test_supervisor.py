"""The supervisor, on real processes, and its pauses, on numbers."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, strategies as st

from modelcache_supervisor.restarts import (
    FREE_RESTARTS,
    LONGEST_PAUSE_S,
    SOUND_AFTER_S,
    Exit,
    Restarts,
)

# Says its pid, then lives until it is told how to end.
WORKER = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
signal.signal(signal.SIGHUP, lambda *_: print("hup", flush=True))
print(os.getpid(), flush=True)
for line in sys.stdin:
    exec(line)
"""


@contextmanager
def _supervised(worker: str = WORKER) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "modelcache_supervisor", "--", sys.executable, "-c", worker]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def _tell(process: subprocess.Popen, line: str) -> None:
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _kill(pid: str) -> None:
    subprocess.run(["kill", "-9", pid.strip()], check=True)


def _exists(pid: str) -> bool:
    command = ["kill", "-0", pid]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def test_a_killed_worker_is_started_again():
    with _supervised() as process:
        pids = [process.stdout.readline()]
        for _ in range(5):
            _kill(pids[-1])
            pids.append(process.stdout.readline())
        assert len(set(pids)) == 6
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 7


@pytest.mark.parametrize("code", [0, 2])
def test_a_worker_that_ends_on_purpose_ends_the_supervisor(code):
    with _supervised() as process:
        process.stdout.readline()
        _tell(process, f"os._exit({code})")
        assert process.wait() == code


def test_a_worker_that_fails_is_started_again():
    with _supervised() as process:
        first = process.stdout.readline()
        _tell(process, "os._exit(1)")
        assert process.stdout.readline() != first
        process.terminate()
        assert '"code": 1' in process.stderr.readline()


def test_signals_are_passed_on():
    with _supervised() as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "hup\n"
        process.terminate()
        assert process.wait() == 7


def test_a_worker_that_dies_of_the_stop_signal_is_a_clean_stop():
    with _supervised("import signal; print('on', flush=True); signal.pause()") as process:
        process.stdout.readline()
        process.terminate()
        assert process.wait() == 0


def test_orphans_of_the_worker_are_reaped():
    # A child of the supervisor that is not its worker: what PID 1 inherits.
    adopt = (
        "import ctypes, os, sys\n"
        "ctypes.CDLL(None).prctl(36, 1)\n"  # PR_SET_CHILD_SUBREAPER, as PID 1 is one
        "from modelcache_supervisor.__main__ import main\n"
        "main(['--', sys.executable, '-c', sys.argv[1]])\n"
    )
    worker = (
        "import os, pathlib\n"
        "if os.fork() == 0:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os._exit(0)\n"  # orphaned at once: its parent is gone too
        "    print(pid, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", adopt, worker],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        orphan = process.stdout.readline().strip()
        while _exists(orphan):
            pass
        _tell(process, "")
        assert process.wait() == 0


def test_a_command_that_does_not_exist_is_reported():
    command = [sys.executable, "-m", "modelcache_supervisor", "/does/not/exist"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 127
    assert "cannot start" in done.stderr


def test_no_command_is_a_usage_error():
    command = [sys.executable, "-m", "modelcache_supervisor", "--"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 2


def test_a_worker_that_lived_long_is_back_at_once():
    assert Restarts(n_early_deaths=50).after(SOUND_AFTER_S) == (Restarts(), 0.0)


def test_a_worker_that_keeps_dying_young_gets_longer_pauses():
    restarts, pauses = Restarts(), []
    for _ in range(FREE_RESTARTS + 8):
        restarts, pause_s = restarts.after(0.1)
        pauses.append(pause_s)
    assert pauses[:FREE_RESTARTS] == [0.0] * FREE_RESTARTS
    assert pauses == sorted(pauses)
    assert pauses[FREE_RESTARTS] > 0
    assert pauses[-1] == LONGEST_PAUSE_S


@given(n=st.integers(0, 10**9), lifetime_s=st.floats(0, 1e9))
def test_no_pause_exceeds_its_bound(n, lifetime_s):
    _, pause_s = Restarts(n).after(lifetime_s)
    assert 0 <= pause_s <= LONGEST_PAUSE_S


def test_exit_codes_are_those_of_a_shell():
    assert Exit(code=3).as_exit_code() == 3
    assert Exit(signal=9).as_exit_code() == 137
    assert not Exit(signal=9).is_final
