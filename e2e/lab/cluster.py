"""The lab as a cluster for scenarios: everything a scenario may do to nodes, API server, store."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from e2e.cluster import Capability, Cluster
from e2e.lab import control_plane, image, network, nodes, s3_server, tools
from e2e.lab.commands import LabError, output, run, wait_until
from e2e.lab.image import REFERENCE, TEST_REFERENCE
from e2e.lab.lab import DEFAULT_DISK_BYTES, DEFAULT_NODES, Lab
from e2e.lab.s3_client import Credentials, S3Client
from e2e.lab.settings import DEFAULT_NAME, Settings, default_directory
from e2e.store import Request, Store, parse_access_log

NODE_TIMEOUT_S = 120.0
BURST_BYTES = 256 << 10  # of the limited line: several milliseconds' worth; arbitrary
QUEUE_LATENCY = "50ms"


class LabStore(Store):
    """The lab's versitygw."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.credentials = lab.shape().credentials
        endpoint = s3_server.endpoint(lab.settings, self.credentials)
        self.url = endpoint.url
        self.tls_url = endpoint.tls_url
        self.authority = endpoint.authority
        self.region = endpoint.region

    def client(self, credentials: Credentials | None = None) -> S3Client:
        return s3_server.client(self._lab.settings, credentials or self.credentials)

    def requests(self) -> list[Request]:
        log = self._lab.settings.s3_access_log
        return parse_access_log(log.read_text(encoding="utf-8", errors="replace"))

    def sent_bytes(self) -> int:
        words = [*network.inside(self._lab.settings.s3_netns), "cat", "/proc/net/dev"]
        return sent_bytes("eth0", output(words))

    def limit(self, bits_per_s: int | None) -> None:
        tc = [*network.inside(self._lab.settings.s3_netns), "tc", "qdisc"]
        run([*tc, "delete", "dev", "eth0", "root"], check=False)  # there may be none
        if bits_per_s is not None:
            shape = ["rate", f"{bits_per_s}bit", "burst", str(BURST_BYTES)]
            run([*tc, "add", "dev", "eth0", "root", "tbf", *shape, "latency", QUEUE_LATENCY])

    def stop(self) -> None:
        s3_server.stop(self._lab.processes)

    def start(self) -> None:
        s3_server.restart(self._lab.settings, self._lab.processes, self.credentials)


class LabCluster(Cluster):
    """A lab that is up."""

    name = "lab"
    capabilities = frozenset(Capability)
    image = REFERENCE
    test_image = TEST_REFERENCE

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.store = LabStore(lab)

    def kubectl_words(self) -> list[str]:
        return [str(self.lab.settings.bin / "kubectl")]

    def helm_words(self) -> list[str]:
        return [str(self.lab.settings.bin / "helm")]

    def on_node(self, node: str, *words: str) -> str:
        return run([*self.lab.enter_node(index_of(node)), *words]).stdout

    def stop_node(self, node: str) -> None:
        self.lab.stop_node(index_of(node))

    def start_node(self, node: str) -> None:
        before = ready_condition(self.get("node", node)).get("lastHeartbeatTime")
        self.lab.start_node(index_of(node))

        def reports() -> bool:
            condition = ready_condition(self.get("node", node))
            is_ready: bool = condition["status"] == "True"
            return is_ready and condition["lastHeartbeatTime"] != before

        wait_until(reports, f"{node} to be ready", timeout_s=NODE_TIMEOUT_S)

    def wipe_models(self, node: str) -> None:
        nodes.wipe_models(self.lab.settings, index_of(node))

    def wipe(self, node: str) -> None:
        """Forget everything on a stopped node, images and pods included."""
        nodes.wipe(self.lab.settings, index_of(node))

    def stop_api_server(self) -> None:
        self.lab.processes.stop("apiserver")

    def start_api_server(self) -> None:
        self.lab.processes.restart("apiserver")
        control_plane.wait_ready(self.lab.settings, self.lab.processes)


@contextmanager
def running(name: str = DEFAULT_NAME, *, keep: bool = False) -> Iterator[LabCluster]:
    """A lab for a run: one that is up already is used and left; else one is made and removed."""
    lab = Lab(Settings(name, default_directory(name)))
    tools.ensure_packages()
    tools.ensure_all()
    images = image.build()
    image.unpack(images)
    if lab.is_up():
        if lab.shape().image_store != images.store:
            lab.use_images(images)
        yield LabCluster(lab)
        return
    lab.up(DEFAULT_NODES, images, DEFAULT_DISK_BYTES)
    try:
        yield LabCluster(lab)
    finally:
        if not keep:
            lab.down()


def index_of(node: str) -> int:
    """The number in a node's name.

    Raises:
        LabError: It is no name of the lab's nodes.
    """
    if not re.fullmatch(r"n[1-9]", node):
        raise LabError(f"the lab's nodes are n1, n2, …: not {node}")
    return int(node[1:])


def ready_condition(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a node says of being ready; empty where it has said nothing yet."""
    conditions = node.get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == "Ready"), {})


def sent_bytes(interface: str, devices: str) -> int:
    """The bytes an interface has sent, from /proc/net/dev.

    Raises:
        LabError: There is no such interface.
    """
    for line in devices.splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == interface:
            return int(numbers.split()[8])
    raise LabError(f"no interface {interface}")
