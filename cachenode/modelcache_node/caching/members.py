"""Who shares a revision with this node: neighbours to fetch from, and the origin group."""

from dataclasses import dataclass
from typing import Self

from modelcache_node.swarm.neighbourhood import MAX_NEIGHBOURS
from modelcache_node.swarm.rendezvous import MAX_GROUP


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
        return cls(others, tuple(everybody[:MAX_GROUP]))

    def addresses(self) -> dict[str, str]:
        """Address by name."""
        return {one.name: one.address for one in (*self.neighbours, *self.group)}
