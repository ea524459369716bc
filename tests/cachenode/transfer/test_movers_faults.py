"""Whatever an origin does wrong, the bytes are right or the error says what happened."""

import asyncio
import os

import pytest
from awscrt import checksums

from modelcache_api.errors import (
    AccessDeniedError,
    GrantExpiredError,
    InvalidSourceError,
    SourceChangedError,
    SourceLiesError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from modelcache_api.units import KIB, MIB
from modelcache_node.transfer.movers import Movers
from support import faults
from support.ranges import LIMITS, no_jitter, request_for

pytestmark = pytest.mark.looptime(False)

DATA = os.urandom(MIB)


@pytest.fixture
async def movers():
    """Movers that give up a stalled connection soon enough for a test."""
    async with Movers(count=1, limits=LIMITS, uniform=no_jitter) as started:
        yield started


class Heard(list):
    """Reasons that `on_retry` was told."""

    def __call__(self, reason):
        self.append(reason)


@pytest.fixture
def stored(origin):
    origin.put("models/a", DATA)
    return origin


async def fetch(movers, origin, target, **kwargs):
    request = request_for(origin, "models/a", target, 0, len(DATA), **kwargs)
    heard = Heard()
    result = await movers.fetch(request, on_retry=heard)
    assert target.read_bytes() == DATA
    assert result.crc32c == checksums.crc32c(DATA)
    return heard


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faults.Truncated(after_bytes=300_000), "broke off after 300000 of 1048576 bytes"),
        (faults.Reset(after_bytes=300_000), "failed"),
        (faults.Stalled(after_bytes=300_000), "stalled|too slow"),
        (faults.Trickling(), "too slow"),
        (faults.Unanswered(), "closed before the answer"),
        (faults.StalledHead(), "stalled|too slow"),
        (faults.OVERSIZED_HEAD, "longer"),
        (faults.Head(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not the start"),
        (faults.slow_down(), "SlowDown"),
        (faults.slow_down("0", code=429), "HTTP 429"),
        (faults.slow_down("Wed, 21 Oct 2015 07:28:00 GMT"), "SlowDown"),
        (faults.Status(500, faults.error_xml("InternalError", "Try again")), "InternalError"),
        (faults.Status(502, b"<html>Bad gateway</html>", is_chunked=True), "HTTP 502"),
        (faults.ChunkedBody(), "stated as chunked"),
        (faults.Overlong(), None),
    ],
)
async def test_a_fault_that_may_pass_is_tried_again_until_the_bytes_are_right(
    movers, stored, target, fault, reason
):
    stored.script(fault)
    heard = await fetch(movers, stored, target)
    if reason is not None:
        (said,) = heard
        assert any(part in said for part in reason.split("|"))


async def test_a_storm_of_refusals_ends_with_the_right_bytes(movers, stored, target):
    stored.script(*[faults.slow_down("0")] * 20)
    chunk = 64 * KIB
    await asyncio.gather(
        *(
            movers.fetch(request_for(stored, "models/a", target, at, chunk))
            for at in range(0, len(DATA), chunk)
        )
    )
    assert target.read_bytes() == DATA
    assert movers.stats().throttled == 20
    assert movers.stats().retries == 20


async def test_other_ranges_go_on_while_one_stalls(movers, stored, target):
    stored.script(faults.Stalled(after_bytes=10))
    stalled = asyncio.create_task(fetch(movers, stored, target))
    await asyncio.to_thread(stored.wait_for, lambda: stored.body_bytes >= 10)
    await movers.fetch(request_for(stored, "models/a", None, 5, 100))
    assert not stalled.done()
    assert len(await stalled) == 1


async def test_a_changed_object_is_not_mixed_with_the_one_that_was_listed(movers, stored, target):
    etag = stored.put("models/a", DATA)
    await movers.fetch(request_for(stored, "models/a", target, 0, 1000, validator=etag))
    stored.put("models/a", os.urandom(len(DATA)))
    with pytest.raises(SourceChangedError, match="412"):
        await movers.fetch(request_for(stored, "models/a", target, 1000, 1000, validator=etag))
    assert target.read_bytes() == DATA[:1000]


