"""A cluster of three nodes by kind, in Docker, with versitygw beside it on the host.

Made for the run and deleted after it. The store listens on the gateway of kind's network, where
pods and this machine reach it; slowing its line down is not offered, for that line is the host's.
"""

import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import Capability, Cluster
from e2e.lab.commands import LabError, output, run, wait_until
from e2e.lab.s3_client import Credentials, S3Client, S3Error, at_url
from e2e.lab.settings import REPOSITORY
from e2e.lab.tools import VERSITYGW, ensure
from e2e.store import Request, Store, parse_access_log

NAME = "modelcache-e2e"
WORKERS = 3
IMAGE = "modelcache:e2e"
TEST_IMAGE = "modelcache-e2e:e2e"
REGION = "us-east-1"
S3_PORT = 17070  # arbitrary
BUILD_TIMEOUT_S = 1800
CREATE_TIMEOUT_S = 600
NODE_TIMEOUT_S = 120.0
STORE_TIMEOUT_S = 30.0


class KindStore(Store):
    """versitygw as a process of this run."""

    def __init__(self, directory: Path, address: str) -> None:
        self.url = f"http://{address}:{S3_PORT}"
        self.region = REGION
        self.credentials = Credentials(f"kind{secrets.token_hex(8)}", secrets.token_urlsafe(30))
        self._directory = directory
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _access_log(self) -> Path:
        return self._directory / "access.log"

    def client(self, credentials: Credentials | None = None) -> S3Client:
        return S3Client(at_url(self.url), REGION, credentials or self.credentials)

    def requests(self) -> list[Request]:
        return parse_access_log(self._access_log.read_text(encoding="utf-8", errors="replace"))

    def sent_bytes(self) -> int:
        raise LabError("kind does not offer STORE: the scenario must ask beforehand")

    def limit(self, bits_per_s: int | None) -> None:
        raise LabError("kind does not offer STORE: the scenario must ask beforehand")

    def start(self) -> None:
        data, accounts = self._directory / "data", self._directory / "accounts"
        for directory in (data, accounts):
            directory.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "ROOT_ACCESS_KEY": self.credentials.access_key,
            "ROOT_SECRET_KEY": self.credentials.secret_key,
        }
        words = [
            str(ensure(VERSITYGW) / "versitygw"),
            *(f"--port={self._address}:{S3_PORT}", f"--region={REGION}", "--keep-alive", "--quiet"),
            *(f"--access-log={self._access_log}", f"--iam-dir={accounts}", "posix", str(data)),
        ]
        with (self._directory / "store.log").open("ab") as log:
            self._process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        wait_until(self._answers, "the object store", timeout_s=STORE_TIMEOUT_S)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=STORE_TIMEOUT_S)
            self._process = None

    def _answers(self) -> bool:
        try:
            self.client().list_buckets()
        except (OSError, S3Error):
            return False
        return True


class KindCluster(Cluster):
    """A kind cluster that is up."""

    name = "kind"
    capabilities = frozenset({Capability.NODES})
    image = IMAGE
    test_image = TEST_IMAGE
    chart_values: Sequence[str] = (
        "agent.allowAnyDisk=true",
    )  # a node's disk is a directory of the host's

    def __init__(self, store: KindStore) -> None:
        self.store = store

    def kubectl_words(self) -> list[str]:
        return ["kubectl", "--context", f"kind-{NAME}"]

    def helm_words(self) -> list[str]:
        return ["helm", "--kube-context", f"kind-{NAME}"]

    def on_node(self, node: str, *words: str) -> str:
        return run(["docker", "exec", node, *words]).stdout

    def stop_node(self, node: str) -> None:
        run(["docker", "kill", node])

    def start_node(self, node: str) -> None:
        run(["docker", "start", node])
        wait = ("wait", f"node/{node}", "--for=condition=Ready")
        self.kubectl(*wait, f"--timeout={NODE_TIMEOUT_S:.0f}s", timeout_s=NODE_TIMEOUT_S + 10)

    def wipe_models(self, node: str) -> None:
        """Empty the volume of a stopped node, through a container that has it too."""
        wipe = ("sh", "-c", "rm -rf /var/lib/modelcache/*")
        run(["docker", "run", "--rm", "--volumes-from", node, "--entrypoint=", IMAGE, *wipe])

    def stop_api_server(self) -> None:
        raise LabError("kind does not offer CONTROL_PLANE: the scenario must ask beforehand")

    def start_api_server(self) -> None:
        raise LabError("kind does not offer CONTROL_PLANE: the scenario must ask beforehand")


@contextmanager
def running() -> Iterator[KindCluster]:
    """A cluster for a run, with the images of this checkout; deleted afterwards."""
    for tag, target in ((IMAGE, "runtime"), (TEST_IMAGE, "e2e")):
        build = ["docker", "build", "--tag", tag, "--target", target, str(REPOSITORY)]
        run(build, timeout_s=BUILD_TIMEOUT_S)
    with tempfile.TemporaryDirectory(prefix="modelcache-kind-") as scratch:
        config = Path(scratch, "kind.yaml")
        config.write_text(cluster_config(), encoding="utf-8")
        create = ["kind", "create", "cluster", f"--name={NAME}", f"--config={config}", "--wait=5m"]
        try:
            run(create, timeout_s=CREATE_TIMEOUT_S)
            load = ["kind", "load", "docker-image", f"--name={NAME}", IMAGE, TEST_IMAGE]
            run(load, timeout_s=CREATE_TIMEOUT_S)
            store = KindStore(Path(scratch), gateway())
            store.start()
            try:
                yield KindCluster(store)
            finally:
                store.stop()
        finally:
            run(["kind", "delete", "cluster", f"--name={NAME}"], timeout_s=CREATE_TIMEOUT_S)


def cluster_config() -> str:
    """One control plane, which takes no pods, and the workers."""
    roles = ["control-plane", *["worker"] * WORKERS]
    nodes = "".join(f"  - role: {role}\n" for role in roles)
    return f"kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n{nodes}"


def gateway() -> str:
    """The host's IPv4 address on kind's network.

    Raises:
        LabError: It has none.
    """
    template = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    found = output(["docker", "network", "inspect", "kind", "--format", template]).split()
    for address in found:
        if ":" not in address:
            return address
    raise LabError(f"kind's network has no IPv4 gateway: {found}")
