"""The datagrams between a lazy mount's server and the agent, held still."""

import pytest

from modelcache_api import file_access
from modelcache_api.errors import InvalidRequestError
from modelcache_api.file_access import (
    BlobGone,
    BlobHandedOver,
    FromAgent,
    FromServer,
    Greeting,
    OpenBlob,
    WantChunks,
)
from modelcache_api.reasons import Reason

BLOB = "ab" * 32


@pytest.mark.parametrize(
    ("message", "raw"),
    [
        (Greeting("sha256:" + BLOB), f'{{"version":1,"revision":"sha256:{BLOB}"}}'),
        (OpenBlob(BLOB), f'{{"open":"{BLOB}"}}'),
        (WantChunks(BLOB, (5, 6)), f'{{"want":"{BLOB}","chunks":[5,6]}}'),
    ],
)
def test_what_a_server_says(message: FromServer, raw: str) -> None:
    assert file_access.pack(message) == raw.encode()
    assert file_access.parse_from_server(raw.encode()) == message


@pytest.mark.parametrize(
    ("message", "raw"),
    [
        (BlobHandedOver(BLOB), f'{{"blob":"{BLOB}"}}'),
        (
            BlobGone(BLOB, Reason.SOURCE_CHANGED, "it was replaced"),
            f'{{"gone":"{BLOB}","reason":"SourceChanged","message":"it was replaced"}}',
        ),
    ],
)
def test_what_an_agent_says(message: FromAgent, raw: str) -> None:
    assert file_access.pack(message) == raw.encode()
    assert file_access.parse_from_agent(raw.encode()) == message


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"version":2,"revision":"sha256:' + BLOB.encode() + b'"}',
        b'{"open":"../../etc"}',
        b'{"want":"' + BLOB.encode() + b'","chunks":[-1]}',
        b'{"want":"' + BLOB.encode() + b'","chunks":[true]}',
        b'{"want":"' + BLOB.encode() + b'","chunks":"5"}',
        b'{"want":"' + BLOB.encode() + b'","chunks":[' + b"1," * 256 + b"1]}",
    ],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        file_access.parse_from_server(raw)


def test_a_reason_of_a_newer_agent_is_still_understood() -> None:
    raw = f'{{"gone":"{BLOB}","reason":"Newer","message":"m"}}'.encode()
    assert file_access.parse_from_agent(raw) == BlobGone(BLOB, Reason.INTERNAL, "m")


def test_a_wish_for_very_many_chunks_is_cut() -> None:
    raw = file_access.pack(WantChunks(BLOB, tuple(range(1000))))
    wish = file_access.parse_from_server(raw)
    assert wish == WantChunks(BLOB, tuple(range(file_access.MAX_CHUNKS)))
    assert len(raw) < file_access.MAX_DATAGRAM_BYTES
