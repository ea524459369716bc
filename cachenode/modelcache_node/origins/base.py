"""What every origin offers: a listing, and grants to read what it lists."""

import fnmatch
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from modelcache_api.errors import EmptySourceError, InvalidSourceError
from modelcache_api.file_paths import check_distinct, check_path
from modelcache_api.layouts import PLAIN, HubLayout
from modelcache_api.listing import ObjectGrant
from modelcache_api.manifest import MAX_FILES, Checksum
from modelcache_node.origins.pickles import refuse_pickles

#: Objects looked at of one source, those that filters leave out included: a listing comes in pages
#: of 1,000, and this many take minutes. Arbitrary.
MAX_SEEN = 10 * MAX_FILES
#: How long a signed URL is asked to hold, seconds. Arbitrary: long enough for most fetches, short
#: enough that a leaked one is soon worthless; temporary credentials end it earlier.
GRANT_S = 3600


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """A source as its user names it, with the flags that go with it.

    Attributes:
        uri: ``s3://bucket/prefix``; docs/SOURCES.md has the forms.
        endpoint: Base URL of a compatible store or mirror; None is the provider's own.
        region: None takes the provider's default.
        anonymous: Send no credentials.
        ca_file: PEM file of CAs to trust instead of the system's.
        credentials_dir: Directory with one file per credential key, read anew at each signing
            round, so that a rotated Secret is picked up; None takes the ambient credentials.
        include: Glob patterns; when given, only matching paths are taken.
        exclude: Glob patterns whose paths are left out; wins over `include`.
        grant_s: How long a grant is asked to hold.
        requester_pays: Have the reader's account pay (S3, GCS).
        page_size: Objects asked for per page of a listing; S3 and GCS give 1000 at most.
        layout: How the tree shall look, of `layouts.LAYOUTS`.
        expected: The revision that the source must have; None takes what is there.
        safetensors_only: Refuse files that run code when they are loaded.
        virtual_hosts: At a custom S3 endpoint, write the bucket into the host name.
    """

    uri: str
    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    ca_file: Path | None = None
    credentials_dir: Path | None = None
    include: Sequence[str] = field(default=())
    exclude: Sequence[str] = field(default=())
    grant_s: int = GRANT_S
    page_size: int = 1000
    requester_pays: bool = False
    virtual_hosts: bool = False
    layout: str = PLAIN
    expected: str | None = None
    safetensors_only: bool = False


@dataclass(frozen=True, slots=True)
class SourceObject:
    """One object as its origin lists it.

    Attributes:
        path: Its place in the tree.
        key: What the origin calls it.
        validator: By what its state is pinned: an ETag, quotes and all, or another of
            `modelcache_api.pins`.
        checksum: Over the whole object, where the origin states one.
    """

    path: str
    key: str
    size_bytes: int
    validator: str
    checksum: Checksum | None = None


@runtime_checkable
class HubLike(Protocol):
    """An origin whose listing is a repository at one commit."""

    def layout(self) -> HubLayout:
        """Of what `objects` listed.

        Raises:
            InvalidSourceError: not of a part of a repository.
        """
        ...


class Origin(Protocol):
    """A store behind a source. Used by one task at a time, inside its ``async with``.

    Contract, checked for every origin by one suite:

    - `objects` yields each object once, with paths not yet checked for safety. It raises
      SourceNotFoundError (no such bucket), AccessDeniedError, SourceUnavailableError (try
      again) or InvalidSourceError; an empty prefix yields nothing.
    - `grant` gives leave to GET an object, by range, pinned; it raises as `objects`. It ends by
      `expires_at`. It holds for that object alone where the credentials can sign; a token that is
      granted as a header can do what the credentials can.
    """

    def objects(self) -> AsyncIterator[SourceObject]: ...
    async def grant(self, listed: SourceObject) -> ObjectGrant: ...


def is_selected(path: str, options: SourceOptions) -> bool:
    """Whether include and exclude leave `path` in."""
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in options.exclude):
        return False
    return not options.include or any(
        fnmatch.fnmatchcase(path, pattern) for pattern in options.include
    )


async def list_source(origin: Origin, options: SourceOptions) -> list[SourceObject]:
    """The selected objects of a source, checked to fit in one tree.

    Raises:
        EmptySourceError: nothing is there, or the filters leave nothing.
        UnsafePathError: a name cannot become a file.
        InvalidSourceError: more than MAX_FILES objects; and what `Origin.objects` raises.
    """
    selected: list[SourceObject] = []
    n_seen = 0
    async for listed in origin.objects():
        n_seen += 1
        if n_seen > MAX_SEEN:
            raise InvalidSourceError(
                f"{options.uri} lists more than {MAX_SEEN} objects, counting what include/exclude"
                " leave out; name a narrower prefix"
            )
        if not is_selected(listed.path, options):
            continue
        check_path(listed.path)
        selected.append(listed)
        if len(selected) > MAX_FILES:
            raise InvalidSourceError(
                f"{options.uri} lists more than {MAX_FILES} objects; name a narrower prefix"
            )
    if not selected:
        raise EmptySourceError(
            f"{options.uri} holds no object"
            + (f" that include/exclude leave in ({n_seen} were listed)" if n_seen else "")
        )
    check_distinct(listed.path for listed in selected)
    if options.safetensors_only:
        refuse_pickles(listed.path for listed in selected)
    return selected
