"""What a lazy mount's server gets of a real agent while a real fetch goes on."""

import os
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcache_api.chunks import CHUNK_BYTES, PRESENT, RECORD_BYTES, record_offset, unpack_header
from modelcache_api.file_access import (
    MAX_DATAGRAM_BYTES,
    SOCKET_NAME,
    BlobGone,
    BlobHandedOver,
    FromAgent,
    FromServer,
    Greeting,
    OpenBlob,
    WantChunks,
    pack,
    parse_from_agent,
)
from modelcache_api.manifest import Manifest
from modelcache_api.reasons import Reason
from modelcache_node.demo.s3_endpoint import S3Endpoint
from support.agent_process import Agent, agent_home, command, until
from support.s3_source import Source

#: One chunk in half a minute: a fetch that is far from its end however slow the test is.
SLOW = ("--download-limit", str(1 << 19))
N_CHUNKS = 8
PATIENCE_S = 40.0


class Server:
    """A lazy mount's side of the socket."""

    def __init__(self, agent: Agent) -> None:
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(PATIENCE_S)
        self._connection.connect(str(agent.socket.with_name(SOCKET_NAME)))

    def say(self, message: FromServer) -> None:
        self._connection.send(pack(message))

    def hear(self) -> tuple[FromAgent | None, list[int]]:
        """None: it hung up."""
        raw, fds, _, _ = socket.recv_fds(self._connection, MAX_DATAGRAM_BYTES, 2)
        return (parse_from_agent(raw) if raw else None), fds

    def has_heard(self) -> bool:
        return bool(select.select([self._connection], [], [], 0)[0])

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    with S3Endpoint(tmp_path / "s3") as endpoint:
        made = Source(tmp_path / "s3" / "models" / "model", endpoint)
        made.write("config.json", b"{}")
        for name in ("a.bin", "z.bin"):
            path = made.folder / name
            path.touch()
            os.truncate(path, N_CHUNKS * CHUNK_BYTES)
        yield made


@pytest.fixture
def fetching(source: Source) -> Iterator[tuple[Agent, Manifest]]:
    """A node that fetches slowly, from the first file on."""
    with agent_home() as home:
        agent = Agent(home, *SLOW)
        agent.start()
        session = subprocess.Popen(
            command("prefetch", *source.flags, "--socket", agent.socket, "--model-cache", "model"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: bool(agent.revisions()), "a revision")
        [revision] = agent.revisions()
        folder = agent.tree(revision).parent
        yield agent, Manifest.parse((folder / "manifest.json").read_bytes())
        session.kill()
        session.wait()
        agent.stop()


def blob_of(manifest: Manifest, path: str) -> str:
    return next(file.blob for file in manifest.files if file.path == path)


def test_a_wished_chunk_comes_before_its_turn(fetching: tuple[Agent, Manifest]) -> None:
    agent, manifest = fetching
    server = Server(agent)
    blob = blob_of(manifest, "z.bin")
    server.say(Greeting(manifest.revision))
    server.say(OpenBlob(blob))
    server.say(WantChunks(blob, (N_CHUNKS - 1,)))
    message, (data_fd, journal_fd) = server.hear()
    assert message == BlobHandedOver(blob)
    header = unpack_header(os.pread(journal_fd, 64, 0))
    assert header.size_bytes == N_CHUNKS * CHUNK_BYTES == os.fstat(data_fd).st_size
    until(
        lambda: os.pread(journal_fd, 1, record_offset(N_CHUNKS - 1)) == bytes([PRESENT]),
        "the chunk that was wished",
    )
    states = os.pread(journal_fd, N_CHUNKS * RECORD_BYTES, record_offset(0))[::RECORD_BYTES]
    assert states.count(PRESENT) < N_CHUNKS, "in order it would have been the last"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(data_fd, b"x")
    os.close(data_fd)
    os.close(journal_fd)
    server.close()


def test_a_lazy_volume_gets_a_lease_of_what_is_on_its_way(
    fetching: tuple[Agent, Manifest],
) -> None:
    agent, manifest = fetching
    assert agent.lease("v1")["state"] == "Waiting"
    answer = agent.lease("v2", lazy=True)
    assert (answer["state"], answer["revision"]) == ("Incomplete", manifest.revision)
    assert agent.revisions()[manifest.revision]["leases"] == 1
    wanted = agent.ask("GET", "/v1/status")[1]["wanted"]
    assert len(wanted) == 2, "the operator is to keep a Job running for both"


def test_another_revisions_blob_is_not_handed_over(fetching: tuple[Agent, Manifest]) -> None:
    agent, manifest = fetching
    server = Server(agent)
    server.say(Greeting("sha256:" + "0" * 64))
    server.say(OpenBlob(blob_of(manifest, "a.bin")))
    server.say(WantChunks(blob_of(manifest, "a.bin"), (0,)))
    other = Server(agent)
    other.say(Greeting(manifest.revision))
    other.say(OpenBlob(blob_of(manifest, "a.bin")))
    _, fds = other.hear()
    assert len(fds) == 2
    for fd in fds:
        os.close(fd)
    assert not server.has_heard()
    server.close()
    other.close()


def test_who_does_not_greet_is_hung_up_on(fetching: tuple[Agent, Manifest]) -> None:
    agent, manifest = fetching
    server = Server(agent)
    server.say(OpenBlob(blob_of(manifest, "a.bin")))
    assert server.hear() == (None, [])
    server.close()


def test_a_source_that_changed_is_gone_for_good(
    source: Source, fetching: tuple[Agent, Manifest]
) -> None:
    agent, manifest = fetching
    blob = blob_of(manifest, "z.bin")
    source.write("z.bin", b"another")
    server = Server(agent)
    server.say(Greeting(manifest.revision))

    def is_gone() -> bool:
        server.say(WantChunks(blob, (3,)))
        return select.select([server._connection], [], [], 0.05)[0] != []

    until(is_gone, "word of the source's end")
    message, _ = server.hear()
    assert isinstance(message, BlobGone)
    assert message.reason is Reason.SOURCE_CHANGED
    server.close()
    # and the plugin is told so too when it renews the lease, for the pod's Events
    assert agent.lease("v", lazy=True, revision=manifest.revision)["reason"] == "SourceChanged"
