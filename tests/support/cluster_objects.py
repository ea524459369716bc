"""Kubernetes objects as an API server would show them, for tests of the operator."""

from datetime import UTC, datetime, timedelta
from typing import Any

Object = dict[str, Any]

START = datetime(2026, 1, 1, tzinfo=UTC)
REVISION = "sha256:" + "a" * 64
OTHER_REVISION = "sha256:" + "b" * 64
SIZE_BYTES = 1000


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def node(
    name: str,
    *,
    labels: dict[str, str] | None = None,
    taints: list[Object] | None = None,
    is_ready: bool = True,
    since: datetime = START,
    boot_id: str = "boot-1",
    version: int = 1,
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "labels": labels or {},
            "resourceVersion": str(version),
            "creationTimestamp": stamp(START),
        },
        "spec": {"taints": taints or []},
        "status": {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if is_ready else "False",
                    "lastTransitionTime": stamp(since),
                }
            ],
            "addresses": [{"type": "Hostname", "address": name}],
            "nodeInfo": {"bootID": boot_id, "operatingSystem": "linux"},
        },
    }


def held(revision: str = REVISION, state: str = "Ready", **fields: Any) -> Object:
    return {
        "revision": revision,
        "state": state,
        "reason": state,
        "bytesPresent": SIZE_BYTES if state == "Ready" else 0,
        "bytesTotal": SIZE_BYTES,
        "bytesFromOrigin": SIZE_BYTES if state == "Ready" else 0,
        "files": 3,
        "integrity": "StoreChecksum",
        **fields,
    }


def proof(
    request: str,
    *,
    revision: str = REVISION,
    namespace: str = "team",
    uid: str = "uid-of-llama",
    at: datetime = START,
) -> Object:
    return {
        "namespace": namespace,
        "modelCache": "llama",
        "modelCacheUid": uid,
        "request": request,
        "revision": revision,
        "at": stamp(at),
    }


def wanted(pod: str = "pod-1", *, uid: str = "uid-of-llama", namespace: str = "team") -> Object:
    return {
        "namespace": namespace,
        "modelCache": "llama",
        "modelCacheUid": uid,
        "podName": pod,
        "since": stamp(START),
    }


def cache_node(
    name: str, *, version: int = 1, models: tuple[str, ...] = (), **status: Any
) -> Object:
    given: Object = {
        "version": "0.1.0",
        "bootId": "boot-1",
        "storeId": f"store-of-{name}",
        "heartbeatAt": stamp(START),
        "capacityBytes": 100 * SIZE_BYTES,
        "usedBytes": 0,
        "reservedBytes": 0,
        "diskHealthy": True,
    }
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": f"uid-of-{name}"}
    return {
        "apiVersion": "modelcache.io/v1alpha1",
        "kind": "CacheNode",
        "metadata": {
            "name": name,
            "uid": f"uid-of-cache-{name}",
            "resourceVersion": str(version),
            "ownerReferences": [owner],
        },
        "spec": {"models": [{"revision": revision} for revision in models]},
        "status": given | status,
    }


def model_cache(
    name: str = "llama",
    *,
    namespace: str = "team",
    uid: str | None = None,
    version: int = 1,
    source: Object | None = None,
    annotations: dict[str, str] | None = None,
    status: Object | None = None,
    **placement: Any,
) -> Object:
    return {
        "apiVersion": "modelcache.io/v1alpha1",
        "kind": "ModelCache",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-of-{name}",
            "generation": 1,
            "resourceVersion": str(version),
            "annotations": annotations or {},
        },
        "spec": {
            "source": {
                "uri": "s3://models/llama",
                "credentials": {"secretRef": {"name": "s3"}},
                **(source or {}),
            },
            "placement": placement,
        },
        "status": status or {},
    }


def finish_job(job: Object, at: datetime, *, reason: str | None = None) -> Object:
    """`job` after it ended; `reason` is that of its failure."""
    condition = {
        "type": "Failed" if reason else "Complete",
        "status": "True",
        "reason": reason or "Completed",
        "lastTransitionTime": stamp(at),
    }
    return job | {"status": {"conditions": [condition]}}


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)
