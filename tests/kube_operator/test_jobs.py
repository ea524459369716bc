"""Prefetch Jobs: names, pauses, shape."""

import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from modelcache_api.model_cache import ModelCache
from modelcache_operator.planning.job_arguments import JobSettings, JobWish
from modelcache_operator.planning.jobs import (
    TTL_AFTER_FINISHED,
    job_manifest,
    job_name,
    next_try_at,
)
from modelcache_operator.planning.observed import JobState, parse_job, parse_node
from support.cluster_objects import REVISION, START, after, finish_job, model_cache, node, stamp

SETTINGS = JobSettings(
    image="registry.example/modelcache:1",
    image_pull_policy="IfNotPresent",
    image_pull_secrets=(),
    agent_url="https://10.96.0.7:7443",
    agent_ca_pem="PEM",
)
WISH = JobWish("n1", "r" * 20, 1)
NODE = parse_node(node("n1"))


def _manifest(node=NODE, settings=SETTINGS, **changes):
    found = ModelCache.model_validate(model_cache(**changes))
    return job_manifest(found, WISH, node, settings)


def _pod(**changes):
    return _manifest(**changes)["spec"]["template"]["spec"]


def _args(**changes):
    return _pod(**changes)["containers"][0]["args"]


def _job(attempt=1, *, reason=None):
    found = ModelCache.model_validate(model_cache())
    body = job_manifest(found, replace(WISH, attempt=attempt), NODE, SETTINGS)
    body["metadata"] |= {"uid": "j", "creationTimestamp": stamp(START)}
    return parse_job(finish_job(body, after(60), reason=reason))


@given(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True), st.integers(1, 999))
def test_a_name_is_a_label_for_every_name_a_user_may_give(name, attempt):
    found = ModelCache.model_validate(model_cache(name))
    made = job_name(found, replace(WISH, attempt=attempt))
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", made)
    assert len(made) <= 60, "pods add six characters, and are cut beyond 63"


def test_the_same_work_has_the_same_name_and_other_work_another():
    found = ModelCache.model_validate(model_cache())
    again = ModelCache.model_validate(model_cache(uid="uid-2"))
    wishes = [WISH, replace(WISH, node="n2"), replace(WISH, request="q"), replace(WISH, attempt=2)]
    made = [job_name(found, wish) for wish in wishes]
    assert len({*made, job_name(again, WISH)}) == 5
    assert made == [job_name(found, wish) for wish in wishes]


def test_pauses_double_and_end_at_an_hour():
    for reason in (None, "PodFailurePolicy", "BackoffLimitExceeded"):
        pauses = [
            next_try_at(_job(attempt, reason=reason), is_wanted=False) - after(60)
            for attempt in range(1, 30)
        ]
        assert pauses == sorted(pauses)
        assert pauses[-1] == timedelta(hours=1)
        assert pauses[1] == 2 * pauses[0]


def test_a_bad_source_waits_longer_than_a_bad_moment():
    bad_source = next_try_at(_job(reason="PodFailurePolicy"), is_wanted=True)
    assert bad_source > next_try_at(_job(reason="BackoffLimitExceeded"), is_wanted=True)


def test_what_a_node_evicted_comes_back_at_once_only_where_a_pod_waits():
    assert next_try_at(_job(9), is_wanted=True) < after(120)
    assert next_try_at(_job(9), is_wanted=False) > after(3000)


def test_the_last_attempt_is_there_to_be_counted_from():
    assert next_try_at(_job(99, reason="x"), is_wanted=False) - after(60) < TTL_AFTER_FINISHED


def test_a_job_reads_back_as_what_was_wished():
    job = _job(3)
    assert (job.node, job.request, job.attempt) == ("n1", WISH.request, 3)
    assert (job.model_cache, job.model_cache_uid) == ("llama", "uid-of-llama")
    assert job.state is JobState.SUCCEEDED
    assert job.finished_at == after(60)


def test_a_running_pod_makes_a_running_job():
    body = _manifest() | {"status": {"active": 1, "ready": 1}}
    body["metadata"] |= {"uid": "j", "creationTimestamp": stamp(START)}
    assert parse_job(body).state is JobState.RUNNING
    assert parse_job(body | {"status": {"active": 1, "ready": 0}}).state is JobState.PENDING


