"""What of an agent's report goes into its CacheNode, and when."""

from datetime import UTC, datetime

import pytest

from modelcache_api.cache_node import MAX_MODELS, MAX_PROOFS, MAX_WANTED
from modelcache_api.listing import Integrity
from modelcache_api.messages import (
    LazyReport,
    NodeReport,
    ProofReport,
    RevisionReport,
    RevisionState,
    WantedReport,
)
from modelcache_api.reasons import Reason
from modelcache_node.membership.reporting import is_transition, status_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _revision(number: int) -> str:
    return f"sha256:{number:064x}"


def _held(number: int = 1, **fields) -> RevisionReport:
    given = {
        "revision": _revision(number),
        "state": RevisionState.FETCHING,
        "reason": Reason.FETCHING,
        "bytes_present": 5,
        "bytes_total": 10,
        "files": 2,
    }
    return RevisionReport(**(given | fields))


def _report(**fields) -> NodeReport:
    given = {
        "version": "0.1.0",
        "boot_id": "boot-1",
        "store_id": "store-1",
        "capacity_bytes": 100,
        "used_bytes": 5,
        "reserved_bytes": 5,
        "leases_reported": True,
        "revisions": [_held()],
        "proofs": [],
        "wanted": [],
    }
    return NodeReport(**(given | fields))


def _status(**fields):
    return status_of(_report(**fields), address="10.0.0.1:7400", heartbeat_at=NOW)


def test_everything_an_operator_needs_is_told():
    status = _status(
        revisions=[
            _held(
                state=RevisionState.READY,
                integrity=Integrity.SHA256,
                last_used_at=3600.0,
                duplicates=["*.bin"],
            )
        ],
        proofs=[
            ProofReport(
                namespace="team",
                model_cache="llama",
                model_cache_uid="u",
                request="r",
                revision=_revision(1),
                at=60.0,
            )
        ],
        wanted=[
            WantedReport(
                namespace="team", model_cache="llama", model_cache_uid="u", pod_name="p", since=1.0
            )
        ],
    )
    wire = status.wire()
    assert wire["bootId"] == "boot-1"
    assert wire["address"] == "10.0.0.1:7400"
    assert wire["models"][0]["state"] == "Ready"
    assert wire["models"][0]["duplicates"] == ["*.bin"]
    assert wire["models"][0]["lastUsedAt"] == "1970-01-01T01:00:00Z"
    assert wire["proofs"][0]["at"] == "1970-01-01T00:01:00Z"
    assert wire["wanted"][0]["podName"] == "p"


@pytest.mark.parametrize(
    "change",
    [
        {"revisions": [_held(bytes_present=9)]},
        {"revisions": [_held(bytes_from_origin=9, message="9 of 10")]},
        {"used_bytes": 9},
        {"revisions": [_held(last_used_at=7.0)]},
    ],
)
def test_progress_alone_is_no_transition(change):
    assert not is_transition(_status(), _status(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"revisions": []},
        {"revisions": [_held(state=RevisionState.READY)]},
        {"revisions": [_held(leases=1)]},
        {"store_id": "store-2"},
        {"boot_id": "boot-2"},
        {"disk_healthy": False},
        {"lazy": LazyReport(lacks=("resend",), since=1.0)},
        {"wanted": [WantedReport(namespace="n", model_cache="m", model_cache_uid="u", since=1.0)]},
    ],
)
def test_what_somebody_acts_on_is_a_transition(change):
    assert is_transition(_status(), _status(**change))


def test_the_first_report_is_a_transition():
    assert is_transition(None, _status())


def test_more_than_an_object_holds_is_cut_to_what_matters_most():
    in_use = _held(999_999, leases=1)
    recent = [_held(n, last_used_at=float(n)) for n in range(1, MAX_MODELS + 50)]
    proofs = [
        ProofReport(
            namespace="n",
            model_cache="m",
            model_cache_uid="u",
            request="r",
            revision=_revision(n),
            at=float(n),
        )
        for n in range(MAX_PROOFS + 5)
    ]
    wanted = [
        WantedReport(namespace="n", model_cache=f"m{n}", model_cache_uid="u", since=float(-n))
        for n in range(MAX_WANTED + 5)
    ]
    status = _status(revisions=[*recent, in_use], proofs=proofs, wanted=wanted)
    assert len(status.models) == MAX_MODELS
    kept = {model.revision for model in status.models}
    assert in_use.revision in kept
    assert _revision(1) not in kept
    assert len(status.proofs) == MAX_PROOFS
    assert min(proof.at.timestamp() for proof in status.proofs) == 5.0
    assert len(status.wanted) == MAX_WANTED
    assert status.wanted[0].model_cache == f"m{MAX_WANTED + 4}"


def test_a_message_longer_than_the_schema_allows_is_cut():
    assert len(_status(revisions=[_held(message="x" * 5000)]).models[0].message) == 1024


@pytest.mark.parametrize(
    ("lacks", "status", "reason", "words"),
    [
        ((), "False", "Ready", "nothing is lacking"),
        (("passthrough", "resend"), "True", "KernelLacksFeatures", "passthrough, resend"),
        (("fuse",), "True", "KernelLacksFeatures", "makes no lazy mounts"),
    ],
)
def test_what_a_kernel_lacks_for_lazy_mounts_is_a_condition(lacks, status, reason, words):
    (condition,) = _status(lazy=LazyReport(lacks=lacks, since=60.0)).wire()["conditions"]
    assert words in condition.pop("message")
    assert condition == {
        "type": "LazyMountsLimited",
        "status": status,
        "reason": reason,
        "lastTransitionTime": "1970-01-01T00:01:00Z",
    }


def test_of_a_kernel_that_no_plugin_has_looked_at_nothing_is_said():
    assert _status().conditions == ()
