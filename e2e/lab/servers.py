"""Real programs that tests run, servers of object stores above all: made once, into the cache."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from e2e.lab.commands import LabError, run, say
from e2e.lab.settings import cache_directory
from e2e.lab.tools import FAKE_GCS_SERVER, HELM, MODULES, VERSITYGW, ensure, installed, locked

_AZURITE = MODULES / "azurite"


def versitygw() -> Path:
    """An S3 server with real signatures."""
    return ensure(VERSITYGW) / "versitygw"


def fake_gcs_server() -> Path:
    """An emulator of Google Cloud Storage."""
    return ensure(FAKE_GCS_SERVER) / "fake-gcs-server"


def azurite() -> Path:
    """Microsoft's emulator of Blob Storage, by npm from its lock file.

    Raises:
        LabError: there is no npm, or it fails.
    """
    lock = (_AZURITE / "package-lock.json").read_bytes()
    target = cache_directory() / "azurite" / hashlib.sha256(lock).hexdigest()[:16]
    program = target / "node_modules" / ".bin" / "azurite-blob"
    if program.exists():
        return program
    if shutil.which("npm") is None:
        raise LabError("installing azurite needs npm (Node.js)")
    with locked(target.parent / ".lock", "azurite"):
        if not program.exists():
            _install_azurite(target)
    return program


def _install_azurite(target: Path) -> None:
    say("installing azurite, once")
    scratch = target.with_name(f".{target.name}.installing")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_AZURITE / name, scratch)
    run(["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=scratch)
    scratch.replace(target)


def helm() -> Path:
    """Helm: ours where it was built, else that on PATH, else ours."""
    on_path = shutil.which("helm")
    if on_path and not installed(HELM).is_dir():
        return Path(on_path)
    return ensure(HELM) / "helm"


#: What tests need, by the name to say if it cannot be had.
PREPARE: dict[str, Callable[[], Path]] = {
    "versitygw": versitygw,
    "fake-gcs-server": fake_gcs_server,
    "azurite": azurite,
    "helm": helm,
}
