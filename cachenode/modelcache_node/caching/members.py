"""Who shares a revision with this node: neighbours to fetch from, and the origin group."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

from modelcache_api.swarm_bounds import MAX_NEIGHBOURS, MAX_ORIGIN_GROUP, MAX_SWARMS

if TYPE_CHECKING:  # pydantic's loading takes longer than much that a pull does
    from modelcache_api.cache_node import CacheNodeSpec, SwarmLists, SwarmMember

#: How much dearer a neighbour in another zone is than one in this. Arbitrary: it is asked when
#: those near have three times its requests under way, or not what is wanted.
FAR_WEIGHT = 3.0
#: Revisions whose lists are remembered: those of a whole spec, and as many that went. Arbitrary.
MAX_INTRODUCTIONS = 2 * MAX_SWARMS


@dataclass(frozen=True, slots=True)
class Member:
    """Another node. Every node calls it by the same name; `weight` above 1 makes it dearer."""

    name: str
    address: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Members:
    """The swarm of one revision as this node sees it. `group` may name this node itself."""

    neighbours: tuple[Member, ...] = ()
    group: tuple[Member, ...] = ()
    #: What this node may read from the origin of it; None: not said.
    origin_bytes_per_s: int | None = None

    @classmethod
    def by_hand(cls, me: str, addresses: tuple[str, ...]) -> Self:
        """Agents that were named to each other: all of them share every revision.

        Raises:
            ValueError: more than a node may have neighbours.
        """
        others = tuple(Member(address, address) for address in dict.fromkeys(addresses))
        if len(others) > MAX_NEIGHBOURS:
            raise ValueError(f"{len(others)} peers; at most {MAX_NEIGHBOURS} can be named")
        everybody = sorted((*others, Member(me, me)), key=lambda one: one.name)
        return cls(others, tuple(everybody[:MAX_ORIGIN_GROUP]))

    def addresses(self) -> dict[str, str]:
        """Address by name."""
        return {one.name: one.address for one in (*self.neighbours, *self.group)}

    @classmethod
    def of_lists(cls, lists: "SwarmLists") -> Self:
        """As the operator lists them."""
        return cls(
            tuple(map(_member, lists.neighbours)),
            tuple(map(_member, lists.origin_group)),
            lists.origin_bytes_per_second,
        )


#: Who shares a revision: the same object until that changes, None while nobody said.
MembersOf: TypeAlias = Callable[[str], Members | None]


def _member(listed: "SwarmMember") -> Member:
    return Member(listed.name, listed.address, FAR_WEIGHT if listed.far else 1.0)


class Introductions:
    """By revision, the newest lists that this node's CacheNode held; they stay when those go.

    While the API server is away, and for a fetch that outlives its ModelCache, they are the best
    that is known.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, Members]] = OrderedDict()

    def take(self, spec: "CacheNodeSpec") -> None:
        """A spec came; it may come again, or be older than the last."""
        for lists in spec.swarms:
            epoch, _ = self._known.get(lists.revision, (-1, None))
            if lists.epoch > epoch:
                self._known[lists.revision] = (lists.epoch, Members.of_lists(lists))
                self._known.move_to_end(lists.revision)
        while len(self._known) > MAX_INTRODUCTIONS:
            self._known.popitem(last=False)

    def members_of(self, revision: str) -> Members | None:
        """None: nobody was introduced yet. The same object until the lists change."""
        known = self._known.get(revision)
        return None if known is None else known[1]
