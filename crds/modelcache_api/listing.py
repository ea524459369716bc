"""What an origin lists and grants, as plain values: a pull, which parses no message, does without
the library that parses them.

`messages` carries them between the parts, in camelCase. A value out of bounds raises ValueError.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

#: Objects or grants in one message: keeps a frame below `messages.MAX_MESSAGE_BYTES`.
MAX_OBJECTS_PER_MESSAGE = 200


def _to_camel(name: str) -> str:
    """``size_bytes`` as it is on the wire: ``sizeBytes``."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


#: For pydantic, which finds it under that name: as `messages.Message` is configured.
_ON_THE_WIRE: dict[str, Any] = {
    "alias_generator": _to_camel,
    "populate_by_name": True,
    "extra": "forbid",
}


class Integrity(StrEnum):
    """What vouches for a revision's bytes: the weakest that holds for every file of it."""

    SHA256 = "Sha256"
    STORE_CHECKSUM = "StoreChecksum"
    TRANSPORT_ONLY = "TransportOnly"


@dataclass(frozen=True)
class ObjectGrant:
    """What lets one object be read for a while. Never logged, never on disk.

    `expires_at` is in seconds of the Unix epoch; None never expires (anonymous access).
    """

    __pydantic_config__ = _ON_THE_WIRE

    url: str = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    expires_at: float | None = None

    def __post_init__(self) -> None:
        _check("url", len(self.url), 0, 8192)
        _check("headers", len(self.headers), 0, 16)


@dataclass(frozen=True, kw_only=True)
class ListedObject:
    """One object as the origin lists it, and a grant to read it.

    `path` is the file's place in the tree; `validator` pins its state: the ETag as If-Match takes
    it, quotes and all, or another form of `pins`; `checksum` is ``algorithm:hex`` over the whole
    object, where the origin states one.
    """

    __pydantic_config__ = _ON_THE_WIRE

    path: str
    size_bytes: int
    validator: str
    checksum: str | None = None
    grant: ObjectGrant

    def __post_init__(self) -> None:
        _check("path", len(self.path), 1, 2048)
        _check("sizeBytes", self.size_bytes, 0, None)
        _check("validator", len(self.validator), 1, 256)
        _check("checksum", len(self.checksum or ""), 0, 128)


def _check(name: str, found: int, least: int, most: int | None) -> None:
    if found < least or (most is not None and found > most):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name}: {found} is not {bounds}")
