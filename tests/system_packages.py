"""Install the Debian packages and build the servers that tests need, or say what is left out.

Run by ``make test`` with the system's Python, before there is an environment: standard library
only. Does nothing, quickly, where all is there; never fails the run, since a test that misses its
program skips and says so.
"""

# ruff: noqa: T201 -- there is no logger yet; what it prints is for whoever runs the tests

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: apt-get with a cold cache; arbitrary.
TIMEOUT_S = 600


@dataclass(frozen=True)
class Need:
    """A program, the Debian package that brings it, and which tests run it."""

    program: str
    package: str
    tests: str


NEEDS = (
    Need("ip", "iproute2", "transfers between network namespaces"),
    Need("openssl", "openssl", "a real API server with roles and admission policies"),
    Need("unshare", "util-linux", "mounts in a namespace of their own"),
)


def missing(needs: tuple[Need, ...]) -> list[Need]:
    return [need for need in needs if shutil.which(need.program) is None]


def install(packages: list[str]) -> bool:
    """Whether apt-get installed `packages`."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wanted = ["apt-get", "install", "-qq", "--no-install-recommends", *packages]
    for command in (wanted, ["apt-get", "update", "-qq"], wanted):
        try:
            code = subprocess.run(
                command, env=environment, stdout=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as e:
            print(f"system packages: {e}", file=sys.stderr)
            return False
        if code == 0 and command is wanted:
            return True
    return False


def prepare_servers() -> None:
    """Servers of object stores and helm, into the cache: a test must not wait minutes for one."""
    sys.path.insert(0, str(ROOT))
    from e2e.lab.commands import LabError  # noqa: PLC0415 - not before its path is known
    from e2e.lab.servers import PREPARE  # noqa: PLC0415

    for name, prepare in PREPARE.items():
        try:
            prepare()
        except LabError as e:
            print(f"no {name}, left out: its tests ({e})")


def main() -> None:
    prepare_packages()
    prepare_servers()


def prepare_packages() -> None:
    if os.geteuid() != 0:
        print("not root: tests marked `root` (mounts, network namespaces, cgroups) are left out")
        return
    wanted = missing(NEEDS)
    if not wanted:
        return
    packages = sorted({need.package for need in wanted})
    if shutil.which("apt-get") and install(packages):
        print(f"installed for the tests: {', '.join(packages)}")
        return
    for need in wanted:
        print(f"no {need.program} (Debian package {need.package}), left out: {need.tests}")


if __name__ == "__main__":
    main()
