"""Access that was withdrawn: cached bytes must not outlive the right to read their source.

The class of Spegel #167 and #1432, and of Kubernetes' KEP-2535: a cache in front of authenticated
content that asks once, or never.
"""

import json
import sqlite3
from datetime import UTC, datetime

import pytest

from modelcache_api.errors import InvalidSourceError, SourceChangedError
from modelcache_api.messages import Hello, LeaseState
from modelcache_api.reasons import Reason
from modelcache_node.store.index import Index
from support.agent_process import Agent, agent_home, run_cli
from support.caches import Clock, listing_of, open_node

MAX_AGE_S = 3600.0


@pytest.fixture
async def node(tmp_path):
    async with open_node(tmp_path / "data", Clock(), proof_max_age_s=MAX_AGE_S) as found:
        yield found


async def test_promise_withdrawn_access_stops_new_mounts(node, source):
    """Stale authorisation (Spegel #167): after the interval a complete model is refused."""
    revision = (await node.prefetch(source, "team")).revision
    assert (await node.lease("team", "v1")).state is LeaseState.READY
    node.clock.now += MAX_AGE_S + 1
    answer = await node.lease("team", "v2")
    assert (answer.state, answer.reason) == (LeaseState.WAITING, Reason.PROOF_EXPIRED)
    assert "3601 s ago" in answer.message
    assert (await node.lease("team", "v3", revision=revision)).reason is Reason.PROOF_EXPIRED
    assert [pod.namespace for pod in node.cache.report().wanted] == ["team", "team"]


async def test_what_is_mounted_stays_mounted(node, source):
    """Stale authorisation: a running pod keeps its lease; only new mounts are refused."""
    revision = (await node.prefetch(source, "team")).revision
    await node.lease("team", "v1")
    node.clock.now += 100 * MAX_AGE_S
    [held] = [one for one in node.cache.report().revisions if one.revision == revision]
    assert held.leases == 1


async def test_a_renewal_makes_new_mounts_possible_again_and_fetches_nothing(node, source):
    revision = (await node.prefetch(source, "team")).revision
    node.clock.now += MAX_AGE_S + 1
    before = node.cache.metrics()["received_bytes_total"]
    assert await node.renew(source, "team", revision) == revision
    assert node.cache.metrics()["received_bytes_total"] - before <= len(source.files())
    assert (await node.lease("team")).state is LeaseState.READY


async def test_a_renewal_needs_every_object(node, source):
    """Partial access is none: one object that is denied renews nothing."""
    revision = (await node.prefetch(source, "team")).revision
    node.clock.now += MAX_AGE_S + 1
    objects = await listing_of(source)
    (source.folder / "config.json").unlink()
    with pytest.raises((InvalidSourceError, SourceChangedError)):
        await node.cache.renew(_renewing("team", revision), objects)
    assert (await node.lease("team")).reason is Reason.PROOF_EXPIRED


async def test_a_changed_source_still_proves_access_to_what_it_was(node, source):
    revision = (await node.prefetch(source, "team")).revision
    node.clock.now += MAX_AGE_S + 1
    source.write("config.json", b'{"layers": 3}')
    source.write("more.safetensors", b"new")
    assert await node.renew(source, "team", revision) == revision
    answer = await node.lease("team")
    assert (answer.state, answer.revision) == (LeaseState.READY, revision)


async def test_a_changed_source_that_lost_a_file_proves_nothing_of_what_it_was(node, source):
    """Partial access: a forged listing that leaves out what is denied renews nothing."""
    revision = (await node.prefetch(source, "team")).revision
    (source.folder / "weights.safetensors").unlink()
    with pytest.raises(SourceChangedError, match=r"weights\.safetensors"):
        await node.renew(source, "team", revision)


async def test_another_place_renews_nothing(node, source):
    """Confused deputy: names that match, read from a store of one's own, prove no access."""
    revision = (await node.prefetch(source, "team")).revision
    for path, content in source.files().items():
        source.write(f"../mine/{path}", content + b"!")
    objects = await listing_of(source, "s3://models/mine")
    with pytest.raises(SourceChangedError, match="cannot tell"):
        await node.cache.renew(_renewing("team", revision), objects)


async def test_another_namespace_s_renewal_is_not_ours(node, source):
    revision = (await node.prefetch(source, "team")).revision
    node.clock.now += MAX_AGE_S + 1
    with pytest.raises(SourceChangedError):  # over plain HTTP it is another revision, too
        await node.renew(source, "rival", revision)
    assert (await node.lease("team")).reason is Reason.PROOF_EXPIRED


