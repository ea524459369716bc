"""Movers against an origin that behaves: every byte at its place, checked and accounted."""

import asyncio
import os
from pathlib import Path

import pytest
from awscrt import checksums

from modelcache_api.errors import (
    DiskFullError,
    GrantExpiredError,
    InvalidSourceError,
    SourceUnavailableError,
)
from modelcache_api.manifest import ChecksumAlgorithm
from modelcache_api.units import KIB, MIB
from modelcache_node.store.combining import combine
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import Grant, RangeRequest
from support.fault_origin import FaultOrigin, Tls, Zeros
from support.ranges import LIMITS, no_jitter, request_for

pytestmark = pytest.mark.looptime(False)


async def test_the_ranges_of_a_file_arrive_at_their_places(origin, movers, target):
    data = os.urandom(3 * MIB + 12345)
    etag = origin.put("models/a", data)
    chunk = MIB
    spans = [(at, min(chunk, len(data) - at)) for at in range(0, len(data), chunk)]
    results = await asyncio.gather(
        *(
            movers.fetch(
                request_for(
                    origin,
                    "models/a",
                    target,
                    at,
                    length,
                    validator=etag,
                    total_bytes=len(data),
                    want_crc64nvme=True,
                )
            )
            for at, length in spans
        )
    )
    assert target.read_bytes() == data
    assert [one.crc32c for one in results] == [
        checksums.crc32c(data[at : at + length]) for at, length in spans
    ]
    parts = [(one.crc64nvme, one.bytes) for one in results]
    whole = combine(ChecksumAlgorithm.CRC64NVME, parts)
    assert whole == f"{checksums.crc64nvme(data):016x}"
    assert {(one.validator, one.total_bytes) for one in results} == {(etag, len(data))}
    assert movers.stats().ranges == len(spans)


async def test_a_probe_reads_without_a_file_and_tells_what_the_object_is(origin, movers):
    etag = origin.put("models/a", b"hello")
    result = await movers.fetch(request_for(origin, "models/a", None, 0, 1))
    assert (result.validator, result.total_bytes, result.bytes) == (etag, 5, 1)
    assert result.crc32c == checksums.crc32c(b"h")


async def test_an_empty_object_is_probed_without_a_range(origin, movers):
    etag = origin.put("models/empty", b"")
    result = await movers.fetch(
        request_for(origin, "models/empty", None, 0, 0, validator=etag, total_bytes=0)
    )
    assert (result.bytes, result.total_bytes, result.crc32c) == (0, 0, 0)


async def test_every_range_is_pinned_by_its_validator(origin, movers, target):
    etag = origin.put("models/a", bytes(1000))
    await movers.fetch(request_for(origin, "models/a", target, 10, 20, validator=etag))
    asked = origin.asked[0].headers
    assert (asked["range"], asked["if-match"]) == ("bytes=10-29", etag)


async def test_connections_are_kept_for_the_next_range(origin, movers):
    origin.put("models/a", bytes(100_000))
    for at in range(0, 100_000, 1000):
        await movers.fetch(request_for(origin, "models/a", None, at, 1000))
    assert origin.count() == 100
    assert origin.connections == 1


async def test_an_origin_that_closes_after_every_answer_costs_no_retry(origin, movers):
    origin.keeps_alive = False  # without saying so: an idle connection is found closed
    origin.put("models/a", bytes(30_000))
    await asyncio.gather(
        *(
            movers.fetch(request_for(origin, "models/a", None, at, 1000))
            for at in range(0, 30_000, 1000)
        )
    )
    assert movers.stats().retries == 0


async def test_thousands_of_ranges_are_all_answered(origin, movers, target):
    data = os.urandom(3000 * 64)
    origin.put("models/a", data)
    await asyncio.gather(
        *(
            movers.fetch(request_for(origin, "models/a", target, at, 64))
            for at in range(0, len(data), 64)
        )
    )
    assert target.read_bytes() == data
    assert origin.connections <= LIMITS.connections


async def test_ranges_of_many_origins_share_a_bounded_number_of_connections(movers):
    origins = [FaultOrigin() for _ in range(6)]
    try:
        for one in origins:
            one.__enter__()
            one.put("models/a", b"x" * 100)
        requests = [request_for(one, "models/a", None, at, 1) for at in range(5) for one in origins]
        results = await asyncio.gather(*(movers.fetch(one) for one in requests))
    finally:
        for one in origins:
            one.__exit__(None, None, None)
    assert len(results) == 30


async def test_a_grants_headers_go_out_with_every_range(origin, movers):
    origin.put("models/a", b"hello")
    grant = Grant(f"{origin.url}/models/a", (("Authorization", "Bearer secret"),))
    await movers.fetch(RangeRequest(None, 0, 5, grant))
    assert origin.asked[0].headers["authorization"] == "Bearer secret"


