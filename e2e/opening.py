"""Opens the cluster that `CLUSTER` names: lab, kind, or one that exists."""

import os
from contextlib import AbstractContextManager

from e2e import existing, kind
from e2e.cluster import Cluster
from e2e.lab import cluster as lab
from e2e.lab.commands import LabError
from e2e.lab.settings import DEFAULT_NAME


def opened() -> AbstractContextManager[Cluster]:
    """The cluster of this run, for as long as the block lasts.

    Raises:
        LabError: `CLUSTER` names none that we know.
    """
    which = os.environ.get("CLUSTER", "lab")
    match which:
        case "lab":
            return lab.running(os.environ.get("LAB_NAME", DEFAULT_NAME))
        case "kind":
            return kind.running()
        case "existing":
            return existing.running(os.environ)
    raise LabError(f"CLUSTER is lab, kind or existing, not {which!r}")
