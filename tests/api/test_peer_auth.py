"""Signatures between agents: golden values, and everything that must not pass."""

import pytest

from modelcache_api.errors import InvalidRequestError
from modelcache_api.peer_auth import (
    MAX_SKEW_S,
    Answered,
    Asked,
    ClockSkewError,
    ClusterKeys,
    UntrustedError,
    crc32c_text,
    nonce_of,
    sha256_text,
    sign_answer,
    sign_request,
    verify_answer,
    verify_request,
)

KEYS = ClusterKeys.parse("0123456789abcdef0123456789abcdef")
OTHER = ClusterKeys.parse("fedcba9876543210fedcba9876543210")
NONCE = "00112233445566778899aabbccddeeff"
NOW = 1_800_000_000.5
CHUNK = Asked("GET", "/peer/v1/chunks/" + "ab" * 32 + "/3", "bytes=50331648-67108863")
CLAIM = Asked("POST", "/peer/v1/revisions/" + "cd" * 32 + "/claims", body=b'{"slots":[1]}')
ANSWERED = Answered(206, 16 << 20, crc32c_text(0xDEADBEEF), "10.0.0.7:7440")


def signed(asked=CHUNK, keys=KEYS, now=NOW):
    return sign_request(keys, asked, asker="10.0.0.8:7440", nonce=NONCE, now=now)


def test_signatures_of_version_1_do_not_change():
    """A difference here means that agents of two releases refuse each other: a new version."""
    assert signed() == (
        "1 1800000000500 00112233445566778899aabbccddeeff 10.0.0.8:7440"
        " fedc236df5d35b580221a4066fd93d3449db85f33f9bf5cd97dcbd090512373a"
    )
    assert signed(CLAIM) == (
        "1 1800000000500 00112233445566778899aabbccddeeff 10.0.0.8:7440"
        " b0a24c7176cc6371b8b5ab190a80c11952bb45cb558b736c36b6e4bad3b171a5"
    )
    assert sign_answer(KEYS, ANSWERED, nonce=NONCE) == (
        "1 10.0.0.7:7440 crc32c:deadbeef"
        " f3a6dfd441bccde1cf884fada67aa96ab5dbb2f0625737176d6fba4b1d726173"
    )


@pytest.mark.parametrize("asked", [CHUNK, CLAIM])
def test_a_genuine_request_tells_who_asks_and_how_long_to_remember_it(asked):
    admission = verify_request(KEYS, signed(asked), asked, now=NOW + 1)
    assert (admission.asker, admission.nonce) == ("10.0.0.8:7440", NONCE)
    assert admission.expires_at == NOW + MAX_SKEW_S


@pytest.mark.parametrize(
    "asked",
    [
        Asked("POST", CHUNK.target, CHUNK.byte_range),
        Asked("GET", CHUNK.target[:-1] + "4", CHUNK.byte_range),
        Asked("GET", CHUNK.target, "bytes=0-16777215"),
        Asked("GET", CHUNK.target, CHUNK.byte_range, b"a body"),
    ],
)
def test_a_request_that_is_not_what_was_signed_is_not_trusted(asked):
    with pytest.raises(UntrustedError):
        verify_request(KEYS, signed(), asked, now=NOW)


@pytest.mark.parametrize("at", range(5))
def test_no_field_of_a_signature_can_be_changed(at):
    fields = signed().split(" ")
    last = fields[at][-1]
    fields[at] = fields[at][:-1] + ("1" if last != "1" else "2")
    with pytest.raises(UntrustedError):
        verify_request(KEYS, " ".join(fields), CHUNK, now=NOW)


@pytest.mark.parametrize(
    "value",
    [None, "", "1", "2 a b c d", "1 x y z w", signed() + " more", signed().upper(), "1    "],
)
def test_what_is_no_signature_is_not_trusted(value):
    with pytest.raises(UntrustedError):
        verify_request(KEYS, value, CHUNK, now=NOW)


def test_another_clusters_key_is_not_trusted():
    with pytest.raises(UntrustedError, match="compare the key files"):
        verify_request(KEYS, signed(keys=OTHER), CHUNK, now=NOW)


@pytest.mark.parametrize(
    ("skew_s", "words"),
    [(312.0, "312.0 s ahead of"), (-312.0, "312.0 s behind")],
)
def test_a_clock_that_differs_is_named_with_its_difference(skew_s, words):
    with pytest.raises(ClockSkewError, match=words):
        verify_request(KEYS, signed(now=NOW + skew_s), CHUNK, now=NOW)
    verify_request(KEYS, signed(now=NOW + skew_s), CHUNK, now=NOW + skew_s - MAX_SKEW_S)


def test_a_request_signed_elsewhere_is_not_said_to_be_late():
    """Who lacks the key learns nothing of this node's clock."""
    with pytest.raises(UntrustedError) as caught:
        verify_request(KEYS, signed(keys=OTHER, now=NOW - 10_000), CHUNK, now=NOW)
    assert not isinstance(caught.value, ClockSkewError)


def test_during_a_rotation_both_keys_verify_and_the_first_signs():
    both = ClusterKeys(OTHER.keys + KEYS.keys)
    verify_request(both, signed(), CHUNK, now=NOW)
    verify_request(OTHER, signed(keys=both), CHUNK, now=NOW)


def test_an_answer_is_good_for_one_request_and_as_it_was_signed():
    value = sign_answer(KEYS, ANSWERED, nonce=NONCE)
    right = {"nonce": NONCE, "status": 206, "length": 16 << 20}
    assert verify_answer(KEYS, value, **right) == ANSWERED
    wrong = [
        {**right, "nonce": NONCE[::-1]},
        {**right, "status": 200},
        {**right, "length": 1},
    ]
    for one in wrong:
        with pytest.raises(UntrustedError):
            verify_answer(KEYS, value, **one)
    for changed in (
        value.replace("deadbeef", "deadbeee"),
        value.replace("10.0.0.7", "10.0.0.6"),
        value[:-1],
        "",
        None,
    ):
        with pytest.raises(UntrustedError):
            verify_answer(KEYS, changed, **right)
    with pytest.raises(UntrustedError):
        verify_answer(OTHER, value, **right)


def test_keys_are_one_line_or_two_and_long_enough():
    assert ClusterKeys.parse(f"\n{'a' * 32} \n{'b' * 32}\n").keys == (b"a" * 32, b"b" * 32)
    for text in ("", "short", f"{'a' * 32}\nshort", "\n".join(["c" * 32] * 3)):
        with pytest.raises(InvalidRequestError):
            ClusterKeys.parse(text)
    assert "a" * 32 not in repr(ClusterKeys.parse("a" * 32))


def test_a_refusal_can_be_signed_for_the_nonce_that_was_stated():
    assert nonce_of(signed(keys=OTHER)) == NONCE
    assert nonce_of("nonsense") is None


def test_checksums_are_written_with_all_their_digits():
    assert crc32c_text(1) == "crc32c:00000001"
    assert sha256_text(b"") == (
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
