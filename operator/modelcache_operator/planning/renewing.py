"""Which proofs of access are due to be proved again, and what one node's proof says to others.

One small Job per namespace and credentials lists every source of theirs once and hands the grants
to one agent, which reads a byte of every object; nothing is fetched. What that agent then reports
is passed on to the agents that hold a proof of the same namespace and revision: it renews proofs
there, and never makes one. A Job that fails renews nothing, and the agents let proofs run out.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelcache_api.cache_node import MAX_RENEWALS, Proof, Renewal
from modelcache_api.model_cache import ModelCache
from modelcache_operator.planning.observed import CacheView, NodeView
from modelcache_operator.planning.placement import by_rendezvous, is_live

#: Sources of one Job: keeps its arguments far below what one object may be. More make more Jobs.
MAX_SOURCES = 40
#: A proof is renewed at half its time, so that an outage of as long bothers nobody.
_DUE_SHARE = 2
#: Others of the same credentials go along with one that is due, if they are due this soon.
_ALONG_SHARE = 4
#: While a renewal fails it is tried again this often. Sixteen times before proofs run out.
_RETRY_SHARE = 32
_SHORTEST_RETRY = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class RenewalJob:
    """One Job that should exist; `window` numbers its try, so that creating twice is once."""

    group: str
    node: str
    window: int
    members: tuple[ModelCache, ...]


@dataclass(frozen=True, slots=True)
class RenewalPlan:
    """Jobs to create, and when to look again."""

    create: tuple[RenewalJob, ...] = ()
    again_at: datetime | None = None


def retry_after(max_age: timedelta) -> timedelta:
    return max(_SHORTEST_RETRY, max_age / _RETRY_SHARE)


def plan_renewals(
    model_caches: Iterable[ModelCache],
    nodes: Mapping[str, NodeView],
    caches: Mapping[str, CacheView],
    now: datetime,
    max_age: timedelta,
) -> RenewalPlan:
    """What to do for the ModelCaches of one namespace, whose proofs hold for `max_age`."""
    newest = newest_checks(caches.values())
    groups: dict[str, list[tuple[datetime, ModelCache]]] = defaultdict(list)
    for model_cache in model_caches:
        revision = model_cache.status.revision or ""
        checked_at = newest.get((model_cache.metadata.namespace, revision))
        if checked_at is not None and now - checked_at < max_age:
            due_at = checked_at + max_age / _DUE_SHARE
            groups[_group_of(model_cache)].append((due_at, model_cache))
    retry = retry_after(max_age)
    window = int(now.timestamp() // retry.total_seconds())
    create: list[RenewalJob] = []
    looks: list[datetime] = []
    for group, members in sorted(groups.items()):
        first_due_at = min(due_at for due_at, _ in members)
        if first_due_at > now:
            looks.append(first_due_at)
            continue
        along = now + max_age / _ALONG_SHARE
        due = [model_cache for due_at, model_cache in sorted(members, key=_order) if due_at < along]
        looks.append(now + retry)
        for start in range(0, len(due), MAX_SOURCES):
            chunk = tuple(due[start : start + MAX_SOURCES])
            node = _node_for(f"{group}/{start}", chunk, nodes, caches, now, window)
            if node:
                create.append(RenewalJob(f"{group}/{start}", node, window, chunk))
    return RenewalPlan(tuple(create), min(looks, default=None))


def newest_checks(caches: Iterable[CacheView]) -> dict[tuple[str, str], datetime]:
    """When any agent last saw a namespace read a revision, by both."""
    newest: dict[tuple[str, str], datetime] = {}
    for proof in _proofs(caches):
        key = (proof.namespace, proof.revision)
        newest[key] = max(proof.checked_at, newest.get(key, proof.checked_at))
    return newest


def renewals_for(
    cache: CacheView, newest: Mapping[tuple[str, str], datetime], max_age: timedelta
) -> tuple[Renewal, ...]:
    """What the other nodes' proofs say to the agent of `cache`; see the module."""
    before = {(one.namespace, one.revision): one.at for one in cache.spec.renewals}
    found: dict[tuple[str, str], datetime] = {}
    for proof in _proofs([cache]):
        key = (proof.namespace, proof.revision)
        best = newest.get(key, proof.checked_at)
        is_behind = best - proof.checked_at >= max_age / _RETRY_SHARE
        if is_behind or before.get(key) == best:  # what was passed on stays until it is old
            found[key] = best
    renewals = [Renewal(namespace=ns, revision=rev, at=at) for (ns, rev), at in found.items()]
    renewals.sort(key=lambda one: (one.namespace, one.revision))
    return tuple(renewals[:MAX_RENEWALS])


def credential_name(model_cache: ModelCache) -> str:
    """What a ModelCache reads its source as."""
    source = model_cache.spec.source
    identity = source.credentials.model_dump(mode="json", exclude_none=True)
    authority = source.ca_config_map_ref
    named = authority and authority.model_dump(mode="json")
    ways = [source.requester_pays, source.virtual_hosts]  # flags of the Job, not of a source
    return json.dumps([identity, named, ways], sort_keys=True)


def _group_of(model_cache: ModelCache) -> str:
    digest = hashlib.sha256(credential_name(model_cache).encode()).hexdigest()[:12]
    return f"{model_cache.metadata.namespace}/{digest}"


def _order(member: tuple[datetime, ModelCache]) -> tuple[datetime, str]:
    return member[0], member[1].metadata.name


def _node_for(
    group: str,
    members: Sequence[ModelCache],
    nodes: Mapping[str, NodeView],
    caches: Mapping[str, CacheView],
    now: datetime,
    window: int,
) -> str | None:
    """A node that knows most of the revisions; another one at each try."""
    known: dict[str, int] = {}
    for name, cache in caches.items():
        if is_live(nodes.get(name), cache, now):
            known[name] = sum(one.status.revision in cache.held for one in members)
    most = max(known.values(), default=0)
    best = by_rendezvous(group, [name for name, count in known.items() if count == most])
    return best[window % len(best)] if best else None


def _proofs(caches: Iterable[CacheView]) -> Iterable[Proof]:
    return (
        proof
        for cache in caches
        for proofs in cache.proofs.values()
        for proof in proofs
        if not proof.is_provisional
    )
