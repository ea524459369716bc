"""Sets of slots, and counts of holders, against plain Python."""

from collections import Counter

from hypothesis import given, strategies as st

from modelcache_node.swarm.bitsets import Rarity, each, last_n, lowest, of_slots, random_one

N = 70
slot_sets = st.sets(st.integers(0, N - 1))


@given(slot_sets)
def test_a_set_gives_back_its_slots_in_order(slots):
    bits = of_slots(slots, N)
    assert bits == sum(1 << slot for slot in slots)
    assert list(each(bits)) == sorted(slots)
    assert last_n(bits, 3) == sorted(slots, reverse=True)[:3]


@given(slot_sets.filter(bool), st.floats(0, 1, exclude_max=True))
def test_a_random_slot_is_one_of_the_set(slots, number):
    bits = of_slots(slots, N)
    assert random_one(bits, N, lambda: number) in slots
    assert lowest(bits) == min(slots)


@given(st.lists(slot_sets, max_size=40), st.data(), slot_sets)
def test_rarity_counts_holders_as_they_come_and_go(holders, data, asked):
    rarity, counts = Rarity(), Counter()
    for slots in holders:
        rarity.add(of_slots(slots, N))
        counts.update(slots)
    for slots in data.draw(
        st.lists(st.sampled_from(holders), max_size=0 if not holders else 3, unique_by=id)
        if holders
        else st.just([])
    ):
        rarity.remove(of_slots(slots, N))
        counts.subtract(slots)
    assert set(each(rarity.held)) == {slot for slot in range(N) if counts[slot] > 0}
    assert set(each(rarity.held_twice)) == {slot for slot in range(N) if counts[slot] > 1}
    fewest = min((counts[slot] for slot in asked), default=0)
    rarest = rarity.rarest(of_slots(asked, N))
    assert set(each(rarest)) == {slot for slot in asked if counts[slot] == fewest}
