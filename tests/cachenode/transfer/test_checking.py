"""An answer is used only if it is the range that was asked for, of the object that was listed."""

import pytest

from modelcache_node.transfer.checking import Accepted, Expected, check_head, judge_error
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.http1 import parse_head

EXPECTED = Expected(offset=10, length=5, validator='"abc"', total_bytes=100)


def head(status=206, **headers):
    fields = {
        "Content-Range": "bytes 10-14/100",
        "Content-Length": "5",
        "ETag": '"abc"',
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return parse_head("\r\n".join([f"HTTP/1.1 {status} X", *lines]).encode())


def failure_of(expected, answer):
    with pytest.raises(RangeFailedError) as caught:
        check_head(expected, answer)
    return caught.value


def test_the_range_that_was_asked_for_is_accepted():
    assert check_head(EXPECTED, head()) == Accepted('"abc"', 100)


def test_what_was_not_known_before_is_told():
    expected = Expected(10, 5, None, None)
    assert check_head(expected, head()) == Accepted('"abc"', 100)


def test_a_validator_listed_without_quotes_is_the_same_one():
    assert check_head(EXPECTED._replace(validator="abc"), head())


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"Content_Range": "bytes 11-15/100"}, FailureKind.MISBEHAVED),
        ({"Content_Range": "bytes 10-13/100", "Content_Length": "4"}, FailureKind.MISBEHAVED),
        ({"Content_Range": None}, FailureKind.MISBEHAVED),
        ({"Content_Range": "bytes 10-14/*"}, FailureKind.MISBEHAVED),
        ({"Content_Range": "lines 10-14/100"}, FailureKind.MISBEHAVED),
        ({"Content_Length": "6"}, FailureKind.MISBEHAVED),
        ({"Content_Length": None}, FailureKind.MISBEHAVED),
        ({"Content_Length": None, "Transfer_Encoding": "chunked"}, FailureKind.MISBEHAVED),
        ({"Content_Encoding": "gzip"}, FailureKind.MISBEHAVED),
        ({"ETag": None}, FailureKind.MISBEHAVED),
        ({"ETag": '"other"'}, FailureKind.CHANGED),
        ({"ETag": 'W/"abc"'}, FailureKind.CHANGED),
        ({"Content_Range": "bytes 10-14/101"}, FailureKind.CHANGED),
    ],
)
def test_an_answer_that_does_not_fit_is_not_used(headers, kind):
    assert failure_of(EXPECTED, head(**headers)).kind is kind


def test_the_whole_object_in_place_of_a_range_is_refused():
    answer = head(200, Content_Range=None, Content_Length="100")
    failure = failure_of(EXPECTED, answer)
    assert failure.kind is FailureKind.MISBEHAVED
    assert "ignored the range" in failure.message


def test_the_whole_object_is_accepted_where_the_range_is_the_whole_object():
    expected = Expected(0, 100, '"abc"', 100)
    assert check_head(expected, head(200, Content_Range=None, Content_Length="100"))


def test_an_empty_object_is_accepted_as_such():
    expected = Expected(0, 0, '"abc"', 0)
    assert check_head(expected, head(200, Content_Range=None, Content_Length="0"))


def test_an_object_that_is_no_longer_empty_has_changed():
    expected = Expected(0, 0, '"abc"', 0)
    answer = head(200, Content_Range=None, Content_Length="7")
    assert failure_of(expected, answer).kind is FailureKind.CHANGED


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (412, b"", FailureKind.CHANGED),
        (416, b"", FailureKind.CHANGED),
        (404, b"", FailureKind.NOT_FOUND),
        (403, b"<Error><Code>AccessDenied</Code></Error>", FailureKind.DENIED),
        (401, b"", FailureKind.EXPIRED),
        (403, b"<Code>ExpiredToken</Code>", FailureKind.EXPIRED),
        (400, b"<Code>ExpiredToken</Code>", FailureKind.EXPIRED),
        (403, b"<Message>Request has expired</Message>", FailureKind.EXPIRED),
        (403, b"ExpiredTokenException", FailureKind.EXPIRED),
        (400, b"<Code>RequestTimeout</Code>", FailureKind.UNAVAILABLE),
        (400, b"", FailureKind.REFUSED),
        (307, b"", FailureKind.REDIRECTED),
        (429, b"", FailureKind.THROTTLED),
        (503, b"", FailureKind.THROTTLED),
        (500, b"", FailureKind.UNAVAILABLE),
        (502, b"", FailureKind.UNAVAILABLE),
        (408, b"", FailureKind.UNAVAILABLE),
    ],
)
def test_an_error_says_what_to_do(status, body, kind):
    answer = head(status, Content_Range=None)
    assert check_head(EXPECTED, answer) is None
    assert judge_error(EXPECTED, answer, body).kind is kind


def test_the_store_s_own_code_is_shown_and_nothing_else_that_it_says():
    body = b"<Error><Code>SlowDown</Code><Message>Please\nreduce</Message></Error>"
    failure = judge_error(EXPECTED, head(503, Retry_After="7"), body)
    assert failure.message == "HTTP 503 (SlowDown)"
    assert failure.retry_after == "7"


@pytest.mark.parametrize("code", [b"two words", b"a\nb", b"x" * 60, b"Bearer abc/def+=", b""])
def test_a_code_of_another_shape_is_not_shown(code):
    body = b"<Error><Code>" + code + b"</Code></Error>"
    assert judge_error(EXPECTED, head(503), body).message == "HTTP 503"
