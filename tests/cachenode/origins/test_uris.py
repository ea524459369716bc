"""Which URIs name a source, and what they name."""

import pytest

from modelcache_api.errors import InvalidSourceError
from modelcache_node.origins.azure import Place
from modelcache_node.origins.base import SourceOptions
from modelcache_node.origins.huggingface import Repository
from modelcache_node.origins.opening import check_uri


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/models/m",
        "s3://bucket",
        "gs://bucket/m",
        "az://container/m",
        "abfs://container@account.dfs.core.windows.net/m",
        "hf://org/name@v1/folder",
        "https://host/models/modelcache.json",
        "https://host:8443/file?signature=x",
    ],
)
def test_a_uri_of_a_known_scheme_is_taken(uri):
    check_uri(uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("ftp://host/m", "unknown scheme ftp://.*supported: s3://, gs://"),
        ("bucket/m", "unknown scheme in"),
        ("s3:///m", "is not s3://bucket/prefix"),
        ("s3://bucket/m?versionId=1", "is not s3://bucket/prefix"),
        ("https://host/m#part", "is not https://host/path"),
        ("https://user:sesame@host/m", "credentials belong into a Secret"),
        ("https://host:port/m", "malformed"),
        ("s3://[::1/m", "malformed"),
    ],
)
def test_what_names_no_source_is_refused_and_says_why(uri, said):
    with pytest.raises(InvalidSourceError, match=said):
        check_uri(uri)


@pytest.mark.parametrize(
    ("uri", "repository"),
    [
        ("hf://org/name", Repository("model", "org/name", None, "")),
        ("hf://org/name@v1.0", Repository("model", "org/name", "v1.0", "")),
        ("hf://org/name@refs%2Fpr%2F1/a/b", Repository("model", "org/name", "refs/pr/1", "a/b")),
        ("hf://models/org/name/", Repository("model", "org/name", None, "")),
        ("hf://datasets/org/name", Repository("dataset", "org/name", None, "")),
    ],
)
def test_what_a_hub_uri_names(uri, repository):
    assert Repository.parse(uri) == repository


@pytest.mark.parametrize("uri", ["hf://name", "hf://org/", "hf://org/name@", "hf://org/@v1"])
def test_a_hub_uri_names_a_repository_of_somebody(uri):
    with pytest.raises(InvalidSourceError):
        Repository.parse(uri)


@pytest.mark.parametrize(
    ("uri", "endpoint", "place"),
    [
        (
            "abfs://c@acc.dfs.core.windows.net/a/b",
            None,
            Place("c", "a/b", "https://acc.blob.core.windows.net"),
        ),
        (
            "abfss://c@acc.blob.core.windows.net",
            None,
            Place("c", "", "https://acc.blob.core.windows.net"),
        ),
        ("az://c/a", None, Place("c", "a", None)),
        ("az://c/a", "https://acc.blob/", Place("c", "a", "https://acc.blob")),
    ],
)
def test_what_an_azure_uri_names(uri, endpoint, place):
    assert Place.parse(SourceOptions(uri, endpoint=endpoint)) == place


@pytest.mark.parametrize("uri", ["abfs://c/a", "abfs://c@evil.example/a", "abfs://@acc.dfs.core"])
def test_an_azure_uri_names_container_and_account(uri):
    with pytest.raises(InvalidSourceError, match="abfs://container@account"):
        Place.parse(SourceOptions(uri))
