"""What a node that may help asks the one that was elected for chunks, and the answer.

Format 1, canonical JSON: ``{"slots":[1,2],"version":1}`` is answered by one state for each,
``{"states":[2,0],"version":1}``: 0 seen to, 1 being read from the origin, 2 yours to read, 3 this
node cannot read it (see `modelcache_node.swarm.origin_duty.ClaimState`).
"""

import json
from collections.abc import Sequence

from modelcache_api.errors import InvalidRequestError
from modelcache_api.have_map import MAX_SLOTS

FORMAT_VERSION = 1
#: Slots that one question is about. Arbitrary: a few chunk times of work.
MAX_CLAIM_SLOTS = 8
_N_STATES = 4


def pack_claim(slots: Sequence[int]) -> bytes:
    return _pack("slots", slots)


def unpack_claim(raw: bytes) -> list[int]:
    """Raises InvalidRequestError: not a claim of this format."""
    return _unpack("slots", raw, below=MAX_SLOTS)


def pack_answer(states: Sequence[int]) -> bytes:
    return _pack("states", states)


def unpack_answer(raw: bytes, n_slots: int) -> list[int]:
    """Raises InvalidRequestError: not an answer of this format to a claim of `n_slots`."""
    states = _unpack("states", raw, below=_N_STATES)
    if len(states) != n_slots:
        raise InvalidRequestError(f"{len(states)} answers to a claim of {n_slots} chunks")
    return states


def _pack(name: str, values: Sequence[int]) -> bytes:
    document = {name: [int(one) for one in values], "version": FORMAT_VERSION}
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _unpack(name: str, raw: bytes, *, below: int) -> list[int]:
    try:
        document = json.loads(raw)
        values, version = document[name], document["version"]
    except (ValueError, KeyError, TypeError) as e:
        raise InvalidRequestError(f"not a claim, or an answer to one: {e}") from e
    if version != FORMAT_VERSION or not isinstance(values, list) or len(values) > MAX_CLAIM_SLOTS:
        raise InvalidRequestError(f"not a claim of format {FORMAT_VERSION}, or too long a one")
    if not all(type(one) is int and 0 <= one < below for one in values):
        raise InvalidRequestError("a claim holds small numbers")
    return values
