"""A whole node for lazy volumes: store, agent, plugin, keeper as processes; readers that check.

Everything is real but Kubernetes: there is no API server, so the agent's own proofs decide. Needs
root, and a mount namespace of the test's own.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from modelcache_csi._proto import csi_pb2, csi_pb2_grpc
from modelcache_csi.fuse import ledger
from modelcache_csi.fuse.keeper_client import KeeperAwayError, KeeperClient
from modelcache_node.demo.s3_endpoint import S3Endpoint
from support.agent_process import until
from support.csi_plugin import publish_request

NAMESPACE = "team"
#: For a model to be resolved and a volume to be published, and for one call. Arbitrary.
_PUBLISH_S = 240.0
_CALL_S = 20.0
_READER = Path(__file__).with_name("checking_reader.py")


@dataclass
class ReaderReport:
    """What one reader saw. Stalls are of bytes that were present, waits of any."""

    errors: list[str]
    wrong: int
    reads: int
    passes: int
    longest_stall_s: float
    longest_wait_s: float


class LazyNode:
    """Processes of one node beneath `home`; `start` it, and `stop` it in any case."""

    def __init__(
        self,
        home: Path,
        *,
        download_limit: int | None = None,
        without: str = "",
        endpoint_url: str | None = None,
    ) -> None:
        """`endpoint_url`: of a store of somebody else's; None makes one of our own."""
        self.home = home
        self.kubelet_root = home / "kubelet"
        self._own_endpoint = None if endpoint_url else S3Endpoint(home / "s3")
        self._endpoint_url = endpoint_url or ""
        self._limit = download_limit
        self._without = without
        self._supervised: dict[str, subprocess.Popen[bytes]] = {}
        self._session: threading.Thread | None = None
        self._is_stopping = threading.Event()
        self._log = (home / "log").open("ab")

    # -- its parts

    def start(self) -> None:
        if self._own_endpoint:
            self._endpoint_url = self._own_endpoint.__enter__().url
        self._supervise("keeper", "modelcache_csi.fuse.keeper", "--socket", self._at("keeper.sock"))
        self._supervise(
            "agent",
            *("modelcache_node.cli", "agent", "--data-dir", self._at("data"), "--movers", "1"),
            *("--socket", self._at("agent.sock"), "--listen", "127.0.0.1:0", "--allow-any-disk"),
            *(("--download-limit", str(self._limit)) if self._limit else ()),
        )
        without = ("--lazy-without", self._without) if self._without else ()
        self._supervise(
            "plugin",
            *("modelcache_csi", "--node-name", "n", "--kubelet-root", str(self.kubelet_root)),
            *("--endpoint", self._at("csi.sock"), "--data-dir", self._at("data")),
            *("--agent-socket", self._at("agent.sock"), "--no-registration", "--health-port=-1"),
            *without,
        )
        until((self.home / "agent.sock").exists, "an agent")
        until((self.home / "csi.sock").exists, "a plugin")

    def stop(self) -> None:
        self._is_stopping.set()
        if self._session:
            self._session.join()
        for one in self._supervised.values():
            one.terminate()
        for one in self._supervised.values():
            one.wait(20)
        if self._own_endpoint:
            self._own_endpoint.__exit__()
        self._log.close()

    def _at(self, name: str) -> str:
        return str(self.home / name)

    def _supervise(self, name: str, *command: str) -> None:
        supervisor = (sys.executable, "-m", "modelcache_supervisor", "--", sys.executable, "-m")
        self._supervised[name] = subprocess.Popen(
            [*supervisor, *command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "POD_"))},
        )

    # -- a model, and the Job that brings it

    def new_model(self, sizes: dict[str, int], seed: int) -> dict[str, str]:
        """Put a model into the store; sha256 by path."""
        folder = self.home / "s3" / "models" / str(seed)
        digests = {}
        for path, size in sizes.items():
            data = random.Random(f"{seed} {path}").randbytes(1 << 20)
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with target.open("wb") as file:
                for i in range(-(-size // len(data))):
                    block = (i.to_bytes(8, "little") + data[8:])[: size - i * len(data)]
                    file.write(block)
                    digest.update(block)
            digests[path] = digest.hexdigest()
        return digests

    def prefetch(self, seed: int, *, uri: str | None = None) -> None:
        """Send Jobs for that model until one succeeds, as the operator would."""

        def send() -> None:
            while not self._is_stopping.is_set():
                job = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "modelcache_node.cli", "prefetch"),
                        *(uri or f"s3://models/{seed}", "--anonymous"),
                        *("--endpoint", self._endpoint_url),
                        *("--socket", self._at("agent.sock"), "--namespace", NAMESPACE),
                        *("--model-cache", f"model-{seed}"),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                )
                while job.poll() is None and not self._is_stopping.wait(0.05):
                    pass
                if job.poll() is None:
                    job.kill()
                if job.wait() == 0:
                    return

        self._session = threading.Thread(target=send)
        self._session.start()

    @property
    def is_fetching(self) -> bool:
        return self._session is not None and self._session.is_alive()

    def until_fetched(self, timeout_s: float) -> None:
        assert self._session
        self._session.join(timeout_s)
        assert not self._session.is_alive(), "the model never became complete"

    # -- volumes

    def publish(self, name: str, seed: int, *, mode: str = "lazy") -> Path:
        """Publish the model of that seed to a pod, patiently."""
        volume = self.kubelet_root / "pods" / name / "volumes/kubernetes.io~csi/model"
        volume.mkdir(parents=True, exist_ok=True)
        target = volume / "mount"
        attributes = {"modelCache": f"model-{seed}", "mode": mode}
        with grpc.insecure_channel(f"unix:{self.home / 'csi.sock'}") as channel:
            give_up_at = time.monotonic() + _PUBLISH_S
            while True:  # as the kubelet does
                try:
                    csi_pb2_grpc.NodeStub(channel).NodePublishVolume(
                        publish_request(str(target), namespace=NAMESPACE, attributes=attributes),
                        timeout=_CALL_S,
                        wait_for_ready=True,
                    )
                    return target
                except grpc.RpcError:
                    if time.monotonic() > give_up_at:
                        raise

    def unpublish(self, target: Path) -> None:
        with grpc.insecure_channel(f"unix:{self.home / 'csi.sock'}") as channel:
            csi_pb2_grpc.NodeStub(channel).NodeUnpublishVolume(
                csi_pb2.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=str(target)),
                timeout=30.0,
                wait_for_ready=True,
            )

    # -- who may be killed

    def victims(self) -> dict[str, int]:
        """Processes by role, those that are there at the moment."""
        found = {
            name: pid
            for name, one in self._supervised.items()
            if (pid := _only_child(one.pid)) is not None
        }
        with suppress(KeeperAwayError), KeeperClient(self.home / "keeper.sock") as client:
            for name in list(client.names()):
                fds = client.get(name)
                if fds is None:
                    continue
                for role, number in (("server", ledger.SERVER), ("watcher", ledger.WATCHER)):
                    pid = ledger.holder_pid(fds[1], number)
                    if pid:
                        found[role] = pid
                for fd in fds:
                    os.close(fd)
        return found

    def kept(self) -> list[str]:
        with KeeperClient(self.home / "keeper.sock") as client:
            return list(client.names())


def _only_child(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


class Reader:
    """A process that reads a file again and again, and checks every byte of it."""

    def __init__(self, path: Path, sha256: str, how: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_READER), str(path), sha256, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def stop(self) -> ReaderReport:
        """Once it has read the whole file at least once."""
        raw, _ = self._process.communicate(b"stop\n", timeout=300)
        assert self._process.returncode == 0, raw
        return ReaderReport(**json.loads(raw))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()
