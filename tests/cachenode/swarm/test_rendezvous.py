"""Election: equal on every node, even, and moving little when a member goes."""

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_api.swarm_bounds import MAX_ORIGIN_GROUP
from modelcache_node.swarm.rendezvous import Ranking

SLOTS = ChunkSlots((("0123456789abcdef" * 4, 600), ("f" * 64, 400)))
#: Made by version 1; equal names and keys must give it for ever.
GOLDEN = ["adb", "dab", "dbc", "adb", "dbc", "dcb", "dab", "bad"]
MEMBERS = tuple(sorted(f"node-{n}" for n in range(8)))


def order(ranks: Ranking, slot: int) -> tuple[str, ...]:
    return (ranks.elected(slot), *ranks.helpers(slot))


def test_the_election_is_what_it_was_in_every_version():
    ranks = Ranking(("a", "b", "c", "d"), ChunkSlots((("0" * 64, 6), ("1" * 64, 2))))
    assert ["".join(order(ranks, slot)) for slot in range(8)] == GOLDEN


def test_every_slot_is_elected_once_and_evenly():
    ranks = Ranking(MEMBERS, SLOTS)
    owned = [ranks.elected_slots(name) for name in MEMBERS]
    assert sum(owned) == (1 << SLOTS.n_slots) - 1
    assert all(90 <= bits.bit_count() <= 160 for bits in owned)


def test_a_member_that_goes_moves_only_its_own_slots_and_to_the_next_in_order():
    before = Ranking(MEMBERS, SLOTS)
    after = Ranking(MEMBERS[1:], SLOTS)
    for slot in range(SLOTS.n_slots):
        first, second, _ = order(before, slot)
        assert after.elected(slot) == (second if first == MEMBERS[0] else first)


def test_one_member_owns_all_and_none_owns_nothing():
    assert Ranking(("a",), SLOTS).elected_slots("a") == (1 << SLOTS.n_slots) - 1
    assert order(Ranking(("a",), SLOTS), 3) == ("a",)
    assert Ranking(("a",), SLOTS).elected_slots("b") == 0
    assert Ranking((), SLOTS).elected_slots("a") == 0
    assert Ranking((), SLOTS).elected(0) is None
    assert Ranking(("a",), SLOTS).helped_slots("a") == 0


def test_a_whole_group_is_told_apart():
    members = tuple(sorted(f"n{n}" for n in range(MAX_ORIGIN_GROUP)))
    ranks = Ranking(members, SLOTS)
    assert {ranks.elected(slot) for slot in range(SLOTS.n_slots)} == set(members)
