"""Which chunks readers wait for."""

from modelcache_node.caching.wishes import MAX_WISHES, Wishes


def drained(wishes: Wishes) -> list[tuple[str, int | None]]:
    found = []
    while (wish := wishes.take()) is not None:
        found.append(wish[:2])
    return found


def test_what_stops_a_reader_is_urgent_and_what_it_comes_to_is_not() -> None:
    wishes = Wishes()
    wishes.add("a", [4, 5])
    assert [wishes.take(), wishes.take()] == [("a", 4, True), ("a", 5, False)]


def test_the_newest_wish_goes_first_and_keeps_its_order() -> None:
    wishes = Wishes()
    wishes.add("a", [1, 2])
    wishes.add("b", [7, 8])
    assert drained(wishes) == [("b", 7), ("b", 8), ("a", 1), ("a", 2)]


def test_a_wish_that_is_repeated_is_remembered_once() -> None:
    wishes = Wishes()
    wishes.add("a", [1, 2])
    wishes.add("b", [7])
    wishes.add("a", [1, 2])
    assert drained(wishes) == [("a", 1), ("a", 2), ("b", 7)]


def test_a_blob_may_be_wished_begun_without_any_chunk() -> None:
    wishes = Wishes()
    wishes.add("a", [])
    assert drained(wishes) == [("a", None)]


def test_the_oldest_wishes_are_forgotten_beyond_the_bound() -> None:
    wishes = Wishes()
    wishes.add("old", [1])
    wishes.add("new", range(MAX_WISHES))
    assert len(wishes) == MAX_WISHES
    assert ("old", 1) not in drained(wishes)
