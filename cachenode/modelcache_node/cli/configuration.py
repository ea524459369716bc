"""An agent's configuration file: the flags' names as keys; a flag given wins over the file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from modelcache_api.errors import InvalidRequestError

#: A configuration is a dozen lines. Arbitrary bound on what is read.
_MAX_BYTES = 64 << 10


def with_configuration(argv: Sequence[str]) -> list[str]:
    """`argv`, with what ``--config FILE`` says put before it, so that later flags win.

    Raises:
        InvalidRequestError: the file cannot be read, or is not a mapping of plain values.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    path = finder.parse_known_args(list(argv[1:]))[0].config
    if argv[:1] != ["agent"] or path is None:
        return list(argv)
    return ["agent", *_as_flags(_read(path), path), *argv[1:]]


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open() as opened:
            document = yaml.safe_load(opened.read(_MAX_BYTES))
    except (OSError, yaml.YAMLError) as e:
        raise InvalidRequestError(f"--config {path}: {e}") from e
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidRequestError(f"--config {path}: not a mapping of flags to values")
    return document


def _as_flags(document: dict[str, object], path: Path) -> list[str]:
    flags: list[str] = []
    for name, value in document.items():
        values = value if isinstance(value, list) else [value]
        for one in values:
            if one is True:
                flags.append(f"--{name}")
            elif isinstance(one, (str, int, float)) and one is not False:
                flags += [f"--{name}", str(one)]
            elif one is not False:
                raise InvalidRequestError(f"--config {path}: {name} has no plain value")
    return flags
