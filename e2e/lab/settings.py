"""Names, addresses and paths of one lab: pure arithmetic on its name and its state directory."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

DEFAULT_NAME = "mc"
MAX_NODES = 9  # one digit in names and addresses
SERVICE_RANGE = "10.96.0.0/16"
POD_RANGE = "10.88.0.0/16"
DNS_ADDRESS = "10.96.0.10"  # nobody answers there: names fail at once instead of hanging
API_SERVICE_ADDRESS = "10.96.0.1"
CONTROL_PLANE_ADDRESS = "10.77.0.1"
S3_ADDRESS = "10.77.0.2"
API_PORT = 6443
S3_PORT = 7070
S3_TLS_PORT = 7071


class LabNameError(ValueError):
    """A lab's name does not fit where it is used: interfaces, namespaces, control groups."""


def cache_directory() -> Path:
    """Where built tools and image layers are kept between runs, outside the checkout."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "modelcache"


def default_directory(name: str) -> Path:
    """Where a lab of this name keeps its state: short, because unix sockets lie in it."""
    return Path(tempfile.gettempdir()) / f"modelcache-lab-{os.getuid()}-{name}"


@dataclass(frozen=True)
class Settings:
    """What identifies a lab; two labs of different names do not meet."""

    name: str
    directory: Path

    def __post_init__(self) -> None:
        """Refuse a name that would not survive as part of an interface's name."""
        if not re.fullmatch(r"[a-z][a-z0-9]{0,5}", self.name):
            raise LabNameError(f"a lab's name is one to six of a-z, 0-9: {self.name!r}")

    @property
    def control_plane_netns(self) -> str:
        return f"{self.name}-cp"

    @property
    def s3_netns(self) -> str:
        return f"{self.name}-s3"

    def node_name(self, index: int) -> str:
        return f"n{index}"

    def node_netns(self, index: int) -> str:
        return f"{self.name}-n{index}"

    def node_cgroup(self, index: int) -> str:
        return f"{self.name}-n{index}"

    def node_address(self, index: int) -> str:
        return f"10.77.0.{10 + index}"

    def pod_range(self, index: int) -> str:
        return f"10.88.{index}.0/24"

    def node_directory(self, index: int) -> Path:
        return self.directory / self.node_name(index)

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def logs(self) -> Path:
        return self.directory / "log"

    @property
    def records(self) -> Path:
        return self.directory / "run"

    @property
    def bin(self) -> Path:
        """Ready-made `kubectl` and `helm` that reach this lab."""
        return self.directory / "bin"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.pki / "admin.kubeconfig"

    @property
    def s3_data(self) -> Path:
        return self.directory / "s3"

    @property
    def s3_access_log(self) -> Path:
        return self.logs / "s3-access.log"

    @property
    def api_url(self) -> str:
        return f"https://{CONTROL_PLANE_ADDRESS}:{API_PORT}"


def netns_path(name: str) -> Path:
    """Where `ip netns` keeps a namespace of this name."""
    return Path("/run/netns") / name
