"""Claims on the wire: golden bytes, round trips, and what is refused."""

import pytest

from modelcache_api.claims import (
    MAX_CLAIM_SLOTS,
    pack_answer,
    pack_claim,
    unpack_answer,
    unpack_claim,
)
from modelcache_api.errors import InvalidRequestError


def test_the_format_is_version_1_and_a_change_of_it_needs_another():
    assert pack_claim([1, 20]) == b'{"slots":[1,20],"version":1}'
    assert pack_answer([2, 0]) == b'{"states":[2,0],"version":1}'


def test_claims_and_answers_are_read_as_they_were_written():
    assert unpack_claim(pack_claim([1, 20])) == [1, 20]
    assert unpack_answer(pack_answer([2, 0]), 2) == [2, 0]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"7",
        b'{"slots":[1]}',
        b'{"slots":[1],"version":2}',
        b'{"slots":["1"],"version":1}',
        b'{"slots":[-1],"version":1}',
        b'{"slots":[true],"version":1}',
        b'{"slots":{"0":1},"version":1}',
        pack_claim(range(MAX_CLAIM_SLOTS + 1)),
    ],
)
def test_what_is_no_claim_is_refused(raw):
    with pytest.raises(InvalidRequestError):
        unpack_claim(raw)


def test_an_answer_to_another_claim_is_refused():
    with pytest.raises(InvalidRequestError, match="2 answers to a claim of 3"):
        unpack_answer(pack_answer([1, 1]), 3)
    with pytest.raises(InvalidRequestError):
        unpack_answer(pack_answer([9]), 1)
