"""Where an object lies in a tree, by its key and the prefix that a source names. Pure."""


def tree_path(key: str, prefix: str) -> str | None:
    """Where an object lies in the tree; None for the marker of a folder.

    ``…/models/m`` names the folder ``models/m/`` or the single object ``models/m``, never
    ``models/m-other``, though stores list all three under that prefix.
    """
    if key.endswith("/"):
        return None
    if not prefix or prefix.endswith("/"):
        return key[len(prefix) :]
    if key == prefix:
        return key.rsplit("/", 1)[-1]
    return key[len(prefix) + 1 :] if key.startswith(prefix + "/") else None
