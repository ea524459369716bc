"""What is asked of a source, and whose word on the answer counts."""

import pytest

from modelcache_api.model_cache import ModelCache
from modelcache_api.names import REFRESH_ANNOTATION
from modelcache_operator.planning.observed import parse_cache_node
from modelcache_operator.planning.requests import is_proved, request_of, resolution_of
from support.cluster_objects import (
    OTHER_REVISION,
    REVISION,
    after,
    cache_node,
    model_cache,
    proof,
)

LLAMA = ModelCache.model_validate(model_cache())
REQUEST = request_of(LLAMA)


def _request(**changes):
    return request_of(ModelCache.model_validate(model_cache(**changes)))


def _cache(*proofs):
    return parse_cache_node(cache_node("n1", proofs=list(proofs)))


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"uri": "s3://models/other"}},
        {"source": {"endpoint": "https://store"}},
        {"source": {"credentials": {"anonymous": True}}},
        {"source": {"include": ["*.json"]}},
        {"annotations": {REFRESH_ANNOTATION: "1"}},
    ],
)
def test_a_change_of_source_or_refresh_is_a_new_request(changes):
    assert _request(**changes) != REQUEST


@pytest.mark.parametrize(
    "changes", [{"maxNodes": 3}, {"annotations": {"team": "x"}}, {"name": "other"}]
)
def test_nothing_else_is(changes):
    assert _request(**changes) == REQUEST


def test_a_request_never_changes_its_spelling():
    assert REQUEST == "a66d53759b054b540559"


def test_the_newest_proof_says_what_the_source_is():
    caches = [
        _cache(proof(REQUEST, at=after(1)), proof(REQUEST, revision=OTHER_REVISION, at=after(2))),
        _cache(proof(REQUEST, at=after(0))),
    ]
    assert resolution_of(LLAMA, REQUEST, caches).revision == OTHER_REVISION


@pytest.mark.parametrize(
    "forged",
    [
        proof(REQUEST, namespace="mallory"),
        proof(REQUEST, uid="uid-of-an-earlier-one"),
        proof("another-request"),
    ],
)
def test_a_proof_that_differs_in_namespace_uid_or_request_says_nothing(forged):
    assert resolution_of(LLAMA, REQUEST, [_cache(forged)]) is None


def test_use_is_allowed_by_any_request_and_only_to_the_own_namespace():
    assert is_proved(LLAMA, REVISION, _cache(proof("an-earlier-request")))
    assert not is_proved(LLAMA, REVISION, _cache(proof(REQUEST, namespace="mallory")))
    assert not is_proved(LLAMA, OTHER_REVISION, _cache(proof(REQUEST)))
