"""The key a blob is kept under: by content where the origin states it, else by place.

Two origins share a key only if they state the same SHA-256, and such a blob is shared only
once its content was checked (see the store). A key by place covers everything that decides
which bytes the origin answers, so that nobody can poison another's blob by an endpoint of
his own; over plain HTTP, or under a CA that a tenant supplied, the namespace is part of it.
"""

import hashlib
import json
from dataclasses import dataclass

from modelcache_api.manifest import Checksum, ChecksumAlgorithm

_DOMAIN = "modelcache-blob-v1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object was really read from.

    Attributes:
        scheme: ``http`` or ``https``; of `mirrored` places another.
        host: Lower-case name or address that was connected to.
        port: The port that was connected to.
        target: Path and query that identify the object, without what only signs a request.
        namespace: Set when another namespace could answer in this place's name: plain HTTP or
            a CA that a tenant supplied.
    """

    scheme: str
    host: str
    port: int
    target: str
    namespace: str | None = None

    def provider_id(self) -> str:
        """Under which unsealed chunks are kept apart, 16 hexadecimal digits."""
        identity = [_DOMAIN, self.scheme, self.host, self.port, self.namespace]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def mirrored(source: str, path: str, namespace: str) -> Place:
    """The place of an object that may be read from mirrors: its source's name and its path there.

    A namespace says itself what its source is, so it is of that namespace.
    """
    return Place("mirrored", source, 0, path, namespace)


def blob_key(place: Place, *, validator: str, size_bytes: int, checksum: Checksum | None) -> str:
    """64 hexadecimal digits; see the module's text."""
    if checksum and checksum.algorithm is ChecksumAlgorithm.SHA256:
        return checksum.value
    identity = [
        _DOMAIN,
        place.scheme,
        place.host,
        place.port,
        place.target,
        place.namespace,
        validator,
        size_bytes,
        str(checksum) if checksum else None,
    ]
    return hashlib.sha256(json.dumps(identity, ensure_ascii=False).encode()).hexdigest()


def is_content_key(key: str, checksum: Checksum | None) -> bool:
    """Whether `key` says what the bytes are, not only where they came from."""
    return (
        checksum is not None
        and checksum.algorithm is ChecksumAlgorithm.SHA256
        and checksum.value == key
    )
