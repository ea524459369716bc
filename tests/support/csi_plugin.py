"""A whole CSI plugin in the test's process, on real sockets, and what surrounds it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import grpc.aio

from modelcache_csi._proto import csi_pb2, csi_pb2_grpc
from modelcache_csi.app import Settings, run
from support.fake_agent import FakeAgent
from support.kube_api import FakeKubeApi

#: Below the plugin's margin: a call with it is answered at once, ready or not.
NO_WAIT_S = 3.5


@dataclass
class Plugin:
    """A running plugin and what surrounds it."""

    settings: Settings
    agent: FakeAgent
    kube: FakeKubeApi
    node: csi_pb2_grpc.NodeStub
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kubelet_root(self) -> Path:
        return Path(self.settings.kubelet_root)

    def target(self, pod_uid: str = "uid-1") -> Path:
        """A target path as the kubelet lays it out; its parent exists, itself it does not."""
        volume = self.kubelet_root / "pods" / pod_uid / "volumes/kubernetes.io~csi/model"
        volume.mkdir(parents=True, exist_ok=True)
        return volume / "mount"

    def request(self, target: Path, **changes: Any) -> csi_pb2.NodePublishVolumeRequest:
        return publish_request(str(target), **changes)

    async def publish(self, target: Path, *, timeout_s: float = 30.0, **changes: Any) -> None:
        await self.node.NodePublishVolume(self.request(target, **changes), timeout=timeout_s)

    async def unpublish(self, target: Path) -> None:
        await self.node.NodeUnpublishVolume(
            csi_pb2.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=str(target)),
            timeout=30.0,
        )

    async def declare(
        self, name: str = "llama", *, namespace: str = "team", **status: Any
    ) -> dict[str, Any]:
        """Somebody creates or changes a ModelCache."""
        path = f"/apis/modelcache.io/v1alpha1/namespaces/{namespace}/modelcaches/{name}"
        return await self.kube.put(path, {"metadata": {"name": name}, "status": status})

    async def cached(
        self, name: str = "llama", *, namespace: str = "team", is_complete: bool = True
    ) -> str:
        """A ModelCache whose model is on this node; returns its revision."""
        found = self.agent.add(
            {"config.json": name.encode(), "w/1.bin": b"x" * 4000}, is_complete=is_complete
        )
        made = await self.declare(name, namespace=namespace, revision=found.revision)
        self.agent.prove(
            found.revision, namespace=namespace, model_cache=name, uid=made["metadata"]["uid"]
        )
        return found.revision


def publish_request(
    target_path: str,
    *,
    volume_id: str = "csi-1",
    namespace: str = "team",
    pod: str = "server-0",
    attributes: dict[str, str] | None = None,
    access_mode: int = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER,
) -> csi_pb2.NodePublishVolumeRequest:
    """As the kubelet asks for an inline volume."""
    context = {
        "csi.storage.k8s.io/pod.name": pod,
        "csi.storage.k8s.io/pod.namespace": namespace,
        "csi.storage.k8s.io/pod.uid": "uid-1",
        "csi.storage.k8s.io/serviceAccount.name": "default",
        "csi.storage.k8s.io/ephemeral": "true",
    }
    capability = csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(),
        access_mode=csi_pb2.VolumeCapability.AccessMode(mode=access_mode),
    )
    return csi_pb2.NodePublishVolumeRequest(
        volume_id=volume_id,
        target_path=target_path,
        volume_capability=capability,
        readonly=True,
        volume_context=context | ({"modelCache": "llama"} if attributes is None else attributes),
    )


@asynccontextmanager
async def running_plugin(settings: Settings) -> AsyncIterator[grpc.aio.Channel]:
    """The plugin as `modelcache-csi` runs it, until the block ends."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop=stop))
    options = [("grpc.default_authority", "localhost")]
    try:
        async with grpc.aio.insecure_channel(f"unix:{settings.csi_socket}", options) as channel:
            await asyncio.wait(
                [task, asyncio.ensure_future(channel.channel_ready())],
                return_when=asyncio.FIRST_COMPLETED,
            )
            assert not task.done(), task.exception()
            yield channel
    finally:
        stop.set()
        await task


def settings_for(root: Path, kubelet_root: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "node_name": "node-1",
        "csi_socket": root / "csi.sock",
        "csi_socket_on_host": "/host/csi.sock",
        "registration_dir": root / "registry",
        "kubelet_root": PurePosixPath(kubelet_root),
        "data_dir": root / "data",
        "agent_socket": root / "agent.sock",
        "health_host": "127.0.0.1",
        "health_port": None,
        "lease_check_s": 0.01,
        "agent_patience_s": 0.0,
    }
    return Settings(**(values | changes))
