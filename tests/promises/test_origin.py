"""Promises about bytes, before an origin that does wrong: the real command line, real sockets."""

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from awscrt import checksums

from modelcache_api.chunks import CHUNK_BYTES
from support.agent_process import command, run_cli
from support.fault_origin import FaultOrigin
from support.faults import Corrupted, Fault, IgnoredRange, Truncated, WrongRange
from support.s3_source import content_of

pytestmark = pytest.mark.timeout(120)

MIB = 1 << 20
FULL_OBJECT = ("x-amz-checksum-type", "FULL_OBJECT")


@pytest.fixture
def origin() -> Iterator[FaultOrigin]:
    with FaultOrigin() as found:
        yield found


def put(origin: FaultOrigin, name: str, data: bytes) -> None:
    """An object with the store's checksum of the whole."""
    crc = base64.b64encode(checksums.crc64nvme(data).to_bytes(8, "big")).decode()
    origin.put(f"models/model/{name}", data, (("x-amz-checksum-crc64nvme", crc), FULL_OBJECT))


def pull(origin: FaultOrigin, folder: Path, *flags: str) -> list[str | Path]:
    source = ("s3://models/model", "--endpoint", origin.url, "--anonymous")
    return ["pull", *source, "--to", folder, "--json", "--movers", "1", *flags]


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Corrupted(at_byte=7), 75), (Truncated(), 75), (WrongRange(), 42), (IgnoredRange(), 42)],
    ids=repr,
)
def test_promise_only_checked_bytes_are_shown(
    origin: FaultOrigin, tmp_path: Path, fault: Fault, code: int
) -> None:
    data = os.urandom(CHUNK_BYTES + MIB)
    put(origin, "weights", data)
    origin.always(fault)
    patience = "2" if code == 75 else "60"  # that an origin lies shows in its repetition
    refused = run_cli(*pull(origin, tmp_path / "pulled", "--give-up", patience))
    assert refused.returncode == code, refused.stderr
    assert "weights" not in {path.name for path in tmp_path.rglob("*")}
    origin.always(None)
    done = run_cli(*pull(origin, tmp_path / "pulled"))
    assert done.returncode == 0, done.stderr
    assert data in content_of(tmp_path / "pulled").values()


def test_promise_only_checked_bytes_are_shown__corrupted_in_flight(
    origin: FaultOrigin, tmp_path: Path
) -> None:
    data = os.urandom(CHUNK_BYTES + MIB)
    put(origin, "weights", data)
    origin.script(*[Corrupted(at_byte=7)] * 5)  # HEAD and probe among them
    done = run_cli(*pull(origin, tmp_path / "pulled"))
    assert done.returncode == 0, done.stderr
    assert '"integrity": "StoreChecksum"' in done.stdout
    assert origin.body_bytes > len(data) + CHUNK_BYTES, "some bytes were fetched again"
    found = [raw for raw in content_of(tmp_path / "pulled").values() if len(raw) == len(data)]
    assert found
    assert all(raw == data for raw in found)


@pytest.mark.parametrize("honours_if_match", [True, False])
def test_promise_nothing_is_mixed(
    origin: FaultOrigin, tmp_path: Path, honours_if_match: bool
) -> None:
    origin.honours_if_match = honours_if_match
    before, after = (os.urandom(4 * CHUNK_BYTES) for _ in range(2))
    put(origin, "weights", before)
    with subprocess.Popen(
        command(*pull(origin, tmp_path / "pulled", "--download-limit", "16Mi")),
        stdout=subprocess.DEVNULL,
    ) as running:
        origin.wait_for(lambda: origin.body_bytes > CHUNK_BYTES)
        put(origin, "weights", after)
        assert running.wait() == 0
    found = [raw for raw in content_of(tmp_path / "pulled").values() if len(raw) == len(after)]
    assert after in found
    assert all(raw in (before, after) for raw in found)
