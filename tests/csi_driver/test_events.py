"""Who is told what, and how often. Nothing is posted here: the queue is looked into."""

from datetime import UTC, datetime
from pathlib import PurePosixPath

import pytest

from modelcache_api.errors import AccessDeniedError
from modelcache_api.messages import LeaseAnswer, LeaseState
from modelcache_api.reasons import Reason
from modelcache_csi.events import MAX_PER_POD, MAX_QUEUED, PodEvents
from modelcache_csi.kube_client import KubeClient
from modelcache_csi.volume_context import parse_publish
from support.csi_plugin import publish_request

ROOT = PurePosixPath("/var/lib/kubelet")


def _publish(uid="uid-1"):
    request = publish_request(f"{ROOT}/pods/{uid}/volumes/kubernetes.io~csi/m/mount")
    request.volume_context["csi.storage.k8s.io/pod.uid"] = uid
    return parse_publish(request, ROOT)


def _waiting(present, reason=Reason.FETCHING):
    return LeaseAnswer(
        state=LeaseState.WAITING,
        reason=reason,
        message="",
        bytes_present=present,
        bytes_total=100,
        bytes_per_s=10.0,
    )


@pytest.fixture
def events():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return PodEvents(KubeClient(None), node_name="node-1", utc_now=lambda: now)


def _queued(events):
    found = []
    while not events._queue.empty():
        found.append(events._queue.get_nowait()[1])
    return found


def test_progress_is_told_once_per_quarter(events):
    for present in range(100):
        events.waiting(_publish(), _waiting(present), None)
    told = _queued(events)
    assert [event["reason"] for event in told] == ["WaitingForModel"] * 4
    assert told[2]["message"] == "model llama: 50 B of 100 B (50%), 10 B/s, about 5 s left"
    assert told[0]["type"] == "Normal"


def test_a_new_reason_is_told_at_once_and_as_a_warning(events):
    events.waiting(_publish(), _waiting(1), None)
    events.waiting(_publish(), _waiting(1, Reason.WAITING_FOR_GRANT), None)
    assert [event["type"] for event in _queued(events)] == ["Normal", "Warning"]


def test_a_pod_that_never_waited_is_not_told_that_it_is_ready(events):
    events.ready(_publish(), "sha256:0")
    assert _queued(events) == []


def test_a_pod_that_waited_is_told_once_that_it_is_ready(events):
    events.waiting(_publish(), _waiting(1), None)
    events.ready(_publish(), "sha256:0")
    events.ready(_publish(), "sha256:0")
    assert [event["reason"] for event in _queued(events)] == ["WaitingForModel", "ModelReady"]


def test_a_refusal_has_the_reason_of_its_error(events):
    events.refused(_publish(), AccessDeniedError("403"))
    (event,) = _queued(events)
    assert (event["reason"], event["type"], event["message"]) == ("AccessDenied", "Warning", "403")
    assert event["source"] == {"component": "csi.modelcache.io", "host": "node-1"}
    assert event["firstTimestamp"] == "2026-01-02T03:04:05Z"


def test_one_pod_cannot_flood_its_namespace(events):
    for i in range(10 * MAX_PER_POD):
        events.waiting(_publish(), _waiting(1), f"problem {i}")
    assert len(_queued(events)) == MAX_PER_POD


def test_an_api_server_that_is_away_costs_events_and_not_memory(events):
    for i in range(MAX_QUEUED + 10):
        events.waiting(_publish(uid=f"uid-{i}"), _waiting(1), None)
    assert len(_queued(events)) == MAX_QUEUED


def test_a_message_is_cut_where_kubernetes_would_refuse_it(events):
    events.refused(_publish(), AccessDeniedError("x" * 5000))
    assert len(_queued(events)[0]["message"]) == 1024
