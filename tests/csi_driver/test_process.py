"""The plugin as a process under its supervisor."""

import asyncio
import dataclasses
import json
import os
import signal
import sys

import grpc
import pytest

from modelcache_csi._proto import csi_pb2, csi_pb2_grpc
from support.csi_plugin import publish_request
from support.mount_namespace import mounts_at

pytestmark = pytest.mark.looptime(False)


async def _started(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


def _arguments(settings):
    return [
        "modelcache_csi",
        f"--node-name={settings.node_name}",
        f"--endpoint=unix://{settings.csi_socket}",
        f"--kubelet-root={settings.kubelet_root}",
        f"--data-dir={settings.data_dir}",
        f"--agent-socket={settings.agent_socket}",
        "--no-registration",
        "--health-port=-1",
    ]


async def _line(process, message):
    """The next log line that says `message`."""
    while raw := await process.stderr.readline():
        line = json.loads(raw)
        if line["message"].startswith(message):
            return line
    raise AssertionError(f"the process ended without saying {message!r}")


@pytest.mark.root
async def test_a_killed_plugin_is_back_and_its_pods_see_nothing(plugin, short_dir):
    revision = await plugin.cached()
    target = plugin.target()
    second = dataclasses.replace(plugin.settings, csi_socket=short_dir / "second.sock")
    command = [sys.executable, "-m", *_arguments(second)]
    process = await _started("modelcache_supervisor", "--", *command)
    try:
        worker = await _line(process, "serving")
        channel = grpc.aio.insecure_channel(f"unix:{second.csi_socket}")
        node = csi_pb2_grpc.NodeStub(channel)
        await node.NodePublishVolume(publish_request(str(target)), wait_for_ready=True)
        with open(target / "config.json", "rb") as reader:
            before = mounts_at(target)
            os.kill(worker["pid"], signal.SIGKILL)
            assert (await _line(process, "serving"))["pid"] != worker["pid"]
            assert reader.read() == b"llama"
        assert mounts_at(target) == before
        await _line(process, "leases reported")
        assert list(plugin.agent.leases.values()) == [revision]
        await node.NodeUnpublishVolume(
            csi_pb2.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=str(target)),
            wait_for_ready=True,
        )
        assert mounts_at(target) == []
        await channel.close()
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def test_called_wrongly_it_says_so_and_is_not_started_again(short_dir):
    process = await _started("modelcache_supervisor", "--", sys.executable, "-m", "modelcache_csi")
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"--node-name" in errors
