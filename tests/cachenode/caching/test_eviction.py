"""Which revisions go to make room: never a held one, the unwished first, then the least used."""

import pytest
from hypothesis import given, strategies as st

from modelcache_api.errors import InsufficientCapacityError
from modelcache_node.caching.eviction import Held, choose_evictions

BLOBS = "abcdefgh"
SIZES = {name: 10 * (n + 1) for n, name in enumerate(BLOBS)}


@st.composite
def nodes(draw) -> list[Held]:
    """Up to eight revisions, which share blobs."""
    return [
        Held(
            f"r{n}",
            {name: SIZES[name] for name in draw(st.sets(st.sampled_from(BLOBS), min_size=1))},
            draw(st.integers(0, 5)),
            is_wished=draw(st.booleans()),
            is_held=draw(st.integers(0, 3)) == 0,
        )
        for n in range(draw(st.integers(0, 8)))
    ]


def freed_bytes(held: list[Held], gone: list[str]) -> int:
    """Blobs that nobody names any more."""
    kept = {name for one in held if one.revision not in gone for name in one.blobs}
    return sum(SIZES[name] for name in {b for one in held for b in one.blobs} - kept)


@given(held=nodes(), needed_bytes=st.integers(1, 400))
def test_what_goes_is_enough_and_not_more_or_nothing_goes(held, needed_bytes):
    movable = [one.revision for one in held if not one.is_held]
    most_bytes = freed_bytes(held, movable)
    if most_bytes < needed_bytes:
        with pytest.raises(InsufficientCapacityError, match=f"^{needed_bytes - most_bytes} bytes"):
            choose_evictions(held, needed_bytes=needed_bytes)
    else:
        chosen = choose_evictions(held, needed_bytes=needed_bytes)
        assert freed_bytes(held, chosen) >= needed_bytes
        assert freed_bytes(held, chosen[:-1]) < needed_bytes
        assert set(chosen) <= set(movable)
        for one in chosen:
            spared = [other for other in chosen if other != one]
            assert freed_bytes(held, spared) < freed_bytes(held, chosen), "it frees something"


@given(held=nodes(), needed_bytes=st.integers(1, 200))
def test_nobody_goes_before_one_that_is_less_wished_or_was_used_longer_ago(held, needed_bytes):
    try:
        chosen = choose_evictions(held, needed_bytes=needed_bytes)
    except InsufficientCapacityError:
        return
    rank = {one.revision: (one.is_wished, one.last_used_at) for one in held}
    ranks = [rank[revision] for revision in chosen]
    assert ranks == sorted(ranks)
    kept = [one for one in held if one.revision not in chosen]
    for one in kept:
        needed_by_others = {name for other in kept if other is not one for name in other.blobs}
        if not one.is_held and not one.blobs.keys() <= needed_by_others:
            assert rank[one.revision] >= ranks[-1]


def test_a_shared_blob_is_freed_with_the_last_that_names_it():
    first, second = (Held(name, {"a": 10}, at) for name, at in (("old", 1.0), ("new", 2.0)))
    assert choose_evictions([first, second], needed_bytes=5) == ["old", "new"]
    user = Held("user", {"a": 10}, 9.0, is_held=True)
    with pytest.raises(InsufficientCapacityError):
        choose_evictions([first, second, user], needed_bytes=5)
