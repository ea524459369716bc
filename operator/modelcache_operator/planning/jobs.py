"""Prefetch Jobs: their names, when one is tried again, and what one looks like.

A Job has no owner reference: the garbage collector would delete it with its ModelCache, and with
it the grants that a mounting pod still waits for. The operator deletes it, or its time to live.
What a Job runs is fixed but for the source: an admission policy holds the operator to this shape.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from modelcache_api.model_cache import ModelCache
from modelcache_api.names import (
    AGENT_AUDIENCE,
    ANNOTATION_MODEL_CACHE,
    ANNOTATION_NODE,
    ANNOTATION_REQUEST,
    GROUP,
    LABEL_MODEL_CACHE_UID,
    LABEL_NODE_HASH,
    LABEL_ROLE,
)
from modelcache_api.source import Source
from modelcache_operator.planning.job_arguments import (
    AGENT_CA_FILE,
    AGENT_DIR,
    AUTHORITIES_FILE,
    CREDENTIALS_DIR,
    SOURCE_CA_DIR,
    JobSettings,
    JobWish,
    prefetch_arguments,
)
from modelcache_operator.planning.observed import (
    ANNOTATION_ATTEMPT,
    JobState,
    JobView,
    NodeView,
)

ROLE_PREFETCH = "prefetch"
CONTAINER = "prefetch"

#: Longer than the longest pause between attempts, so that the last attempt is always there to be
#: counted from: the Jobs themselves are the operator's memory of what failed.
TTL_AFTER_FINISHED = timedelta(hours=2)
#: Tries within one Job; between Jobs the pauses below apply.
_BACKOFF_LIMIT = 2
#: First pause after a Job, by outcome; it doubles up to the longest. A bad source waits for its
#: user, who can ask at once by changing the spec or the annotation; a revision that a node lost
#: again was evicted there, and must not come and go: only a waiting pod brings it back at once.
_FIRST_PAUSE_BAD_SOURCE = timedelta(minutes=10)
_FIRST_PAUSE_FAILED = timedelta(seconds=15)
_FIRST_PAUSE_LOST = timedelta(seconds=60)
_LONGEST_PAUSE = timedelta(hours=1)
#: After a Job that succeeded, its node's status takes this long to say so, with room.
_PAUSE_FOR_STATUS = timedelta(seconds=10)

_CA_ANNOTATION = f"{GROUP}/agent-ca"
_AUTHORITIES_ANNOTATION = f"{GROUP}/authorities"
#: The user of the image; `restricted` wants one that is not root.
_USER = 65532
_EXIT_USAGE, _EXIT_BAD_SOURCE = 2, 42
#: The kubelet renews the token at 80 % of this, seconds.
_TOKEN_S = 3600

#: Meshes would put a proxy into the pod that never ends, or that breaks TLS to the agent.
_NO_SIDECARS = {
    "sidecar.istio.io/inject": "false",
    "linkerd.io/inject": "disabled",
    "kuma.io/sidecar-injection": "disabled",
    "consul.hashicorp.com/connect-inject": "false",
}


def job_name(model_cache: ModelCache, wish: JobWish) -> str:
    """The same for the same work, so that creating it twice is creating it once."""
    meta = model_cache.metadata
    identity = "\0".join((meta.uid, wish.request, wish.node))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    readable = meta.name[:32].replace(".", "-").strip("-")
    return f"mc-{readable}-{digest}-{wish.attempt}"


def node_hash(node: str) -> str:
    """A node's name as a label: names may be longer than a label's 63 characters."""
    return hashlib.sha256(node.encode()).hexdigest()[:16]


def next_try_at(last: JobView, *, is_wanted: bool) -> datetime:
    """When the work of `last`, which is finished, may be tried again.

    `is_wanted`: a pod waits for it on that node.
    """
    finished_at = last.finished_at or last.created_at
    if last.state is JobState.SUCCEEDED and is_wanted:
        return finished_at + _PAUSE_FOR_STATUS
    if last.state is JobState.SUCCEEDED:
        first = _FIRST_PAUSE_LOST
    else:
        first = _FIRST_PAUSE_BAD_SOURCE if last.is_bad_source else _FIRST_PAUSE_FAILED
    doublings = min(last.attempt - 1, 20)
    pause: timedelta = min(first * 2**doublings, _LONGEST_PAUSE)
    return finished_at + pause


def job_manifest(
    model_cache: ModelCache, wish: JobWish, node: NodeView, settings: JobSettings
) -> dict[str, Any]:
    meta = model_cache.metadata
    labels = {
        LABEL_ROLE: ROLE_PREFETCH,
        LABEL_MODEL_CACHE_UID: meta.uid,
        LABEL_NODE_HASH: node_hash(wish.node),
        "app.kubernetes.io/managed-by": "modelcache-operator",
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(model_cache, wish),
            "namespace": meta.namespace,
            "labels": labels,
            "annotations": {
                ANNOTATION_MODEL_CACHE: meta.name,
                ANNOTATION_NODE: wish.node,
                ANNOTATION_REQUEST: wish.request,
                ANNOTATION_ATTEMPT: str(wish.attempt),
            },
        },
        "spec": {
            "backoffLimit": _BACKOFF_LIMIT,
            "ttlSecondsAfterFinished": int(TTL_AFTER_FINISHED.total_seconds()),
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": pod_template(
                model_cache, node, prefetch_arguments(model_cache, wish, settings), labels, settings
            ),
        },
    }


def pod_template(
    model_cache: ModelCache,
    node: NodeView,
    arguments: list[str],
    labels: dict[str, str],
    settings: JobSettings,
) -> dict[str, Any]:
    """A pod of a tenant on `node`, with the access that `model_cache` names."""
    return {
        "metadata": {
            "labels": labels | _NO_SIDECARS,
            "annotations": _NO_SIDECARS | dict(_pems(settings).values()),
        },
        "spec": _pod_spec(model_cache, node, arguments, settings),
    }


def _failure_rules() -> list[dict[str, Any]]:
    return [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": CONTAINER,
                "operator": "In",
                "values": [_EXIT_USAGE, _EXIT_BAD_SOURCE],
            },
        },
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
    ]


def _pod_spec(
    model_cache: ModelCache, node: NodeView, arguments: list[str], settings: JobSettings
) -> dict[str, Any]:
    source = model_cache.spec.source
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "affinity": {"nodeAffinity": _only_on(node.name)},
        "tolerations": _tolerations(model_cache, node),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(model_cache, arguments, settings)],
        "volumes": _volumes(source, settings),
    }
    if source.credentials.service_account_name:
        spec["serviceAccountName"] = source.credentials.service_account_name
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return spec


def _only_on(node: str) -> dict[str, Any]:
    """By the node's name, not its host name label; the scheduler still counts resources."""
    expression = {"key": "metadata.name", "operator": "In", "values": [node]}
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [expression]}]
        }
    }


