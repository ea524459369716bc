"""What a node is told of others, and what it keeps of that."""

from modelcache_api.cache_node import CacheNodeSpec, SwarmLists, SwarmMember
from modelcache_node.caching.members import FAR_WEIGHT, MAX_INTRODUCTIONS, Introductions, Member

REVISION = "sha256:" + "a" * 64


def lists(*names: str, epoch: int = 1, revision: str = REVISION) -> CacheNodeSpec:
    members = tuple(SwarmMember(name=name, address=f"{name}:7440") for name in names)
    swarm = SwarmLists(revision=revision, epoch=epoch, neighbours=members, origin_group=members)
    return CacheNodeSpec(swarms=(swarm,))


def test_who_was_not_introduced_knows_nobody():
    assert Introductions().members_of(REVISION) is None


def test_the_operator_s_lists_become_neighbours_and_group():
    known = Introductions()
    far = SwarmMember(name="b", address="b:7440", far=True)
    swarm = SwarmLists(
        revision=REVISION,
        epoch=1,
        neighbours=(SwarmMember(name="a", address="a:7440"), far),
        origin_group=(far,),
    )
    known.take(CacheNodeSpec(swarms=(swarm,)))
    members = known.members_of(REVISION)
    assert members is not None
    assert members.neighbours == (Member("a", "a:7440"), Member("b", "b:7440", FAR_WEIGHT))
    assert members.addresses() == {"a": "a:7440", "b": "b:7440"}


def test_the_same_lists_are_the_same_object_until_they_change():
    known = Introductions()
    known.take(lists("a"))
    first = known.members_of(REVISION)
    known.take(lists("a"))
    assert known.members_of(REVISION) is first
    known.take(lists("a", "b", epoch=2))
    assert known.members_of(REVISION) is not first


def test_older_lists_are_not_taken():
    known = Introductions()
    known.take(lists("a", "b", epoch=7))
    known.take(lists("a", epoch=6))
    members = known.members_of(REVISION)
    assert members is not None
    assert len(members.neighbours) == 2


def test_lists_stay_when_the_spec_names_them_no_more():
    known = Introductions()
    known.take(lists("a"))
    known.take(CacheNodeSpec())
    assert known.members_of(REVISION) is not None


def test_what_is_remembered_is_bounded():
    known = Introductions()
    for number in range(MAX_INTRODUCTIONS + 1):
        known.take(lists("a", revision=f"sha256:{number:064}"))
    assert known.members_of(f"sha256:{0:064}") is None
    assert known.members_of(f"sha256:{1:064}") is not None
