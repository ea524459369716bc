"""Which Jobs are made and deleted, and when."""

from dataclasses import replace

import pytest

from modelcache_api.model_cache import ModelCache
from modelcache_operator.planning.assessing import lack_of_room
from modelcache_operator.planning.fetching import plan_resolving, plan_tidying
from modelcache_operator.planning.observed import (
    JobState,
    JobView,
    Observed,
    parse_cache_node,
    parse_node,
)
from modelcache_operator.planning.reconcile import plan, plan_gone
from modelcache_operator.planning.requests import request_of
from support.cluster_objects import (
    OTHER_REVISION,
    REVISION,
    SIZE_BYTES,
    after,
    cache_node,
    held,
    model_cache,
    node,
    proof,
    wanted,
)

LLAMA = ModelCache.model_validate(model_cache())
REQUEST = request_of(LLAMA)
NAMES = ("n1", "n2", "n3", "n4", "n5")


def _job(node_name="n1", state=JobState.PENDING, attempt=1, created_s=0.0, **fields):
    found = JobView(
        namespace="team",
        name=f"mc-{node_name}-{attempt}",
        uid=f"u-{node_name}-{attempt}",
        model_cache="llama",
        model_cache_uid="uid-of-llama",
        node=node_name,
        request=REQUEST,
        attempt=attempt,
        state=state,
        created_at=after(created_s),
    )
    return replace(found, **fields)


def _seen(*jobs, now_s=0.0, caches=None):
    beats = {name: cache_node(name) for name in NAMES} | (caches or {})
    for body in beats.values():
        body["status"]["heartbeatAt"] = after(now_s).isoformat()
    return Observed(
        model_cache=LLAMA,
        nodes={name: parse_node(node(name)) for name in NAMES},
        caches={name: parse_cache_node(body) for name, body in beats.items()},
        jobs=jobs,
        now=after(now_s),
    )


def _resolve(*jobs, now_s=0.0, is_wanted=False):
    return plan_resolving(_seen(*jobs, now_s=now_s), REQUEST, NAMES, jobs, is_wanted=is_wanted)


def test_the_first_candidate_lists_first():
    (wish,) = _resolve().create
    assert (wish.node, wish.attempt) == ("n1", 1)


def test_a_job_that_hangs_on_one_node_has_another_tried():
    hanging = _job("n1")
    assert _resolve(hanging, now_s=60).create == ()
    assert _resolve(hanging, now_s=60).again_at == after(120)
    (wish,) = _resolve(hanging, now_s=121).create
    assert (wish.node, wish.attempt) == ("n2", 2)


def test_a_job_that_runs_may_take_as_long_as_it_takes():
    assert _resolve(_job("n1", JobState.RUNNING), now_s=100_000).create == ()


def test_where_nothing_starts_no_more_than_three_hang():
    hanging = [_job(name, attempt=n) for n, name in enumerate(("n1", "n2", "n3"), start=1)]
    assert _resolve(*hanging, now_s=10_000).create == ()


def test_after_a_failure_the_next_node_is_tried_after_a_pause():
    failed = _job("n1", JobState.FAILED, finished_at=after(5))
    assert _resolve(failed, now_s=6).create == ()
    (wish,) = _resolve(failed, now_s=60).create
    assert (wish.node, wish.attempt) == ("n2", 2)


def test_a_node_whose_agent_is_silent_lists_nothing():
    seen = _seen(now_s=0)
    silent = replace(seen.caches["n1"], heartbeat_at=after(-1000))
    seen = replace(seen, caches={**seen.caches, "n1": silent})
    (wish,) = plan_resolving(seen, REQUEST, NAMES, (), is_wanted=False).create
    assert wish.node == "n2"


def _tidy(*jobs, now_s=10_000.0, needed=NAMES, done=()):
    return plan_tidying(
        jobs, after(now_s), is_outdated=lambda job: job.request != REQUEST, needed=needed, done=done
    )


