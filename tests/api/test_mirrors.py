"""Which mirrors a source has, by what it begins with."""

import pytest
from pydantic import ValidationError

from modelcache_api.mirrors import mirrors_from_json, mirrors_of

KNOWN = mirrors_from_json.validate_json(
    """[
    {"source": "hf://", "mirrors": [{"endpoint": "https://a"}, {"endpoint": "https://b"}]},
    {"source": "hf://secret/", "mirrors": [{"endpoint": "https://c"}]},
    {"source": "s3://models/", "endpoint": "https://minio",
     "mirrors": [{"uri": "s3://models-eu/x/", "region": "eu-1"}]}
    ]"""
)


def found(uri, endpoint=None):
    return [
        (there, mirror.endpoint, mirror.region)
        for there, mirror in mirrors_of(uri, endpoint, KNOWN)
    ]


def test_mirrors_come_in_the_administrators_order():
    assert found("hf://org/name@v1") == [
        ("hf://org/name@v1", "https://a", None),
        ("hf://org/name@v1", "https://b", None),
    ]


def test_the_longest_prefix_counts_alone():
    assert found("hf://secret/name") == [("hf://secret/name", "https://c", None)]


def test_a_mirror_s_prefix_stands_for_the_source_s():
    assert found("s3://models/llama/8b", "https://minio") == [
        ("s3://models-eu/x/llama/8b", None, "eu-1")
    ]


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("s3://models/llama", None),
        ("s3://models/llama", "https://another"),
        ("hf://org/name", "https://own"),
        ("gs://models/llama", None),
    ],
)
def test_another_source_or_endpoint_has_none(uri, endpoint):
    assert found(uri, endpoint) == []


@pytest.mark.parametrize("text", ["", "{}", '[{"source": "hf://", "mirrors": []}]', '[{"x": 1}]'])
def test_what_is_no_list_of_mirrors_is_refused(text):
    with pytest.raises(ValidationError):
        mirrors_from_json.validate_json(text)
