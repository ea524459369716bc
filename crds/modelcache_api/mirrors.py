"""Mirrors that an administrator names: other places that hold what sources beneath a prefix hold.

In JSON, as the operator hands them to its Jobs::

    [{"source": "hf://", "mirrors": [{"endpoint": "https://hub.eu.example"}]},
     {"source": "s3://models/", "mirrors": [{"uri": "s3://models-eu/", "region": "eu-west-1"}]}]
"""

from typing import Annotated

from pydantic import Field, TypeAdapter

from modelcache_api.messages import Message

#: Arbitrary: each is tried in turn, and a failure of each takes its time.
MAX_MIRRORS = 8
MAX_MIRRORED = 64

Uri = Annotated[str, Field(min_length=1, max_length=1024)]
Endpoint = Annotated[str, Field(max_length=512)]


class Mirror(Message):
    """One place. `uri` stands for the prefix; None: as in the source, at another `endpoint`."""

    uri: Uri | None = None
    endpoint: Endpoint | None = None
    region: Annotated[str, Field(max_length=64)] | None = None


class Mirrored(Message):
    """What `source` begins, at that `endpoint` alone (None: the provider's own)."""

    source: Uri
    endpoint: Endpoint | None = None
    mirrors: Annotated[list[Mirror], Field(min_length=1, max_length=MAX_MIRRORS)]


mirrors_from_json: TypeAdapter[list[Mirrored]] = TypeAdapter(
    Annotated[list[Mirrored], Field(max_length=MAX_MIRRORED)]
)


def mirrors_of(uri: str, endpoint: str | None, known: list[Mirrored]) -> list[tuple[str, Mirror]]:
    """The mirrors of a source, in the administrator's order, each with its URI there.

    The longest prefix counts. Without mirrors there are none.
    """
    found = [one for one in known if one.endpoint == endpoint and uri.startswith(one.source)]
    if not found:
        return []
    best = max(found, key=lambda one: len(one.source))
    rest = uri.removeprefix(best.source)
    return [((mirror.uri or best.source) + rest, mirror) for mirror in best.mirrors]
