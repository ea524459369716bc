"""The operator's client before a server with sockets: what is safe to repeat is repeated."""

import pytest
from kubernetes.aio.client import Configuration

from modelcache_operator.kube.client import JOBS, MODEL_CACHES, KubeClient, KubeError
from support.cluster_objects import model_cache
from support.kube_api import FakeKubeApi

pytestmark = pytest.mark.looptime(False)

LLAMA = "/apis/modelcache.io/v1alpha1/namespaces/team/modelcaches/llama"


@pytest.fixture
async def kube():
    async with FakeKubeApi() as kube:
        yield kube


@pytest.fixture
async def client(kube):
    client = KubeClient(Configuration(host=kube.url, api_key={"BearerToken": "Bearer t"}))
    yield client
    await client.aclose()


def _job(name="j"):
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "labels": {"modelcache.io/role": "prefetch"},
        }
    }


async def test_a_list_comes_with_the_version_it_was_made_at(kube, client):
    await kube.put(LLAMA, model_cache())
    items, version = await client.list_all(MODEL_CACHES)
    assert [item["metadata"]["name"] for item in items] == ["llama"]
    assert version >= 1
    assert kube.tokens[-1] == "t"


async def test_only_jobs_of_ours_are_listed(kube, client):
    await client.create_job(_job())
    await client.create_job({"metadata": {"name": "theirs", "namespace": "team"}})
    items, _ = await client.list_all(JOBS)
    assert [item["metadata"]["name"] for item in items] == ["j"]


async def test_a_job_created_twice_is_created_once(client):
    assert await client.create_job(_job())
    assert await client.create_job(_job()) is None


async def test_a_job_deleted_twice_is_deleted_once(client):
    created = await client.create_job(_job())
    for _ in range(2):
        await client.delete_job("team", "j", created["metadata"]["uid"])


async def test_a_status_is_written_beside_the_spec(kube, client):
    await kube.put(LLAMA, model_cache())
    written = await client.write_model_cache_status("team", "llama", {"revision": "r"})
    assert written["status"]["revision"] == "r"
    assert written["spec"] == model_cache()["spec"]


async def test_the_status_of_what_is_gone_is_nobodys(client):
    assert await client.write_model_cache_status("team", "llama", {}) is None
    assert await client.write_cache_node_spec("n1", {}) is None
    assert await client.get_pod("team", "p") is None


async def test_a_cache_node_belongs_to_its_node(client):
    created = await client.create_cache_node("n1", "uid-of-n1")
    (owner,) = created["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Node", "uid-of-n1")
    assert await client.create_cache_node("n1", "uid-of-n1") is None


async def test_an_event_posted_twice_is_one(kube, client):
    body = {"metadata": {"name": "e", "namespace": "team"}, "involvedObject": {}}
    await client.create_event(body)
    await client.create_event(body)


async def test_an_api_server_that_is_away_is_said_with_its_words(kube, client):
    kube.is_down = True
    with pytest.raises(KubeError, match="currently unable") as error:
        await client.list_all(JOBS)
    assert error.value.status == 503
    assert not error.value.is_refusal
    assert error.value.retryable


async def test_an_api_server_that_is_not_there_is_no_refusal():
    client = KubeClient(Configuration(host="http://127.0.0.1:1"))
    with pytest.raises(KubeError, match="no answer") as error:
        await client.get_pod("team", "p")
    assert error.value.status == 0
    await client.aclose()
