"""The same file of two sources is one blob, and no endpoint reaches another's blob."""

import hashlib
import os
import time

import pytest

from modelcache_api.errors import IntegrityMismatchError
from modelcache_node.caching.resolving import resolve
from modelcache_node.origins.granting import GrantedSource
from modelcache_node.patience import Patience
from modelcache_node.pulling import Puller

pytestmark = [pytest.mark.looptime(False), pytest.mark.timeout(180)]

WEIGHTS = os.urandom(300_000)


def puller(store, folder, movers):
    return Puller(
        store.options(),
        folder,
        movers,
        now=time.time,
        patience=Patience(30.0, clock=time.monotonic),
        on_progress=lambda _: None,
    )


async def test_the_same_file_of_a_hub_and_a_web_server_is_one_blob(stores, movers, tmp_path):
    hub, web = stores.get("hf"), stores.get("https")
    hub.put("model.safetensors", WEIGHTS)
    web.put("other-name.safetensors", WEIGHTS)
    first = await puller(hub, tmp_path / "pulled", movers).run()
    second = await puller(web, tmp_path / "pulled", movers).run()
    assert (first.bytes_from_origin, second.bytes_from_origin) == (len(WEIGHTS), 0)
    blobs = list((tmp_path / "pulled" / ".modelcache" / "blobs").glob("*/*/data"))
    assert [hashlib.sha256(blob.read_bytes()).hexdigest() for blob in blobs] == [
        hashlib.sha256(WEIGHTS).hexdigest()
    ]


async def test_a_poisoned_endpoint_does_not_reach_anothers_blob(stores, movers, tmp_path):
    hub, web = stores.get("hf"), stores.get("https")
    hub.put("model.safetensors", WEIGHTS)
    web.put("model.safetensors", WEIGHTS)
    poison = bytes(len(WEIGHTS))
    web.web.put("model/model.safetensors", poison)  # the list still says the digest of WEIGHTS
    with pytest.raises(IntegrityMismatchError):
        await puller(web, tmp_path / "pulled", movers).run()
    done = await puller(hub, tmp_path / "pulled", movers).run()
    assert done.bytes_from_origin == len(WEIGHTS), "nothing of the poison was taken over"
    assert (tmp_path / "pulled" / "model.safetensors").read_bytes() == WEIGHTS


async def test_chunks_of_two_endpoints_do_not_mix_half_way(stores, movers):
    hub, web = stores.get("hf"), stores.get("https")
    hub.put("model.safetensors", WEIGHTS)
    web.put("model.safetensors", WEIGHTS)
    found = []
    for store in (hub, web):
        options = store.options()
        objects = await GrantedSource(options).objects()
        ca_pem = options.ca_file.read_text()
        resolution = await resolve(objects, movers, namespace="tenant", ca_pem=ca_pem)
        found.append(next(iter(resolution.sources.values())))
    assert found[0].file.blob == found[1].file.blob
    assert found[0].provider_id != found[1].provider_id
