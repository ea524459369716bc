"""A range is of the state that was listed, by whichever means its origin names states."""

import pytest

from modelcache_node.transfer.checking import Accepted, Expected, check_head, judge_error
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.http1 import parse_head
from modelcache_node.transfer.pins import condition

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
SHA256 = "sha256:" + "ab" * 32


def answer(*headers):
    lines = ["HTTP/1.1 206 X", "Content-Range: bytes 0-4/100", "Content-Length: 5", *headers]
    return parse_head("\r\n".join(lines).encode())


@pytest.mark.parametrize(
    ("pin", "header"),
    [
        ('"abc"', ("If-Match", '"abc"')),
        ("abc", ("If-Match", '"abc"')),
        ("generation:x", ("If-Match", '"generation:x"')),
        (f"modified:{DATE}", ("If-Unmodified-Since", DATE)),
        ("generation:17", None),
        (SHA256, None),
        (None, None),
    ],
)
def test_a_request_asks_for_the_state_that_was_listed(pin, header):
    assert condition(pin) == header


@pytest.mark.parametrize(
    ("pin", "stated", "kind"),
    [
        ("generation:17", "X-Goog-Generation: 17", None),
        ("generation:17", "X-Goog-Generation: 18", FailureKind.CHANGED),
        ("generation:17", 'ETag: "17"', FailureKind.MISBEHAVED),
        (f"modified:{DATE}", f"Last-Modified: {DATE}", None),
        (f"modified:{DATE}", "Last-Modified: Wed, 21 Oct 2026 07:28:01 GMT", FailureKind.CHANGED),
        (f"modified:{DATE}", "Age: 1", FailureKind.MISBEHAVED),
        (SHA256, 'ETag: "whatever"', None),
        ("gitsha1:" + "ab" * 20, "Age: 1", None),
    ],
)
def test_an_answer_of_another_state_is_not_used(pin, stated, kind):
    expected = Expected(0, 5, pin, 100)
    if kind is None:
        assert isinstance(check_head(expected, answer(stated)), Accepted)
        return
    with pytest.raises(RangeFailedError) as caught:
        check_head(expected, answer(stated))
    assert caught.value.kind is kind


def test_a_generation_that_is_not_found_was_replaced():
    gone = parse_head(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0")
    assert judge_error(Expected(0, 5, "generation:1", 9), gone, b"").kind is FailureKind.CHANGED
    assert judge_error(Expected(0, 5, '"abc"', 9), gone, b"").kind is FailureKind.NOT_FOUND