def test_a_job_runs_on_its_node_whatever_its_taints():
    taints = [
        {"key": "nvidia.com/gpu", "effect": "NoSchedule"},
        {"key": "team", "effect": "NoExecute", "value": "a"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
    ]
    pod = _pod(node=parse_node(node("n1", taints=taints)))
    term = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["n1"]
    assert {"operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert {"key": "team", "operator": "Exists", "effect": "NoExecute"} in pod["tolerations"]
    assert "unreachable" not in json.dumps(pod["tolerations"])


def test_a_pod_passes_the_restricted_standard_and_a_resource_quota():
    pod = _pod()
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["requests"]) == set(container["resources"]["limits"])
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    kinds = {next(key for key in volume if key != "name") for volume in pod["volumes"]}
    assert kinds <= {"projected", "emptyDir", "secret", "configMap"}


def test_a_pod_gets_no_token_but_the_agents():
    pod = _pod()
    assert pod["automountServiceAccountToken"] is False
    (agent,) = (volume for volume in pod["volumes"] if volume["name"] == "agent")
    token, ca = agent["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == "agent.modelcache.io"
    assert ca["downwardAPI"]["items"][0]["path"] == "ca.crt"
    annotations = _manifest()["spec"]["template"]["metadata"]["annotations"]
    assert annotations["modelcache.io/agent-ca"] == "PEM"


def test_a_mesh_puts_no_sidecar_into_it():
    meta = _manifest()["spec"]["template"]["metadata"]
    assert meta["labels"]["sidecar.istio.io/inject"] == "false"
    assert meta["annotations"]["linkerd.io/inject"] == "disabled"


def test_a_bad_source_ends_the_job_and_an_eviction_does_not_count():
    fail, ignore = _manifest()["spec"]["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailJob"
    assert 42 in fail["onExitCodes"]["values"]
    assert ignore == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert _pod()["restartPolicy"] == "Never", "a failure policy needs it"


def test_no_owner_takes_a_job_away_from_a_waiting_pod():
    assert "ownerReferences" not in _manifest()["metadata"]


def test_the_command_says_what_is_asked_and_of_whom():
    args = _args(
        source={
            "endpoint": "https://store:9000",
            "region": "eu-1",
            "include": ["*.safetensors"],
            "exclude": ["-odd"],
        }
    )
    assert args[:2] == ["prefetch", "s3://models/llama"]
    assert "--agent=https://10.96.0.7:7443" in args
    assert "--agent-server-name=agent.modelcache.io" in args
    assert f"--request={WISH.request}" in args
    assert "--model-cache-uid=uid-of-llama" in args
    assert "--endpoint=https://store:9000" in args
    assert "--region=eu-1" in args
    assert "--include=*.safetensors" in args
    assert "--exclude=-odd" in args


def test_each_kind_of_credentials_reaches_the_pod_and_only_it():
    secret = {"credentials": {"secretRef": {"name": "s3"}}}
    account = {"credentials": {"serviceAccountName": "reader"}}
    anonymous = {"credentials": {"anonymous": True}}
    assert "--credentials-dir=/var/run/modelcache/credentials" in _args(source=secret)
    assert "credentials" in {volume["name"] for volume in _pod(source=secret)["volumes"]}
    assert _pod(source=account)["serviceAccountName"] == "reader"
    assert "--anonymous" in _args(source=anonymous)
    for source in (account, anonymous):
        assert "credentials" not in {volume["name"] for volume in _pod(source=source)["volumes"]}
    for source in (secret, anonymous):
        assert "serviceAccountName" not in _pod(source=source)


def test_what_the_administrator_trusts_is_brought_to_the_job():
    settings = replace(SETTINGS, authorities_pem="CORP")
    assert "--also-trust=/var/run/modelcache/agent/authorities.crt" in _args(settings=settings)
    template = _manifest(settings=settings)["spec"]["template"]
    assert template["metadata"]["annotations"]["modelcache.io/authorities"] == "CORP"
    [agent] = [one for one in template["spec"]["volumes"] if one["name"] == "agent"]
    items = agent["projected"]["sources"][1]["downwardAPI"]["items"]
    assert [one["path"] for one in items] == ["ca.crt", "authorities.crt"]
    assert not any(one.startswith("--also-trust") for one in _args())


def test_jobs_are_told_of_mirrors_and_of_what_these_must_have():
    mirrors = '[{"source":"s3://models/","mirrors":[{"uri":"s3://models-eu/"}]}]'
    settings = replace(SETTINGS, mirrors=mirrors)
    assert f"--mirrors={mirrors}" in _args(settings=settings)
    status = {"request": WISH.request, "revision": REVISION}
    assert f"--resolved={REVISION}" in _args(settings=settings, status=status)
    for known in ({"request": "of before", "revision": REVISION}, None):
        assert not any("--resolved" in one for one in _args(settings=settings, status=known))
    assert not any(one.startswith(("--mirrors", "--resolved")) for one in _args(status=status))


def test_a_private_ca_is_mounted_from_the_users_config_map():
    source = {"caConfigMapRef": {"name": "corp", "key": "bundle.pem"}}
    assert "--ca-file=/var/run/modelcache/source-ca/ca.crt" in _args(source=source)
    (volume,) = (v for v in _pod(source=source)["volumes"] if v["name"] == "source-ca")
    assert volume["configMap"] == {
        "name": "corp",
        "items": [{"key": "bundle.pem", "path": "ca.crt"}],
    }


@pytest.mark.parametrize("names", [(), ("pull-1",)])
def test_pull_secrets_are_named_where_the_administrator_says_so(names):
    pod = _pod(settings=replace(SETTINGS, image_pull_secrets=names))
    assert [secret["name"] for secret in pod.get("imagePullSecrets", [])] == list(names)
