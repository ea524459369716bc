"""What a ModelCache's status says."""

from dataclasses import replace

from modelcache_api.cache_node import WantedModel
from modelcache_api.model_cache import ConditionType, ModelCache
from modelcache_api.reasons import Reason
from modelcache_operator.planning.job_arguments import JobSettings, JobWish
from modelcache_operator.planning.jobs import job_manifest
from modelcache_operator.planning.observed import (
    Observed,
    Said,
    parse_cache_node,
    parse_job,
    parse_node,
)
from modelcache_operator.planning.reconcile import plan, spec_of
from modelcache_operator.planning.requests import request_of
from support.cluster_objects import (
    OTHER_REVISION,
    REVISION,
    SIZE_BYTES,
    after,
    cache_node,
    finish_job,
    held,
    model_cache,
    node,
    proof,
    stamp,
    wanted,
)

SETTINGS = JobSettings("image", "Always", (), "https://a:1", "PEM")
REQUEST = request_of(ModelCache.model_validate(model_cache()))


def _seen(*caches, now_s=60, jobs=(), **fields):
    names = [body["metadata"]["name"] for body in caches]
    return Observed(
        model_cache=ModelCache.model_validate(model_cache(**fields)),
        nodes={name: parse_node(node(name)) for name in names},
        caches={body["metadata"]["name"]: parse_cache_node(body) for body in caches},
        jobs=list(jobs),
        now=after(now_s),
    )


def _ready(name, **model):
    return cache_node(name, models=(), proofs=[proof(REQUEST)]) | {
        "status": cache_node(name)["status"]
        | {"models": [held(**model)], "proofs": [proof(REQUEST)]}
    }


def _job(node_name, *, reason=None, state=None, at_s=0):
    found = ModelCache.model_validate(model_cache())
    wish = JobWish(node_name, REQUEST, 1)
    body = job_manifest(found, wish, parse_node(node(node_name)), SETTINGS)
    body["metadata"] |= {"uid": f"j-{node_name}", "creationTimestamp": stamp(after(at_s))}
    if state != "Active":
        body = finish_job(body, after(at_s + 5), reason=reason)
    return parse_job(body)


def _status(seen):
    return plan(seen).status


def _condition(seen, kind=ConditionType.READY):
    return _status(seen).condition(kind)


def test_all_five_conditions_are_always_there():
    assert {condition.type for condition in _status(_seen()).conditions} == set(ConditionType)


def test_a_condition_keeps_its_time_until_its_status_changes():
    first = _status(_seen(_ready("n1"), now_s=60))
    wire = first.wire()
    second = _status(_seen(_ready("n1"), now_s=90, status=wire))
    assert second == first
    third = _status(_seen(_ready("n1", state="Fetching"), now_s=95, status=wire))
    ready = third.condition(ConditionType.READY)
    assert ready.status == "False"
    assert ready.last_transition_time == after(95)
    resolved = third.condition(ConditionType.RESOLVED)
    assert resolved.last_transition_time == after(60)


def test_a_node_without_the_namespaces_proof_is_not_ready():
    bare = cache_node("n2")
    bare["status"]["models"] = [held()]
    status = _status(_seen(_ready("n1"), bare))
    assert (status.nodes.desired, status.nodes.ready) == (2, 1)


def test_a_stale_status_never_counts_as_ready():
    fresh, stale = _ready("n1"), _ready("n2")
    fresh["status"]["heartbeatAt"] = stamp(after(290))
    status = _status(_seen(fresh, stale, now_s=300))
    assert status.nodes.ready == 1
    other_boot = _ready("n2")
    other_boot["status"]["bootId"] = "boot-0"
    assert _status(_seen(_ready("n1"), other_boot)).nodes.ready == 1


