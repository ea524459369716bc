"""What is S3's alone: versions, whose checksums count, who pays, where the bucket is written."""

import base64
import hashlib
import os
import time
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from aiobotocore.session import get_session

from modelcache_api.errors import InvalidSourceError
from modelcache_api.messages import Integrity
from modelcache_node.origins.base import SourceObject, SourceOptions, list_source
from modelcache_node.origins.granting import GrantedSource
from modelcache_node.origins.opening import open_origin
from modelcache_node.patience import Patience
from modelcache_node.pulling import Puller
from support.faults import Status, error_xml
from support.origins.s3_store import CREDENTIALS

pytestmark = [pytest.mark.looptime(False), pytest.mark.timeout(180)]

MIB = 1 << 20
DATA = os.urandom(3000)


@pytest.fixture
def store(stores):
    return stores.get("s3")


@pytest.fixture
async def client(store):
    async with get_session().create_client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{store.proxy.target_port}",  # uploads are not the proxy's
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS.access_key,
        aws_secret_access_key=CREDENTIALS.secret_key,
    ) as made:
        yield made


async def listed(options):
    async with open_origin(options) as origin:
        return {one.path: one for one in await list_source(origin, options)}


async def pull(options, folder, movers):
    return await Puller(
        options,
        folder,
        movers,
        now=time.time,
        patience=Patience(30.0, clock=time.monotonic),
        on_progress=lambda _: None,
    ).run()


@pytest.mark.parametrize(
    ("algorithm", "integrity"),
    [
        ("SHA256", Integrity.SHA256),
        ("CRC64NVME", Integrity.STORE_CHECKSUM),
        ("CRC32C", Integrity.STORE_CHECKSUM),
    ],
)
async def test_a_checksum_of_the_whole_object_is_compared(
    store, client, movers, tmp_path, algorithm, integrity
):
    await client.put_object(
        Bucket=store.bucket, Key="model/weights", Body=DATA, ChecksumAlgorithm=algorithm
    )
    found = (await listed(store.options()))["weights"]
    assert found.checksum.algorithm == algorithm.lower()
    assert (await pull(store.options(), tmp_path, movers)).integrity is integrity
    assert (tmp_path / "weights").read_bytes() == DATA


async def test_a_composite_checksum_is_known_for_what_it_is(store, client, movers, tmp_path):
    place = {"Bucket": store.bucket, "Key": "model/weights"}
    begun = await client.create_multipart_upload(
        **place, ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE"
    )
    parts = []
    for number, data in enumerate((os.urandom(5 * MIB), DATA), start=1):
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        done = await client.upload_part(
            **place,
            UploadId=begun["UploadId"],
            PartNumber=number,
            Body=data,
            ChecksumSHA256=digest,
        )
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumSHA256": digest})
    await client.complete_multipart_upload(
        **place, UploadId=begun["UploadId"], MultipartUpload={"Parts": parts}
    )
    assert (await listed(store.options()))["weights"].checksum is None
    pulled = await pull(store.options(), tmp_path, movers)
    assert pulled.integrity is Integrity.TRANSPORT_ONLY


async def test_of_a_versioned_bucket_the_current_versions_are_read(store, client, movers, tmp_path):
    await client.put_bucket_versioning(
        Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    for data in (b"old", b"newer"):
        await client.put_object(Bucket=store.bucket, Key="model/weights", Body=data)
    await client.put_object(Bucket=store.bucket, Key="model/deleted", Body=b"x")
    await client.delete_object(Bucket=store.bucket, Key="model/deleted")
    await pull(store.options(), tmp_path, movers)
    assert (tmp_path / "weights").read_bytes() == b"newer"
    assert not (tmp_path / "deleted").exists()


async def test_an_object_under_a_customers_key_is_refused_clearly(store, movers, tmp_path):
    store.put("weights", DATA)
    words = "The object was stored using a form of Server Side Encryption."
    store.proxy.always(Status(400, error_xml("InvalidRequest", words)))
    with pytest.raises(InvalidSourceError, match=r"SSE-C.*cannot be read"):
        await pull(store.options(), tmp_path, movers)


async def test_a_grant_of_who_pays_says_so_and_reads(store, movers, tmp_path):
    store.put("weights", DATA)
    options = replace(store.options(), requester_pays=True)
    (one,) = await GrantedSource(options).objects()
    (signed,) = parse_qs(urlsplit(one.grant.url).query)["X-Amz-SignedHeaders"]
    assert set(signed.split(";")) - {"host"} == set(one.grant.headers) == {"x-amz-request-payer"}
    await pull(options, tmp_path, movers)
    assert (tmp_path / "weights").read_bytes() == DATA


@pytest.mark.parametrize(
    ("anonymous", "virtual_hosts", "begin"),
    [
        (False, False, "http://store:9000/bucket/model/w?"),
        (False, True, "http://bucket.store:9000/model/w?"),
        (True, False, "http://store:9000/bucket/model/w"),
        (True, True, "http://bucket.store:9000/model/w"),
    ],
)
async def test_the_bucket_is_in_the_path_or_in_the_host_name(
    tmp_path, anonymous, virtual_hosts, begin
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (tmp_path / name).write_text("x")
    options = SourceOptions(
        "s3://bucket/model",
        endpoint="http://store:9000",
        anonymous=anonymous,
        credentials_dir=None if anonymous else tmp_path,
        virtual_hosts=virtual_hosts,
    )
    await _check_grant(options, begin)


async def test_a_bucket_with_a_dot_is_in_the_path_also_at_aws():
    options = SourceOptions("s3://a.bucket/model", anonymous=True)
    await _check_grant(options, "https://s3.us-east-1.amazonaws.com/a.bucket/model/w")


async def _check_grant(options, begin):
    async with open_origin(options) as origin:
        grant = await origin.grant(SourceObject("w", "model/w", 1, '"x"'))
    assert grant.url.startswith(begin)
