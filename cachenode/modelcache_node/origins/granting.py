"""A source's listing with a grant for each object, and new grants when those run out."""

from collections.abc import Sequence

from modelcache_api.errors import InvalidSourceError
from modelcache_api.layouts import HUB, HubLayout
from modelcache_api.listing import ListedObject, ObjectGrant
from modelcache_node.origins.base import (
    HubLike,
    Origin,
    SourceObject,
    SourceOptions,
    list_source,
)
from modelcache_node.origins.opening import open_origin


class GrantedSource:
    """One listing of a source, which sets `layout`.

    Credentials are read anew at every signing, as they may rotate.
    """

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._listing: dict[str, SourceObject] = {}
        self.layout: HubLayout | None = None

    async def objects(self) -> list[ListedObject]:
        """List and sign. Raises what `list_source` and `Origin.grant` raise."""
        async with open_origin(self._options) as origin:
            listing = await list_source(origin, self._options)
            self._listing = {listed.path: listed for listed in listing}
            if self._options.layout == HUB:
                self.layout = _layout_of(origin)
            return [
                ListedObject(
                    path=listed.path,
                    size_bytes=listed.size_bytes,
                    validator=listed.validator,
                    checksum=str(listed.checksum) if listed.checksum else None,
                    grant=await origin.grant(listed),
                )
                for listed in listing
            ]

    async def renew(self, paths: Sequence[str]) -> dict[str, ObjectGrant]:
        """New grants for objects of the listing; a path that is not in it is left out."""
        wanted = [self._listing[path] for path in paths if path in self._listing]
        async with open_origin(self._options) as origin:
            return {listed.path: await origin.grant(listed) for listed in wanted}


def _layout_of(origin: Origin) -> HubLayout:
    if not isinstance(origin, HubLike):
        raise InvalidSourceError("the layout hf is of hf:// sources alone")
    return origin.layout()
