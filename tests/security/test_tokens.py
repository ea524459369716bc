"""Job tokens, as a real API server judges them: forged, expired, of another audience, node, tenant.

The class of CVE-2023-27584 (tokens that anybody can make) and of GO-2025-3969 (identities given to
who asks).
"""

import asyncio
import base64
import json
import time

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from modelcache_api.errors import AccessDeniedError
from modelcache_api.names import AGENT_AUDIENCE
from modelcache_node.membership.api_server import ApiServer
from modelcache_node.membership.tokens import TokenReviewer
from support.control_plane import _TOKEN as TOKEN, control_plane
from support.tools import etcd, kube_apiserver

pytestmark = [pytest.mark.timeout(240), pytest.mark.looptime(False)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plane")


@pytest.fixture(scope="module")
def plane(folder):
    with control_plane(etcd(), kube_apiserver(), folder) as plane:
        for node in ("n1", "n2"):
            plane.request("POST", "/api/v1/nodes", {"metadata": {"name": node}})
        for namespace in ("team", "rival"):
            base = f"/api/v1/namespaces/{namespace}"
            plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            plane.request("POST", f"{base}/serviceaccounts", {"metadata": {"name": "default"}})
            for node in ("n1", "n2"):
                spec = {
                    "nodeName": node,
                    "serviceAccountName": "default",
                    "containers": [{"name": "c", "image": "i"}],
                }
                body = {"metadata": {"name": f"job-{node}"}, "spec": spec}
                plane.request("POST", f"{base}/pods", body)
        yield plane


@pytest.fixture
async def reviewer(plane):
    token = TOKEN
    async with ApiServer(plane.url, token=lambda: token, tls=plane.tls) as api:
        yield TokenReviewer(api, "n1", clock=time.monotonic)


def token_of(plane, namespace="team", node="n1", audience=AGENT_AUDIENCE):
    base = f"/api/v1/namespaces/{namespace}"
    uid = plane.request("GET", f"{base}/pods/job-{node}")["metadata"]["uid"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": f"job-{node}", "uid": uid}
    spec = {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": bound}
    answer = plane.request("POST", f"{base}/serviceaccounts/default/token", {"spec": spec})
    return answer["status"]["token"]


def encoded(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims_of(token):
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def signed(key, token, **changes):
    """The token with other claims, signed anew."""
    body = encoded(json.dumps(claims_of(token) | changes).encode())
    text = f"{token.split('.')[0]}.{body}"
    return f"{text}.{encoded(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


async def refused(reviewer, token):
    with pytest.raises(AccessDeniedError) as error:
        await reviewer.review(token)
    return str(error.value)


async def test_a_genuine_token_is_of_its_pod_s_namespace(plane, reviewer):
    assert (await reviewer.review(token_of(plane))).namespace == "team"


async def test_a_forged_token_is_refused(plane, reviewer):
    """Forged token: another's claims under an own key, an altered body, no signature at all."""
    token = token_of(plane, "rival")
    mine = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    head, body, signature = token.split(".")
    claims = claims_of(token) | {"sub": "system:serviceaccount:team:default"}
    altered = encoded(json.dumps(claims).encode())
    none = encoded(json.dumps({"alg": "none"}).encode())
    for forged in (
        signed(mine, token),
        f"{head}.{altered}.{signature}",
        f"{none}.{altered}.",
        f"{head}.{body}.",
    ):
        await refused(reviewer, forged)


async def test_an_expired_token_is_refused(plane, reviewer, folder):
    """Expired token: genuine, and signed by the cluster itself, of an hour ago."""
    key = serialization.load_pem_private_key((folder / "sa.key").read_bytes(), None)
    now = int(time.time())
    token = token_of(plane)
    fresh = signed(key, token, exp=now + 600)
    assert (await reviewer.review(fresh)).namespace == "team"
    await refused(reviewer, signed(key, token, exp=now - 600, iat=now - 4200, nbf=now - 4200))


async def test_a_token_for_another_audience_is_refused(plane, reviewer):
    """Wrong audience: what a pod uses at the API server opens no agent."""
    await refused(reviewer, token_of(plane, audience="https://kubernetes.default.svc"))


async def test_a_token_of_another_node_is_refused(plane, reviewer):
    """Other node, and replay: a token caught on one node is worth nothing on another."""
    assert "runs on node n2" in await refused(reviewer, token_of(plane, node="n2"))


async def test_a_token_of_another_namespace_speaks_for_that_one(plane, reviewer):
    """Other namespace: a session is its token's, whatever the client says."""
    assert (await reviewer.review(token_of(plane, "rival"))).namespace == "rival"


async def test_a_flood_of_bad_tokens_stays_off_the_api_server(plane, reviewer):
    """Amplification: no more reviews at once than a few, however many ask."""
    answers = await asyncio.gather(
        *(reviewer.review(f"no-token-{n}") for n in range(50)), return_exceptions=True
    )
    assert all(isinstance(answer, AccessDeniedError) for answer in answers)
