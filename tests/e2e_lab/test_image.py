"""The image that is built without Docker, and the one that a Dockerfile describes, agree."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from e2e.lab.commands import LabError
from e2e.lab.image import ENVIRONMENT, USER
from e2e.lab.locks import only

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LOCK = "a==1 \\\n    --hash=sha256:00\nb==2 \\\n    --hash=sha256:11\n    # via a\n"


def test_entries_of_a_lock_are_taken_whole() -> None:
    assert only(LOCK, ["b"]) == "b==2 \\\n    --hash=sha256:11\n    # via a\n"


def test_a_package_that_a_lock_does_not_hold_is_named() -> None:
    with pytest.raises(LabError, match="c"):
        only(LOCK, ["a", "c"])


def test_both_images_run_as_the_same_user_with_the_same_environment() -> None:
    assert f"USER {USER}\n" in DOCKERFILE
    for name in ENVIRONMENT.keys() - {"PATH"}:
        assert f"{name}={ENVIRONMENT[name]}" in DOCKERFILE


def test_the_dockerfile_installs_from_the_hashed_locks_alone() -> None:
    installs = re.findall(r"pip (?:--python \S+ )?install (.*)", DOCKERFILE)
    assert len(installs) == 4
    for words in installs:
        assert "--require-hashes" in words or "--no-index" in words


def test_the_packages_that_the_dockerfile_names_are_in_the_lock() -> None:
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    named = re.findall(r"e2e\.lab\.locks requirements-dev\.lock (.*) >", DOCKERFILE)
    assert len(named) == 2
    for words in named:
        assert only(lock, words.split())


def test_what_the_dockerfile_copies_is_let_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    names = [name for words in copied for name in words.split()]
    assert names
    assert [n for n in names if not any(fnmatch(n, pattern) for pattern in patterns)] == []
