"""Credentials as a Secret's keys, one file each, read anew whenever something is signed."""

from collections.abc import Iterable

from modelcache_api.errors import AccessDeniedError
from modelcache_node.origins.base import SourceOptions

#: A key file holds a key, a token or a service account's JSON. Arbitrary, well above.
_MAX_BYTES = 16 << 10


def read_keys(options: SourceOptions, names: Iterable[str]) -> dict[str, str]:
    """Those of `names` that are there and not empty; nothing where no directory is given."""
    if options.credentials_dir is None:
        return {}
    found: dict[str, str] = {}
    for name in names:
        file = options.credentials_dir / name
        if file.is_file():
            with file.open() as opened:
                text = opened.read(_MAX_BYTES).strip()
            if text:
                found[name] = text
    return found


def require_keys(found: dict[str, str], names: Iterable[str]) -> None:
    """Raises AccessDeniedError: the Secret lacks some of `names`."""
    missing = sorted(set(names) - found.keys())
    if missing:
        raise AccessDeniedError(f"the Secret lacks the key(s) {', '.join(missing)}")
