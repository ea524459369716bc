"""Grants: waited for, renewed, rejected, dropped with their session; in virtual time."""

import asyncio

import pytest

from modelcache_api.errors import UnavailableError
from modelcache_api.listing import ObjectGrant
from modelcache_node.caching.grants import EXPIRY_MARGIN_S, GrantPool

OLD = ObjectGrant(url="http://o/a?old", expires_at=1000.0)
NEW = ObjectGrant(url="http://o/a?new", expires_at=9000.0)


class Issuer:
    """Renews every path with one grant, and remembers what it was asked."""

    def __init__(self, grant=NEW, fails=False):
        self.asked = []
        self._grant = grant
        self._fails = fails

    async def renew(self, paths):
        self.asked.append(list(paths))
        if self._fails:
            raise UnavailableError("gone")
        return dict.fromkeys(paths, self._grant)


def pool(now=0.0, is_of_blob=lambda blob, grant: True) -> GrantPool:
    return GrantPool(lambda: now, is_of_blob)


async def test_a_live_grant_is_given_at_once():
    grants = pool()
    grants.attach(Issuer(), {"b": ("a", OLD)})
    assert await grants.get("b") is OLD


async def test_a_grant_near_its_end_is_renewed_first():
    grants, issuer = pool(now=1000.0 - EXPIRY_MARGIN_S + 1), Issuer()
    grants.attach(issuer, {"b": ("a", OLD)})
    assert await grants.get("b") is NEW
    assert issuer.asked == [["a"]]


async def test_a_rejected_grant_is_renewed_before_its_time():
    grants, issuer = pool(), Issuer()
    grants.attach(issuer, {"b": ("a", OLD)})
    grants.reject("b", OLD)
    assert await grants.get("b") is NEW


async def test_many_waiters_share_one_renewal():
    grants, issuer = pool(now=999.0), Issuer()
    grants.attach(issuer, {f"b{i}": (f"a{i}", OLD) for i in range(50)})
    await asyncio.gather(*(grants.get(f"b{i}") for i in range(50)))
    assert sum(len(paths) for paths in issuer.asked) == 50
    assert len(issuer.asked) <= 2


async def test_without_a_session_one_waits_for_the_next():
    grants = pool()
    waiting = asyncio.create_task(grants.get("b"))
    await asyncio.sleep(3600)
    assert not waiting.done()
    grants.attach(Issuer(), {"b": ("a", OLD)})
    assert await waiting is OLD


async def test_a_session_that_cannot_renew_is_dropped_and_another_serves():
    grants = pool(now=999.0)
    grants.attach(Issuer(fails=True), {"b": ("a", OLD)})
    waiting = asyncio.create_task(grants.get("b"))
    await asyncio.sleep(1)
    assert not grants.has_sessions
    grants.attach(Issuer(), {"b": ("a", NEW)})
    assert await waiting is NEW


async def test_a_renewal_that_leads_elsewhere_is_not_taken():
    elsewhere = ObjectGrant(url="http://evil/a", expires_at=9000.0)
    grants = pool(now=999.0, is_of_blob=lambda blob, grant: "evil" not in grant.url)
    grants.attach(Issuer(elsewhere), {"b": ("a", OLD)})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(grants.get("b"), timeout=60)


async def test_grants_go_with_their_session():
    grants, issuer = pool(), Issuer()
    grants.attach(issuer, {"b": ("a", OLD)})
    grants.detach(issuer)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(grants.get("b"), timeout=60)
