"""Programs that tests run: in the cache or on PATH, else built into the cache with Go."""

import shutil
from pathlib import Path

import pytest

from e2e.lab.commands import LabError
from e2e.lab.servers import PREPARE
from e2e.lab.tools import KUBERNETES, installed

ROOT = Path(__file__).resolve().parents[2]


def helm() -> Path:
    """The real helm; skips the test where it is not there and cannot be built."""
    return server("helm")


def kube_apiserver() -> Path:
    """The real API server. Skips the test where it was not built before: it takes ten minutes."""
    if not installed(KUBERNETES).is_dir():
        pytest.skip("no kube-apiserver in the cache; `make e2e CLUSTER=lab` builds it")
    return installed(KUBERNETES) / "kube-apiserver"


def etcd() -> Path:
    found = shutil.which("etcd")
    if not found:
        pytest.skip("no etcd (Debian package etcd-server)")
    return Path(found)


def server(name: str) -> Path:
    """One of `PREPARE`: a real server of an object store, or helm."""
    try:
        return PREPARE[name]()
    except LabError as e:
        pytest.skip(f"no {name}: {e}")
