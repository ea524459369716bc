"""Listings without end: what a source or a forged Job sends is bounded before it is kept."""

import tracemalloc

import pytest

from modelcache_api.errors import InvalidRequestError, InvalidSourceError, UnavailableError
from modelcache_api.listing import ListedObject, ObjectGrant
from modelcache_api.manifest import MAX_FILES
from modelcache_api.messages import Hello, Objects
from modelcache_node.caching.listings import (
    MAX_LISTING_BYTES,
    MAX_LISTINGS_BYTES,
    ListingBudget,
)
from modelcache_node.caching.sessions import receive_listing
from modelcache_node.origins.base import MAX_SEEN, SourceObject, SourceOptions, list_source

TEN_MILLION = 10_000_000
#: What a listing of the most objects may take in memory, with room. Arbitrary.
MEMORY_BYTES = 300 << 20


class Endless:
    """A bucket of ten million objects."""

    def __init__(self):
        self.n_asked = 0

    async def objects(self):
        for number in range(TEN_MILLION):
            self.n_asked += 1
            yield SourceObject(f"{number}.bin", f"{number}.bin", 1, '"e"')

    async def grant(self, listed):
        raise AssertionError


async def test_ten_million_entries_are_refused_in_bounded_memory():
    """Unbounded listing: refused at the bound, with what was kept bounded by it."""
    origin = Endless()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidSourceError, match=f"more than {MAX_FILES} objects"):
            await list_source(origin, SourceOptions("s3://bucket/"))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert origin.n_asked == MAX_FILES + 1
    assert peak_bytes < MEMORY_BYTES


async def test_ten_million_entries_that_are_left_out_are_refused_too():
    """Unbounded listing: filters do not make one go on for ever."""
    origin = Endless()
    with pytest.raises(InvalidSourceError, match="narrower prefix"):
        await list_source(origin, SourceOptions("s3://bucket/", exclude=("*.bin",)))
    assert origin.n_asked == MAX_SEEN + 1


class Flood:
    """A forged Job that lists for ever."""

    def __init__(self, url_bytes):
        grant = ObjectGrant(url="https://x/" + "y" * url_bytes)
        listed = ListedObject(path="a", size_bytes=1, validator='"e"', grant=grant)
        self._batch = Objects(objects=[listed] * 200)
        self.n_sent = 0

    async def receive(self):
        self.n_sent += len(self._batch.objects)
        assert self.n_sent <= TEN_MILLION
        return self._batch

    async def send(self, message):
        raise AssertionError(message)


async def test_a_forged_job_s_ten_million_entries_are_refused_by_the_agent():
    """Unbounded listing: the agent stops listening at its bound, and frees what it kept."""
    flood, budget = Flood(url_bytes=10), ListingBudget()
    with pytest.raises(InvalidRequestError, match=f"at most {MAX_FILES} objects"):
        async with budget.open() as share:
            await receive_listing(flood, share)
    assert flood.n_sent == MAX_FILES + 200
    assert budget.taken_bytes == 0


async def test_a_listing_of_long_grants_is_refused_by_its_size():
    """Unbounded listing: few objects with huge grants are bounded as well."""
    flood, budget = Flood(url_bytes=8000), ListingBudget()
    with pytest.raises(InvalidRequestError, match="listing takes more than"):
        async with budget.open() as share:
            await receive_listing(flood, share)
    assert flood.n_sent * 8000 < MAX_LISTING_BYTES * 1.1


async def test_many_listings_together_are_bounded_and_may_come_again():
    """Unbounded listings: sessions share one bound; who finds it taken tries again later."""
    budget = ListingBudget()
    async with budget.open() as first, budget.open() as second, budget.open() as third:
        first.take(MAX_LISTING_BYTES)
        second.take(MAX_LISTING_BYTES)
        with pytest.raises(UnavailableError, match="try again"):
            third.take(MAX_LISTINGS_BYTES - 2 * MAX_LISTING_BYTES + 1)
    async with budget.open() as later:
        later.take(MAX_LISTING_BYTES)


def test_hello_is_bounded():
    """Oversized fields: no field of a message is without a bound."""
    with pytest.raises(ValueError, match="at most"):
        Hello(model_cache="x" * 10_000)
