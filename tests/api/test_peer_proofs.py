"""Proofs on the wire: golden bytes, round trips, and what is refused."""

import pytest

from modelcache_api.errors import InvalidRequestError
from modelcache_api.peer_proofs import MAX_PASSED, PassedProof, pack_proofs, unpack_proofs

PROOF = PassedProof(
    namespace="team",
    model_cache="llama",
    model_cache_uid="uid-1",
    request="abc",
    at=1.5,
    renewed_at=2.0,
    root="https://s3:443/bucket/",
)
GOLDEN = (
    b'{"proofs":[{"at":1.5,"modelCache":"llama","modelCacheUid":"uid-1","namespace":"team",'
    b'"renewedAt":2.0,"request":"abc","root":"https://s3:443/bucket/"}],"version":1}'
)


def test_the_format_is_version_1_and_a_change_of_it_needs_another():
    assert pack_proofs([PROOF]) == GOLDEN


def test_proofs_are_read_as_they_were_written():
    assert unpack_proofs(GOLDEN) == (PROOF,)
    assert unpack_proofs(pack_proofs([])) == ()


def test_no_more_than_the_bound_are_packed():
    assert len(unpack_proofs(pack_proofs([PROOF] * (MAX_PASSED + 1)))) == MAX_PASSED


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"proofs":[]}',
        GOLDEN.replace(b'"version":1', b'"version":2'),
        GOLDEN.replace(b'"at":1.5', b'"at":-1.5'),
        GOLDEN.replace(b'"at":1.5', b'"at":NaN'),
        GOLDEN.replace(b'"request"', b'"isProvisional":true,"request"'),
        GOLDEN.replace(b'"uid-1"', b'"' + b"u" * 65 + b'"'),
        b'{"proofs":' + b"[" * 100_000,
        b'{"proofs":[' + b",".join([GOLDEN[11:-14]] * (MAX_PASSED + 1)) + b'],"version":1}',
    ],
)
def test_what_is_no_such_answer_is_refused(raw):
    with pytest.raises(InvalidRequestError):
        unpack_proofs(raw)
