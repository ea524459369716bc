"""Jobs that lie, or speak wrongly: they obtain no revision and no proof, and harm nobody."""

import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelcache_api.messages import LeaseRequest, LeaseState
from support.agent_process import agent_home
from support.fault_origin import FaultOrigin
from support.local_node import LocalNode, running_node

pytestmark = pytest.mark.looptime(False)

HELLO = {"type": "Hello", "namespace": "team", "modelCache": "model"}
DATA = os.urandom(100_000)


@pytest.fixture
async def node() -> AsyncIterator[LocalNode]:
    with agent_home() as home:
        async with running_node(home) as running:
            yield running


class Truth:
    """A listing of one object, as it is."""

    def __init__(self, origin: FaultOrigin) -> None:
        self.etag = origin.put("models/a", DATA)
        self.url = f"{origin.url}/models/a"

    def __call__(self, **lies: object) -> dict[str, Any]:
        listed = {"path": "a", "sizeBytes": len(DATA), "validator": self.etag}
        return {**listed, "grant": {"url": self.url}, **lies}


@pytest.fixture
def truth(origin: FaultOrigin) -> Truth:
    return Truth(origin)


def listing(*objects: dict[str, Any], announced: int | None = None) -> list[dict[str, Any]]:
    n_objects = len(objects) if announced is None else announced
    return [
        HELLO,
        {"type": "Objects", "objects": list(objects)},
        {"type": "ListingEnd", "nObjects": n_objects},
    ]


def holds_nothing(node: LocalNode) -> bool:
    report = node.cache.report()
    return report.revisions == report.proofs == []


async def test_the_truth_is_taken(node: LocalNode, truth: Truth) -> None:
    done = await node.say(*listing(truth()))
    assert done["type"] == "Done"
    assert (node.tree(done["revision"]) / "a").read_bytes() == DATA


@pytest.mark.parametrize(
    ("lie", "reason", "says"),
    [
        ({"sizeBytes": 12}, "SourceChanged", "/models/a: it has 100000 bytes and had 12"),
        ({"sizeBytes": 1 << 40}, "SourceChanged", "it has 100000 bytes and had 1099511627776"),
        ({"validator": '"another"'}, "SourceChanged", "/models/a: it was replaced (HTTP 412)"),
        ({"path": "../a"}, "UnsafePath", "object name '../a' holds the element '..'"),
        ({"checksum": "sha256:12"}, "InvalidRequest", "a sha256 checksum has 64 digits"),
        ({"grant": {"url": "file:///etc/passwd"}}, "InvalidSource", "is not http(s)://host/"),
        ({"sizeBytes": -1}, "InvalidRequest", "malformed message"),
    ],
)
async def test_a_lie_about_an_object_is_found_at_its_origin(
    node: LocalNode, truth: Truth, lie: dict[str, object], reason: str, says: str
) -> None:
    answer = await node.say(*listing(truth(**lie)))
    assert (answer["type"], answer["reason"]) == ("Failed", reason)
    assert says in answer["message"]
    assert holds_nothing(node)


async def test_a_listed_object_that_is_not_there_is_named(node: LocalNode, truth: Truth) -> None:
    absent = truth(path="b", grant={"url": truth.url + "bsent"})
    answer = await node.say(*listing(truth(), absent))
    assert answer["reason"] == "SourceNotFound"
    assert "/models/absent: HTTP 404 (NoSuchKey" in answer["message"]
    assert holds_nothing(node)


async def test_a_header_that_would_choose_other_bytes_is_refused_by_name(
    node: LocalNode, truth: Truth
) -> None:
    grant = {"url": truth.url, "headers": {"Host": "elsewhere"}}
    answer = await node.say(*listing(truth(grant=grant)))
    assert answer["reason"] == "InvalidRequest"
    assert "a grant may not carry the header 'Host'" in answer["message"]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (["not JSON"], "malformed message"),
        ([{"type": "ListingEnd", "nObjects": 1}], "a session opens with Hello"),
        ([{**HELLO, "protocol": 99}], "protocol 99 is not spoken here; this agent speaks 1"),
        ([{**HELLO, "namespace": "../team"}], "malformed message"),
        (listing(announced=3), "0 objects arrived of the 3 announced"),
        ([HELLO, HELLO], "a listing holds no Hello"),
    ],
)
async def test_a_session_that_speaks_wrongly_is_told_how(
    node: LocalNode, said: list[Any], says: str
) -> None:
    answer = await node.say(*said)
    assert answer["reason"] == "InvalidRequest"
    assert says in answer["message"]
    assert not answer["retryable"]
    assert holds_nothing(node)


async def test_a_forged_checksum_poisons_nobody(node: LocalNode, origin: FaultOrigin) -> None:
    """A tenant claims another's SHA-256 for bytes of its own, to be served in that one's place."""
    right, evil = os.urandom(50_000), os.urandom(50_000)
    forged = f"sha256:{hashlib.sha256(right).hexdigest()}"
    etag = origin.put("models/evil", evil)
    url = f"{origin.url}/models/evil"
    lie = {"path": "w", "sizeBytes": len(evil), "validator": etag, "checksum": forged}
    answer = await node.say(*listing({**lie, "grant": {"url": url}}))
    assert answer["reason"] == "IntegrityMismatch"
    assert f"content does not match its checksum: {forged} was stated" in answer["message"]
    [revision] = node.cache.report().revisions
    assert revision.state == "Failed"
    assert not node.tree(revision.revision).exists()

    with FaultOrigin() as honest:
        etag = honest.put("models/right", right)
        grant = {"url": f"{honest.url}/models/right"}
        truth = {"path": "w", "sizeBytes": len(right), "validator": etag, "checksum": forged}
        done = await node.say(*listing({**truth, "grant": grant}))
    assert done["type"] == "Done"
    assert (node.tree(done["revision"]) / "w").read_bytes() == right


async def test_a_forged_digest_gives_nobody_access(node: LocalNode, truth: Truth) -> None:
    done = await node.say(*listing(truth()))
    for revision in (done["revision"], "sha256:" + "0" * 64):
        wish = LeaseRequest(namespace="rival", model_cache="model", revision=revision)
        answer = await node.cache.lease("v", wish)
        assert answer.state is LeaseState.WAITING
        assert answer.message == "no prefetch Job of this namespace has reached this node yet"
        assert answer.revision is answer.tree is None


async def test_a_replaced_object_makes_another_revision_beside_the_old(
    node: LocalNode, origin: FaultOrigin
) -> None:
    origin.put("models/model/weights", DATA)
    old = await node.prefetch(origin)
    origin.put("models/model/weights", DATA[::-1])
    new = await node.prefetch(origin)
    assert new.revision != old.revision
    assert (node.tree(old.revision) / "weights").read_bytes() == DATA, "pods may use it"
    assert (node.tree(new.revision) / "weights").read_bytes() == DATA[::-1]
