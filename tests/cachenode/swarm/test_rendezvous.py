"""Election: equal on every node, even, and moving little when a member goes."""

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_node.swarm.rendezvous import MAX_GROUP, Ranking

SLOTS = ChunkSlots((("0123456789abcdef" * 4, 600), ("f" * 64, 400)))
#: Made by version 1; equal names and keys must give it for ever.
GOLDEN = ["adb", "dab", "dbc", "adb", "dbc", "dcb", "dab", "bad"]
MEMBERS = tuple(sorted(f"node-{n}" for n in range(8)))


def test_the_election_is_what_it_was_in_every_version():
    ranks = Ranking(("a", "b", "c", "d"), ChunkSlots((("0" * 64, 6), ("1" * 64, 2))))
    assert ["".join(ranks.of_slot(slot)) for slot in range(8)] == GOLDEN


def test_every_slot_is_elected_once_and_evenly():
    ranks = Ranking(MEMBERS, SLOTS)
    owned = [ranks.slots_of(name, 0) for name in MEMBERS]
    assert sum(owned) == (1 << SLOTS.n_slots) - 1
    assert all(90 <= bits.bit_count() <= 160 for bits in owned)


def test_a_member_that_goes_moves_only_its_own_slots_and_to_the_next_in_order():
    before = Ranking(MEMBERS, SLOTS)
    after = Ranking(MEMBERS[1:], SLOTS)
    for slot in range(SLOTS.n_slots):
        order = before.of_slot(slot)
        expected = order[1] if order[0] == MEMBERS[0] else order[0]
        assert after.of_slot(slot)[0] == expected


def test_one_member_owns_all_and_none_owns_nothing():
    assert Ranking(("a",), SLOTS).slots_of("a", 0) == (1 << SLOTS.n_slots) - 1
    assert Ranking(("a",), SLOTS).of_slot(3) == ("a",)
    assert Ranking(("a",), SLOTS).slots_of("b", 0) == 0
    assert Ranking((), SLOTS).slots_of("a", 0) == 0
    assert Ranking((), SLOTS).of_slot(0) == ()


def test_a_whole_group_is_told_apart():
    members = tuple(sorted(f"n{n}" for n in range(MAX_GROUP)))
    ranks = Ranking(members, SLOTS)
    assert {ranks.of_slot(slot)[0] for slot in range(SLOTS.n_slots)} == set(members)
