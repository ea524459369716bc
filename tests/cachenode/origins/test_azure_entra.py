"""Identities of Entra: a client's secret or a workload's token, and what is granted by them."""

import ssl
from dataclasses import replace

import aiohttp
import pytest

from modelcache_api.errors import AccessDeniedError
from modelcache_node.caching.resolving import to_grant
from modelcache_node.origins.granting import GrantedSource
from modelcache_node.transfer.ranges import RangeRequest
from support.fault_origin import Tls
from support.faults import Status, error_xml
from support.origins.identities import IdentityService

pytestmark = [pytest.mark.looptime(False), pytest.mark.timeout(180)]


@pytest.fixture
def store(stores):
    found = stores.get("entra")
    found.put("weights", b"12345")
    (found.secrets / "AZURE_STORAGE_ACCOUNT_KEY").unlink()
    for name, value in (("TENANT_ID", "t"), ("CLIENT_ID", "c"), ("CLIENT_SECRET", "s")):
        found.key(f"AZURE_{name}", value)
    return found


@pytest.fixture
def entra(monkeypatch):
    tls = Tls()
    trusted = ssl.create_default_context(cadata=tls.ca_pem)
    # made when aiohttp is imported, from the system's authorities
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusted)
    with IdentityService(tls) as service:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", service.url)
        yield service


async def read_first_byte(options, movers):
    (one,) = await GrantedSource(options).objects()
    ca_pem = options.ca_file.read_text()
    await movers.fetch(
        RangeRequest(None, 0, 1, to_grant(one.grant), validator=one.validator, ca_pem=ca_pem)
    )
    return one.grant


async def test_a_client_s_secret_grants_one_blob_for_a_while(store, entra, movers):
    grant = await read_first_byte(store.options(), movers)
    assert entra.asked == ["/t/oauth2/v2.0/token"]
    assert "sr=b" in grant.url, "a signature of the blob alone"
    assert "skoid=" in grant.url, "by a user delegation key"
    assert not grant.headers


async def test_a_workload_s_identity_grants_the_same(store, entra, movers, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("the kubelet's")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AZURE_TENANT_ID", "t")
    monkeypatch.setenv("AZURE_CLIENT_ID", "c")
    grant = await read_first_byte(replace(store.options(), credentials_dir=None), movers)
    assert "skoid=" in grant.url


async def test_who_may_not_delegate_grants_the_token(store, entra, movers):
    refusal = Status(403, error_xml("AuthorizationPermissionMismatch", "no"))
    store.proxy.refusal = lambda words: refusal if "userdelegationkey" in words else None
    grant = await read_first_byte(store.options(), movers)
    assert "sig=" not in grant.url
    assert grant.headers["Authorization"] == f"Bearer {entra.entra_token}"


async def test_what_entra_refuses_is_said_by_its_code_alone(store, entra):
    entra.refuses = True
    with pytest.raises(AccessDeniedError, match=r"credentials \(AADSTS7000215\)$"):
        await GrantedSource(store.options()).objects()
