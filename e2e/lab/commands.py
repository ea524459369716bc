"""Runs commands for the lab: the one place that knows how they are started and how they fail."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

POLL_INTERVAL_S = 0.1  # arbitrary: small against everything that is waited for here
ERROR_TAIL_CHARS = 4000  # enough of a failed command's words to act on; arbitrary

Found = TypeVar("Found")


class LabError(Exception):
    """The lab cannot do what was asked; the text says why and what to do."""


def say(text: str) -> None:
    """Tell the person waiting what happens now."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 600,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output as text.

    Raises:
        LabError: It failed (unless ``check`` is false) or outlived ``timeout_s``.
    """
    text = stdin.decode() if isinstance(stdin, bytes) else stdin
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            env=None if env is None else dict(env),
            cwd=cwd,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not on this machine: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"gave up after {timeout_s:g} s: {shlex.join(command)}") from error
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip()[-ERROR_TAIL_CHARS:]
        raise LabError(f"exit {done.returncode}: {shlex.join(command)}\n{words}")
    return done


def output(argv: Sequence[str | Path], *, timeout_s: float = 600) -> str:
    """Return what a command writes, without the space around it."""
    return run(argv, timeout_s=timeout_s).stdout.strip()


def wait_until(
    probe: Callable[[], Found | None],
    what: str,
    *,
    timeout_s: float,
    interval_s: float = POLL_INTERVAL_S,
) -> Found:
    """Poll until something holds, and return it: the first answer that is not empty.

    Raises:
        LabError: There was none within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := probe()):
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(interval_s)
    return found
