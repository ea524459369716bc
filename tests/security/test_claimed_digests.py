"""Confused deputy and cache poisoning by digest: a digest is no secret, and proves nothing.

Where origins state sha256, blobs are named by content. The class of incident: a cache that hands
out content to who names its digest, or takes content from who claims one (GO-2025-3973, Spegel).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelcache_api.errors import IntegrityMismatchError, ModelCacheError, SourceLiesError
from modelcache_api.listing import ListedObject
from modelcache_api.messages import (
    Hello,
    LeaseState,
)
from modelcache_api.reasons import Reason
from modelcache_node.demo.s3_endpoint import S3Endpoint
from support.caches import Clock, Node, listing_of, open_node
from support.s3_source import Source, content_of


@pytest.fixture
async def node(tmp_path):
    async with open_node(tmp_path / "data", Clock()) as found:
        yield found


@pytest.fixture
def forgery(tmp_path: Path, source: Source) -> Iterator[Source]:
    """A store of the attacker's own: the same names and sizes, other bytes."""
    with S3Endpoint(tmp_path / "forged") as endpoint:
        made = Source(tmp_path / "forged" / "models" / "model", endpoint)
        for path, content in source.files().items():
            made.write(path, bytes(len(content)))
        yield made


async def claiming(source: Source, contents: dict[str, bytes]) -> list[ListedObject]:
    """A listing of `source` that states the digests of `contents`."""
    return [
        replace(one, checksum=f"sha256:{hashlib.sha256(contents[one.path]).hexdigest()}")
        for one in await listing_of(source)
    ]


def hello(namespace: str) -> Hello:
    return Hello(namespace=namespace, model_cache="model", model_cache_uid=f"uid-{namespace}")


async def test_promise_a_digest_is_no_key(node: Node, source: Source, forgery: Source) -> None:
    """Foreign digest: claiming a cached model's digests, over an own store, gets nothing."""
    honest = await claiming(source, source.files())
    revision = (await node.serve(hello("team"), honest)).revision
    with pytest.raises(SourceLiesError, match="not what its checksum says"):
        await node.serve(hello("rival"), await claiming(forgery, source.files()))
    answer = await node.lease("rival", revision=revision)
    assert (answer.state, answer.reason) == (LeaseState.WAITING, Reason.NOT_PROVED)
    assert (await node.lease("team")).state is LeaseState.READY


async def test_promise_a_digest_is_no_key__before_the_bytes_are_cached(
    node: Node, source: Source, forgery: Source
) -> None:
    """Foreign digest, claimed first: the claim is worth nothing when the true bytes arrive."""
    with pytest.raises(IntegrityMismatchError):
        await node.serve(hello("rival"), await claiming(forgery, source.files()))
    [claim] = node.cache.report().proofs
    assert claim.is_provisional
    revision = (await node.serve(hello("team"), await claiming(source, source.files()))).revision
    assert claim.revision == revision
    for wish in ({"revision": revision}, {"model_cache_uid": "uid-rival"}, {}):
        assert (await node.lease("rival", **wish)).state is LeaseState.WAITING


async def test_a_claimed_digest_mounts_nothing_lazily_until_it_was_proved_once(
    node: Node, source: Source, forgery: Source
) -> None:
    """Foreign digest, read while it comes: a lazy volume waits, unless this was proved before."""
    honest = await claiming(source, source.files())
    rival = await node.cache.begin(hello("rival"), await claiming(forgery, source.files()))
    assert (await node.lease("rival", lazy=True)).state is LeaseState.WAITING
    await rival.fetch.cancel()
    revision = (await node.serve(hello("team"), honest)).revision
    await node.cache.evict(revision)
    joined = await node.cache.begin(hello("team"), honest)  # and so far nothing has come
    assert (await node.lease("team", lazy=True)).state is LeaseState.INCOMPLETE
    assert (await node.lease("rival", lazy=True)).state is LeaseState.WAITING
    await joined.fetch.cancel()


async def test_blob_key_poisoning_reaches_nobody_else(
    node: Node, source: Source, forgery: Source
) -> None:
    """Blob-key poisoning: chunks of a claimed digest are nobody else's, not even half way."""
    with pytest.raises(ModelCacheError):
        await node.serve(hello("rival"), await claiming(forgery, source.files()))
    done = await node.serve(hello("team"), await claiming(source, source.files()))
    answer = await node.lease("team")
    assert answer.tree
    assert content_of(Path(node.folder) / answer.tree) == source.files()
    assert done.bytes_from_origin == done.bytes


async def test_grants_to_another_place_do_not_feed_an_others_fetch(
    node: Node, source: Source, forgery: Source
) -> None:
    """Blob-key poisoning by joining: a fetch takes no grant that leads elsewhere."""
    honest = await claiming(source, source.files())
    joined = await node.cache.begin(hello("team"), honest)
    assert len(joined.fetch.grants_by_blob(honest)) == len(honest)
    forged = await claiming(forgery, source.files())
    assert joined.fetch.grants_by_blob(forged) == {}


async def test_the_same_file_of_two_sources_is_one_blob_and_each_must_prove_it(
    node: Node, source: Source, tmp_path: Path
) -> None:
    """Dedup across origins costs the second namespace some ranges, not the model."""
    first = await node.serve(hello("team"), await claiming(source, source.files()))
    with S3Endpoint(tmp_path / "mirror") as endpoint:
        mirror = Source(tmp_path / "mirror" / "models" / "model", endpoint)
        for path, content in source.files().items():
            mirror.write(path, content)
        second = await node.serve(hello("other"), await claiming(mirror, source.files()))
    assert second.revision == first.revision
    assert second.bytes_from_origin == 0
    assert (await node.lease("other")).state is LeaseState.READY


async def test_a_claim_does_not_make_a_proof_younger(
    tmp_path: Path, source: Source, forgery: Source
) -> None:
    """Stale authorisation by digest: withdrawn access is not prolonged by claiming it."""
    clock = Clock()
    async with open_node(tmp_path / "data", clock, proof_max_age_s=60.0) as node:
        await node.serve(hello("team"), await claiming(source, source.files()))
        clock.now += 61.0
        with pytest.raises(SourceLiesError):
            await node.serve(hello("team"), await claiming(forgery, source.files()))
        assert (await node.lease("team")).reason is Reason.PROOF_EXPIRED
