"""Files that run code when they are loaded, known by their names. Pure."""

from collections.abc import Iterable
from itertools import islice

from modelcache_api.errors import InvalidSourceError

#: Python's pickle, alone or in an archive (PyTorch's .pt, .bin), and what embeds it or code.
_SUFFIXES = (
    ".bin", ".ckpt", ".dill", ".h5", ".joblib", ".keras", ".mar", ".npz", ".pickle", ".pkl", ".pt",
    ".pt2", ".pth", ".py", ".pyc", ".so",
)  # fmt: skip
_SHOWN = 5  # names in the message; arbitrary


def is_pickle(path: str) -> bool:
    """Whether a file of this name may run code when it is loaded."""
    return path.lower().endswith(_SUFFIXES)


def refuse_pickles(paths: Iterable[str]) -> None:
    """Raises InvalidSourceError: some of `paths` may run code; says which."""
    found = list(islice(filter(is_pickle, paths), _SHOWN + 1))
    if found:
        more = ", …" if len(found) > _SHOWN else ""
        raise InvalidSourceError(
            f"safetensorsOnly refuses {', '.join(found[:_SHOWN])}{more}: such files can run code "
            "when they are loaded; leave them out by exclude"
        )
