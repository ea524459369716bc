"""What is Azure's alone: shared access signatures, public containers, folders that are no files."""

import datetime as dt
from dataclasses import replace

import pytest
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from modelcache_api.errors import AccessDeniedError, InvalidSourceError
from modelcache_node.caching.resolving import to_grant
from modelcache_node.origins.base import SourceOptions, list_source
from modelcache_node.origins.granting import GrantedSource
from modelcache_node.origins.opening import open_origin
from modelcache_node.transfer.ranges import RangeRequest
from support.origins.azure_store import ACCOUNT, KEY

pytestmark = [pytest.mark.looptime(False), pytest.mark.timeout(180)]


@pytest.fixture
def store(stores):
    return stores.get("azure")


def container_of(store):
    return store.uri.removeprefix("az://").partition("/")[0]


async def read_first_byte(options, movers):
    (one,) = await GrantedSource(options).objects()
    request = RangeRequest(None, 0, 1, to_grant(one.grant), validator=one.validator)
    await movers.fetch(request)
    return one


async def test_a_key_grants_one_blob_for_a_while(store, movers):
    store.put("weights", b"12345")
    one = await read_first_byte(store.options(), movers)
    assert "sig=" in one.grant.url
    assert "sr=b" in one.grant.url, "a signature of the blob alone"
    assert one.grant.expires_at is not None


async def test_a_shared_access_signature_reads(store, movers):
    store.put("weights", b"12345")
    sas = generate_container_sas(
        ACCOUNT,
        container_of(store),
        account_key=KEY,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
    )
    (store.secrets / "AZURE_STORAGE_ACCOUNT_KEY").unlink()
    store.key("AZURE_STORAGE_SAS_TOKEN", f"?{sas}")
    one = await read_first_byte(store.options(), movers)
    assert one.grant.url.endswith(sas)


async def test_a_public_container_is_read_without_credentials(store, movers):
    store.put("weights", b"12345")
    with BlobServiceClient(f"{store.proxy.url}/{ACCOUNT}", credential=KEY) as service:
        service.get_container_client(container_of(store)).set_container_access_policy(
            {}, public_access="container"
        )
    options = replace(store.options(), credentials_dir=None, anonymous=True)
    one = await read_first_byte(options, movers)
    assert "?" not in one.grant.url


async def test_folders_of_hierarchical_accounts_are_no_files(store):
    store.put("sub/weights", b"12345")
    with BlobServiceClient(f"{store.proxy.url}/{ACCOUNT}", credential=KEY) as service:
        folder = service.get_blob_client(container_of(store), "model/sub")
        folder.upload_blob(b"", metadata={"hdi_isfolder": "true"})
    async with open_origin(store.options()) as origin:
        found = await list_source(origin, store.options())
    assert [one.path for one in found] == ["sub/weights"]


async def test_a_secret_without_a_usable_key_says_what_it_lacks(tmp_path):
    options = SourceOptions("az://c/m", endpoint="https://acc.blob", credentials_dir=tmp_path)
    with pytest.raises(AccessDeniedError, match="AZURE_STORAGE_ACCOUNT_KEY"):
        async with open_origin(options):
            pass


async def test_an_account_that_nobody_names_is_asked_for(tmp_path):
    (tmp_path / "AZURE_STORAGE_ACCOUNT_KEY").write_text(KEY)
    with pytest.raises(InvalidSourceError, match="names no account"):
        async with open_origin(SourceOptions("az://c/m", credentials_dir=tmp_path)):
            pass
