"""Uploads of a node: how many at once, and who else is named."""

from modelcache_node.peers import sharing
from modelcache_node.swarm.neighbours import Neighbour
from modelcache_node.swarm.uploads import (
    MAX_HINTS,
    MAX_QUEUED_FOR_SAME,
    MAX_SAME,
    MAX_UPLOADS,
    admits,
    hints,
)


def test_uploads_are_bounded_in_all():
    assert admits(MAX_UPLOADS - 1, 0)
    assert not admits(MAX_UPLOADS, 0)


def test_a_second_upload_of_a_chunk_is_begun_only_among_few_and_a_third_never():
    assert admits(MAX_QUEUED_FOR_SAME - 1, 1)
    assert not admits(MAX_QUEUED_FOR_SAME, 1)
    assert not admits(1, MAX_SAME)


def test_upload_workers_admit_by_the_same_bounds_as_the_simulation():
    assert (sharing.MAX_SAME, sharing.PLACES_FOR_SAME) == (MAX_SAME, MAX_QUEUED_FOR_SAME)


def test_holders_other_than_the_asker_are_named():
    known = [Neighbour(name, bits=0b1000, is_absent=False) for name in "abcd"]
    known.append(Neighbour("lacks it", bits=0b0111, is_absent=False))
    named = hints(3, known, "a", 0.0)
    assert len(named) == MAX_HINTS
    assert set(named) <= set("bcd")
