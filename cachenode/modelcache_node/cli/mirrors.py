"""``--mirrors`` into the ways to a source."""

from dataclasses import replace

from pydantic import ValidationError

from modelcache_api.errors import InvalidRequestError
from modelcache_api.mirrors import mirrors_from_json, mirrors_of
from modelcache_node.origins.base import SourceOptions


def mirrors(options: SourceOptions, known: str | None) -> list[SourceOptions]:
    """A source's mirrors, in order; none where none are named.

    Raises:
        InvalidRequestError: `known` is not what the flag takes.
    """
    if not known:
        return []
    try:
        parsed = mirrors_from_json.validate_json(known)
    except ValidationError as e:
        raise InvalidRequestError(f"--mirrors: {e.errors(include_input=False)[:3]}") from e
    return [
        replace(options, uri=uri, endpoint=one.endpoint, region=one.region or options.region)
        for uri, one in mirrors_of(options.uri, options.endpoint, parsed)
    ]