def _tolerations(model_cache: ModelCache, node: NodeView) -> list[dict[str, Any]]:
    """The planner chose the node, so no taint may keep the Job from being scheduled there.

    What evicts is tolerated by name only: a Job must still leave a node that is unreachable.
    """
    lasting = [
        taint
        for taint in node.taints
        if taint.effect == "NoExecute" and not taint.key.startswith("node.kubernetes.io/")
    ]
    return [
        {"operator": "Exists", "effect": "NoSchedule"},
        *({"key": taint.key, "operator": "Exists", "effect": "NoExecute"} for taint in lasting),
        *(
            {key: value for key, value in toleration.wire().items() if key != "value" or value}
            for toleration in model_cache.spec.placement.tolerations
        ),
    ]


def _container(
    model_cache: ModelCache, arguments: list[str], settings: JobSettings
) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["modelcache"],
        "args": arguments,
        "env": [
            *_proxy_variables(settings),
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own emptyDir
            # a tenant's Job must not read the source as the node
            {"name": "AWS_EC2_METADATA_DISABLED", "value": "true"},
        ],
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi", "ephemeral-storage": "16Mi"},
            "limits": {"cpu": "1", "memory": "256Mi", "ephemeral-storage": "64Mi"},
        },
        "securityContext": {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(model_cache.spec.source),
    }


def _proxy_variables(settings: JobSettings) -> list[dict[str, str]]:
    proxies = {"HTTPS_PROXY": settings.https_proxy, "HTTP_PROXY": settings.http_proxy}
    given = {name: url for name, url in proxies.items() if url}
    if given:
        given["NO_PROXY"] = settings.no_proxy
    return [{"name": name, "value": value} for name, value in given.items()]


def _pems(settings: JobSettings) -> dict[str, tuple[str, str]]:
    """Whom a Job trusts: files beside its token, each with its annotation and what that holds."""
    pems = {AGENT_CA_FILE: (_CA_ANNOTATION, settings.agent_ca_pem)}
    if settings.authorities_pem:
        pems[AUTHORITIES_FILE] = (_AUTHORITIES_ANNOTATION, settings.authorities_pem)
    return pems


def _volumes(source: Source, settings: JobSettings) -> list[dict[str, Any]]:
    token = {"audience": AGENT_AUDIENCE, "expirationSeconds": _TOKEN_S, "path": "token"}
    pems = [
        {"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
        for path, (annotation, _) in _pems(settings).items()
    ]
    volumes: list[dict[str, Any]] = [
        {
            "name": "agent",
            "projected": {
                "defaultMode": 0o440,
                "sources": [
                    {"serviceAccountToken": token},
                    {"downwardAPI": {"items": pems}},
                ],
            },
        },
        {"name": "tmp", "emptyDir": {"sizeLimit": "32Mi"}},
    ]
    if source.credentials.secret_ref:
        secret = {"secretName": source.credentials.secret_ref.name, "defaultMode": 0o440}
        volumes.append({"name": "credentials", "secret": secret})
    if source.ca_config_map_ref:
        item = {"key": source.ca_config_map_ref.key, "path": "ca.crt"}
        config_map = {"name": source.ca_config_map_ref.name, "items": [item]}
        volumes.append({"name": "source-ca", "configMap": config_map})
    return volumes


def _mounts(source: Source) -> list[dict[str, Any]]:
    places = {"agent": AGENT_DIR, "tmp": "/tmp"}  # noqa: S108 - the pod's own emptyDir
    if source.credentials.secret_ref:
        places["credentials"] = CREDENTIALS_DIR
    if source.ca_config_map_ref:
        places["source-ca"] = SOURCE_CA_DIR
    return [
        {"name": name, "mountPath": path} | ({} if name == "tmp" else {"readOnly": True})
        for name, path in places.items()
    ]
