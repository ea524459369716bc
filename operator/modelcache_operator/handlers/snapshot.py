"""What the operator knows of the cluster: the last state of every object it watches.

Events and lists come in any order and more than once; the resource version decides which is
newer. Every change answers with the keys that it concerns, so that a heartbeat of one node does
not plan every ModelCache anew.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import ValidationError

from modelcache_api.messages import RevisionState
from modelcache_api.model_cache import ModelCache
from modelcache_operator.kube.client import CACHE_NODES, JOBS, MODEL_CACHES, NODES, Kind
from modelcache_operator.planning.observed import (
    CacheView,
    JobView,
    NodeView,
    parse_cache_node,
    parse_job,
    parse_node,
)
from modelcache_operator.planning.placement import STALE_AFTER

log = logging.getLogger(__name__)

Name: TypeAlias = tuple[str, str]  # namespace (empty for cluster-scoped objects), name
View: TypeAlias = ModelCache | CacheView | JobView | NodeView


@dataclass(frozen=True, slots=True)
class ModelCacheKey:
    """A ModelCache to look at."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A node whose CacheNode to look at."""

    name: str


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A namespace whose proofs of access to look at."""

    namespace: str


Key: TypeAlias = ModelCacheKey | NodeKey | AccessKey


class Snapshot:
    """The newest known state; not thread-safe, and never waits."""

    def __init__(self) -> None:
        self.model_caches: dict[Name, ModelCache] = {}
        self.caches: dict[str, CacheView] = {}
        self.nodes: dict[str, NodeView] = {}
        self.jobs: dict[Name, JobView] = {}
        self._jobs_of: dict[Name, set[Name]] = {}
        self._versions: dict[tuple[str, Name], int] = {}
        self._graves: dict[tuple[str, Name], int] = {}

    def jobs_of(self, key: ModelCacheKey) -> list[JobView]:
        """Jobs that were made for a ModelCache of this name, whatever its uid."""
        names = self._jobs_of.get((key.namespace, key.name), ())
        return [self.jobs[name] for name in sorted(names)]

    def all_keys(self) -> set[Key]:
        found: set[Key] = {NodeKey(name) for name in self.nodes}
        return found | self._model_cache_keys() | {_key_of(job) for job in self.jobs.values()}

    def put(self, kind: Kind, body: Mapping[str, Any]) -> set[Key]:
        """Take a new state of one object."""
        name = _name(body)
        version = int(body["metadata"]["resourceVersion"])
        if version <= self._newest(kind, name):
            return set()
        try:
            view = _parse(kind, body)
        except (ValidationError, KeyError, ValueError) as e:
            log.warning("%s %s/%s is left out: %s", kind.plural, *name, e)
            return set()
        self._versions[kind.plural, name] = version
        self._graves.pop((kind.plural, name), None)
        return self._store(name, view)

    def drop(self, kind: Kind, body: Mapping[str, Any]) -> set[Key]:
        """Take the end of one object."""
        name = _name(body)
        version = int(body["metadata"]["resourceVersion"])
        if version < self._newest(kind, name):
            return set()  # the end of one that has been made again since
        self._graves[kind.plural, name] = version
        return self._forget(kind, name)

    def replace(self, kind: Kind, bodies: Iterable[Mapping[str, Any]], version: int) -> set[Key]:
        """Take a whole list, as of `version`; what it lacks and is not newer is gone."""
        concerned: set[Key] = set()
        listed: set[Name] = set()
        for body in bodies:
            listed.add(_name(body))
            concerned |= self.put(kind, body)
        for plural, name in list(self._versions):
            if plural != kind.plural or name in listed:
                continue
            if self._versions[plural, name] <= version:
                concerned |= self._forget(kind, name)
        self._graves = {
            key: at for key, at in self._graves.items() if key[0] != kind.plural or at > version
        }
        return concerned

    def _newest(self, kind: Kind, name: Name) -> int:
        """The newest version heard of, alive or dead; -1 where there is none."""
        key = (kind.plural, name)
        return max(self._versions.get(key, -1), self._graves.get(key, -1))

    # -- which keys a change concerns

    def _store(self, name: Name, view: View) -> set[Key]:
        match view:
            case ModelCache():
                before = self.model_caches.get(name)
                self.model_caches[name] = view
                return set() if before == view else {ModelCacheKey(*name)}
            case CacheView():
                old_cache = self.caches.get(name[1])
                self.caches[name[1]] = view
                return self._concerned_by_cache(old_cache, view)
            case NodeView():
                old_node = self.nodes.get(name[1])
                self.nodes[name[1]] = view
                everyone: set[Key] = {NodeKey(view.name), *self._model_cache_keys()}
                return set() if old_node == view else everyone
            case JobView():
                old_job = self.jobs.get(name)
                self.jobs[name] = view
                self._jobs_of.setdefault((view.namespace, view.model_cache), set()).add(name)
                return set() if old_job == view else {_key_of(view)}

    def _forget(self, kind: Kind, name: Name) -> set[Key]:
        self._versions.pop((kind.plural, name), None)
        everyone: set[Key] = {NodeKey(name[1]), *self._model_cache_keys()}
        if kind is NODES:
            return everyone if self.nodes.pop(name[1], None) else set()
        if kind is CACHE_NODES:
            return everyone if self.caches.pop(name[1], None) else set()
        if kind is JOBS:
            job = self.jobs.pop(name, None)
            if job is None:
                return set()
            siblings = self._jobs_of.get((job.namespace, job.model_cache), set())
            siblings.discard(name)
            if not siblings:
                self._jobs_of.pop((job.namespace, job.model_cache), None)
            return {_key_of(job)}
        return {ModelCacheKey(*name)} if self.model_caches.pop(name, None) else set()

    def _concerned_by_cache(self, before: CacheView | None, after: CacheView) -> set[Key]:
        if before and before.address and before.address != after.address:
            return self.all_keys()  # those who share with it are to be told
        if before is None or _is_upheaval(before, after):
            return {NodeKey(after.name), *self._model_cache_keys()}
        revisions = _changed(before.held, after.held)
        uids = _changed(before.proofs, after.proofs)
        waiting = _changed(before.wanted, after.wanted)
        concerned: set[Key] = {ModelCacheKey(*name) for name in waiting}
        for name, model_cache in self.model_caches.items():
            if model_cache.metadata.uid in uids or model_cache.status.revision in revisions:
                concerned.add(ModelCacheKey(*name))
        if before.spec != after.spec or _complete(before) != _complete(after):
            concerned.add(NodeKey(after.name))
        return concerned

    def _model_cache_keys(self) -> set[Key]:
        return {ModelCacheKey(*name) for name in self.model_caches}


def _parse(kind: Kind, body: Mapping[str, Any]) -> View:
    if kind is MODEL_CACHES:
        return ModelCache.model_validate(body)
    if kind is CACHE_NODES:
        return parse_cache_node(body)
    return parse_job(body) if kind is JOBS else parse_node(body)


def _is_upheaval(before: CacheView, after: CacheView) -> bool:
    """The node counts differently from now on, for every ModelCache."""
    if before.heartbeat_at is None or after.heartbeat_at is None:
        return before.heartbeat_at != after.heartbeat_at
    facts = ("boot_id", "store_id", "is_disk_healthy", "capacity_bytes", "owner_uid")
    return after.heartbeat_at - before.heartbeat_at >= STALE_AFTER or any(
        getattr(before, fact) != getattr(after, fact) for fact in facts
    )


def _complete(cache: CacheView) -> set[str]:
    return {name for name, model in cache.held.items() if model.state is RevisionState.READY}


def _changed(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> set[Any]:
    return {key for key in {*before, *after} if before.get(key) != after.get(key)}


def _name(body: Mapping[str, Any]) -> Name:
    return body["metadata"].get("namespace") or "", body["metadata"]["name"]


def _key_of(job: JobView) -> ModelCacheKey:
    return ModelCacheKey(job.namespace, job.model_cache)
