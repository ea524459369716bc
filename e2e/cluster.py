"""A Kubernetes to run scenarios on: the same calls for the lab, kind, and a cluster that exists.

What a cluster cannot do is known beforehand by its `capabilities`: a scenario that needs more
says so and is left out.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from e2e.lab.commands import LabError, run
from e2e.store import Store

Document = Mapping[str, object]

LIST_PROCESSES = (
    "for p in /proc/[0-9]*; do "
    "c=$(tr '\\0\\n' '  ' < $p/cmdline) && g=$(tr '\\n' ' ' < $p/cgroup) && "
    'printf \'%s\\t%s\\t%s\\n\' ${p#/proc/} "$g" "$c"; done 2>/dev/null; true'
)
ESTABLISHED = "01"  # include/net/tcp_states.h
KUBECTL_TIMEOUT_S = 120.0


class Capability(Enum):
    """What not every cluster lets a scenario do."""

    NODES = auto()  # look into nodes, kill there, stop, start and wipe them
    CONTROL_PLANE = auto()  # stop and start the API server
    STORE = auto()  # stop, start and slow down the object store, count what it sends


@dataclass(frozen=True)
class Mount:
    """One line of a node's mountinfo."""

    root: str
    target: str
    options: frozenset[str]
    fs_type: str
    source: str


@dataclass(frozen=True)
class Process:
    """A process, as its node numbers it."""

    pid: int
    cgroup: str
    command: str


class Cluster(ABC):
    """A cluster with an object store within its reach."""

    name: str
    capabilities: frozenset[Capability]
    image: str
    test_image: str
    store: Store
    chart_values: Sequence[str] = ()
    """What the chart must be told here, as words for `helm --set`."""

    @abstractmethod
    def kubectl_words(self) -> list[str]:
        """The words that begin a kubectl command."""

    @abstractmethod
    def helm_words(self) -> list[str]:
        """The words that begin a helm command."""

    @abstractmethod
    def on_node(self, node: str, *words: str) -> str:
        """Run a command as root in a node's own namespaces; return its output."""

    @abstractmethod
    def stop_node(self, node: str) -> None:
        """Cut a node's power; its disks are kept."""

    @abstractmethod
    def start_node(self, node: str) -> None:
        """Start a stopped node; returns when it is ready again."""

    @abstractmethod
    def wipe_models(self, node: str) -> None:
        """Empty a stopped node's disk for models."""

    @abstractmethod
    def stop_api_server(self) -> None: ...

    @abstractmethod
    def start_api_server(self) -> None: ...

    def kubectl(
        self, *words: str, stdin: str | None = None, timeout_s: float = KUBECTL_TIMEOUT_S
    ) -> str:
        """Run kubectl and return its output.

        Raises:
            LabError: It failed; the text holds its words.
        """
        return run([*self.kubectl_words(), *words], stdin=stdin, timeout_s=timeout_s).stdout

    def helm(self, *words: str, timeout_s: float = 300) -> str:
        return run([*self.helm_words(), *words], timeout_s=timeout_s).stdout

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, object]:
        """One object as the API server has it."""
        text = self.kubectl("get", kind, name, "--namespace", namespace, "--output", "json")
        found: dict[str, object] = json.loads(text)
        return found

    def objects(self, kind: str, *words: str) -> list[dict[str, object]]:
        """Objects of a kind; ``words`` narrow: `--namespace`, `--selector`, `--all-namespaces`."""
        text = self.kubectl("get", kind, *words, "--output", "json")
        found: list[dict[str, object]] = json.loads(text)["items"]
        return found

    def apply(self, *documents: Document) -> None:
        """Create or change objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "--filename", "-", stdin=json.dumps(items))

    def node_names(self) -> list[str]:
        """The nodes that take pods."""
        found = json.loads(self.kubectl("get", "nodes", "--output", "json"))["items"]
        return sorted(node["metadata"]["name"] for node in found if "taints" not in node["spec"])

    def mounts(self, node: str) -> list[Mount]:
        """What is mounted on a node, outside its containers."""
        return [
            parse_mount(line)
            for line in self.on_node(node, "cat", "/proc/1/mountinfo").splitlines()
        ]

    def processes(self, node: str) -> list[Process]:
        """What runs on a node, in its containers and outside."""
        found = []
        for line in self.on_node(node, "sh", "-c", LIST_PROCESSES).splitlines():
            pid, cgroup, command = line.split("\t", 2)
            found.append(Process(int(pid), cgroup, command.strip()))
        return found

    def connections(self, node: str, url: str) -> int:
        """How many connections a node's own network has open to a store at an IPv4 address."""
        lines = self.on_node(node, "cat", "/proc/net/tcp").splitlines()
        parts = urlsplit(url)
        return open_connections(lines, parts.hostname or "", parts.port or 80)

    def kill_in_pod(self, namespace: str, pod: str, pattern: str, *, container: str = "") -> int:
        """Kill -9 what matches in a pod's containers; return how many processes that were.

        Raises:
            LabError: The pod runs nowhere.
        """
        document = json.loads(
            self.kubectl("get", "pod", pod, "--namespace", namespace, "--output", "json")
        )
        node = document["spec"].get("nodeName")
        if not node:
            raise LabError(f"pod {namespace}/{pod} is on no node")
        ids = container_ids(document, container)
        found = [
            process
            for process in self.processes(node)
            if any(name in process.cgroup for name in ids) and re.search(pattern, process.command)
        ]
        if found:
            self.on_node(node, "kill", "-9", *(str(process.pid) for process in found))
        return len(found)

    def require(self, *needed: Capability) -> None:
        """Refuse early what this cluster cannot do.

        Raises:
            LabError: It lacks one of them.
        """
        missing = [capability.name for capability in needed if capability not in self.capabilities]
        if missing:
            raise LabError(f"{self.name} does not offer {', '.join(missing)}")


def container_ids(pod: Mapping[str, dict[str, object]], container: str = "") -> list[str]:
    """The runtime's names of a pod's containers, or of one."""
    statuses = pod["status"].get("containerStatuses", [])
    assert isinstance(statuses, list)
    return [
        status["containerID"].rpartition("/")[2]
        for status in statuses
        if status.get("containerID") and container in {"", status["name"]}
    ]


def open_connections(lines: Sequence[str], host: str, port: int) -> int:
    """Established connections to an address, from /proc/net/tcp: proc_pid_net(5)."""
    address = f"{int.from_bytes(IPv4Address(host).packed, 'little'):08X}:{port:04X}"
    rows = (line.split() for line in lines)
    return sum(row[2] == address and row[3] == ESTABLISHED for row in rows)


def parse_mount(line: str) -> Mount:
    """One line of mountinfo: proc_pid_mountinfo(5)."""
    before, _, after = line.partition(" - ")
    fields, (fs_type, source, _) = before.split(), after.split(" ", 2)
    root, target = (_unescape(fields[3]), _unescape(fields[4]))
    return Mount(root, target, frozenset(fields[5].split(",")), fs_type, _unescape(source))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
