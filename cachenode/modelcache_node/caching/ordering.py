"""Which files of a revision are fetched first. Pure."""

from collections.abc import Iterable

from modelcache_api.manifest import File

#: What a loader opens before any weight: configurations, indexes, tokenizers. They are small.
_EARLY_SUFFIXES = (".json", ".txt", ".model", ".tiktoken", ".jinja", ".py", ".md")


def fetch_order(files: Iterable[File]) -> list[File]:
    """Configuration, index and tokenizer files first, then the rest in the manifest's order.

    Weights are read in the order of their shards' names, which the manifest's order is.
    """
    return sorted(files, key=lambda file: not is_early(file))


def is_early(file: File) -> bool:
    """Whether a loader opens the file before any weight."""
    return file.path.endswith(_EARLY_SUFFIXES)
