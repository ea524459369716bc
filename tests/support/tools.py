"""Programs that tests run: found on PATH or in the cache, else built there once with Go.

The modules beneath ``e2e/lab/tools`` pin each program's version and the sums of all it needs.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: A build from an empty module cache took under two minutes on two cores; arbitrary, well above.
BUILD_TIMEOUT_S = 900


def cache_dir() -> Path:
    """Where programs are built once per machine, and shared by all checkouts."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "modelcache"


def helm() -> Path:
    """The real helm; skips the test where it is not there and cannot be built."""
    return _tool("helm", "helm.sh/helm/v3", "cmd/helm")


def _tool(name: str, module: str, package: str) -> Path:
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    built = sorted(cache_dir().glob(f"{name}/*/{name}"))
    if built:
        return built[-1]
    folder = ROOT / "e2e" / "lab" / "tools" / name
    go = shutil.which("go")
    if not go or not folder.is_dir():
        pytest.skip(
            f"{name} is neither on PATH nor in {cache_dir()}, and there is no Go to build it"
        )
    return _build(go, folder, module, package, name)


def _build(go: str, folder: Path, module: str, package: str, name: str) -> Path:
    version = subprocess.run(
        [go, "list", "-m", "-f", "{{.Version}}", module],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    ).stdout.strip()
    target = cache_dir() / name / version / name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    command = [
        go,
        "build",
        "-trimpath",
        "-ldflags=-s -w",
        "-o",
        str(partial),
        f"{module}/{package}",
    ]
    try:
        subprocess.run(command, cwd=folder, check=True, timeout=BUILD_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as e:
        pytest.skip(f"{name} cannot be built here: {e}")
    partial.rename(target)
    return target
