"""What is asked of a source, and what it turned out to be.

A request is the hash of what a user can change to have the source listed anew. An agent's proof
names namespace, ModelCache uid and request; only a proof that matches all three says what the
revision is. The uid is unguessable and belongs to one namespace for ever, so that no proof of
another namespace, nor of a deleted ModelCache of the same name, can stand in.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from modelcache_api.cache_node import Proof
from modelcache_api.model_cache import ModelCache
from modelcache_api.names import REFRESH_ANNOTATION
from modelcache_operator.planning.observed import CacheView

#: Hexadecimal digits of a request: 80 bits, and no one gains by a collision with his own.
_REQUEST_DIGITS = 20


def request_of(model_cache: ModelCache) -> str:
    # without defaults: a field of a later version must not change it
    spec = model_cache.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    identity: dict[str, Any] = {
        **{name: spec[name] for name in ("source", "layout", "verify") if name in spec},
        "refresh": model_cache.metadata.annotations.get(REFRESH_ANNOTATION, ""),
    }
    raw = json.dumps(identity, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(raw).hexdigest()[:_REQUEST_DIGITS]


def proofs_of(model_cache: ModelCache, cache: CacheView) -> Iterable[Proof]:
    """The proofs on one node that speak of `model_cache`."""
    namespace = model_cache.metadata.namespace
    found = cache.proofs.get(model_cache.metadata.uid, ())
    return (proof for proof in found if proof.namespace == namespace)


def resolution_of(
    model_cache: ModelCache, request: str, caches: Iterable[CacheView]
) -> Proof | None:
    """The newest proof of `request`; None: no node that still exists has one."""
    return max(
        (
            proof
            for cache in caches
            for proof in proofs_of(model_cache, cache)
            if proof.request == request
        ),
        key=lambda proof: (proof.at, proof.revision),
        default=None,
    )


def is_proved(
    model_cache: ModelCache,
    revision: str,
    cache: CacheView,
    *,
    since: datetime | None = None,
) -> bool:
    """Whether the node lets pods of the ModelCache's namespace use `revision`.

    `since` None: or did once, by a proof that may have run out.
    """
    return any(
        proof.revision == revision
        and not proof.is_provisional
        and (since is None or proof.checked_at >= since)
        for proof in proofs_of(model_cache, cache)
    )
