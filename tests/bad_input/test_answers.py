"""Origins that answer wrongly: the bytes are right in the end, or the message says why not."""

import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from awscrt import checksums

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.errors import (
    IntegrityMismatchError,
    ModelCacheError,
    SourceLiesError,
    SourceUnavailableError,
)
from modelcache_node.cli.entry import exit_code
from modelcache_node.origins.base import SourceOptions
from modelcache_node.patience import Patience
from modelcache_node.pulling import Puller
from modelcache_node.transfer.movers import Movers
from support import faults
from support.command_line import CommandLine
from support.fault_answers import Zeros
from support.fault_origin import FaultOrigin
from support.faults import Fault
from support.ranges import LIMITS, no_jitter

DATA = os.urandom(300 << 10)
Clock = Callable[[], float]


@pytest.fixture
def stored(origin: FaultOrigin) -> FaultOrigin:
    """`DATA`, with the store's checksum of it."""
    crc = base64.b64encode(checksums.crc64nvme(DATA).to_bytes(8, "big")).decode()
    stated = (("x-amz-checksum-crc64nvme", crc), ("x-amz-checksum-type", "FULL_OBJECT"))
    origin.put("models/model/weights", DATA, stated)
    return origin


async def pull(origin: FaultOrigin, to: Path, clock: Clock = time.monotonic) -> None:
    async with Movers(count=1, limits=LIMITS, uniform=no_jitter) as movers:
        puller = Puller(
            SourceOptions("s3://models/model", endpoint=origin.url, anonymous=True),
            to,
            movers,
            now=lambda: 0.0,
            patience=Patience(60, clock=clock),
            on_progress=lambda _: None,
        )
        await puller.run()


@pytest.mark.looptime(False)
@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (faults.Truncated(), SourceUnavailableError, "broke off after 1000 of 307200 bytes"),
        (faults.Reset(), SourceUnavailableError, "failed: "),
        (faults.slow_down(), SourceUnavailableError, "HTTP 503 (SlowDown"),
        (faults.Stalled(), SourceUnavailableError, "too slow|stalled"),
        (faults.Trickling(), SourceUnavailableError, "too slow"),
        (faults.Unanswered(), SourceUnavailableError, "closed before the answer"),
        (faults.WrongRange(), SourceLiesError, "/models/model/weights: asked for bytes 0-"),
        (faults.IgnoredRange(), SourceLiesError, "ignored the range: answered with the whole"),
        (faults.Corrupted(at_byte=7), IntegrityMismatchError, "content does not match its checks"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Fault) else "",
)
async def test_an_origin_that_keeps_answering_wrongly_is_told_by_what_it_does(
    stored: FaultOrigin, tmp_path: Path, fault: Fault, error: type[ModelCacheError], says: str
) -> None:
    if fault != faults.IgnoredRange():  # which shows where a part is asked for, as the probe does
        stored.script(Fault(), Fault())  # HEAD and probe are answered rightly
    stored.always(fault)
    is_endless = error is SourceUnavailableError
    with pytest.raises(error, match=r"\(".join(says.split("("))) as refused:
        # Patience ends once the probe was answered, a first try has failed and a second begun.
        await pull(stored, tmp_path, clock=lambda: 1e9 if is_endless and stored.count() > 2 else 0)
    assert exit_code(refused.value) == (42 if error is SourceLiesError else 75)
    assert not (tmp_path / "weights").exists()
    stored.always(None)
    await pull(stored, tmp_path)
    assert (tmp_path / "weights").read_bytes() == DATA


def test_a_storm_of_503_passes_and_is_counted(
    modelcache: CommandLine, stored: FaultOrigin, tmp_path: Path
) -> None:
    stored.script(Fault(), Fault(), *[faults.slow_down("0")] * 4)
    done = modelcache(
        *("pull", "s3://models/model", "--endpoint", stored.url, "--anonymous", "--json"),
        *("--to", tmp_path, "--movers", "1"),
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["retries"] == 4
    assert (tmp_path / "weights").read_bytes() == DATA


def test_grants_that_expire_in_mid_pull_are_renewed(
    modelcache: CommandLine, origin: FaultOrigin, tmp_path: Path
) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("AKIDMINE")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("sesame")
    origin.put("models/model/weights", Zeros(2 * CHUNK_BYTES))
    origin.script(Fault(), Fault(), faults.expired())  # the probe, and one of two chunks
    done = modelcache(
        *("pull", "s3://models/model", "--endpoint", origin.url, "--credentials-dir", tmp_path),
        *("--to", tmp_path / "pulled", "--json", "--movers", "1"),
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["bytesFromOrigin"] == 2 * CHUNK_BYTES
    assert origin.count() == 4, "the refused chunk alone was asked for again"
    assert len(origin.asked) == 5, "and nothing was listed anew"