async def test_another_node_s_renewal_counts_and_makes_no_proof(node, source):
    """The operator passes renewals on: they extend a proof, and never stand in for one."""
    revision = (await node.prefetch(source, "team")).revision
    node.clock.now += MAX_AGE_S + 1
    at = datetime.fromtimestamp(node.clock.now, UTC)
    await node.follow(
        renewals=[{"namespace": name, "revision": revision, "at": at} for name in ("team", "rival")]
    )
    assert (await node.lease("team")).state is LeaseState.READY
    assert (await node.lease("rival", revision=revision)).reason is Reason.NOT_PROVED


async def test_a_renewal_from_the_future_counts_from_now(node, source):
    """A forged or skewed time buys no more than the interval."""
    revision = (await node.prefetch(source, "team")).revision
    at = datetime.fromtimestamp(node.clock.now + 1000 * MAX_AGE_S, UTC)
    await node.follow(renewals=[{"namespace": "team", "revision": revision, "at": at}])
    node.clock.now += MAX_AGE_S + 1
    assert (await node.lease("team")).reason is Reason.PROOF_EXPIRED


async def test_a_proof_of_a_clock_that_was_far_ahead_does_not_count(node, source):
    await node.prefetch(source, "team")
    node.clock.now -= MAX_AGE_S
    assert (await node.lease("team")).reason is Reason.PROOF_EXPIRED


async def test_proofs_and_renewals_survive_a_restart(tmp_path, source):
    clock = Clock()
    async with open_node(tmp_path / "data", clock, proof_max_age_s=MAX_AGE_S) as node:
        revision = (await node.prefetch(source, "team")).revision
        clock.now += MAX_AGE_S / 2
        await node.renew(source, "team", revision)
    clock.now += MAX_AGE_S - 1
    async with open_node(tmp_path / "data", clock, proof_max_age_s=MAX_AGE_S) as node:
        assert (await node.lease("team", "v1")).state is LeaseState.READY
        clock.now += 2
        assert (await node.lease("team", "v2")).reason is Reason.PROOF_EXPIRED


def test_a_database_of_version_1_keeps_its_proofs(tmp_path):
    path = tmp_path / "state.db"
    Index.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE proofs DROP COLUMN root")
        db.execute("ALTER TABLE proofs DROP COLUMN renewed_at")
        db.execute("ALTER TABLE proofs DROP COLUMN provisional")
        db.execute("INSERT INTO proofs VALUES ('team', 'm', 'uid', 'r', 'sha256:a', 7.0)")
        db.execute("PRAGMA user_version = 1")
    db.close()
    index = Index.open(path)
    [proof] = index.proofs
    assert (proof.namespace, proof.checked_at, proof.root) == ("team", 7.0, "")
    index.close()


def test_the_command_line_proves_and_tells_what_it_could_not(source):
    with agent_home() as home:
        agent = Agent(home, "--proof-max-age", "0")
        agent.start()
        try:
            reach = ("--socket", agent.socket, "--namespace", "team", "--anonymous")
            done = run_cli(
                *("prefetch", *source.flags, "--json", "--model-cache", "model"), *reach[:-1]
            )
            revision = json.loads(done.stdout)["revision"]
            assert agent.lease("v1", namespace="team")["reason"] == "ProofExpired"
            before = _renewed_at(agent)
            wish = {
                "uri": "s3://models/model",
                "endpoint": source.endpoint.url,
                "modelCache": "model",
                "renews": revision,
            }
            proved = run_cli("prove", "--source", json.dumps(wish), *reach)
            assert json.loads(proved.stdout) == {"proved": 1, "failed": 0}, proved.stderr
            assert _renewed_at(agent) > before
            wrong = {**wish, "uri": "s3://models/other", "modelCache": "other"}
            both = [f"--source={json.dumps(one)}" for one in (wrong, wish)]
            failed = run_cli("prove", *both, *reach)
            assert json.loads(failed.stdout) == {"proved": 1, "failed": 1}
            assert failed.returncode == 42
            assert "other:" in failed.stderr
        finally:
            agent.stop()


def _renewed_at(agent):
    return max(max(p["at"], p["renewedAt"]) for p in agent.ask("GET", "/v1/status")[1]["proofs"])


def _renewing(namespace, revision):
    return Hello(namespace=namespace, model_cache="model", renews=revision)
