"""What a mount is about, written once when it is made: for its servers and for whoever adopts it.

A memfd that goes with the mount's other descriptors, so that a successor needs no file, no agent
and no API server to know what it is to serve. Format 1: one JSON object.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from modelcache_api.errors import InvalidRequestError
from modelcache_api.manifest import Manifest
from modelcache_csi.fuse.negotiation import Features

VERSION = 1
#: Bytes: a manifest of 100,000 files with long names, and little else.
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class MountAbout:
    """A mount's contents and conditions.

    Attributes:
        name: By which the keeper knows the mount.
        manifest: What it shows.
        mtime_s: Time stamp of every file.
        allowed: Kernel features that may be used.
        volume: For the plugin: what was asked for when the volume was published.
    """

    name: str
    manifest: Manifest
    mtime_s: int
    allowed: Features = field(default_factory=Features)
    volume: Mapping[str, str] = field(default_factory=dict)

    def write(self) -> int:
        """Into a new memfd; its descriptor, close-on-exec."""
        fd = os.memfd_create("modelcache-about", os.MFD_CLOEXEC)
        document = {
            "version": VERSION,
            "name": self.name,
            "mtime": self.mtime_s,
            "passthrough": self.allowed.passthrough,
            "resend": self.allowed.resend,
            "volume": dict(self.volume),
            "revision": self.manifest.revision,
            "manifest": self.manifest.canonical().decode(),
        }
        with open(fd, "wb", closefd=False) as file:
            file.write(json.dumps(document).encode())
        return fd

    @classmethod
    def read(cls, fd: int) -> Self:
        """Raises InvalidRequestError: not such a description."""
        raw = os.pread(fd, min(_MAX_BYTES, os.fstat(fd).st_size), 0)
        try:
            document = json.loads(raw)
            manifest = document["manifest"].encode()
            if document["version"] != VERSION or document["revision"] != _digest(manifest):
                raise InvalidRequestError("a mount's description contradicts itself")
            return cls(
                name=str(document["name"]),
                manifest=Manifest.parse(manifest),
                mtime_s=int(document["mtime"]),
                allowed=Features(
                    passthrough=bool(document["passthrough"]), resend=bool(document["resend"])
                ),
                volume={str(key): str(value) for key, value in document["volume"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise InvalidRequestError(f"not a mount's description: {e}") from e


def _digest(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()
