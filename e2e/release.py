"""The installed chart: put in by helm, looked into part by part, killed part by part."""

import json
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from e2e.cluster import Cluster
from e2e.lab.commands import LabError
from e2e.lab.settings import REPOSITORY

CHART = REPOSITORY / "charts" / "modelcache"
NAME = NAMESPACE = "modelcache"
SOCKET = "/run/modelcache/agent.sock"
PARTS = ("agent", "csi", "operator")
#: The worker beneath each container's supervisor, by its command line.
WORKERS = {
    "agent": r"/modelcache agent ",
    "csi": r"/modelcache-csi ",
    "keeper": r"/modelcache-keeper ",
    "operator": r"/modelcache-operator( |$)",
}
HELM_TIMEOUT_S = 300


@dataclass(frozen=True)
class Publish:
    """One NodePublishVolume, as the plugin logged it."""

    pod: str
    code: str
    duration_ms: float
    ended_at: float
    """By the wall clock."""


class Release:
    """The chart on one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def install(self, *values: str) -> None:
        """Install or upgrade; ``values`` are words for `helm --set`. Returns when all is ready."""
        repository, _, tag = self.cluster.image.rpartition(":")
        given = (
            f"image.repository={repository}",
            f"image.tag={tag}",
            *_allowed(self.cluster.store.url),
            *self.cluster.chart_values,
            *values,
        )
        settings = [word for value in given for word in ("--set", value)]
        self._helm(
            "upgrade", "--install", NAME, str(CHART), "--create-namespace", "--wait", *settings
        )

    def replace_pods(self, mark: str) -> None:
        """Upgrade so that every part gets new pods; `mark` must be another one each time."""
        before = {part: self.pods(part) for part in PARTS}
        self.install(*marks(mark))
        for part in PARTS:
            assert not set(self.pods(part).values()) & set(before[part].values()), part

    def test(self) -> str:
        """Run the chart's own test; return what it says."""
        return self._helm("test", NAME)

    def uninstall(self) -> None:
        self._helm("uninstall", NAME, "--wait", "--ignore-not-found")

    def pods(self, part: str) -> dict[str, str]:
        """Names of a part's pods, by node."""
        selector = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component={part}"
        found: list[dict[str, Any]] = self.cluster.objects(
            "pods", "--namespace", NAMESPACE, "--selector", selector
        )
        return {
            pod["spec"]["nodeName"]: pod["metadata"]["name"]
            for pod in found
            if not pod["metadata"].get("deletionTimestamp") and pod["spec"].get("nodeName")
        }

    def ask(self, node: str, *words: str) -> Any:
        """Run `modelcache` in a node's agent pod with `--json`; return what it prints."""
        command = ("modelcache", *words, "--socket", SOCKET, "--json")
        pod = self.pods("agent")[node]
        where = ("--namespace", NAMESPACE, pod, "--container", "agent")
        return json.loads(self.cluster.kubectl("exec", *where, "--", *command))

    def revision(self, node: str, revision: str) -> dict[str, Any]:
        """What a node's agent says of a revision; empty where it has none of it."""
        found: list[dict[str, Any]] = self.ask(node, "ls")["revisions"]
        return next((one for one in found if one["revision"] == revision), {})

    def kill(self, part: str, node: str) -> None:
        """Kill -9 a part's worker on a node, with its children.

        Raises:
            LabError: There was nothing to kill.
        """
        if not self.cluster.kill_in_pod(NAMESPACE, self.pods(part)[node], WORKERS[part]):
            raise LabError(f"no worker of {part} runs on {node}")

    def logs(self, part: str, node: str) -> list[dict[str, Any]]:
        """What a part logged on a node; lines that are no JSON are left out."""
        text = self.cluster.kubectl("logs", self.pods(part)[node], "--namespace", NAMESPACE)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def publishes(self, node: str) -> list[Publish]:
        """The calls that asked a node's plugin for a volume, the oldest first."""
        return [
            Publish(
                line.get("pod_name", ""),
                line["code"],
                line["duration_ms"],
                datetime.fromisoformat(line["time"]).timestamp(),
            )
            for line in self.logs("csi", node)
            if line.get("rpc") == "NodePublishVolume"
        ]

    def _helm(self, *words: str) -> str:
        where = ("--namespace", NAMESPACE, "--timeout", f"{HELM_TIMEOUT_S}s")
        return self.cluster.helm(*words, *where, timeout_s=HELM_TIMEOUT_S + 10)


def marks(mark: str) -> list[str]:
    """Values that give every part but the keeper new pods, unless they had this mark before."""
    return [f"{part}.podAnnotations.round={mark}" for part in PARTS]


def _allowed(store_url: str) -> list[str]:
    """Let the agents reach a store at a private address: a cluster of tests has no other."""
    host = urlsplit(store_url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return []
    return [f"network.allowedRanges={{{address}/{address.max_prefixlen}}}"]
