"""The audit trail: one line for each volume mounted, and for each that was refused.

Logger ``modelcache.audit``, level INFO; the fields are named here one by one, so that nothing of a
request comes along by itself.
"""

import logging

from modelcache_api.errors import ModelCacheError
from modelcache_csi.volume_context import Publish

_LOG = logging.getLogger("modelcache.audit")


def mounted(publish: Publish, revision: str) -> None:
    _LOG.info("volume mounted", extra={**_fields(publish, "granted"), "revision": revision})


def refused(publish: Publish, error: ModelCacheError) -> None:
    _LOG.info(
        "volume refused",
        extra={
            **_fields(publish, "refused"),
            "reason": error.reason.value,
            "why": str(error)[:1024],
        },
    )


def _fields(publish: Publish, outcome: str) -> dict[str, str]:
    return {
        "audit": "mount",
        "outcome": outcome,
        "namespace": publish.pod.namespace,
        "pod": publish.pod.name,
        "pod_uid": publish.pod.uid,
        "service_account": publish.pod.service_account,
        "model_cache": publish.model_cache,
        "volume": publish.volume_id,
    }
