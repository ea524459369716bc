"""Records every state of an object that the API server tells of, while something happens to it."""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster
from e2e.lab.commands import wait_until

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
SETTLE_S = 1.0  # what the server has said by now is in the file then; arbitrary


class Record:
    """The states seen so far, the oldest first."""

    def __init__(self, file: Path) -> None:
        self._file: Path | None = file
        self._text = ""

    def close(self) -> None:
        """Keep what was seen; the file goes."""
        self._text, self._file = self._told(), None

    def states(self) -> list[dict[str, Any]]:
        text, found, at = self._told(), [], 0
        decoder = json.JSONDecoder()
        while (start := text.find("{", at)) >= 0:
            try:
                state, at = decoder.raw_decode(text, start)
            except json.JSONDecodeError:
                break  # half written
            found.append(state)
        return found

    def _told(self) -> str:
        return self._file.read_text(encoding="utf-8") if self._file else self._text


@contextmanager
def watching(cluster: Cluster, kind: str, name: str, namespace: str) -> Iterator[Record]:
    """Record an object that exists; its present state is the first."""
    words = ["get", kind, name, "--namespace", namespace, "--watch", "--output", "json"]
    with (
        tempfile.TemporaryFile() as errors,
        tempfile.NamedTemporaryFile(suffix=".json") as file,
        subprocess.Popen(
            [*cluster.kubectl_words(), *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=errors,
        ) as process,
    ):
        record = Record(Path(file.name))
        try:
            wait_until(record.states, f"the first state of {name}", timeout_s=START_TIMEOUT_S)
            yield record
            time.sleep(SETTLE_S)
        finally:
            process.terminate()
            process.wait(timeout=STOP_TIMEOUT_S)
            record.close()


def conditions(state: dict[str, Any]) -> dict[str, str]:
    """Status of each condition of an object, by type."""
    found = (state.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition["status"] for condition in found}
