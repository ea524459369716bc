"""Why a Job failed, or does not start, from its pods and events.

A pod's termination message is written by a tenant's pod: what is taken from it is cut, cleaned
and only shown.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelcache_api.reasons import Reason
from modelcache_operator.planning.observed import JobState, JobView, Said

#: Characters of somebody else's text that are shown.
_MAX_SHOWN = 400


def explain(
    job: JobView, pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]
) -> Said | None:
    """What to show of `job`; None: nothing to say.

    Args:
        job: A Job that failed, or that has no running pod.
        pods: Its pods.
        events: Events about it and its pods, the newest last.
    """
    ended = _last_ended(pods)
    if job.state is JobState.FAILED:
        return ended or Said(Reason.JOB_FAILED, _newest_warning(events) or "the Job failed")
    if not pods:
        return Said(Reason.JOB_PENDING, _newest_warning(events) or "the Job has no pod yet")
    waiting = [pod for pod in pods if pod.get("status", {}).get("phase") == "Pending"]
    if waiting:
        message = _unscheduled(waiting[-1]) or _newest_warning(events) or _stuck(waiting[-1])
        return Said(Reason.JOB_PENDING, message)
    return ended


def said(text: str) -> Said:
    """A termination message as `modelcache prefetch` writes it, or any other text."""
    try:
        words = json.loads(text)
        return Said(Reason(words["reason"]), shown(str(words["message"])))
    except (ValueError, KeyError, TypeError):
        return Said(Reason.JOB_FAILED, shown(text) or "the Job's pod failed without a word")


def shown(text: str) -> str:
    """`text` on one line, without control characters, cut."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return clean if len(clean) <= _MAX_SHOWN else clean[: _MAX_SHOWN - 1] + "…"


def _last_ended(pods: Sequence[Mapping[str, Any]]) -> Said | None:
    found: list[tuple[str, str]] = []
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses") or ():
            ended = container.get("state", {}).get("terminated")
            if ended and ended.get("exitCode") != 0:
                text = ended.get("message") or f"exit code {ended.get('exitCode')}"
                found.append((ended.get("finishedAt") or "", text))
    return said(max(found)[1]) if found else None


def _newest_warning(events: Sequence[Mapping[str, Any]]) -> str:
    warnings = [event for event in events if event.get("type") == "Warning"]
    return shown(warnings[-1].get("message") or "") if warnings else ""


def _unscheduled(pod: Mapping[str, Any]) -> str:
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return shown(f"not scheduled: {condition.get('message') or 'no reason given'}")
    return ""


def _stuck(pod: Mapping[str, Any]) -> str:
    for container in pod.get("status", {}).get("containerStatuses") or ():
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason"):
            return shown(f"{waiting['reason']}: {waiting.get('message') or 'starting'}")
    return "the Job's pod is starting"
