"""The Job that proves access again: like a prefetch Job, with ``modelcache prove`` and no bytes."""

import hashlib
from typing import Any

from modelcache_api.messages import RenewalWish
from modelcache_api.names import ANNOTATION_MODEL_CACHE, LABEL_NODE_HASH, LABEL_ROLE
from modelcache_operator.planning.job_arguments import (
    JobSettings,
    access_arguments,
    agent_arguments,
)
from modelcache_operator.planning.jobs import node_hash, pod_template
from modelcache_operator.planning.observed import NodeView
from modelcache_operator.planning.renewing import RenewalJob
from modelcache_operator.planning.requests import request_of

ROLE_PROVE = "prove"
#: Listing a bucket of 100,000 objects and reading a byte of each takes minutes. Arbitrary.
_DEADLINE_S = 1800
_TTL_S = 600


def renewal_manifest(job: RenewalJob, node: NodeView, settings: JobSettings) -> dict[str, Any]:
    first = job.members[0]
    source = first.spec.source
    labels = {
        LABEL_ROLE: ROLE_PROVE,
        LABEL_NODE_HASH: node_hash(job.node),
        "app.kubernetes.io/managed-by": "modelcache-operator",
    }
    arguments = [
        "prove",
        *agent_arguments(settings),
        *access_arguments(source),
        *(f"--source={_wish(job, index)}" for index in range(len(job.members))),
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": _name(job),
            "namespace": first.metadata.namespace,
            "labels": labels,
            "annotations": {ANNOTATION_MODEL_CACHE: first.metadata.name},
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": _DEADLINE_S,
            "ttlSecondsAfterFinished": _TTL_S,
            "template": pod_template(first, node, arguments, labels, settings),
        },
    }


def _name(job: RenewalJob) -> str:
    digest = hashlib.sha256(job.group.encode()).hexdigest()[:12]
    return f"mc-prove-{digest}-{job.window}"


def _wish(job: RenewalJob, index: int) -> str:
    model_cache = job.members[index]
    source, meta = model_cache.spec.source, model_cache.metadata
    assert model_cache.status.revision is not None  # only what has a proof is renewed
    return RenewalWish(
        uri=source.uri,
        endpoint=source.endpoint,
        region=source.region,
        include=list(source.include),
        exclude=list(source.exclude),
        model_cache=meta.name,
        model_cache_uid=meta.uid,
        request=request_of(model_cache),
        renews=model_cache.status.revision,
    ).wire()
