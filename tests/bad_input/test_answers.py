"""Origins that answer wrongly: the bytes are right in the end, or the message says why not."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from awscrt import checksums

from modelcache_api.chunks import CHUNK_BYTES
from support import faults
from support.command_line import CommandLine, Ended
from support.fault_answers import Zeros
from support.fault_origin import FaultOrigin
from support.faults import Fault

KIB = 1 << 10
DATA = os.urandom(300 * KIB)
Pull = Callable[..., Ended]


@pytest.fixture
def pull(modelcache: CommandLine, origin: FaultOrigin, tmp_path: Path) -> Pull:
    """Pulls `DATA`, and gives up after a second without progress."""
    crc = base64.b64encode(checksums.crc64nvme(DATA).to_bytes(8, "big")).decode()
    stated = (("x-amz-checksum-crc64nvme", crc), ("x-amz-checksum-type", "FULL_OBJECT"))
    origin.put("models/model/weights", DATA, stated)

    def run(*flags: str) -> Ended:
        return modelcache(
            *("pull", "s3://models/model", "--endpoint", origin.url, "--anonymous", "--json"),
            *("--to", tmp_path / "pulled", "--movers", "1", "--give-up", "1", *flags),
        )

    return run


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (faults.Truncated(after_bytes=1000), 75, "broke off after 1000 of"),
        (faults.Reset(after_bytes=1000), 75, "SourceUnavailable: no progress for 1 s"),
        (faults.slow_down(), 75, "HTTP 503 (SlowDown: Please reduce your request rate.)"),
        (faults.Stalled(after_bytes=1000), 75, "SourceUnavailable: no progress for 1 s"),
        (faults.Trickling(), 75, "SourceUnavailable: no progress for 1 s"),
        (faults.Unanswered(), 75, "closed before the answer"),
        (faults.WrongRange(), 42, "SourceLies: /models/model/weights: asked for bytes 0-"),
        (faults.IgnoredRange(), 42, "ignored the range: answered with the whole object (HTTP 200)"),
        (faults.Corrupted(at_byte=7), 75, "IntegrityMismatch: content does not match its checksum"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Fault) else "",
)
def test_an_origin_that_keeps_answering_wrongly_is_told_by_what_it_does(
    pull: Pull, origin: FaultOrigin, tmp_path: Path, fault: Fault, code: int, says: str
) -> None:
    if fault != faults.IgnoredRange():  # which shows where a part is asked for, as the probe does
        origin.script(faults.Fault(), faults.Fault())  # HEAD and probe are answered rightly
    origin.always(fault)
    refused = pull(*([] if code == 75 else ["--give-up", "60"]))  # a lie is told by its repetition
    assert refused.code == code
    assert says in refused.err
    assert not (tmp_path / "pulled" / "weights").exists()
    origin.always(None)
    assert pull().code == 0
    assert (tmp_path / "pulled" / "weights").read_bytes() == DATA


def test_a_storm_of_503_passes_and_is_counted(
    pull: Pull, origin: FaultOrigin, tmp_path: Path
) -> None:
    origin.script(faults.Fault(), faults.Fault(), *[faults.slow_down("0")] * 4)
    done = pull("--give-up", "30")
    assert done.code == 0
    assert json.loads(done.out)["retries"] == 4
    assert (tmp_path / "pulled" / "weights").read_bytes() == DATA


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
