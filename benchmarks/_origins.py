"""Other kinds of stores by nginx: what each answers to a listing, and how its objects are named.

The bytes are the same files, sent by the same server, as those of the S3 store beside it. Each kind
comes with an S3 listing that states a checksum of the same algorithm: both pulls hash alike.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from _servers import BUCKET, Store, listing
from awscrt import checksums

COMMIT = "ab" * 20
REPOSITORY = "org/model"
_BLOCK_BYTES = 1 << 24
#: What S3 calls the checksum that each kind states; None: a pull of Azure hashes by MD5, which S3
#: has no name for, so neither states one.
ALGORITHMS = {"gcs": "CRC32C", "azure": None, "hf": "SHA256", "https": "SHA256"}


@dataclass(frozen=True)
class Digests:
    """Of one object."""

    sha256: bytes
    crc32c: bytes

    @classmethod
    def of(cls, path: Path) -> "Digests":
        sha256, crc = hashlib.sha256(), 0
        with path.open("rb") as opened:
            while block := opened.read(_BLOCK_BYTES):
                sha256.update(block)
                crc = checksums.crc32c(block, crc)
        return cls(sha256.digest(), crc.to_bytes(4, "big"))


def locations(kind: str, state: Path, bucket: Path, name: str, digests: Digests) -> str:
    """nginx's locations for one kind; writes the answers they send into `state`."""
    size_bytes = (bucket / name).stat().st_size
    answers = {
        "gcs": (f"= /storage/v1/b/{BUCKET}/o", _gcs(name, size_bytes, digests)),
        "azure": (f"= /az/{BUCKET}", _azure(bucket / name)),
        "hf": (f"~ ^/api/models/{REPOSITORY}/tree/", _tree(name, size_bytes, digests)),
        "https": (f"= /{BUCKET}/modelcache.json", _file_list(name, size_bytes, digests)),
    }
    match, body = answers[kind]
    found = _static(match, state / f"{kind}.answer", body) + _object(kind, name, digests)
    if kind == "azure":
        found += f"location /az/{BUCKET}/ {{ alias {bucket}/; }}\n"
    if kind == "hf":
        info = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": []})
        found += _static(f"~ ^/api/models/{REPOSITORY}(/revision/main)?$", state / "info", info)
        found += (
            f"location = /{REPOSITORY}/resolve/{COMMIT}/{name} "
            f"{{ return 302 $scheme://localhost:$server_port/{BUCKET}/{name}; }}\n"
        )
    return found


def s3_listing(kind: str, bucket: Path) -> str:
    """The S3 store's listing, with the checksum that `kind` has."""
    algorithm = ALGORITHMS[kind]
    if algorithm is None:
        return listing(bucket)
    stated = f"<ChecksumAlgorithm>{algorithm}</ChecksumAlgorithm>"
    stated += "<ChecksumType>FULL_OBJECT</ChecksumType>"
    return listing(bucket).replace("</Size>", f"</Size>{stated}")


def pull_flags(kind: str, store: Store) -> list[str]:
    """What `modelcache pull` is given: the source, and where it is."""
    url = store.http_url
    return {
        "gcs": [f"gs://{BUCKET}/", "--endpoint", url, "--anonymous"],
        "azure": [f"az://{BUCKET}/", "--endpoint", f"{url}/az", "--anonymous"],
        "hf": [f"hf://{REPOSITORY}", "--endpoint", url, "--anonymous"],
        "https": [f"{url}/{BUCKET}/modelcache.json", "--anonymous"],
    }[kind]


def _static(match: str, file: Path, body: str) -> str:
    file.write_text(body)
    kind = "xml" if body.startswith("<") else "json"
    return (
        f"location {match} {{ default_type application/{kind};"
        f" root {file.parent}; try_files /{file.name} =404; }}\n"
    )


def _object(kind: str, name: str, digests: Digests) -> str:
    """The headers by which S3 and Google state checksum and generation."""
    stated = {"SHA256": digests.sha256, "CRC32C": digests.crc32c}
    algorithm = ALGORITHMS[kind]
    headers = "add_header X-Goog-Generation 1;"
    if algorithm:
        value = base64.b64encode(stated[algorithm]).decode()
        headers += f' add_header x-amz-checksum-{algorithm.lower()} "{value}";'
        headers += " add_header x-amz-checksum-type FULL_OBJECT;"
    return f"location = /{BUCKET}/{name} {{ {headers} }}\n"


def _gcs(name: str, size_bytes: int, digests: Digests) -> str:
    crc = base64.b64encode(digests.crc32c).decode()
    item = {"name": name, "size": str(size_bytes), "generation": "1", "crc32c": crc}
    return json.dumps({"items": [item]})


def _azure(path: Path) -> str:
    status = path.stat()
    etag = f"{int(status.st_mtime):x}-{status.st_size:x}"  # as nginx makes it
    return (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs><Blob>'
        f"<Name>{path.name}</Name><Properties><Etag>{etag}</Etag>"
        f"<Content-Length>{status.st_size}</Content-Length><BlobType>BlockBlob</BlobType>"
        "</Properties></Blob></Blobs><NextMarker /></EnumerationResults>"
    )


def _tree(name: str, size_bytes: int, digests: Digests) -> str:
    lfs = {"oid": digests.sha256.hex(), "size": size_bytes, "pointerSize": 134}
    entry = {"type": "file", "path": name, "size": size_bytes, "oid": "0" * 40, "lfs": lfs}
    return json.dumps([entry])


def _file_list(name: str, size_bytes: int, digests: Digests) -> str:
    entry = {"path": name, "size": size_bytes, "sha256": digests.sha256.hex()}
    return json.dumps({"version": 1, "files": [entry]})
