"""ModelCache and CacheNode as they come from, and go to, the API server."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from modelcache_api.cache_node import CacheNode, CacheNodeStatus, HeldModel
from modelcache_api.messages import NodeReport, ProofReport, RevisionReport, WantedReport
from modelcache_api.model_cache import (
    Condition,
    ConditionType,
    ModelCache,
    ModelCacheStatus,
    Prefetch,
)
from modelcache_api.objects import ConditionStatus

REVISION = "sha256:" + "a" * 64
MINIMAL = {
    "apiVersion": "modelcache.io/v1alpha1",
    "kind": "ModelCache",
    "metadata": {"name": "llama", "namespace": "team", "uid": "u-1", "generation": 3},
    "spec": {"source": {"uri": "s3://models/llama", "credentials": {"anonymous": True}}},
}


def test_what_is_left_out_has_a_default():
    found = ModelCache.model_validate(MINIMAL)
    assert found.spec.placement.prefetch is Prefetch.EAGER
    assert found.spec.placement.node_selector == {}
    assert found.spec.retention.pinned is False
    assert found.status == ModelCacheStatus()


def test_a_field_of_a_newer_version_is_ignored():
    newer = MINIMAL | {"spec": MINIMAL["spec"] | {"update": {"policy": "Track"}}}
    assert ModelCache.model_validate(newer).spec == ModelCache.model_validate(MINIMAL).spec


def test_what_is_written_reads_back_the_same():
    status = ModelCacheStatus(
        revision=REVISION,
        conditions=(
            Condition(
                type=ConditionType.READY,
                status=ConditionStatus.TRUE,
                reason="Ready",
                observed_generation=3,
                last_transition_time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            ),
        ),
    )
    wire = status.wire()
    assert wire["conditions"][0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert "sizeBytes" not in wire
    assert ModelCacheStatus.model_validate(wire) == status


def test_a_condition_is_found_by_type():
    status = ModelCacheStatus()
    assert status.condition(ConditionType.READY) is None


def test_a_node_without_a_report_has_no_heartbeat():
    node = CacheNode.model_validate({"metadata": {"name": "n1"}})
    assert node.status.heartbeat_at is None
    assert node.spec.models == ()


@pytest.mark.parametrize("revision", ["", "sha256:xyz", "a" * 64])
def test_a_revision_that_is_none_is_refused(revision):
    with pytest.raises(ValidationError):
        HeldModel(revision=revision, state="Ready")


def test_the_status_has_a_field_for_everything_an_agent_reports():
    status = set(CacheNodeStatus.model_fields) | {"revisions", "leases_reported", "lazy"}
    assert set(NodeReport.model_fields) <= status
    fields = CacheNodeStatus.model_fields
    for name, report in (
        ("models", RevisionReport),
        ("proofs", ProofReport),
        ("wanted", WantedReport),
    ):
        (item, _) = fields[name].annotation.__args__
        assert set(report.model_fields) == set(item.model_fields)
