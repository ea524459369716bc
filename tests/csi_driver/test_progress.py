"""What a waiting pod's owner reads."""

import pytest

from modelcache_api.messages import LeaseAnswer, LeaseState
from modelcache_api.reasons import Reason
from modelcache_api.units import GIB, MIB
from modelcache_csi.progress import duration_text, quarter, size_text, waiting_text


def _answer(present=0, total=0, *, rate=0.0, reason=Reason.FETCHING, message=""):
    return LeaseAnswer(
        state=LeaseState.WAITING,
        reason=reason,
        message=message,
        bytes_present=present,
        bytes_total=total,
        bytes_per_s=rate,
    )


def test_progress_has_bytes_rate_and_time_left():
    answer = _answer(int(3.1 * GIB), 12 * GIB, rate=850 * MIB)
    assert waiting_text("m", answer, None) == (
        "model m: 3.1 GiB of 12.0 GiB (26%), 850 MiB/s, about 11 s left"
    )


def test_a_fetch_that_stands_still_promises_no_time():
    assert waiting_text("m", _answer(GIB, 2 * GIB), None) == "model m: 1.0 GiB of 2.0 GiB (50%)"


def test_a_reason_other_than_fetching_is_named():
    answer = _answer(reason=Reason.NOT_PROVED, message="no Job was here yet")
    assert waiting_text("m", answer, "Degraded=True (JobPending)") == (
        "model m: waiting, nothing is known of its size yet;"
        " NotProved: no Job was here yet; Degraded=True (JobPending)"
    )


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (850 * MIB, "850 MiB"), (GIB, "1.0 GiB")],
)
def test_sizes_read_well(n_bytes, text):
    assert size_text(n_bytes) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(0.1, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (7200, "2.0 h")],
)
def test_durations_read_well(duration_s, text):
    assert duration_text(duration_s) == text


def test_quarters_change_four_times_on_the_way():
    assert [quarter(_answer(present, 8)) for present in range(9)] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert quarter(_answer()) == 0
