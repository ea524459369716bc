"""Brings what a benchmark needs: Debian packages, Go programs, Python packages of rivals.

Rivals live in the user's cache, each under its version and away from our own environment.
"""

import fcntl
import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _flags import say

#: One directory per Go program, with a go.mod that pins it and a go.sum beside it.
GO_MODULES = Path(__file__).resolve().parent / "rivals"
#: Where Debian puts servers, which is not on every user's path.
_SERVER_PATH = "/usr/sbin:/sbin"


class MissingToolError(Exception):
    """Something that a benchmark needs is not installed, and cannot be installed here."""


def cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "modelcache"


def debian_program(program: str, package: str) -> str:
    """The path of a program; installs its package where this is Debian and we are root.

    Raises:
        MissingToolError: it is not there.
    """
    found = _which(program)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {package}")
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        if _run(install, environment).returncode:
            _run(["apt-get", "update", "-qq"], environment)
            _run(install, environment)
        found = _which(program)
    if found is None:
        raise MissingToolError(f"{program} is missing: apt-get install {package}")
    return found


def go_program(name: str, version: str, package: str) -> Path:
    """The path of a program that is built once, from the module in `rivals/<name>`.

    Raises:
        MissingToolError: there is no Go, or it does not build.
    """

    def build(target: Path) -> None:
        if shutil.which("go") is None:
            raise MissingToolError(f"building {name} needs Go: https://go.dev/dl")
        target.mkdir()
        command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]
        done = _run(
            [*command, "-ldflags=-s -w", "-o", str(target / name), package],
            {**os.environ, "CGO_ENABLED": "0"},
            GO_MODULES / name,
        )
        if done.returncode:
            raise MissingToolError(f"{name} {version} does not build:\n{done.stderr[-1000:]}")

    return _once(name, version, build) / name


def python_with(package: str, version: str) -> Path:
    """A Python that has this package, in an environment of its own.

    Raises:
        MissingToolError: pip cannot bring it.
    """

    def build(target: Path) -> None:
        venv.create(target, with_pip=True)
        pip = [str(target / "bin" / "python"), "-m", "pip", "install", "-q"]
        done = _run([*pip, f"{package}=={version}"])
        if done.returncode:
            raise MissingToolError(f"pip cannot install {package}: {done.stderr[-1000:]}")

    return _once(package, version, build) / "bin" / "python"


def _once(name: str, version: str, build: Callable[[Path], None]) -> Path:
    """The directory of a version; built by one run at a time, and marked when it is whole."""
    target = cache_directory() / name / version
    with _locked(cache_directory() / name / ".lock"):
        mark = target / ".complete"
        if not mark.exists():
            say(f"bringing {name} {version}, once")
            shutil.rmtree(target, ignore_errors=True)
            build(target)
            mark.touch()
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(
    command: list[str], environment: dict[str, str] | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


def _which(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=_SERVER_PATH)
