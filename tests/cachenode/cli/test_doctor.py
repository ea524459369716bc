"""What `modelcache doctor` makes of an agent's report."""

import pytest

from modelcache_api.messages import LazyReport, NodeReport, RevisionReport, RevisionState
from modelcache_api.reasons import Reason
from modelcache_node.cli.doctor import node_findings

SOUND = NodeReport(
    version="1",
    boot_id="b",
    store_id="s",
    capacity_bytes=100,
    used_bytes=10,
    reserved_bytes=0,
    leases_reported=True,
    revisions=[],
    proofs=[],
    wanted=[],
    lazy=LazyReport(lacks=(), since=1.0),
)
FAILED = RevisionReport(
    revision="sha256:" + "a" * 64,
    state=RevisionState.FAILED,
    reason=Reason.SOURCE_LIES,
    message="it answers wrongly",
    bytes_present=0,
    bytes_total=9,
    files=1,
)


def test_of_a_sound_node_nothing_is_to_mend() -> None:
    assert [one.mend for one in node_findings(SOUND)] == [""]


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"used_bytes": 95}, "capacity"),
        ({"disk_healthy": False}, "disk"),
        ({"leases_reported": False}, "leases"),
        ({"revisions": [FAILED]}, "revision sha256:aaaaaaaaaaaa"),
    ],
)
def test_what_is_to_mend_is_named(change: dict[str, object], check: str) -> None:
    findings = node_findings(SOUND.model_copy(update=change))
    assert [one.check for one in findings if one.mend] == [check]


def test_what_a_kernel_lacks_for_lazy_mounts_is_told() -> None:
    lazy = LazyReport(lacks=("passthrough", "resend"), since=1.0)
    findings = node_findings(SOUND.model_copy(update={"lazy": lazy}))
    assert "do without passthrough, resend" in {one.found for one in findings}
