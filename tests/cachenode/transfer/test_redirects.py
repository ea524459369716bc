"""Redirects: the bytes arrive from where they are, and a grant's headers stay where they belong."""

import os

import pytest

from modelcache_api.errors import AccessDeniedError, InvalidSourceError
from modelcache_node.transfer.addresses import parse_url
from modelcache_node.transfer.failures import RangeFailedError
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import Grant, RangeRequest
from modelcache_node.transfer.redirects import (
    MAX_HOPS,
    MAX_REMEMBERED,
    REMEMBERED_S,
    Hop,
    Ways,
    next_hop,
)
from modelcache_node.transfer.rules import NetworkRules, parse_network
from support import faults
from support.fault_origin import FaultOrigin, Tls
from support.ranges import LIMITS, no_jitter

pytestmark = pytest.mark.looptime(False)

DATA = os.urandom(100_000)
SECRET = (("authorization", "Bearer sesame"),)


@pytest.fixture
def cdn():
    with FaultOrigin() as started:
        started.put("cdn/blob", DATA)
        yield started


def granted(origin, target, *, offset=0, length=100_000, name="hub/file", headers=SECRET):
    return RangeRequest(target, offset, length, Grant(f"{origin.url}/{name}", headers))


async def test_promise_a_grants_headers_stay_with_their_host(movers, origin, cdn, target):
    origin.script(faults.redirect(f"{cdn.url}/cdn/blob?signature=1"))
    await movers.fetch(granted(origin, target))
    assert target.read_bytes() == DATA
    assert origin.asked[0].headers["authorization"] == "Bearer sesame"
    assert "authorization" not in cdn.asked[0].headers
    assert movers.stats().retries == 0


async def test_a_relative_redirect_keeps_the_headers_for_their_host(movers, origin, target):
    origin.put("hub/elsewhere", DATA)
    origin.script(faults.redirect("/hub/elsewhere"))
    await movers.fetch(granted(origin, target))
    assert target.read_bytes() == DATA
    assert origin.asked[1].headers["authorization"] == "Bearer sesame"


async def test_headers_do_not_come_back_after_a_detour(movers, origin, cdn, target):
    origin.put("hub/again", DATA)
    origin.script(faults.redirect(f"{cdn.url}/cdn/blob"))
    cdn.script(faults.redirect(f"{origin.url}/hub/again"))
    await movers.fetch(granted(origin, target))
    assert "authorization" not in origin.asked[1].headers


async def test_a_way_once_gone_is_used_for_the_next_ranges(movers, origin, cdn, target):
    origin.script(faults.redirect(f"{cdn.url}/cdn/blob"))
    for at in range(0, len(DATA), 25_000):
        await movers.fetch(granted(origin, target, offset=at, length=25_000))
    assert target.read_bytes() == DATA
    assert (origin.count(), cdn.count()) == (1, 4)


async def test_a_way_is_not_lent_to_another_grant(movers, origin, cdn):
    origin.script(faults.redirect(f"{cdn.url}/cdn/blob"), faults.denied())
    await movers.fetch(granted(origin, None))
    with pytest.raises(AccessDeniedError):
        await movers.fetch(granted(origin, None, headers=(("authorization", "Bearer other"),)))


async def test_a_way_whose_end_no_longer_answers_is_gone_anew(movers, origin, cdn, target):
    origin.script(*[faults.redirect(f"{cdn.url}/cdn/blob")] * 2)
    await movers.fetch(granted(origin, None, length=1))
    cdn.script(faults.expired("AccessDenied"))
    await movers.fetch(granted(origin, target))
    assert target.read_bytes() == DATA
    assert origin.count() == 2


async def test_a_circle_is_left_after_some_rounds(movers, origin):
    origin.always(faults.redirect(f"{origin.url}/hub/file"))
    with pytest.raises(InvalidSourceError, match=f"more than {MAX_HOPS} times"):
        await movers.fetch(granted(origin, None))
    assert origin.count() == MAX_HOPS + 1


async def test_what_was_encrypted_is_not_continued_in_the_clear(cdn):
    tls = Tls()
    async with Movers(count=1, limits=LIMITS, uniform=no_jitter) as movers:
        with FaultOrigin(tls) as hub:
            hub.script(faults.redirect(f"{cdn.url}/cdn/blob"))
            request = RangeRequest(
                None, 0, 1, Grant(f"{hub.url}/hub/file", SECRET), ca_pem=tls.ca_pem
            )
            with pytest.raises(InvalidSourceError, match="from https to http"):
                await movers.fetch(request)
    assert cdn.count() == 0


async def test_each_hop_is_checked_like_the_first(origin, cdn):
    here_alone = NetworkRules(allowed_ranges=(parse_network("127.0.0.1/32"),))
    origin.script(faults.redirect(f"http://127.0.0.2:{cdn.port}/cdn/blob"))
    async with Movers(count=1, limits=LIMITS, rules=here_alone) as movers:
        with pytest.raises(InvalidSourceError, match=r"127\.0\.0\.2"):
            await movers.fetch(granted(origin, None))


HERE = Hop(*parse_url("https://hub/a/b?c"), SECRET, "https://hub/a/b?c")


@pytest.mark.parametrize(
    ("location", "url", "keeps"),
    [
        ("/x?y", "https://hub/x?y", True),
        ("x", "https://hub/a/x", True),
        ("https://HUB/x#part", "https://HUB/x", True),
        ("https://hub:444/x", "https://hub:444/x", False),
        ("https://hub.evil/x", "https://hub.evil/x", False),
        ("//evil/x", "https://evil/x", False),
    ],
)
def test_where_a_redirect_leads_and_whether_headers_go_along(location, url, keeps):
    found = next_hop(HERE, location)
    assert (found.url, found.headers) == (url, SECRET if keeps else ())


@pytest.mark.parametrize(
    "location",
    [None, "", "x" * 9000, "http://hub/", "file:///etc/passwd", "https://a@hub/", "https://[::1"],
)
def test_what_is_no_place_is_not_gone_to(location):
    with pytest.raises(RangeFailedError):
        next_hop(HERE, location)


def test_ways_are_forgotten_with_time_and_never_more_than_a_bound():
    now = 0.0
    ways = Ways(lambda: now)
    first = Grant("https://hub/0")
    ways.remember(first, HERE)
    now = REMEMBERED_S
    ways.remember(first, HERE)  # using it does not make it younger
    assert ways.end_of(first) == HERE
    now += 1
    assert ways.end_of(first) is None
    for number in range(MAX_REMEMBERED + 1):
        ways.remember(Grant(f"https://hub/{number}"), HERE)
    assert ways.end_of(first) is None
    assert ways.end_of(Grant("https://hub/1")) == HERE
