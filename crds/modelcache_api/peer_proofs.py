"""Proofs that one agent passes on to another, of one revision: JSON, version 1.

::

    {"proofs":[{"at":1.5,"modelCache":"llama","modelCacheUid":"…","namespace":"team",
      "renewedAt":0.0,"request":"…","root":"…"}],"version":1}

Only full proofs are passed on, never provisional ones. Times are Unix seconds and stay those of
the proof that was made: it grows no younger on its way.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from modelcache_api.errors import InvalidRequestError
from modelcache_api.objects import Namespace, Uid

#: Proofs of one revision in one answer; the newest. Arbitrary, far above the namespaces that share
#: a model.
MAX_PASSED = 1000
#: Of all of them; arbitrary, above that many with the longest names and a usual root.
MAX_PROOFS_BYTES = 2 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class PassedProof(_Strict):
    """As `messages.ProofReport`, of a revision that the question named; with the root."""

    namespace: Namespace
    model_cache: Annotated[str, Field(max_length=253)]
    model_cache_uid: Uid
    request: Annotated[str, Field(max_length=64)]
    at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    renewed_at: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    root: Annotated[str, Field(max_length=4096)] = ""


class _Proofs(_Strict):
    version: Literal[1]
    proofs: Annotated[tuple[PassedProof, ...], Field(max_length=MAX_PASSED)]


def pack_proofs(proofs: Sequence[PassedProof]) -> bytes:
    """The answer's body, canonical; at most MAX_PASSED go into it, the first."""
    document = _Proofs(version=1, proofs=tuple(proofs[:MAX_PASSED])).model_dump(by_alias=True)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def unpack_proofs(raw: bytes) -> tuple[PassedProof, ...]:
    """Raises InvalidRequestError: not such an answer, or of another version."""
    try:
        return _Proofs.model_validate_json(raw).proofs
    except ValidationError as e:
        raise InvalidRequestError(f"not proofs of version 1: {str(e)[:200]}") from e