async def test_a_grant_never_shows_in_a_workers_command_line_or_environment(origin, movers):
    origin.put("models/a", b"hello")
    os.environ["AWS_SECRET_ACCESS_KEY"] = "not-for-workers"
    try:
        async with Movers(count=1) as others:
            url = f"{origin.url}/models/a?X-Amz-Signature=sesame"
            await others.fetch(RangeRequest(None, 0, 5, Grant(url)))
            for pid in others.worker_pids:
                seen = Path(f"/proc/{pid}/cmdline").read_bytes()
                seen += Path(f"/proc/{pid}/environ").read_bytes()
                assert b"sesame" not in seen
                assert b"not-for-workers" not in seen
    finally:
        del os.environ["AWS_SECRET_ACCESS_KEY"]


async def test_tls_is_verified_against_the_given_authorities(movers, target):
    tls = Tls()
    data = os.urandom(2 * MIB)
    with FaultOrigin(tls) as origin:
        etag = origin.put("models/a", data)
        await asyncio.gather(
            *(
                movers.fetch(
                    request_for(
                        origin, "models/a", target, at, 256 * KIB, validator=etag, ca_pem=tls.ca_pem
                    )
                )
                for at in range(0, len(data), 256 * KIB)
            )
        )
    assert target.read_bytes() == data


async def test_an_authority_that_nobody_named_is_not_trusted(movers):
    with FaultOrigin(Tls()) as origin:
        origin.put("models/a", b"hello")
        with pytest.raises(InvalidSourceError, match="not trusted"):
            await movers.fetch(request_for(origin, "models/a", None, 0, 1))
        with pytest.raises(InvalidSourceError, match="not trusted"):
            await movers.fetch(request_for(origin, "models/a", None, 0, 1, ca_pem=Tls().ca_pem))


async def test_a_certificate_for_another_name_is_not_trusted(movers):
    tls = Tls(names=("elsewhere.example",))
    with FaultOrigin(tls) as origin:
        origin.put("models/a", b"hello")
        with pytest.raises(InvalidSourceError, match="not trusted"):
            await movers.fetch(request_for(origin, "models/a", None, 0, 1, ca_pem=tls.ca_pem))


async def test_authorities_that_are_none_are_the_users_mistake(movers):
    with FaultOrigin(Tls()) as origin, pytest.raises(InvalidSourceError, match="authorities"):
        await movers.fetch(request_for(origin, "models/a", None, 0, 1, ca_pem="nonsense"))


async def test_a_full_disk_is_told_apart(origin, movers):
    origin.put("models/a", bytes(1000))
    with pytest.raises(DiskFullError):
        await movers.fetch(request_for(origin, "models/a", Path("/dev/full"), 0, 1000))


async def test_a_file_that_is_not_there_is_the_callers_mistake(origin, movers, tmp_path):
    origin.put("models/a", bytes(1000))
    with pytest.raises(OSError, match="No such file"):
        await movers.fetch(request_for(origin, "models/a", tmp_path / "absent", 0, 1000))


async def test_urgent_ranges_overtake_those_that_wait(origin, target):
    origin.put("models/a", bytes(1000))
    limits = LIMITS._replace(connections=1)
    async with Movers(count=1, limits=limits, uniform=no_jitter) as movers:
        late = [
            asyncio.create_task(
                movers.fetch(request_for(origin, "models/a", target, at, 1, priority=5))
            )
            for at in range(100)
        ]
        await asyncio.sleep(0)
        await movers.fetch(request_for(origin, "models/a", target, 999, 1, priority=0))
        assert sum(one.done() for one in late) <= movers.max_outstanding
        await asyncio.gather(*late)


async def test_a_download_limit_makes_ranges_wait(origin):
    origin.put("models/a", Zeros(10 * MIB))
    async with Movers(count=1, download_limit_bytes_per_s=100 * KIB) as movers:
        first = request_for(origin, "models/a", None, 0, MIB)
        await movers.fetch(first)  # leaves a debt of some ten seconds
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await movers.fetch(request_for(origin, "models/a", None, MIB, MIB))
    assert origin.count() == 1


async def test_an_expired_signature_asks_for_a_new_grant(origin, movers):
    origin.put("models/a", b"hello")
    url = f"{origin.url}/models/a?X-Amz-Signature=1"
    await movers.fetch(RangeRequest(None, 0, 1, Grant(url)))
    origin.expire_signatures()
    with pytest.raises(GrantExpiredError):
        await movers.fetch(RangeRequest(None, 0, 1, Grant(url)))
    await movers.fetch(RangeRequest(None, 0, 1, Grant(url.replace("=1", "=2"))))


async def test_an_origin_that_is_not_there_is_given_up_in_time(movers):
    with FaultOrigin() as origin:
        request = request_for(origin, "models/a", None, 0, 1)
    heard = []
    with pytest.raises(SourceUnavailableError, match="cannot connect"):
        await movers.fetch(request, give_up_after_s=0.0, on_retry=heard.append)
    assert heard == []
