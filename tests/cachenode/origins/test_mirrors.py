"""Mirrors of a source: tried in order, and good only if they have the very files."""

import os
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.errors import InvalidSourceError
from modelcache_api.messages import Hello
from modelcache_node.patience import Patience
from modelcache_node.prefetching import AgentAddress, Prefetch
from support.agent_process import agent_home
from support.faults import Corrupted, Fault, Status
from support.local_node import running_node
from support.origins.hub import hub_store

pytestmark = [pytest.mark.looptime(False), pytest.mark.timeout(180)]

FILES = {"config.json": b"{}", "model.safetensors": os.urandom(2 * CHUNK_BYTES + 1000)}
AWAY = Status(503, b"", (("Retry-After", "0"),))


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """A source and two mirrors of it."""
    with ExitStack() as stack:
        yield [stack.enter_context(hub_store(tmp_path_factory.mktemp("hub"))) for _ in range(3)]


@pytest.fixture
def source(hubs):
    for hub in hubs:
        hub.new_source()
        hub.proxy.reset()
        for path, data in FILES.items():
            hub.put(path, data)
    return hubs[0]


@pytest.fixture
def mirrors(source, hubs):
    return hubs[1:]


@pytest.fixture
def ca_file(hubs, tmp_path):
    """The authorities of all three."""
    pems = [hub.options().ca_file.read_text() for hub in hubs]
    (tmp_path / "ca.pem").write_text("".join(pems))
    return tmp_path / "ca.pem"


@pytest.fixture
async def node():
    with agent_home() as home:
        async with running_node(home) as started:
            yield started


@pytest.fixture
def prefetch(node, source, mirrors, ca_file):
    def made(give_up_s=60.0, **given):
        return Prefetch(
            replace(source.options(), ca_file=ca_file),
            AgentAddress(socket=node.socket),
            Hello(
                namespace=given.pop("namespace", ""),
                model_cache="model",
                ca_pem=ca_file.read_text(),
                renews=given.pop("renews", None),
            ),
            on_progress=lambda _: None,
            patience=Patience(give_up_s, clock=time.monotonic),
            mirrors=[replace(one.options(), ca_file=ca_file) for one in mirrors],
            **given,
        )

    return made


def files_of(node, revision):
    tree = node.tree(revision)
    return {
        str(one.relative_to(tree)): one.read_bytes() for one in tree.rglob("*") if one.is_file()
    }


def away(hub):
    hub.proxy.refusal = lambda _: AWAY


async def test_promise_a_mirror_has_the_very_files__the_first_is_read_and_no_other(
    node, prefetch, source, mirrors
):
    done = await prefetch().run()
    assert files_of(node, done.revision) == FILES
    assert mirrors[0].proxy.asked
    assert not source.proxy.asked
    assert not mirrors[1].proxy.asked


async def test_promise_a_mirror_has_the_very_files__whichever_serves_it_is_one_revision(
    node, prefetch, source, mirrors
):
    revisions = set()
    for gone in ([], mirrors[:1], mirrors):
        for hub in gone:
            away(hub)
        revisions.add((await prefetch().run()).revision)
    assert len(revisions) == 1
    assert source.proxy.asked, "the source itself was the last to be tried"
    assert source.proxy.body_bytes < CHUNK_BYTES, "and had nothing to send but its proof"


async def test_a_mirror_that_ends_in_mid_fetch_is_followed_by_the_next(
    node, prefetch, source, mirrors
):
    first, second = (one.proxy for one in mirrors)
    first.script(*[Fault()] * 6)  # two requests per object that is looked at, and for a chunk
    first.always(AWAY)
    done = await prefetch(give_up_s=4.0).run()
    assert files_of(node, done.revision) == FILES
    assert first.body_bytes >= CHUNK_BYTES
    assert second.body_bytes < sum(map(len, FILES.values())), "what the first had sent was kept"


async def test_promise_a_mirror_has_the_very_files__wrong_bytes_are_not_taken(
    node, prefetch, mirrors
):
    mirrors[0].proxy.script(*[Fault()] * 4)
    mirrors[0].proxy.always(Corrupted())
    done = await prefetch().run()
    assert files_of(node, done.revision) == FILES
    assert mirrors[1].proxy.body_bytes > CHUNK_BYTES


async def test_promise_a_mirror_has_the_very_files__one_that_lags_behind_is_left(
    node, prefetch, source, mirrors
):
    resolved = (await prefetch().run()).revision
    for hub in mirrors:
        hub.put("config.json", b"{}of yesterday")
        hub.proxy.reset()
    done = await prefetch(resolved=resolved).run()
    assert done.revision == resolved
    assert source.proxy.asked


async def test_when_all_fail_the_sources_own_failure_is_told(prefetch, source, mirrors):
    for hub in mirrors:
        away(hub)
    source.proxy.refusal = lambda _: Status(404, b"", (("X-Error-Code", "RepoNotFound"),))
    with pytest.raises(InvalidSourceError, match="does not exist"):
        await prefetch().run()


async def test_access_is_proved_at_a_mirror_too(prefetch, source, mirrors):
    revision = (await prefetch().run()).revision
    away(mirrors[0])
    await prefetch(renews=revision).prove()
    assert not source.proxy.asked
    assert mirrors[1].proxy.asked


async def test_when_all_were_away_the_first_mirror_is_the_first_again(
    node, prefetch, source, mirrors
):
    first = mirrors[0].proxy

    def first_is_back(_):
        first.refusal = None
        return AWAY

    away(mirrors[0])
    away(mirrors[1])
    source.proxy.refusal = first_is_back
    done = await prefetch().run()
    assert files_of(node, done.revision) == FILES
    assert first.asked


async def test_another_namespace_shares_no_blob_that_is_known_by_a_mirrors_name(
    prefetch, source, mirrors
):
    """A namespace says itself what its source is: a lie must poison nobody else's blob."""
    ours = (await prefetch().run()).revision
    theirs = (await prefetch(namespace="rival").run()).revision
    assert ours != theirs
