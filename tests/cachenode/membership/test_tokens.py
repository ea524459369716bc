"""Whose token an agent takes."""

import pytest

from modelcache_api.errors import AccessDeniedError, UnavailableError
from modelcache_api.names import AGENT_AUDIENCE
from modelcache_node.membership.api_server import ApiServer
from modelcache_node.membership.tokens import Identity, TokenReviewer, parse_review
from support.kube_api import FakeKubeApi

pytestmark = pytest.mark.looptime(False)


def _status(*, node="node-1", username="system:serviceaccount:team:default", **fields):
    extra = {"pod-name": ["job-x"], "pod-uid": ["p-1"], "node-name": [node] if node else []}
    return {
        "authenticated": True,
        "audiences": [AGENT_AUDIENCE],
        "user": {
            "username": username,
            "extra": {f"authentication.kubernetes.io/{key}": value for key, value in extra.items()},
        },
        **fields,
    }


@pytest.fixture
async def kube():
    async with FakeKubeApi() as kube:
        yield kube


@pytest.fixture
async def reviewer(kube):
    async with ApiServer(kube.url, token=lambda: "agent-token") as api:
        yield TokenReviewer(api, "node-1", clock=lambda: kube.now)


def _answer(kube, status):
    kube.now = 0.0
    kube.asked = []

    def answer(body):
        kube.asked.append(body["spec"])
        return body | {"status": status}

    kube.answers["tokenreviews"] = answer


async def test_a_pod_of_this_node_is_known_by_its_token(kube, reviewer):
    _answer(kube, _status())
    assert await reviewer.review("t") == Identity("team", "default", "job-x", "p-1", "node-1")
    assert await reviewer.namespace_of("t") == "team"
    assert kube.asked == [{"token": "t", "audiences": [AGENT_AUDIENCE]}]


async def test_a_good_token_is_asked_about_again_after_a_while(kube, reviewer):
    _answer(kube, _status())
    await reviewer.review("t")
    kube.now = 1000.0
    await reviewer.review("t")
    assert len(kube.asked) == 2


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"authenticated": False, "error": "token expired"}, "token expired"),
        ({}, "not authenticated"),
        (_status(audiences=["https://kubernetes.default.svc"]), "audience"),
        (_status(audiences=[]), "audience"),
        (_status(username="system:node:node-1"), "service account"),
        (_status(username="system:serviceaccount::x"), "service account"),
        (_status(node=None), "1.32"),
        (_status(node="node-2"), "node-2"),
        (_status(user={"username": "system:serviceaccount:team:default"}), "bound to a pod"),
    ],
)
async def test_any_other_token_is_refused(kube, reviewer, status, says):
    _answer(kube, status)
    with pytest.raises(AccessDeniedError, match=says):
        await reviewer.review("t")
    with pytest.raises(AccessDeniedError):
        await reviewer.review("t")
    assert len(kube.asked) == 2, "a refusal is not remembered"


async def test_an_api_server_that_is_away_is_no_refusal(kube, reviewer):
    kube.is_down = True
    with pytest.raises(UnavailableError):
        await reviewer.review("t")


async def test_what_is_remembered_is_bounded(kube, reviewer):
    _answer(kube, _status())
    for n in range(300):
        await reviewer.review(f"t{n}")
    assert len(reviewer._known) == 256


def test_a_review_without_groups_or_extra_is_refused_not_a_crash():
    with pytest.raises(AccessDeniedError):
        parse_review(
            {"authenticated": True, "audiences": [AGENT_AUDIENCE], "user": {"extra": None}}
        )
