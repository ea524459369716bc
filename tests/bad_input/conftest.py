"""A store that can do wrong, and the command line; nodes are made by the tests that need one."""

from collections.abc import Iterator

import pytest

from support.command_line import CommandLine
from support.fault_origin import FaultOrigin


@pytest.fixture
def origin() -> Iterator[FaultOrigin]:
    with FaultOrigin() as started:
        yield started


@pytest.fixture
def modelcache(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)
