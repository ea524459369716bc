"""From a listing to a revision: the agent believes what the origin answers, not what was listed.

Of every object one byte is read (of an empty one, none) with If-Match; the answer's validator and
total size must be those listed. So a revision, and the proof that goes with it, exist only where
the grants really read every object of it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from modelcache_api.blob_key import Place, blob_key, is_content_key, mirrored as mirrored_place
from modelcache_api.errors import InvalidRequestError, InvalidSourceError, ModelCacheError
from modelcache_api.layouts import HubLayout
from modelcache_api.listing import ListedObject, ObjectGrant
from modelcache_api.manifest import Checksum, File, Manifest
from modelcache_node.caching.roots import root_of
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import Grant, RangeRequest

#: Probes under way at once. Arbitrary: hides round trips, far below a store's throttling.
PROBE_CONCURRENCY = 64

#: Headers that a grant may carry: those that authorise. Lower case.
GRANT_HEADERS = frozenset({
    "authorization", "x-amz-security-token", "x-amz-request-payer", "x-ms-version", "x-ms-date",
})  # fmt: skip

_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Query parameters that sign a request and do not choose the bytes: SigV4's and Google's.
_SIGNING_PREFIXES = ("x-amz-", "x-goog-")
_SIGNING_NAMES = frozenset({"x-id"})
#: Azure's: short names, so that they count only where a whole SAS is there.
_SAS_NAMES = frozenset({
    "sv", "ss", "srt", "sp", "se", "st", "spr", "sip", "sr", "si", "sig", "skoid", "sktid", "skt",
    "ske", "sks", "skv", "saoid", "suoid", "scid",
})  # fmt: skip
_SAS_MARKS = {"sv", "sig", "se"}


@dataclass(frozen=True, slots=True)
class BlobSource:
    """Where the bytes of one blob come from. `known_as`: where `place` is one of many mirrors."""

    file: File
    validator: str
    place: Place
    known_as: Place | None = None

    @property
    def provider_id(self) -> str | None:
        """Keeps unsealed chunks of a content key apart per origin; None where the key does."""
        if is_content_key(self.file.blob, self.file.checksum):
            return (self.known_as or self.place).provider_id()
        return None


@dataclass(frozen=True, slots=True)
class Resolution:
    """A revision, and the sources of its blobs by blob key; `root` as `roots.root_of`."""

    manifest: Manifest
    sources: dict[str, BlobSource]
    namespace: str
    ca_pem: str | None
    root: str

    @property
    def by_claim(self) -> list[BlobSource]:
        """Blobs named by a digest that so far is only claimed; see `possession`."""
        return [source for source in self.sources.values() if source.provider_id is not None]

    def is_of_blob(self, blob: str, grant: ObjectGrant) -> bool:
        """Whether a grant leads to the place that `blob` was resolved at."""
        try:
            place = place_of(grant.url, namespace=self.namespace, ca_pem=self.ca_pem)
        except ModelCacheError:
            return False
        return blob in self.sources and self.sources[blob].place == place


async def resolve(
    objects: Sequence[ListedObject],
    movers: Movers,
    *,
    namespace: str,
    ca_pem: str | None,
    layout: HubLayout | None = None,
    expected: str | None = None,
    mirrored: str | None = None,
) -> Resolution:
    """Probe every object and build the revision; one that is not `expected` is refused.

    What is `mirrored` and has a checksum is known by that name, whichever mirror it is read from.

    Raises:
        SourceChangedError: an object is not what was listed; list anew.
        InvalidSourceError and its kind: not found, denied, unsafe names, not a usable URL.
        SourceUnavailableError: try again.
    """
    slots = asyncio.Semaphore(PROBE_CONCURRENCY)

    async def probe(listed: ListedObject) -> BlobSource:
        place = place_of(listed.grant.url, namespace=namespace, ca_pem=ca_pem)
        checksum = Checksum.parse(listed.checksum) if listed.checksum else None
        async with slots:
            await movers.fetch(
                RangeRequest(
                    path=None,
                    offset=0,
                    length=min(1, listed.size_bytes),
                    grant=to_grant(listed.grant),
                    validator=listed.validator,
                    total_bytes=listed.size_bytes,
                    ca_pem=ca_pem,
                )
            )
        known_as, validator = place, listed.validator
        if mirrored and checksum:  # mirrors have validators of their own: the checksum decides
            known_as, validator = mirrored_place(mirrored, listed.path, namespace), ""
        key = blob_key(
            known_as, validator=validator, size_bytes=listed.size_bytes, checksum=checksum
        )
        return BlobSource(
            File(listed.path, listed.size_bytes, key, checksum),
            listed.validator,
            place,
            known_as if known_as is not place else None,
        )

    try:
        async with asyncio.TaskGroup() as group:
            probes = [group.create_task(probe(listed)) for listed in objects]
    except ExceptionGroup as e:
        raise e.exceptions[0] from e
    found = [task.result() for task in probes]
    manifest = Manifest.of((source.file for source in found), layout)
    if expected is not None and manifest.revision != expected:
        raise InvalidSourceError(
            f"the source is {manifest.revision}, and {expected} was expected: it changed, or it is "
            "not what it should be"
        )
    by_path = {source.file.path: source for source in found}
    sources = {blob: by_path[file.path] for blob, file in manifest.blobs.items()}
    root = root_of((source.file.path, source.place) for source in found)
    return Resolution(manifest, sources, namespace, ca_pem, root)


def to_grant(grant: ObjectGrant) -> Grant:
    """A grant as movers take it.

    Raises:
        InvalidRequestError: it carries a header that a grant may not.
    """
    for name in grant.headers:
        if name.lower() not in GRANT_HEADERS:
            raise InvalidRequestError(f"a grant may not carry the header {name[:60]!r}")
    return Grant(grant.url, tuple(grant.headers.items()), grant.expires_at)


def place_of(url: str, *, namespace: str, ca_pem: str | None) -> Place:
    """Where `url` leads, without what only signs it.

    Raises:
        InvalidSourceError: not an http or https URL of a host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise InvalidSourceError(f"a grant's URL is malformed: {e}") from None
    if parts.scheme not in _DEFAULT_PORTS or not host or parts.username is not None:
        raise InvalidSourceError("a grant's URL is not http(s)://host/…")
    query = parse_qsl(parts.query, keep_blank_values=True)
    signs = _SIGNING_NAMES | (_SAS_NAMES if {name for name, _ in query} >= _SAS_MARKS else set())
    kept = sorted(
        (name, value)
        for name, value in query
        if not name.lower().startswith(_SIGNING_PREFIXES) and name not in signs
    )
    target = parts.path + ("?" + urlencode(kept) if kept else "")
    is_spoofable = parts.scheme == "http" or ca_pem is not None
    return Place(
        parts.scheme,
        host.lower(),
        port or _DEFAULT_PORTS[parts.scheme],
        target,
        namespace if is_spoofable else None,
    )
