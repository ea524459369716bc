"""The plugin as the kubelet and its probes see it; nothing is mounted, so no root is needed."""

import socket

import aiohttp
import grpc
import pytest

from modelcache_csi._proto import csi_pb2, csi_pb2_grpc, registration_pb2, registration_pb2_grpc
from modelcache_csi.errors import PreconditionError
from modelcache_csi.grpc_sockets import serving
from modelcache_csi.health import health_served
from modelcache_csi.metrics import PublishDurations, PublishOutcome
from modelcache_csi.registration import SOCKET_NAME
from support.csi_plugin import publish_request, running_plugin, settings_for

pytestmark = pytest.mark.looptime(False)


@pytest.fixture
async def settings(short_dir, kube):
    root = short_dir / "kubelet"
    root.mkdir()
    return settings_for(short_dir, root)


@pytest.fixture
async def channel(settings):
    async with running_plugin(settings) as channel:
        yield channel


async def test_the_kubelet_learns_name_endpoint_and_version(channel, settings):
    path = settings.registration_dir / SOCKET_NAME
    async with grpc.aio.insecure_channel(f"unix:{path}") as kubelet:
        stub = registration_pb2_grpc.RegistrationStub(kubelet)
        info = await stub.GetInfo(registration_pb2.InfoRequest())
        await stub.NotifyRegistrationStatus(
            registration_pb2.RegistrationStatus(plugin_registered=False, error="no such version")
        )
    assert (info.type, info.name, info.endpoint) == (
        "CSIPlugin",
        "csi.modelcache.io",
        "/host/csi.sock",
    )
    assert list(info.supported_versions) == ["1.0.0"]


async def test_identity_needs_neither_agent_nor_api_server(channel, kube):
    kube.is_down = True
    identity = csi_pb2_grpc.IdentityStub(channel)
    assert (await identity.Probe(csi_pb2.ProbeRequest())).ready.value
    info = await identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
    assert info.name == "csi.modelcache.io"
    assert info.vendor_version
    capabilities = await identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest())
    assert not capabilities.capabilities
    assert not kube.requests


async def test_the_node_serves_statistics_and_no_staging(channel):
    node = csi_pb2_grpc.NodeStub(channel)
    assert (await node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())).node_id == "node-1"
    answer = await node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest())
    assert [one.rpc.type for one in answer.capabilities] == [
        csi_pb2.NodeServiceCapability.RPC.GET_VOLUME_STATS
    ]
    stage = channel.unary_unary("/csi.v1.Node/NodeStageVolume")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_kubelet_root_that_pods_do_not_share_is_refused(channel, settings):
    target = f"{settings.kubelet_root}/pods/u/volumes/kubernetes.io~csi/v/mount"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await csi_pb2_grpc.NodeStub(channel).NodePublishVolume(publish_request(target))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "mountPropagation: Bidirectional" in caught.value.details()


async def test_tokens_and_secrets_of_a_request_are_never_logged(channel, settings, caplog):
    caplog.set_level("DEBUG")
    target = f"{settings.kubelet_root}/pods/u/volumes/kubernetes.io~csi/v/mount"
    request = publish_request(
        target,
        attributes={
            "modelCache": "llama",
            "csi.storage.k8s.io/serviceAccount.tokens": "canary-token",
        },
    )
    secrets = b"\x3a\x16\x0a\x03key\x12\x0fcanary-password"
    publish = channel.unary_unary("/csi.v1.Node/NodePublishVolume")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await publish(request.SerializeToString() + secrets)
    seen = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "server-0" in seen
    assert "canary" not in seen + caught.value.details()


async def test_a_socket_left_by_a_killed_plugin_is_replaced(settings):
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(settings.csi_socket))
    async with running_plugin(settings) as channel:
        assert await csi_pb2_grpc.IdentityStub(channel).Probe(csi_pb2.ProbeRequest())
        assert settings.csi_socket.stat().st_mode & 0o777 == 0o600
    assert not settings.csi_socket.exists()
    assert not (settings.registration_dir / SOCKET_NAME).exists()


async def test_a_file_in_place_of_the_socket_is_left_alone(short_dir):
    path = short_dir / "csi.sock"
    path.write_text("precious")
    with pytest.raises(PreconditionError, match="is not a socket"):
        async with serving(path, lambda _: None):
            raise AssertionError
    assert path.read_text() == "precious"


async def test_a_socket_path_that_linux_would_cut_is_refused(short_dir):
    with pytest.raises(PreconditionError, match="107 bytes"):
        async with serving(short_dir / ("x" * 110), lambda _: None):
            raise AssertionError


async def test_healthy_means_the_socket_answers_and_the_kubelet_can_find_it(channel, settings):
    registration_socket = settings.registration_dir / SOCKET_NAME
    durations = PublishDurations()
    async with (
        health_served(
            host="127.0.0.1",
            port=0,
            csi_socket=settings.csi_socket,
            registration_socket=registration_socket,
            durations=durations,
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
        registration_socket.unlink()
        async with http.get("/healthz") as answer:
            assert answer.status == 503
            assert "cannot find the driver" in await answer.text()
        durations.observe(PublishOutcome.LOCAL, 0.02)
        async with http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
    name = "modelcache_publish_duration_seconds"
    assert f'{name}_bucket{{outcome="local",le="0.01"}} 0' in lines
    assert f'{name}_bucket{{outcome="local",le="0.025"}} 1' in lines
    assert f'{name}_bucket{{outcome="local",le="+Inf"}} 1' in lines
    assert f'{name}_count{{outcome="failed"}} 0' in lines


async def test_a_plugin_whose_socket_is_dead_is_unhealthy(short_dir):
    async with (
        health_served(
            host="127.0.0.1",
            port=0,
            csi_socket=short_dir / "none.sock",
            registration_socket=None,
            durations=PublishDurations(),
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
        http.get("/healthz") as answer,
    ):
        assert answer.status == 503
        assert "UNAVAILABLE" in await answer.text()
