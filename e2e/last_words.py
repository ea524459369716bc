"""What explains a failed scenario: the objects as they are now, the parts' last log lines."""

from collections.abc import Iterator, Sequence

from e2e.cluster import Cluster
from e2e.lab.commands import LabError
from e2e.release import NAMESPACE, PARTS

#: Lines of each part's log, and of each list; bytes of a line. Arbitrary: a report that one reads.
_MAX_LINES = 40
_MAX_LINE_CHARS = 400
_EVERYWHERE = ("--all-namespaces", "--output")
_LISTS: dict[str, Sequence[str]] = {
    "nodes": ("nodes",),
    "model caches": ("modelcaches", "--all-namespaces"),
    "cache nodes": (
        "cachenodes",
        "--output",
        "jsonpath={range .items[*]}{.metadata.name}{' '}{.status.heartbeatAt}{' '}{.status.address}"
        "{' lists '}{.spec.swarms[*].revision}{' holds '}{.status.models[*].revision}{'\\n'}{end}",
    ),
    "jobs": ("jobs", "--all-namespaces"),
    "pods": ("pods", *_EVERYWHERE, "wide"),
    "leases": ("leases", "--all-namespaces"),
    "events": ("events", "--all-namespaces", "--sort-by", ".metadata.creationTimestamp"),
}


def last_words(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Titles and texts; where the cluster does not answer, that is the text."""
    for title, words in _LISTS.items():
        yield title, _ask(cluster, "get", *words)
    for part in PARTS:
        chosen = f"app.kubernetes.io/component={part}"
        where = ("--namespace", NAMESPACE, "--selector", chosen, "--all-containers", "--prefix")
        yield f"{part}'s log", _ask(cluster, "logs", *where, f"--tail={_MAX_LINES}")


def _ask(cluster: Cluster, *words: str) -> str:
    try:
        lines = cluster.kubectl(*words).splitlines()
    except LabError as e:
        return str(e)
    return "\n".join(line[:_MAX_LINE_CHARS] for line in lines[-_MAX_LINES:])