def test_counts_add_up_over_the_desired_nodes():
    partly = _ready("n2", state="Fetching", bytesPresent=SIZE_BYTES // 2)
    status = _status(_seen(_ready("n1"), partly))
    assert status.bytes.wanted == 2 * SIZE_BYTES
    assert status.bytes.present == SIZE_BYTES + SIZE_BYTES // 2
    assert status.size_bytes == SIZE_BYTES
    assert status.files == 3


def test_integrity_is_the_weakest_of_all_nodes():
    weak = _ready("n2", integrity="TransportOnly")
    assert _status(_seen(_ready("n1", integrity="Sha256"), weak)).integrity == "TransportOnly"


def test_a_job_without_a_pod_for_thirty_seconds_is_said():
    said = Said(Reason.JOB_PENDING, "exceeded quota: small")
    pending = replace(_job("n1", state="Active"), said=said)
    early = _seen(cache_node("n1"), jobs=[pending], now_s=20)
    assert _condition(early, ConditionType.RESOLVED).reason == "Resolving"
    late = _seen(cache_node("n1"), jobs=[pending], now_s=40)
    found = _condition(late, ConditionType.RESOLVED)
    assert (found.status, found.reason) == ("Unknown", "JobPending")
    assert "exceeded quota: small" in found.message
    assert _condition(late, ConditionType.DEGRADED).status == "True"


def test_a_failed_node_names_itself_and_leaves_resolved_alone():
    failed = replace(
        _job("n2", reason="BackoffLimitExceeded"),
        said=Said(Reason.SOURCE_UNAVAILABLE, "503 again and again"),
    )
    seen = _seen(_ready("n1"), cache_node("n2"), jobs=[failed], now_s=10)
    assert _condition(seen, ConditionType.RESOLVED).status == "True"
    ready = _condition(seen)
    assert ready.reason == "SourceUnavailable"
    assert ready.message == "1 of 2 nodes hold it; n2: 503 again and again"
    assert _status(seen).nodes.failed == 1


def test_a_thousand_nodes_in_trouble_are_one_line():
    nodes = [cache_node(f"n{number}") for number in range(1000)]
    for body in nodes:
        body["status"]["diskHealthy"] = False
    found = _condition(_seen(_ready("a"), *nodes))
    assert "and 999 more" in found.message
    assert len(found.message) < 200


def test_weights_that_are_there_twice_are_warned_of_once_and_stand_in_nobodys_way():
    twice = _ready("n1", duplicates=["*.bin", "*.pt"])
    found = _condition(_seen(twice), ConditionType.REDUNDANT)
    assert (found.status, found.reason) == ("True", "DuplicateWeights")
    assert 'spec.source.exclude: ["*.bin", "*.pt"]' in found.message
    assert _condition(_seen(twice)).status == "True"
    assert _condition(_seen(twice), ConditionType.DEGRADED).status == "False"
    told = [note for note in plan(_seen(twice)).notes if note.reason == "DuplicateWeights"]
    assert [(note.is_warning, note.pod) for note in told] == [(True, None)]
    again = plan(_seen(twice, status=_status(_seen(twice)).wire())).notes
    assert not [note for note in again if note.reason == "DuplicateWeights"]


def test_weights_that_are_there_once_are_not_warned_of():
    assert _condition(_seen(_ready("n1")), ConditionType.REDUNDANT).status == "False"
    assert _condition(_seen(cache_node("n1")), ConditionType.REDUNDANT).status == "Unknown"


def test_no_nodes_and_not_asked_for_are_told_apart():
    assert _condition(_seen(), ConditionType.RESOLVED).reason == "NoNodes"
    assert _condition(_seen(prefetch="OnDemand"), ConditionType.RESOLVED).reason == "NotRequested"


def test_a_waiting_pod_hears_why_its_node_has_no_model():
    small = cache_node("n2", capacityBytes=1, wanted=[wanted("pod-9")])
    failed = replace(
        _job("n2", reason="BackoffLimitExceeded"),
        said=Said(Reason.INSUFFICIENT_CAPACITY, "needs 1000 bytes"),
    )
    notes = plan(_seen(_ready("n1"), small, jobs=[failed], now_s=10)).notes
    told = [note for note in notes if note.pod]
    assert [(note.pod, note.reason, note.is_warning) for note in told] == [
        ("pod-9", "InsufficientCapacity", True)
    ]


def test_the_newest_revision_wins_and_the_old_one_is_remembered():
    before = _status(_seen(_ready("n1"))).wire()
    changed = cache_node("n1")
    changed["status"] |= {
        "models": [held(OTHER_REVISION)],
        "proofs": [
            proof(REQUEST),
            proof(REQUEST, revision=OTHER_REVISION, at=after(50)),
        ],
    }
    status = _status(_seen(changed, status=before, now_s=100))
    assert status.revision == OTHER_REVISION
    assert [old.revision for old in status.previous_revisions] == [REVISION]
    back = _status(_seen(_ready("n1"), status=status.wire(), now_s=120))
    assert [old.revision for old in back.previous_revisions] == [OTHER_REVISION]


def test_a_node_is_asked_to_keep_what_any_plan_keeps_and_pinned_wins():
    first = {"n1": frozenset({WantedModel(revision=REVISION)})}
    second = {"n1": frozenset({WantedModel(revision=REVISION, pinned=True)}), "n2": frozenset()}
    third = {"n1": frozenset({WantedModel(revision=OTHER_REVISION)})}
    spec = spec_of("n1", [first, second, third], limit=10)
    assert [(model.revision, model.pinned) for model in spec.models] == [
        (REVISION, True),
        (OTHER_REVISION, False),
    ]
    assert [model.pinned for model in spec_of("n1", [first, second, third], limit=1).models] == [
        True
    ]
