"""Builds the pinned Go programs once into the cache, and installs the Debian packages of the lab.

Versions stand in one place: each tool's `go.mod` under `tools/`, with `go.sum` beside it.
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.commands import LabError, run, say
from e2e.lab.settings import cache_directory

MODULES = Path(__file__).resolve().parent / "tools"
BUILD_TIMEOUT_S = 3600  # Kubernetes on one slow core

PACKAGES = {  # Debian package → a file that shows it is there
    "etcd-server": "/usr/bin/etcd",
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "/usr/sbin/iptables",
    "iproute2": "/usr/sbin/ip",
    "conntrack": "/usr/sbin/conntrack",
    "e2fsprogs": "/usr/sbin/mkfs.ext4",
    "openssl": "/usr/bin/openssl",
    "mmdebstrap": "/usr/bin/mmdebstrap",
}


@dataclass(frozen=True)
class Tool:
    """One Go module of programs: what to build, and how its version gets into the programs."""

    name: str
    module: str
    programs: tuple[str, ...]
    version_package: str | None = None

    @property
    def directory(self) -> Path:
        return MODULES / self.name


KUBERNETES = Tool(
    "kubernetes",
    "k8s.io/kubernetes",
    tuple(
        f"k8s.io/kubernetes/cmd/{program}"
        for program in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        )
    ),
    version_package="k8s.io/component-base/version",
)
HELM = Tool(
    "helm",
    "helm.sh/helm/v3",
    ("helm.sh/helm/v3/cmd/helm",),
    version_package="helm.sh/helm/v3/internal/version",
)
VERSITYGW = Tool(
    "versitygw", "github.com/versity/versitygw", ("github.com/versity/versitygw/cmd/versitygw",)
)
CSI_SANITY = Tool(
    "csi-sanity",
    "github.com/kubernetes-csi/csi-test/v5",
    ("github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",),
)
#: For tests alone: the lab does without.
FAKE_GCS_SERVER = Tool(
    "fake-gcs-server",
    "github.com/fsouza/fake-gcs-server",
    ("github.com/fsouza/fake-gcs-server",),
)
TOOLS = (HELM, VERSITYGW, CSI_SANITY, KUBERNETES)


def required_version(tool: Tool) -> str:
    """The version a tool's `go.mod` asks for.

    Raises:
        LabError: The file does not name the tool's module.
    """
    text = (tool.directory / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"^require {re.escape(tool.module)} (v\S+)$", text, re.MULTILINE)
    if found is None:
        raise LabError(f"{tool.directory / 'go.mod'} does not require {tool.module}")
    return found[1]


def installed(tool: Tool) -> Path:
    """The directory that holds (or will hold) a tool's programs."""
    return cache_directory() / tool.name / required_version(tool)


def program(tool: Tool, name: str) -> Path:
    """The path of one program of a tool."""
    return installed(tool) / name


def ensure(tool: Tool) -> Path:
    """Build a tool unless the cache has it; return its directory."""
    target = installed(tool)
    if target.is_dir():
        return target
    with locked(target.parent / ".lock", tool.name):
        if not target.is_dir():
            _build(tool, target)
    return target


def ensure_all() -> None:
    """Build every tool that is missing."""
    for tool in TOOLS:
        ensure(tool)


def ensure_packages() -> None:
    """Install the Debian packages that are missing.

    Raises:
        LabError: Something is missing and apt-get cannot bring it.
    """
    missing = [name for name, file in PACKAGES.items() if not Path(file).exists()]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise LabError(f"install these (Debian's names), then try again: {', '.join(missing)}")
    say(f"installing {', '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    if run(install, env=env, check=False).returncode:
        run(["apt-get", "update", "-qq"], env=env)
        run(install, env=env)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a file lock, so that two runs do not build the same thing at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is building {what}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(tool: Tool, target: Path) -> None:
    version = required_version(tool)
    if shutil.which("go") is None:
        raise LabError("building the lab's programs needs Go: https://go.dev/dl, then try again")
    say(f"building {tool.name} {version} from source, once; Kubernetes takes 5 to 15 minutes")
    started = time.monotonic()
    scratch = target.with_name(f".{target.name}.building")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    run(
        [
            *("nice", "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly"),
            *(f"-ldflags={linker_flags(tool, version)}", "-o", f"{scratch}/", *tool.programs),
        ],
        env={**os.environ, "CGO_ENABLED": "0"},
        cwd=tool.directory,
        timeout_s=BUILD_TIMEOUT_S,
    )
    scratch.replace(target)
    say(f"built {tool.name} {version} in {time.monotonic() - started:.0f} s")


def linker_flags(tool: Tool, version: str) -> str:
    """What the linker is told: no symbols, and the version where programs report it."""
    flags = ["-s", "-w"]
    if tool is KUBERNETES:
        major, minor, _ = version.removeprefix("v").split(".")
        facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
        flags += [f"-X {tool.version_package}.{key}={value}" for key, value in facts.items()]
    elif tool.version_package is not None:
        flags.append(f"-X {tool.version_package}.version={version}")
    return " ".join(flags)