@pytest.mark.parametrize(
    ("job", "is_deleted"),
    [
        (_job(), False),
        (_job(state=JobState.RUNNING), False),
        (_job(request="of-yesterday"), True),
        (_job(node_name="elsewhere"), True),
        (_job(node_name="elsewhere", created_s=9_999.0), False),
        (_job(state=JobState.SUCCEEDED, finished_at=after(5)), False),
        (_job("n2", JobState.SUCCEEDED, finished_at=after(5)), True),
        (_job("n2", JobState.SUCCEEDED, finished_at=after(9_999)), False),
        (_job("n2", JobState.FAILED, finished_at=after(5)), False),
        (_job(state=JobState.FAILED, request="of-yesterday", finished_at=after(5)), False),
        (_job(request="of-yesterday", is_deleted=True), False),
    ],
)
def test_what_is_not_needed_any_more_is_deleted_and_what_failed_is_kept_to_count(job, is_deleted):
    assert bool(_tidy(job, done=("n2",)).delete) is is_deleted


def test_the_job_of_a_model_cache_that_is_gone_lives_while_a_pod_waits():
    key, jobs = ("team", "llama"), [_job("n1", JobState.RUNNING), _job("n2", JobState.RUNNING)]
    waiting = parse_cache_node(cache_node("n1", wanted=[wanted()]))
    caches = {"n1": waiting, "n2": parse_cache_node(cache_node("n2"))}
    assert [job.node for job in plan_gone(key, jobs, caches, after(1000)).delete] == ["n2"]
    early = plan_gone(key, jobs, caches, after(10))
    assert early.delete == ()
    assert early.again_at == after(300)


def test_until_the_new_request_is_resolved_the_old_ones_jobs_go_on():
    running = _job("n1", JobState.RUNNING, request="of-yesterday")
    assert plan(_seen(running, now_s=10)).delete == ()
    resolved = cache_node("n2")
    resolved["status"] |= {"models": [held()], "proofs": [proof(REQUEST)]}
    found = plan(_seen(running, now_s=10, caches={"n2": resolved}))
    assert [job.name for job in found.delete] == [running.name]


def test_a_job_of_an_earlier_namesake_is_deleted():
    stranger = _job("n1", JobState.RUNNING, model_cache_uid="uid-of-an-earlier-one")
    assert [job.uid for job in plan(_seen(stranger, now_s=10)).delete] == [stranger.uid]


def _cache(**status):
    body = cache_node("n1")
    body["status"] |= {"capacityBytes": 3 * SIZE_BYTES} | status
    return parse_cache_node(body)


@pytest.mark.parametrize(
    ("cache", "fits"),
    [
        (_cache(), True),
        (_cache(usedBytes=2 * SIZE_BYTES), True),
        (_cache(usedBytes=2 * SIZE_BYTES + 1), False),
        (_cache(usedBytes=SIZE_BYTES, reservedBytes=SIZE_BYTES + 1), False),
        (_cache(usedBytes=3 * SIZE_BYTES, models=[held(OTHER_REVISION)]), True),
    ],
)
def test_a_model_needs_room_that_is_free(cache, fits):
    assert (lack_of_room(cache, REVISION, SIZE_BYTES) is None) is fits


def _full_with(other, *, wished=()):
    body = cache_node("n1", models=wished)
    body["status"] |= {
        "capacityBytes": SIZE_BYTES,
        "usedBytes": SIZE_BYTES,
        "models": [other],
    }
    return parse_cache_node(body)


def test_what_nobody_wants_makes_room():
    assert lack_of_room(_full_with(held(OTHER_REVISION)), REVISION, SIZE_BYTES) is None


@pytest.mark.parametrize(
    "full",
    [
        _full_with(held(OTHER_REVISION), wished=(OTHER_REVISION,)),
        _full_with(held(OTHER_REVISION, leases=1)),
        _full_with(held(OTHER_REVISION, pinned=True)),
    ],
)
def test_what_is_wanted_used_or_pinned_does_not(full):
    assert "can be made free" in lack_of_room(full, REVISION, SIZE_BYTES)


def test_what_is_there_already_needs_no_room_again():
    partly = _full_with(held(REVISION, "Fetching", bytesPresent=SIZE_BYTES))
    assert lack_of_room(partly, REVISION, SIZE_BYTES) is None
