"""Why a Job failed or does not start: for display, from words that a tenant can forge."""

import json

import pytest
from hypothesis import given, strategies as st

from modelcache_api.reasons import Reason
from modelcache_operator.planning.explaining import explain, said
from modelcache_operator.planning.observed import JobState, JobView
from support.cluster_objects import START


def _job(state):
    return JobView("team", "job", "u", "llama", "m", "n1", "r", 1, state, START)


def _ended(message="", exit_code=42, at="2026-01-01T00:00:00Z"):
    ended = {"exitCode": exit_code, "message": message, "finishedAt": at}
    return {"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended}}]}}


def _warning(message):
    return {"type": "Warning", "reason": "FailedCreate", "message": message}


def test_a_failed_job_speaks_in_the_words_of_its_last_pod():
    words = json.dumps({"reason": "SourceNotFound", "message": "no bucket named x"})
    pods = [_ended("first"), _ended(words, at="2026-01-01T00:00:09Z")]
    found = explain(_job(JobState.FAILED), pods, [])
    assert (found.reason, found.message) == (Reason.SOURCE_NOT_FOUND, "no bucket named x")


@pytest.mark.parametrize(
    ("text", "reason", "shows"),
    [
        ('{"reason": "NoSuchWord", "message": "x"}', Reason.JOB_FAILED, "NoSuchWord"),
        ("Traceback: boom", Reason.JOB_FAILED, "boom"),
        ("[]", Reason.JOB_FAILED, "[]"),
        ("", Reason.JOB_FAILED, "without a word"),
    ],
)
def test_other_words_are_shown_as_they_are(text, reason, shows):
    found = said(text)
    assert found.reason is reason
    assert shows in found.message


@given(st.text())
def test_no_word_of_a_tenant_is_long_or_breaks_a_line(text):
    message = said(text).message
    assert 0 < len(message) <= 400
    assert all(character.isprintable() for character in message)


def test_an_exit_without_words_shows_its_code():
    assert "137" in explain(_job(JobState.FAILED), [_ended(exit_code=137)], []).message


def test_a_quota_that_refuses_the_pod_is_named():
    events = [_warning("older"), _warning("pods is forbidden: exceeded quota: small")]
    found = explain(_job(JobState.PENDING), [], events)
    assert found.reason is Reason.JOB_PENDING
    assert "exceeded quota: small" in found.message


def test_a_pod_that_is_not_scheduled_says_why():
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: no memory"}
    pod = {"status": {"phase": "Pending", "conditions": [condition]}}
    assert "no memory" in explain(_job(JobState.PENDING), [pod], []).message


def test_a_secret_that_is_missing_is_named_by_the_event():
    pod = {"status": {"phase": "Pending"}}
    events = [_warning('MountVolume.SetUp failed: secret "s3" not found')]
    assert 'secret "s3" not found' in explain(_job(JobState.PENDING), [pod], events).message


def test_an_image_that_cannot_be_pulled_is_named_by_the_container():
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    pod = {"status": {"phase": "Pending", "containerStatuses": [{"state": waiting}]}}
    assert "ImagePullBackOff" in explain(_job(JobState.PENDING), [pod], []).message


def test_a_job_between_two_tries_says_what_the_last_one_met():
    found = explain(_job(JobState.PENDING), [_ended("connection refused", 75)], [])
    assert "connection refused" in found.message


def test_a_job_without_pods_or_events_still_says_something():
    assert explain(_job(JobState.PENDING), [], []).reason is Reason.JOB_PENDING
    assert explain(_job(JobState.FAILED), [], []).reason is Reason.JOB_FAILED
