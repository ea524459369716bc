"""Mounts are made in a mount namespace of the test process's own: the machine's table stays."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from modelcache_csi._proto import csi_pb2_grpc
from support.csi_plugin import Plugin, running_plugin, settings_for
from support.fake_agent import FakeAgent
from support.kube_api import FakeKubeApi
from support.mount_namespace import detach, make_shared, mount_tmpfs, unshare_mounts


@pytest.fixture(scope="session")
def private_mounts() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    unshare_mounts()


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Unix sockets have short names: pytest's own directories are too deep."""
    path = Path(tempfile.mkdtemp(prefix="mc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def kubelet_root(private_mounts: None, short_dir: Path) -> Iterator[Path]:
    """The kubelet's directory, a shared mount as on a real node."""
    path = short_dir / "kubelet"
    path.mkdir()
    mount_tmpfs(path)
    make_shared(path)
    yield path
    detach(path)


@pytest.fixture
def host(kubelet_root: Path) -> Iterator[str]:
    """A process in a second mount namespace that is a peer of ours: the host's, to a container."""
    command = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", "echo; cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield str(process.pid)
        process.communicate()


@pytest.fixture
async def kube(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeKubeApi]:
    """An API server that the plugin finds by $KUBECONFIG."""
    async with FakeKubeApi() as api:
        config = {
            "clusters": [{"name": "c", "cluster": {"server": api.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = short_dir / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(path))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield api


@pytest.fixture
async def agent(short_dir: Path) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(short_dir / "agent.sock", short_dir / "data") as found:
        yield found


@pytest.fixture
async def plugin(
    short_dir: Path, kubelet_root: Path, agent: FakeAgent, kube: FakeKubeApi
) -> AsyncIterator[Plugin]:
    """A plugin on a node where it can mount."""
    settings = settings_for(short_dir, kubelet_root)
    async with running_plugin(settings) as channel:
        found = Plugin(settings, agent, kube, csi_pb2_grpc.NodeStub(channel))
        kube.answers["events"] = lambda event: found.events.append(event) or event
        yield found
