"""Listing and granting against a real endpoint, on real sockets."""

import http.client
from urllib.parse import urlsplit

import pytest

from modelcache_api.errors import (
    EmptySourceError,
    InvalidSourceError,
    SourceNotFoundError,
    SourceUnavailableError,
    UnsafePathError,
)
from modelcache_node.demo.s3_endpoint import S3Endpoint
from modelcache_node.origins.base import SourceOptions, list_source
from modelcache_node.origins.granting import GrantedSource
from modelcache_node.origins.opening import open_origin

pytestmark = pytest.mark.looptime(False)


@pytest.fixture
def bucket(tmp_path):
    folder = tmp_path / "bucket"
    (folder / "m" / "sub").mkdir(parents=True)
    (folder / "m" / "a.bin").write_bytes(b"0123456789")
    (folder / "m" / "sub" / "b.json").write_text("{}")
    (folder / "m" / "skip.bin").write_bytes(b"x")
    return folder


@pytest.fixture
def endpoint(bucket):
    with S3Endpoint(bucket.parent) as running:
        yield running.url


def options(endpoint: str, uri: str = "s3://bucket/m", **more) -> SourceOptions:
    return SourceOptions(uri, endpoint=endpoint, anonymous=True, **more)


async def listed(source: SourceOptions):
    async with open_origin(source) as origin:
        return {one.path: one for one in await list_source(origin, source)}


async def test_every_object_is_listed_with_size_validator_and_checksum(endpoint):
    found = await listed(options(endpoint))
    assert {path: one.size_bytes for path, one in found.items()} == {
        "a.bin": 10,
        "sub/b.json": 2,
        "skip.bin": 1,
    }
    assert all(one.validator.startswith('"') and one.checksum for one in found.values())


async def test_a_listing_of_several_pages_is_whole(endpoint, bucket):
    for number in range(2500):
        (bucket / "m" / f"n{number}").touch()
    assert len(await listed(options(endpoint))) == 2503


async def test_include_and_exclude_choose_files(endpoint):
    found = await listed(options(endpoint, include=["*.bin"], exclude=["skip*"]))
    assert set(found) == {"a.bin"}


async def test_a_granted_object_can_be_read(endpoint):
    granted = {one.path: one.grant for one in await GrantedSource(options(endpoint)).objects()}
    url = urlsplit(granted["a.bin"].url)
    connection = http.client.HTTPConnection(url.hostname, url.port)
    connection.request("GET", f"{url.path}?{url.query}", headers={"Range": "bytes=2-4"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (206, b"234")
    connection.close()


async def test_no_such_bucket_is_said_so(endpoint):
    with pytest.raises(SourceNotFoundError, match="s3://other/m does not exist"):
        await listed(options(endpoint, "s3://other/m"))


async def test_an_empty_prefix_is_said_so(endpoint):
    with pytest.raises(EmptySourceError, match="s3://bucket/none holds no object"):
        await listed(options(endpoint, "s3://bucket/none"))


async def test_filters_that_leave_nothing_are_said_so(endpoint):
    with pytest.raises(EmptySourceError, match=r"include/exclude leave in \(3 were listed\)"):
        await listed(options(endpoint, include=["*.gguf"]))


async def test_an_unknown_scheme_is_refused_with_those_known(endpoint):
    with pytest.raises(InvalidSourceError, match=r"unknown scheme gopher://.*supported: s3://"):
        await listed(options(endpoint, "gopher://bucket/m"))


async def test_names_that_differ_only_by_case_are_refused(endpoint, bucket):
    (bucket / "m" / "A.bin").touch()
    with pytest.raises(UnsafePathError, match="differ at most by case"):
        await listed(options(endpoint))


async def test_a_store_that_is_away_may_be_asked_again():
    with pytest.raises(SourceUnavailableError):
        await listed(options("http://127.0.0.1:9"))
