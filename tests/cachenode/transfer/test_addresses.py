"""Names are looked up once in a while, checked always, and spread over."""

import pytest

from modelcache_api.errors import (
    EndpointDeniedError,
    InvalidSourceError,
    SourceUnavailableError,
)
from modelcache_node.transfer.addresses import FRESH_S, AddressBook, Endpoint, parse_url
from modelcache_node.transfer.rules import NetworkRules

STORE = Endpoint("https", "store.example", 443)


class Names:
    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def look_up(self, host, port):
        self.asked += 1
        answer = self.answers[min(self.asked, len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


async def test_calls_begin_at_different_addresses():
    names = Names(["10.0.0.1", "10.0.0.2", "10.0.0.1"])
    book = AddressBook(clock=Clock(), lookup=names.look_up)
    firsts = {(await book.addresses_of(STORE))[0] for _ in range(2)}
    assert firsts == {"10.0.0.1", "10.0.0.2"}
    assert names.asked == 1


async def test_a_name_is_looked_up_anew_when_its_time_is_over_or_nothing_answered():
    clock, names = Clock(), Names(["10.0.0.1"], ["10.0.0.2"], ["10.0.0.3"])
    book = AddressBook(clock=clock, lookup=names.look_up)
    await book.addresses_of(STORE)
    clock.now += FRESH_S + 1
    assert await book.addresses_of(STORE) == ["10.0.0.2"]
    book.forget(STORE)
    assert await book.addresses_of(STORE) == ["10.0.0.3"]


async def test_an_address_that_is_not_allowed_is_never_used():
    names = Names(["169.254.169.254", "93.184.215.14"])
    book = AddressBook(clock=Clock(), lookup=names.look_up, rules=NetworkRules())
    assert await book.addresses_of(STORE) == ["93.184.215.14"]


async def test_a_literal_address_is_checked_too():
    book = AddressBook(clock=Clock(), rules=NetworkRules())
    with pytest.raises(EndpointDeniedError, match="no address"):
        await book.addresses_of(Endpoint("http", "169.254.169.254", 80))


async def test_a_name_that_does_not_resolve_may_do_so_later():
    book = AddressBook(clock=Clock(), lookup=Names(OSError("no such name")).look_up)
    with pytest.raises(SourceUnavailableError, match=r"store\.example"):
        await book.addresses_of(STORE)


@pytest.mark.parametrize(
    ("url", "host_header", "target"),
    [
        ("https://store.example/b/o?x=1%2F", "store.example", "/b/o?x=1%2F"),
        ("http://[::1]:9000", "[::1]:9000", "/"),
        ("http://store:80/x", "store", "/x"),
    ],
)
def test_a_url_is_taken_apart_without_changing_what_was_signed(url, host_header, target):
    endpoint, found = parse_url(url)
    assert (endpoint.host_header, found) == (host_header, target)


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "http:///x", "//h/x", "http://u:p@h/x", "http://h:99999/x", "http://ä/x"]
)
def test_other_urls_are_refused(url):
    with pytest.raises(InvalidSourceError):
        parse_url(url)
