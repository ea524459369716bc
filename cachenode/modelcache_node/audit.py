"""The audit trail: one line for each lease granted or refused, and for each session's outcome.

Logger ``modelcache.audit``, level INFO. Fields are names, digests and reasons; no grant, token or
credential, nor anything else a client said that is not one of these.
"""

import logging

from modelcache_api.messages import Hello, LeaseAnswer, LeaseRequest, LeaseState
from modelcache_api.reasons import Reason

_LOG = logging.getLogger("modelcache.audit")


def lease_answered(volume_id: str, wish: LeaseRequest, answer: LeaseAnswer) -> None:
    """A volume was let use a revision, or not; that it waits for bytes is neither."""
    granted = answer.state is LeaseState.READY
    if not granted and answer.reason not in {Reason.NOT_PROVED, Reason.PROOF_EXPIRED}:
        return
    _LOG.info(
        "lease granted" if granted else "lease refused",
        extra={
            "audit": "lease",
            "outcome": "granted" if granted else "refused",
            "reason": answer.reason.value,
            "volume": volume_id[:128],
            "namespace": wish.namespace,
            "model_cache": wish.model_cache,
            "pod": wish.pod_name,
            "pod_uid": wish.pod_uid,
            "revision": answer.revision or wish.revision or "",
        },
    )


def caller_refused(reason: Reason, why: str) -> None:
    """Who called is not let in. `why` is our own text, and holds no token."""
    _LOG.info(
        "session refused",
        extra={"audit": "session", "outcome": "refused", "reason": reason.value, "why": why},
    )


def session_ended(hello: Hello | None, revision: str) -> None:
    """A session proved access to a revision, and brought it or found it here."""
    _LOG.info("session done", extra=_session(hello, "proved") | {"revision": revision})


def session_failed(hello: Hello | None, reason: Reason, why: str) -> None:
    """A session brought nothing."""
    _LOG.info(
        "session failed", extra=_session(hello, "failed") | {"reason": reason.value, "why": why}
    )


def _session(hello: Hello | None, outcome: str) -> dict[str, str]:
    return {
        "audit": "session",
        "outcome": outcome,
        "namespace": hello.namespace if hello else "",
        "model_cache": hello.model_cache if hello else "",
        "request": hello.request if hello else "",
    }
