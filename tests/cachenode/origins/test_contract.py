"""The contract of every origin, against a real server of its kind.

One test per case, ``test_origin_<case>``; each runs for every kind. A table ends the run.
"""

import asyncio
import os
import threading
import time
from dataclasses import replace

import pytest
from awscrt import checksums

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.errors import (
    AccessDeniedError,
    IntegrityMismatchError,
    SourceChangedError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from modelcache_node.caching.resolving import to_grant
from modelcache_node.origins.base import list_source
from modelcache_node.origins.granting import GrantedSource
from modelcache_node.origins.opening import open_origin
from modelcache_node.patience import Patience
from modelcache_node.pulling import Puller
from modelcache_node.transfer.ranges import RangeRequest
from support.fault_proxy import Meanwhile, Moved
from support.faults import Corrupted, Fault, Status
from support.s3_source import content_of

pytestmark = [pytest.mark.looptime(False), pytest.mark.timeout(180)]

#: Large enough for large file storage at the hub, small enough for every server.
WEIGHTS = os.urandom(200_000)


async def listed(options):
    async with open_origin(options) as origin:
        return {one.path: one for one in await list_source(origin, options)}


async def granted(store):
    return {one.path: one for one in await GrantedSource(store.options()).objects()}


def request(store, one, target, offset, length):
    ca_file = store.options().ca_file
    return RangeRequest(
        target,
        offset,
        length,
        to_grant(one.grant),
        validator=one.validator,
        total_bytes=one.size_bytes,
        ca_pem=ca_file.read_text() if ca_file else None,
    )


def puller(store, folder, movers, on_progress=lambda _: None):
    return Puller(
        store.options(),
        folder,
        movers,
        now=time.time,
        patience=Patience(30.0, clock=time.monotonic),
        on_progress=on_progress,
    )


def let_pass(store, n_chunks):
    """Let a pull's probe of one object and its first chunks be answered rightly."""
    store.proxy.script(*[Fault()] * (store.requests_per_probe + n_chunks))


def pulled_files(folder):
    return {name: raw for name, raw in content_of(folder).items() if ".modelcache" not in name}


async def test_origin_list(store):
    files = {
        "config.json": b"{}",
        "empty": b"",
        "sub dir/weights+1 (ä).safetensors": WEIGHTS,
        "sub dir/deep/100%.txt": b"x" * 17,
    }
    for name, data in files.items():
        store.put(name, data)
    found = await listed(store.options())
    assert {name: one.size_bytes for name, one in found.items()} == {
        name: len(data) for name, data in files.items()
    }
    assert all(one.validator for one in found.values())


async def test_origin_list_filtered(store):
    for name in ("a.safetensors", "a.bin", "sub/b.bin"):
        store.put(name, WEIGHTS)
    options = replace(store.options(), exclude=["*.bin"])
    assert set(await listed(options)) == {"a.safetensors"}


async def test_origin_page(store):
    names = {f"part-{number:02}.bin" for number in range(2 * store.page_size + 1)}
    for name in names:
        store.put(name, b"x" * 10)
    assert set(await listed(store.options())) == names


async def test_origin_range(store, movers, tmp_path):
    store.put("weights", WEIGHTS)
    target = tmp_path / "weights"
    target.touch()
    one = (await granted(store))["weights"]
    result = await movers.fetch(request(store, one, target, 1000, 5000))
    assert target.read_bytes()[1000:] == WEIGHTS[1000:6000]
    assert (result.crc32c, result.total_bytes) == (
        checksums.crc32c(WEIGHTS[1000:6000]),
        len(WEIGHTS),
    )


async def test_origin_pin(store, movers):
    store.put("weights", WEIGHTS)
    before = (await granted(store))["weights"]
    store.put("weights", os.urandom(len(WEIGHTS)))
    after = (await granted(store))["weights"]
    assert before.validator != after.validator
    if store.pins_ranges:
        with pytest.raises(SourceChangedError):
            await movers.fetch(request(store, before, None, 0, 1000))
    elif not store.follows_changes:
        old = await movers.fetch(request(store, before, None, 0, len(WEIGHTS)))
        assert old.crc32c == checksums.crc32c(WEIGHTS)
    await movers.fetch(request(store, after, None, 0, 1000))


async def test_origin_change_in_mid_pull(store, movers, tmp_path):
    before, after = (os.urandom(CHUNK_BYTES + 1000) for _ in range(2))
    store.put("weights", before)
    let_pass(store, 1)
    store.proxy.script(Meanwhile(lambda: store.put("weights", after)))
    try:
        await puller(store, tmp_path / "pulled", movers).run()
    except IntegrityMismatchError:
        assert not store.pins_ranges, "a change was noticed by the digest alone"
        await puller(store, tmp_path / "pulled", movers).run()
    expected = after if store.follows_changes else before
    assert pulled_files(tmp_path / "pulled") == {"weights": expected}


async def test_origin_checksum_good(store, movers, tmp_path):
    files = {"config.json": b"{}", "empty": b"", "sub/weights": WEIGHTS}
    for name, data in files.items():
        store.put(name, data)
    pulled = await puller(store, tmp_path / "pulled", movers).run()
    assert pulled_files(tmp_path / "pulled") == files
    assert pulled.integrity is store.integrity


async def test_origin_checksum_bad(store, movers, tmp_path):
    store.put("weights", WEIGHTS)
    store.proxy.always(Corrupted())
    with pytest.raises(IntegrityMismatchError):
        await puller(store, tmp_path / "pulled", movers).run()
    assert pulled_files(tmp_path / "pulled") == {}


async def test_origin_403_credentials(store):
    store.put("weights", WEIGHTS)
    store.spoil_credentials()
    with pytest.raises(AccessDeniedError) as refused:
        await listed(store.options())
    assert "wrong" not in str(refused.value)


async def test_origin_403_object(store, movers):
    store.put("weights", WEIGHTS)
    one = (await granted(store))["weights"]
    store.proxy.script(Status(403, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(AccessDeniedError):
        await movers.fetch(request(store, one, None, 0, 10))


async def test_origin_404_source(store):
    with pytest.raises(SourceNotFoundError):
        await listed(store.options(store.missing_uri))


async def test_origin_404_object(store, movers):
    store.put("weights", WEIGHTS)
    store.put("other", WEIGHTS[:5000])
    one = (await granted(store))["weights"]
    store.delete("weights")
    with pytest.raises((SourceNotFoundError, SourceChangedError)):
        await movers.fetch(request(store, one, None, 0, 10))


@pytest.mark.parametrize("status", [429, 503])
async def test_origin_throttled(store, movers, tmp_path, status):
    store.put("weights", WEIGHTS)
    throttled = Status(status, b"slow down", (("Retry-After", "0"),))
    store.proxy.script(throttled, throttled)
    pulled = await puller(store, tmp_path / "pulled", movers).run()
    assert pulled_files(tmp_path / "pulled") == {"weights": WEIGHTS}
    assert movers.stats().throttled == 2
    assert pulled.bytes_from_origin == len(WEIGHTS)


async def test_origin_away(store):
    store.put("weights", WEIGHTS)
    options = store.options()
    away = "127.0.0.1:9"
    here = store.proxy.url.partition("://")[2]
    options = replace(
        options,
        uri=options.uri.replace(here, away),
        endpoint=options.endpoint and options.endpoint.replace(here, away),
    )
    with pytest.raises(SourceUnavailableError):
        await listed(options)


async def test_origin_expired_credential(store, movers, tmp_path):
    store.put("weights", os.urandom(CHUNK_BYTES + 1000))
    let_pass(store, 1)
    store.proxy.script(store.expired())
    pulled = await puller(store, tmp_path / "pulled", movers).run()
    assert pulled.bytes_from_origin == CHUNK_BYTES + 1000
    assert len(store.proxy.asked) >= 4


async def test_origin_redirect(store, movers, tmp_path):
    store.put("weights", WEIGHTS)
    store.proxy.script(Moved(), Moved())
    await puller(store, tmp_path / "pulled", movers).run()
    assert pulled_files(tmp_path / "pulled") == {"weights": WEIGHTS}
    assert movers.stats().retries == 0


async def test_origin_resume(store, movers, tmp_path):
    weights = os.urandom(3 * CHUNK_BYTES)
    store.put("weights", weights)
    goes_on = threading.Event()
    blocked = Meanwhile(lambda: goes_on.wait(60))
    let_pass(store, 1)
    store.proxy.script(blocked, blocked)
    has_chunk = asyncio.Event()

    def look(tally):
        if tally.bytes_present >= CHUNK_BYTES:
            has_chunk.set()

    first = asyncio.create_task(puller(store, tmp_path / "pulled", movers, look).run())
    reached = asyncio.create_task(has_chunk.wait())
    await asyncio.wait({first, reached}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    first.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = await puller(store, tmp_path / "pulled", movers).run()
    assert second.bytes_from_origin == 2 * CHUNK_BYTES
    assert pulled_files(tmp_path / "pulled") == {"weights": weights}