async def test_a_store_that_ignores_if_match_is_caught_by_its_own_etag(movers, stored, target):
    etag = stored.put("models/a", DATA)
    stored.honours_if_match = False
    stored.put("models/a", os.urandom(len(DATA)))
    with pytest.raises(SourceChangedError, match="ETag"):
        await movers.fetch(request_for(stored, "models/a", target, 0, 1000, validator=etag))
    assert target.read_bytes() == b""


async def test_an_object_of_another_size_than_listed_has_changed(movers, stored, target):
    with pytest.raises(SourceChangedError, match="bytes"):
        await movers.fetch(
            request_for(stored, "models/a", target, 0, 10, total_bytes=len(DATA) + 1)
        )


async def test_an_object_that_became_shorter_has_changed(movers, origin, target):
    origin.put("models/a", b"short")
    with pytest.raises(SourceChangedError):
        await movers.fetch(request_for(origin, "models/a", target, 100, 10))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (faults.IgnoredRange(), "ignored the range"),
        (faults.WrongRange(), "asked for bytes 0-99, got 1-100"),
    ],
)
async def test_a_store_that_answers_wrongly_again_and_again_is_called_so(
    movers, stored, target, fault, message
):
    stored.always(fault)
    with pytest.raises(SourceLiesError, match=message):
        await movers.fetch(request_for(stored, "models/a", target, 0, 100))
    assert target.read_bytes() == b""


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (faults.denied(), AccessDeniedError, r"\(AccessDenied\)"),
        (faults.expired(), GrantExpiredError, "ExpiredToken"),
        (faults.expired("AccessDenied"), GrantExpiredError, r"\(AccessDenied\)"),
        (faults.Status(404, faults.error_xml("NoSuchKey", "No")), SourceNotFoundError, "NoSuchKey"),
        (faults.Status(404, b"", is_chunked=True), SourceNotFoundError, "404"),
        (faults.redirect("ftp://127.0.0.1/"), InvalidSourceError, "redirected to no usable URL"),
        (faults.redirect("http://user@127.0.0.1/"), InvalidSourceError, "no usable URL"),
        (faults.redirect(""), InvalidSourceError, "redirected to nowhere"),
        (faults.Status(401, b"no such token"), GrantExpiredError, "HTTP 401"),
        (faults.Status(400, b""), InvalidSourceError, "HTTP 400"),
    ],
)
async def test_what_asking_again_does_not_mend_is_told_at_once(
    movers, stored, target, fault, error, message
):
    stored.script(fault)
    with pytest.raises(error, match=message) as caught:
        await movers.fetch(request_for(stored, "models/a", target, 0, 100))
    assert "models/a" in str(caught.value)
    assert stored.count() == 1


async def test_a_message_never_holds_a_signature(movers, stored):
    stored.script(faults.denied())
    request = request_for(stored, "models/a?X-Amz-Signature=sesame", None, 0, 1)
    with pytest.raises(AccessDeniedError) as caught:
        await movers.fetch(request)
    assert "sesame" not in str(caught.value)
    assert "sesame" not in repr(request)


async def test_an_origin_that_stays_down_is_given_up_with_its_last_words(movers, stored, target):
    stored.always(faults.slow_down("40"))
    with pytest.raises(SourceUnavailableError, match="SlowDown") as caught:
        await movers.fetch(request_for(stored, "models/a", target, 0, 100), give_up_after_s=10)
    assert caught.value.retry_after_s == 40


async def test_corruption_in_flight_shows_in_the_checksum(movers, stored, target):
    stored.script(faults.Corrupted(at_byte=777))
    result = await movers.fetch(request_for(stored, "models/a", target, 0, len(DATA)))
    assert result.crc32c != checksums.crc32c(DATA)
    assert result.crc32c == checksums.crc32c(target.read_bytes())


async def test_an_error_does_not_cost_the_connection(movers, stored, target):
    stored.script(faults.slow_down("0"), faults.slow_down("0"), faults.denied())
    with pytest.raises(AccessDeniedError):
        await movers.fetch(request_for(stored, "models/a", target, 0, 100))
    assert stored.connections == 1
