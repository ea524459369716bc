"""Who shares a revision with whom: each node's neighbours, and the origin group. Pure.

Up to 33 nodes are all neighbours of each other. More are put on rings, each in another order: a
node's neighbours are who stands before and behind it on each. So every node has at most 32, the
whole is one connected graph, a few steps across, and one node that comes or goes changes the lists
of 32 others at most. On half of the rings zones stand together, so that at least half of a node's
neighbours are near where its zone has enough others.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address

from modelcache_api.cache_node import SwarmLists, SwarmMember
from modelcache_api.messages import RevisionState
from modelcache_api.swarm_bounds import MAX_NEIGHBOURS, MAX_ORIGIN_GROUP, MAX_SWARMS
from modelcache_operator.planning.observed import CacheView, NodeView
from modelcache_operator.planning.placement import by_rendezvous, is_live

#: Two neighbours from each; on the even ones zones stand together.
_N_RINGS = MAX_NEIGHBOURS // 2
#: Swarms whose rings are kept in mind while their members' lists are written. Arbitrary; one of
#: 1,000 nodes takes about 200 KiB.
_CACHED_SWARMS = 16
ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class Peer:
    """A node that shares a revision."""

    name: str
    address: str
    zone: str


def peers_of(
    revision: str,
    keepers: Collection[str],
    nodes: Mapping[str, NodeView],
    caches: Mapping[str, CacheView],
    now: datetime,
) -> tuple[Peer, ...]:
    """The nodes that should keep `revision`, or hold any of it, and can be reached; by name.

    An agent's word on its address counts only if that is its node's, or one of the node's pods':
    who holds an agent's token would have others' signed requests sent to himself, to pass them on.
    """
    return tuple(
        Peer(name, cache.address, nodes[name].labels.get(ZONE_LABEL, ""))
        for name, cache in sorted(caches.items())
        if is_address_of(nodes.get(name), cache.address)
        and (name in keepers or revision in cache.held)
        and is_live(nodes.get(name), cache, now)
    )


def is_address_of(node: NodeView | None, address: str) -> bool:
    """Whether ``host:port`` is on `node`, as the kubelet and the cluster say."""
    host = address.rpartition(":")[0].strip("[]")
    if node is None or not host:
        return False
    try:
        found = ip_address(host)
    except ValueError:
        return host in node.hosts
    return host in node.hosts or any(found in one for one in node.pod_ranges)


def lists_for(
    node: str, revision: str, peers: tuple[Peer, ...]
) -> tuple[tuple[SwarmMember, ...], tuple[SwarmMember, ...]]:
    """Neighbours and origin group of `node`, which is one of `peers`; both sorted by name."""
    swarm = _swarm(revision, peers)
    zone = swarm.by_name[node].zone
    neighbours = [swarm.by_name[name] for name in sorted(swarm.neighbours_of(node))]
    return (
        tuple(_member(peer, zone) for peer in neighbours),
        tuple(SwarmMember(name=peer.name, address=peer.address) for peer in swarm.group),
    )


def swarms_for(
    cache: CacheView,
    revisions: Iterable[str],
    peers: Callable[[str], tuple[Peer, ...]],
    now: datetime,
    *,
    origin_bytes_per_s: int | None = None,
) -> tuple[SwarmLists, ...]:
    """The lists for one node, of each of the `revisions` that it should keep.

    `peers` says who shares one; it is asked only where that is needed. `origin_bytes_per_s` is what
    all readers of one revision's source may take together. Lists that did not change keep their
    epoch. Those of a revision that is complete here stay as they are: nobody needs them, and a
    thousand nodes would be written for it.
    """
    before = {lists.revision: lists for lists in cache.spec.swarms}
    lacking: list[SwarmLists] = []
    complete: list[SwarmLists] = []
    for revision in revisions:
        known = before.get(revision)
        held = cache.held.get(revision)
        if held and held.state is RevisionState.READY:
            complete += [known] if known else []
            continue
        sharing = peers(revision)
        if any(peer.name == cache.name for peer in sharing):
            neighbours, group = lists_for(cache.name, revision, sharing)
            wanted = SwarmLists(
                revision=revision,
                epoch=known.epoch if known else 0,
                neighbours=neighbours,
                origin_group=group,
                origin_bytes_per_second=_share(origin_bytes_per_s, len(group)),
            )
            lacking.append(wanted if wanted == known else _renewed(wanted, now))
    found = sorted(lacking, key=_by_revision)[:MAX_SWARMS]
    found += sorted(complete, key=_by_revision)[: MAX_SWARMS - len(found)]
    return tuple(sorted(found, key=_by_revision))


def limit_for_one(limit_bytes_per_s: int | None, n_active: int) -> int | None:
    """What the readers of one of `n_active` revisions may take of the cluster's limit.

    As if there were the next power of two of them, so that not each that begins or ends has all
    lists written anew.
    """
    if limit_bytes_per_s is None:
        return None
    return max(1, limit_bytes_per_s >> max(0, n_active - 1).bit_length())


def _share(limit_bytes_per_s: int | None, n_readers: int) -> int | None:
    return None if limit_bytes_per_s is None else max(1, limit_bytes_per_s // n_readers)


def _renewed(lists: SwarmLists, now: datetime) -> SwarmLists:
    # By the clock, so that it grows also where the object was lost and made anew.
    return lists.model_copy(update={"epoch": max(int(now.timestamp()), lists.epoch + 1)})


class _Swarm:
    """The members of one swarm in all their orders."""

    def __init__(self, revision: str, peers: tuple[Peer, ...]) -> None:
        self.by_name = {peer.name: peer for peer in peers}
        first = by_rendezvous(revision, self.by_name)[:MAX_ORIGIN_GROUP]
        self.group = tuple(self.by_name[name] for name in sorted(first))
        self._rings = [] if self._are_few else [self._ring(revision, n) for n in range(_N_RINGS)]

    @property
    def _are_few(self) -> bool:
        return len(self.by_name) <= MAX_NEIGHBOURS + 1

    def neighbours_of(self, node: str) -> set[str]:
        if self._are_few:
            return set(self.by_name) - {node}
        found: set[str] = set()
        for ring, places in self._rings:
            place = places[node]
            found |= {ring[place - 1], ring[(place + 1) % len(ring)]}
        return found

    def _ring(self, revision: str, number: int) -> tuple[Sequence[str], dict[str, int]]:
        def order(peer: Peer) -> tuple[str, bytes]:
            zone = peer.zone if number % 2 == 0 else ""
            return zone, hashlib.sha256(f"{revision}\0{number}\0{peer.name}".encode()).digest()

        ring = [peer.name for peer in sorted(self.by_name.values(), key=order)]
        return ring, {name: place for place, name in enumerate(ring)}


@lru_cache(maxsize=_CACHED_SWARMS)
def _swarm(revision: str, peers: tuple[Peer, ...]) -> _Swarm:
    return _Swarm(revision, peers)


def _member(peer: Peer, zone: str) -> SwarmMember:
    is_far = bool(zone and peer.zone) and peer.zone != zone
    return SwarmMember(name=peer.name, address=peer.address, far=is_far)


def _by_revision(lists: SwarmLists) -> str:
    return lists.revision
