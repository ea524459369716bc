"""A pod that reads its model for as long as it lives, and what it noticed meanwhile."""

import json
from dataclasses import dataclass
from typing import Any

from e2e.lab.commands import LabError, wait_until
from e2e.library import Book
from e2e.pods import container, inline, mount, pod
from e2e.tenants import Tenant

PROGRESS_TIMEOUT_S = 60.0
AGAIN_TIMEOUT_S = 240.0  # the kubelet's back-off while the node's plugin is not there yet
LOOK_INTERVAL_S = 0.5
NEW_READS = 100  # some seconds' worth: enough to say that it goes on


@dataclass(frozen=True)
class Noticed:
    """Counts since the reader's container began."""

    reads: int
    wrong: int
    errors: tuple[str, ...]
    longest_s: float


class Reader:
    """A reader; `start` it, do something to the cluster, then `check` it."""

    def __init__(
        self, tenant: Tenant, name: str, model_cache: str, node: str, **attributes: str
    ) -> None:
        """`attributes` are the volume's, beside the model's name."""
        self._tenant = tenant
        self.name = name
        self._model_cache = model_cache
        self.node = node
        self._attributes = attributes
        self._known_start = ""

    def start(self, book: Book) -> None:
        """Start the pod and wait until it has read every file, with the right bytes."""
        self.begin()
        self.wait_whole(book)

    def begin(self) -> None:
        """Start the pod and wait until it runs, whatever it has read."""
        image = self._tenant.cluster.image
        words = ("keep_reading", "/model")
        reader = container("reader", image, words, [mount("model")])
        volumes = [inline("model", self._model_cache, **self._attributes)]
        self._tenant.start(pod(self.name, [reader], volumes, node=self.node, restart="Always"))
        self._tenant.wait_running(self.name)

    def wait_whole(self, book: Book) -> None:
        """Wait until the present container has read every file once.

        Raises:
            LabError: It does not, or a file is not what it should be.
        """
        lines = wait_until(
            self._lines,
            f"pod {self.name} to have read its model",
            timeout_s=PROGRESS_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S,
        )
        if lines[0]["sums"] != book.sums:
            raise LabError(f"pod {self.name} read {lines[0]}, not {book.sums}")
        self._known_start = self._started_at()

    def wait_again(self, book: Book) -> None:
        """Wait until a container other than the one known so far has read every file once."""
        wait_until(
            lambda: self._started_at() not in {"", self._known_start},
            f"pod {self.name} to be started again",
            timeout_s=AGAIN_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S,
        )
        self.wait_whole(book)

    def wait_failed(self, words: str) -> None:
        """Wait until its program has ended in its first pass, with these words."""

        def has_failed() -> bool:
            try:
                return words in self._tenant.logs(self.name)
            except LabError:  # between two containers there may be no log
                return False

        wait_until(
            has_failed,
            f"pod {self.name} to end with {words!r}",
            timeout_s=PROGRESS_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S,
        )

    def check(self) -> Noticed:
        """Wait until it has read on for a while from now; return what it noticed.

        Raises:
            LabError: It does not read on, or read wrong bytes, or had errors.
        """
        before = self._noticed()

        def went_on() -> Noticed | None:
            now = self._noticed()
            return now if now.reads >= before.reads + NEW_READS else None

        after = wait_until(
            went_on,
            f"pod {self.name} to read on after {before}",
            timeout_s=PROGRESS_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S,
        )
        if after.wrong or after.errors:
            raise LabError(f"pod {self.name} noticed: {after}")
        return after

    @property
    def restarts(self) -> int:
        """How often its container was started again."""
        return int(self._container()["restartCount"])

    def remove(self) -> None:
        self._tenant.remove(self.name)

    def _container(self) -> dict[str, Any]:
        [status] = self._tenant.pod(self.name)["status"]["containerStatuses"]
        found: dict[str, Any] = status
        return found

    def _started_at(self) -> str:
        """When the container began that runs now; empty where none does."""
        return str(self._container()["state"].get("running", {}).get("startedAt", ""))

    def _noticed(self) -> Noticed:
        counts = [line for line in self._lines() if "reads" in line]
        if not counts:
            return Noticed(0, 0, (), 0.0)
        last = counts[-1]
        return Noticed(last["reads"], last["wrong"], tuple(last["errors"]), last["longestS"])

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._tenant.logs(self.name).splitlines()]
