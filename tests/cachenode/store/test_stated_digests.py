"""A digest that an origin states is compared with the content before anything is shown."""

import hashlib

import pytest
from awscrt import checksums

from modelcache_api.errors import IntegrityMismatchError
from modelcache_api.manifest import Checksum
from modelcache_node.store.store import Store

CONTENT = b"hello\n"
#: `printf 'hello\n' | git hash-object --stdin`
GIT_NAME = "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.fixture
def blob(tmp_path):
    store = Store.open(tmp_path / "store", allow_any_disk=True)
    partial = store.blobs.open_partial("ab" * 32, len(CONTENT), None)
    partial.data_path.write_bytes(CONTENT)
    partial.mark_present(0, checksums.crc32c(CONTENT))
    yield partial
    partial.close()
    store.close()


@pytest.mark.parametrize(
    "stated",
    [
        f"gitsha1:{GIT_NAME}",
        f"md5:{hashlib.md5(CONTENT).hexdigest()}",
        f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
        f"crc32c:{checksums.crc32c(CONTENT):08x}",
        f"crc64nvme:{checksums.crc64nvme(CONTENT):016x}",
    ],
)
def test_content_that_agrees_is_sealed(blob, stated):
    blob.seal(Checksum.parse(stated))
    assert blob.is_sealed


@pytest.mark.parametrize("stated", ["gitsha1:" + "00" * 20, "md5:" + "00" * 16])
def test_content_that_disagrees_is_not(blob, stated):
    with pytest.raises(IntegrityMismatchError, match="was stated"):
        blob.seal(Checksum.parse(stated))
    assert not blob.is_sealed
