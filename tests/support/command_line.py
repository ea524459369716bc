"""The command line in this process, which saves a test the second that Python takes to start."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from modelcache_node.cli.entry import main


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what its user saw."""

    code: int
    out: str
    err: str


class CommandLine:
    """``modelcache WORDS…``; makes its own event loop, so not for async tests."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    def __call__(self, *words: str | Path) -> Ended:
        self._captured.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        said = self._captured.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)
