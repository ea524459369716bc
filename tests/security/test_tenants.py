"""Confused deputy between namespaces: what is one tenant's does nothing for another.

The class of CVE-2026-39961 (a Secret of another namespace, named in an object of one's own) and of
Spegel #167 (cached content for who may not read its source).
"""

import json

import pytest
from pydantic import ValidationError

from modelcache_api.messages import Hello, LeaseState
from modelcache_api.model_cache import ModelCache
from modelcache_api.reasons import Reason
from modelcache_api.source import ConfigMapKeyRef, SecretRef
from modelcache_node.caching.sessions import serve_session
from modelcache_operator.planning.job_arguments import JobSettings, JobWish
from modelcache_operator.planning.jobs import job_manifest
from modelcache_operator.planning.observed import NodeView
from support.caches import Clock, Port, listing_of, open_node
from support.cluster_objects import model_cache

NODE = NodeView("n1", "u", {}, (), "b", is_linux=True, not_ready_since=None)
SETTINGS = JobSettings("image", "IfNotPresent", (), "https://10.96.0.7:7441", "PEM")


@pytest.mark.parametrize("name", ["rival/s3", "../rival/s3", "S3", ""])
def test_cross_namespace_secret(name):
    """Cross-namespace secret (CVE-2026-39961): a reference is a plain name and nothing else."""
    body = model_cache()
    body["spec"]["source"]["credentials"] = {"secretRef": {"name": name}}
    with pytest.raises(ValidationError):
        ModelCache.model_validate(body)
    assert set(SecretRef.model_fields) == set(ConfigMapKeyRef.model_fields) - {"key"} == {"name"}


def test_a_job_runs_where_its_model_cache_is_and_reads_that_namespace_s_secret():
    """Cross-namespace secret: the kubelet mounts Secrets of the Job's own namespace only."""
    job = job_manifest(
        ModelCache.model_validate(model_cache(namespace="team")),
        JobWish("n1", "r", 1),
        NODE,
        SETTINGS,
    )
    assert job["metadata"]["namespace"] == "team"
    [secret] = [v["secret"] for v in job["spec"]["template"]["spec"]["volumes"] if "secret" in v]
    assert secret == {"secretName": "s3", "defaultMode": 0o440}
    assert "namespace" not in json.dumps(job["spec"])


async def test_guessing_what_another_namespace_has_gives_nothing(tmp_path, source):
    """Foreign digest, ModelCache name, uid: knowing them all opens nothing."""
    async with open_node(tmp_path / "data", Clock()) as node:
        hello = {"model_cache_uid": "uid-of-llama", "request": "r1"}
        revision = (await node.prefetch(source, "team", **hello)).revision
        for wish in (
            {"revision": revision},
            {"model_cache_uid": "uid-of-llama"},
            {"model_cache": "model"},
            {"model_cache": "model", "model_cache_uid": "uid-of-llama", "revision": revision},
        ):
            answer = await node.lease("rival", **wish)
            assert (answer.state, answer.reason) == (LeaseState.WAITING, Reason.NOT_PROVED)
            assert answer.revision is None
            assert answer.tree is None
        assert (await node.lease("team", "v2")).state is LeaseState.READY


async def test_a_session_is_of_its_token_s_namespace_whatever_it_says(tmp_path, source):
    """A forged Job: Hello's namespace is not listened to where a token names one."""
    async with open_node(tmp_path / "data", Clock()) as node:
        port = Port(Hello(namespace="team", model_cache="model"), await listing_of(source))
        await serve_session(port, node.cache, namespace="rival")
        assert {proof.namespace for proof in node.cache.report().proofs} == {"rival"}
        assert (await node.lease("team")).state is LeaseState.WAITING
