"""What all plans together have nodes keep, and so who shares which revision."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, ValuesView

from modelcache_api.cache_node import WantedModel
from modelcache_operator.handlers.snapshot import ModelCacheKey

#: Per node, what it should keep for one ModelCache.
Keep = Mapping[str, frozenset[WantedModel]]


class Keeps:
    """By ModelCache, what its newest plan keeps where; revisions with their nodes beside it."""

    def __init__(self) -> None:
        self._by_key: dict[ModelCacheKey, Keep] = {}
        self._keepers: dict[str, Counter[str]] = defaultdict(Counter)

    def __contains__(self, key: ModelCacheKey) -> bool:
        return key in self._by_key

    def values(self) -> ValuesView[Keep]:
        return self._by_key.values()

    def keepers(self, revision: str) -> Collection[str]:
        """Nodes that should keep `revision`, whatever for."""
        return self._keepers.get(revision, ())

    def put(self, key: ModelCacheKey, keep: Keep) -> set[str]:
        """Take a new plan; the nodes whose spec it concerns.

        Those are the nodes that should keep something else now, and of a revision that gained or
        lost a node all others, for each is told who shares it.
        """
        before = self._by_key.get(key, {})
        self._by_key[key] = keep
        concerned = {node for node in {*before, *keep} if before.get(node) != keep.get(node)}
        changed: set[str] = set()
        for node in concerned:
            was, now = _revisions(before.get(node)), _revisions(keep.get(node))
            for revision in now - was:
                self._keepers[revision][node] += 1
            for revision in was - now:
                self._release(revision, node)
            changed |= now ^ was
        return concerned.union(*(self.keepers(revision) for revision in changed))

    def drop(self, key: ModelCacheKey) -> set[str]:
        """Forget a ModelCache that is gone; as `put`."""
        concerned = self.put(key, {})
        del self._by_key[key]
        return concerned

    def _release(self, revision: str, node: str) -> None:
        keepers = self._keepers[revision]
        keepers[node] -= 1
        if not keepers[node]:
            del keepers[node]
        if not keepers:
            del self._keepers[revision]


def _revisions(models: frozenset[WantedModel] | None) -> set[str]:
    return {model.revision for model in models or ()}
