"""Heads of answers are read strictly, and requests cannot be split."""

import contextlib

import pytest
from hypothesis import given, strategies as st

from modelcache_node.transfer.http1 import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    HeadReader,
    MalformedHeadError,
    build_request,
    parse_head,
)

HEAD = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n"
    b'ETag: "abc"\r\nContent-Range: bytes 0-4/10\r\n\r\n'
)


@given(st.lists(st.integers(1, 20), max_size=30))
def test_a_head_is_the_same_however_it_is_cut(sizes):
    raw, reader, at = HEAD + b"hello", HeadReader(), 0
    for size in [*sizes, len(raw)]:
        piece = raw[at : at + size]
        at += len(piece)
        found = reader.feed(memoryview(piece)) if piece else None
        if found:
            break
    head, rest = found
    assert head.status == 206
    assert head.content_length == 5
    assert raw[at - rest : at] == raw[len(HEAD) : at]


def test_interim_answers_are_passed_over():
    head, rest = HeadReader().feed(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"hello")
    assert (head.status, rest) == (206, 5)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 abc",
        b"HTTP/1.1 200 OK\r\nFolded: a\r\n b",
        b"HTTP/1.1 200 OK\r\nNo colon",
        b"HTTP/1.1 200 OK\r\nName : spaced",
        b"HTTP/1.1 200 OK\r\n: empty",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b'HTTP/1.1 200 OK\r\nETag: "a"\r\nETag: "b"',
        b"HTTP/1.1 200 OK\r\nA: b\nC: d",
        b"HTTP/1.1 200 OK\r\nA: \0",
        b"HTTP/1.1 200 OK" + b"\r\nA: b" * (MAX_HEADERS + 1),
    ],
)
def test_a_malformed_head_is_refused(raw):
    with pytest.raises(MalformedHeadError):
        parse_head(raw)


def test_a_head_without_end_is_refused_before_it_fills_the_memory():
    reader = HeadReader()
    for _ in range(4):
        assert reader.feed(b"x" * (MAX_HEAD_BYTES // 4)) is None
    with pytest.raises(MalformedHeadError, match="longer"):
        reader.feed(b"x")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_head_or_malformed_and_nothing_else(raw):
    with contextlib.suppress(MalformedHeadError):
        HeadReader().feed(raw + b"\r\n\r\n")


def test_a_request_carries_range_validator_and_the_grants_headers():
    raw = build_request(
        "/b/o?X-Amz-Signature=1%2F2",
        "store:9000",
        (("Authorization", "Bearer t"),),
        span=(16, 31),
        condition=("If-Match", '"abc"'),
    )
    assert raw == (
        b"GET /b/o?X-Amz-Signature=1%2F2 HTTP/1.1\r\nHost: store:9000\r\n"
        b'Accept-Encoding: identity\r\nRange: bytes=16-31\r\nIf-Match: "abc"\r\n'
        b"Authorization: Bearer t\r\n\r\n"
    )


@pytest.mark.parametrize("target", ["", "b/o", "/a b", "/a\r\nX: y", "/ä", "/\x7f", "http://x/"])
def test_a_target_that_could_end_the_line_is_refused(target):
    with pytest.raises(ValueError, match="path"):
        build_request(target, "h", span=None, condition=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "evil"),
        ("range", "bytes=0-"),
        ("Transfer-Encoding", "chunked"),
        ("X Y", "1"),
        ("", "1"),
        ("X\r\nY", "1"),
        ("X", "1\r\nY: 2"),
        ("X", "\0"),
    ],
)
def test_a_grants_header_cannot_become_two_or_replace_ours(name, value):
    with pytest.raises(ValueError, match="header"):
        build_request("/", "h", ((name, value),), span=None, condition=None)


def test_an_endless_url_is_refused():
    with pytest.raises(ValueError, match="longer"):
        build_request("/" + "x" * 20_000, "h", span=None, condition=None)
