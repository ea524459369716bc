"""Decoders of what others send: any bytes are read or refused in their own words, never worse.

Inputs are random, and right ones with some bytes changed, cut or doubled: those get further in.
"""

import json
from array import array
from contextlib import suppress
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from pydantic import ValidationError

from modelcache_api.errors import InvalidRequestError, InvalidSourceError, ModelCacheError
from modelcache_api.have_map import HaveMap
from modelcache_api.layouts import HubLayout
from modelcache_api.manifest import Checksum, File, Manifest
from modelcache_api.messages import from_agent, from_client
from modelcache_api.peer_proofs import PassedProof, pack_proofs, unpack_proofs
from modelcache_csi.errors import PreconditionError
from modelcache_csi.volume_context import parse_publish
from modelcache_node.origins.file_list import parse as parse_file_list
from modelcache_node.transfer.checking import Expected, check_head
from modelcache_node.transfer.failures import RangeFailedError
from modelcache_node.transfer.http1 import HeadReader, MalformedHeadError
from modelcache_node.transfer.ranges import Grant
from modelcache_node.transfer.redirects import first_hop, next_hop
from support.csi_plugin import publish_request

KUBELET = PurePosixPath("/var/lib/kubelet")
TARGET = "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/model/mount"

#: Inputs per decoder: seconds each on a slow core. `--hypothesis-seed` repeats a run.
N_INPUTS = 400
fuzzed = settings(
    max_examples=N_INPUTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SHA256 = Checksum.parse("sha256:" + "cd" * 32)
HUB = HubLayout("models", "org/name", "ab" * 20, ("main",))
MANIFESTS = [
    Manifest.of([File("a/b", 1, "11" * 32), File("c", 2, "cd" * 32, SHA256)]).canonical(),
    Manifest.of([File("c", 2, "cd" * 32, SHA256)], HUB).canonical(),
]
MAPS = [
    HaveMap(1, 0, 2, 40, array("I", [1, 7]), array("I", [3, 4]), vouched=1).pack(),
    HaveMap(1, 2, 3, 9, gone=array("I", [2]), fetching=array("I", [5]), can_fetch=True).pack(),
]
PROOFS = [
    pack_proofs(
        [PassedProof(namespace="a", model_cache="m", model_cache_uid="u", request="", at=1)]
    )
]
HEADS = [
    b'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: "a"\r\n'
    b"Content-Range: bytes 0-4/10\r\n\r\nhello",
    b"HTTP/1.1 302 Found\r\nLocation: https://cdn/x?y\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Slow Down\r\nRetry-After: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]
LISTS = [
    json.dumps(
        {"version": 1, "files": [{"path": "a", "size": 1, "sha256": "cd" * 32, "url": "../b"}]}
    ).encode()
]
MESSAGES = [
    b'{"type":"Hello","protocol":1,"namespace":"team","layout":{"kind":"models","repository":"o/n",'
    b'"commit":"abab","refs":["main"]}}',
    b'{"type":"Objects","objects":[{"path":"a","sizeBytes":1,"validator":"\\"x\\"",'
    b'"grant":{"url":"http://h/a"}}]}',
    b'{"type":"Done","revision":"sha256:aa","bytes":1}',
]


@st.composite
def spoiled(draw: st.DrawFn, right: list[bytes]) -> bytes:
    """A right input, changed here and there."""
    raw = bytearray(draw(st.sampled_from(right)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        end = at + draw(st.integers(0, 12))
        match draw(st.sampled_from(("change", "cut", "double", "insert"))):
            case "change" if raw:
                raw[at] = draw(st.integers(0, 255))
            case "cut":
                del raw[at:end]
            case "double":
                raw[at:at] = raw[at:end]
            case _:
                raw[at:at] = draw(st.binary(max_size=12))
    return bytes(raw)


def inputs(right: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=300), spoiled(right), spoiled(right))


@fuzzed
@given(raw=inputs(MANIFESTS))
def test_manifest_is_fuzzed(count, raw):
    count()
    with suppress(ModelCacheError):
        assert Manifest.parse(raw).canonical() == raw


@fuzzed
@given(raw=inputs(MAPS))
def test_have_map_is_fuzzed(count, raw):
    count()
    with suppress(InvalidRequestError):
        found = HaveMap.unpack(raw)
        assert HaveMap.unpack(found.pack()) == found


@fuzzed
@given(raw=inputs(PROOFS))
def test_peer_proofs_are_fuzzed(count, raw):
    count()
    with suppress(InvalidRequestError):
        found = unpack_proofs(raw)
        assert unpack_proofs(pack_proofs(found)) == found


@fuzzed
@given(raw=inputs(HEADS), cut=st.integers(1, 40))
def test_http_answer_is_fuzzed(count, raw, cut):
    count()
    reader = HeadReader()
    with suppress(MalformedHeadError, RangeFailedError):
        for at in range(0, len(raw), cut):
            found = reader.feed(memoryview(raw[at : at + cut]))
            if found is not None:
                head, n_body = found
                assert 0 <= n_body <= cut
                check_head(Expected(0, 5, '"a"', 10), head)
                next_hop(first_hop(Grant("https://hub/a")), head.headers.get("location"))
                break


@fuzzed
@given(raw=inputs(LISTS))
def test_file_list_is_fuzzed(count, raw):
    count()
    with suppress(InvalidSourceError):
        for entry in parse_file_list(raw, "https://host/m/modelcache.json"):
            assert entry.url.startswith(("http://", "https://"))


@fuzzed
@given(raw=inputs(MESSAGES))
def test_session_message_is_fuzzed(count, raw):
    count()
    for decoder in (from_client, from_agent):
        with suppress(ValidationError):
            decoder.validate_json(raw)


KEYS = st.sampled_from(("modelCache", "mode", "revision", "csi.storage.k8s.io/ephemeral", "x"))
VALUES = st.one_of(
    st.sampled_from(("model", "wait", "lazy", "true", "sha256:" + "ab" * 32, "../x")),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=40),
)


@fuzzed
@given(
    attributes=st.dictionaries(st.one_of(KEYS, VALUES), VALUES, max_size=5),
    volume_id=st.one_of(st.just("csi-1"), VALUES),
    target=st.one_of(st.just(TARGET), VALUES),
)
def test_volume_context_is_fuzzed(count, attributes, volume_id, target):
    count()
    with suppress(InvalidRequestError, PreconditionError):
        request = publish_request(target, volume_id=volume_id, attributes=attributes)
        found = parse_publish(request, KUBELET)
        assert found.model_cache == attributes["modelCache"]
        assert PurePosixPath(target).is_relative_to(KUBELET)


def test_what_is_spoiled_was_right_before():
    for raw in MANIFESTS:
        assert Manifest.parse(raw)
    for raw in MAPS:
        assert HaveMap.unpack(raw)
    with pytest.raises(InvalidRequestError):
        Manifest.parse(b"{}")
