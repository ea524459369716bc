"""A cluster in memory: an API server's objects, Job controller, agents, and a source.

It answers the operator's reads and writes (`handlers.reconciling.Kube`) and moves
by `step`: Jobs start, agents resolve, fetch and report. Events go to whoever listens, and may be
delivered late, twice and in any order. Time is a number that tests move.
"""

import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modelcache_api.names import (
    ANNOTATION_MODEL_CACHE,
    ANNOTATION_NODE,
    ANNOTATION_REQUEST,
    LABEL_ROLE,
)
from modelcache_operator.kube.client import CACHE_NODES, JOBS, MODEL_CACHES, NODES, Kind, KubeError
from modelcache_operator.planning.renewal_jobs import ROLE_PROVE
from support.cluster_objects import REVISION, SIZE_BYTES, START, after, held, node, stamp

Object = dict[str, Any]
Key = tuple[str, str]


@dataclass
class Agent:
    """What one node's agent holds. `room_bytes` None: enough."""

    models: dict[str, Object] = field(default_factory=dict)
    proofs: list[Object] = field(default_factory=list)
    wanted: list[Object] = field(default_factory=list)
    is_up: bool = True
    store: int = 1
    capacity_bytes: int = 100_000


class SimulatedCluster:
    """All methods that the operator calls are safe to repeat, as the real ones are."""

    def __init__(self, *, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.calls: Counter[str] = Counter()
        self.revision = REVISION
        #: Of ModelCaches, by name, that have another source than the rest.
        self.revisions: dict[str, str] = {}
        self.failure: Object | None = None
        self.refusal: str | None = None
        self.agents: dict[str, Agent] = {}
        self.events: list[Object] = []
        self.listeners: list[Callable[[str, Kind, Object], None]] = []
        self._objects: dict[Kind, dict[Key, Object]] = {
            kind: {} for kind in (NODES, CACHE_NODES, JOBS, MODEL_CACHES)
        }
        self._version = 0

    # -- what tests do

    def now(self) -> datetime:
        return after(self.now_s)

    def clock(self) -> float:
        return self.now_s

    def add_node(self, name: str, **fields: Any) -> Agent:
        self._put(NODES, node(name, **fields))
        self.agents[name] = Agent()
        return self.agents[name]

    def remove_node(self, name: str) -> None:
        self._remove(NODES, ("", name))
        self._remove(CACHE_NODES, ("", name))
        del self.agents[name]

    def put_model_cache(self, body: Object) -> None:
        meta = body["metadata"]
        before = self._objects[MODEL_CACHES].get((meta["namespace"], meta["name"]))
        if before and before["metadata"]["uid"] == meta["uid"]:
            meta["generation"] = before["metadata"]["generation"] + 1
            body["status"] = before["status"]
        self._put(MODEL_CACHES, body)

    def remove_model_cache(self, namespace: str, name: str) -> None:
        self._remove(MODEL_CACHES, (namespace, name))

    def objects(self, kind: Kind) -> list[Object]:
        return [copy.deepcopy(body) for body in self._objects[kind].values()]

    def status(self, name: str = "llama", namespace: str = "team") -> Object:
        return self._objects[MODEL_CACHES][namespace, name]["status"]

    def condition(self, kind: str, name: str = "llama") -> Object:
        return next(c for c in self.status(name)["conditions"] if c["type"] == kind)

    def active_jobs(self) -> list[Object]:
        return [job for job in self.objects(JOBS) if not job.get("status", {}).get("conditions")]

    def step(self) -> None:
        """Every Job and every agent moves on by one."""
        for key, job in list(self._objects[JOBS].items()):
            self._move_job(key, copy.deepcopy(job))
        self.report_all()

    def report_all(self) -> None:
        for name, agent in self.agents.items():
            if agent.is_up:
                self._report(name, agent)

    # -- what the operator reads

    async def list_all(self, kind: Kind) -> tuple[list[Object], int]:
        self.calls["list"] += 1
        return self.objects(kind), self._version

    async def pods_of_job(self, namespace: str, job: str) -> list[Object]:
        self.calls["pods_of_job"] += 1
        found = self._objects[JOBS].get((namespace, job))
        message = (found or {}).get("status", {}).get("said")
        if not message:
            return []
        ended = {"exitCode": 42, "message": message, "finishedAt": stamp(self.now())}
        status = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended}}]}
        return [{"metadata": {"uid": "pod"}, "status": status}]

    async def events_about(self, namespace: str, uid: str) -> list[Object]:
        self.calls["events_about"] += 1
        return []

    async def get_pod(self, namespace: str, name: str) -> Object | None:
        self.calls["get_pod"] += 1
        return {"metadata": {"name": name, "uid": f"uid-of-{name}"}}

    # -- what the operator writes

    async def create_job(self, manifest: Object) -> Object | None:
        self.calls["create_job"] += 1
        self.calls[f"create_job of {manifest['metadata']['labels'][LABEL_ROLE]}"] += 1
        if self.refusal:
            raise KubeError("POST", status=403, words=self.refusal)
        meta = manifest["metadata"]
        if (meta["namespace"], meta["name"]) in self._objects[JOBS]:
            return None
        body = copy.deepcopy(manifest)
        body["metadata"] |= {
            "uid": f"uid-of-{meta['name']}-{self._version}",
            "creationTimestamp": stamp(self.now()),
        }
        return self._put(JOBS, body | {"status": {"active": 1}})

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        self.calls["delete_job"] += 1
        found = self._objects[JOBS].get((namespace, name))
        if found and found["metadata"]["uid"] == uid:
            self._remove(JOBS, (namespace, name))

    async def write_model_cache_status(
        self, namespace: str, name: str, status: Mapping[str, Any]
    ) -> Object | None:
        self.calls["write_status"] += 1
        found = self._objects[MODEL_CACHES].get((namespace, name))
        if found is None:
            return None
        body = copy.deepcopy(found)
        body["status"] = {
            key: value for key, value in (body["status"] | status).items() if value is not None
        }
        return self._put(MODEL_CACHES, body)

    async def create_cache_node(self, name: str, node_uid: str) -> Object | None:
        self.calls["create_cache_node"] += 1
        if ("", name) in self._objects[CACHE_NODES]:
            return None
        owner = {"kind": "Node", "name": name, "uid": node_uid}
        meta = {"name": name, "uid": f"uid-of-cache-{name}", "ownerReferences": [owner]}
        return self._put(CACHE_NODES, {"metadata": meta, "spec": {}, "status": {}})

    async def write_cache_node_spec(self, name: str, spec: Mapping[str, Any]) -> Object | None:
        self.calls["write_spec"] += 1
        found = self._objects[CACHE_NODES].get(("", name))
        if found is None:
            return None
        return self._put(CACHE_NODES, copy.deepcopy(found) | {"spec": dict(spec)})

    async def create_event(self, body: Object) -> None:
        self.calls["create_event"] += 1
        self.events.append(body)

    # -- how it moves

    def _move_job(self, key: Key, job: Object) -> None:
        status = job.get("status", {})
        if status.get("conditions"):
            return
        if job["metadata"]["labels"][LABEL_ROLE] == ROLE_PROVE:
            self._renew(job)
            return
        annotations = job["metadata"]["annotations"]
        agent = self.agents.get(annotations[ANNOTATION_NODE])
        if agent is None or not agent.is_up:
            return
        if not status.get("ready"):
            self._put(JOBS, job | {"status": {"active": 1, "ready": 1}})
        elif self.failure:
            self._end_job(job, "PodFailurePolicy", said=self.failure["said"])
        elif (revision := self._revision_of(job)) not in agent.models:
            _make_room(agent)
            agent.models[revision] = held(revision, "Fetching")
            self._prove(agent, job)
        else:
            self._prove(agent, job)
            agent.models[revision] = held(revision)
            agent.wanted = [
                pod
                for pod in agent.wanted
                if pod["modelCache"] != annotations[ANNOTATION_MODEL_CACHE]
            ]
            self._end_job(job, None)

    def _renew(self, job: Object) -> None:
        """As an agent does: it proves what the source is now, and renews what it knows."""
        spec = job["spec"]["template"]["spec"]
        terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        [name] = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"]
        agent = self.agents.get(name)
        if agent is None or not agent.is_up:
            return
        if self.failure:
            self._end_job(job, "BackoffLimitExceeded", said=self.failure["said"])
            return
        for argument in spec["containers"][0]["args"]:
            if argument.startswith("--source="):
                wish = json.loads(argument.removeprefix("--source="))
                for proof in agent.proofs:
                    if proof["revision"] == wish["renews"]:
                        proof["renewedAt"] = stamp(self.now())
        self._end_job(job, None)

    def _take_renewals(self, agent: Agent, spec: Object) -> None:
        for renewal in spec.get("renewals", ()):
            for proof in agent.proofs:
                same = all(proof[word] == renewal[word] for word in ("namespace", "revision"))
                if same and renewal["at"] > proof.get("renewedAt", proof["at"]):
                    proof["renewedAt"] = renewal["at"]

    def _prove(self, agent: Agent, job: Object) -> None:
        meta = job["metadata"]
        proof = {
            "namespace": meta["namespace"],
            "modelCache": meta["annotations"][ANNOTATION_MODEL_CACHE],
            "modelCacheUid": meta["labels"]["modelcache.io/model-cache-uid"],
            "request": meta["annotations"][ANNOTATION_REQUEST],
            "revision": self._revision_of(job),
            "at": stamp(self.now()),
        }
        same = ("namespace", "modelCacheUid", "request", "revision")
        agent.proofs = [
            old for old in agent.proofs if any(old[word] != proof[word] for word in same)
        ]
        agent.proofs.append(proof)

    def _revision_of(self, job: Object) -> str:
        name = job["metadata"]["annotations"][ANNOTATION_MODEL_CACHE]
        return self.revisions.get(name, self.revision)

    def _end_job(self, job: Object, reason: str | None, *, said: str = "") -> None:
        condition = {
            "type": "Failed" if reason else "Complete",
            "status": "True",
            "reason": reason or "",
            "lastTransitionTime": stamp(self.now()),
        }
        self._put(JOBS, job | {"status": {"conditions": [condition], "said": said}})

    def _report(self, name: str, agent: Agent) -> None:
        found = self._objects[CACHE_NODES].get(("", name))
        if found is None:
            return
        self._take_renewals(agent, found["spec"])
        used_bytes = sum(model["bytesPresent"] for model in agent.models.values())
        status = {
            "address": f"{name}:7440",
            "bootId": "boot-1",
            "storeId": f"store-{agent.store}",
            "heartbeatAt": stamp(self.now()),
            "capacityBytes": agent.capacity_bytes,
            "usedBytes": used_bytes,
            "reservedBytes": sum(model["bytesTotal"] for model in agent.models.values())
            - used_bytes,
            "models": list(agent.models.values()),
            "proofs": list(agent.proofs),
            "wanted": list(agent.wanted),
        }
        self._put(CACHE_NODES, copy.deepcopy(found) | {"status": copy.deepcopy(status)})

    def _put(self, kind: Kind, body: Object) -> Object:
        self._version += 1
        body = copy.deepcopy(body)
        meta = body["metadata"]
        meta["resourceVersion"] = str(self._version)
        meta.setdefault("creationTimestamp", stamp(START))
        self._objects[kind][meta.get("namespace", ""), meta["name"]] = body
        self._tell("MODIFIED", kind, body)
        return copy.deepcopy(body)

    def _remove(self, kind: Kind, key: Key) -> None:
        body = self._objects[kind].pop(key, None)
        if body is None:
            return
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self._tell("DELETED", kind, body)

    def _tell(self, event: str, kind: Kind, body: Object) -> None:
        for listener in self.listeners:
            listener(event, kind, copy.deepcopy(body))


def _make_room(agent: Agent) -> None:
    """An agent evicts the models that it had longest, for any Job that comes."""
    while agent.models and (len(agent.models) + 1) * SIZE_BYTES > agent.capacity_bytes:
        del agent.models[next(iter(agent.models))]
