"""What must hold for the repository itself, whatever else changes."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from modelcache_api.reasons import Reason

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = ("crds", "operator", "csi_driver", "cachenode")
MAX_LINES = 400

#: Written by programs, or by somebody else.
GENERATED = re.compile(
    r"\.lock$|(^|/)package-lock\.json$|(^|/)go\.(mod|sum)$|(^|/)_proto/|^crds/[^/]+\.yaml$|/files/crds/|^LICENSE$"
)
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".tpl", ".txt", ".json", ".lock", ".proto", ".sh"}
TEXT_NAMES = {"Makefile", "Dockerfile", "run", ".gitignore"}


@cache
def files() -> tuple[Path, ...]:
    """Files of the checkout, relative; what git ignores is not there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
    ).stdout.decode()
    return tuple(sorted(Path(name) for name in listed.split("\0") if (ROOT / name).is_file()))


def texts() -> Iterator[tuple[Path, str]]:
    for path in files():
        if path.suffix in TEXT or path.name in TEXT_NAMES:
            yield path, (ROOT / path).read_text()


def test_nothing_shadows_the_standard_librarys_operator() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    taken = sys.stdlib_module_names - {"__main__", "__init__"}
    shadows = [
        str(path)
        for path in files()
        if path.suffix == ".py"
        and path.parts[0] in COMPONENTS
        and taken.intersection((*path.parts[1:-1], path.stem))
    ]
    assert not shadows


def test_files_stay_short_enough_to_read() -> None:
    long = {
        str(path): n_lines
        for path, text in texts()
        if not GENERATED.search(str(path)) and (n_lines := text.count("\n")) > MAX_LINES
    }
    assert not long


def test_lock_files_pin_hashes_and_name_no_index() -> None:
    locks = [(path, text) for path, text in texts() if path.name.startswith("requirements")]
    assert len(locks) == 2
    for path, text in locks:
        assert "--hash=sha256:" in text, path
        assert not re.search(r"https?://|--(extra-)?index|--find-links|--trusted", text), path


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    places = ["/" + "root/", "/" + "home/", "/" + "work/", "/tmp/" + "bash_jobs"]
    pattern = re.compile(r"(?<![\w.~\-$}])(?:" + "|".join(map(re.escape, places)) + ")")
    found = {
        str(path): match[0] for path, text in texts() if (match := pattern.search(text)) is not None
    }
    assert not found


def test_the_checkout_holds_no_binary_and_nothing_large() -> None:
    for path in files():
        raw = (ROOT / path).read_bytes()
        assert len(raw) < 1 << 20, path
        assert b"\0" not in raw[:8192], path


def test_the_wheel_holds_every_package_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=50,
    )
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {
        path.parts[1]
        for path in files()
        if len(path.parts) == 3 and path.parts[0] in COMPONENTS and path.name == "__init__.py"
    }
    assert len(packages) >= 4
    inside = {name.split("/")[0] for name in names}
    assert packages == {name for name in inside if not name.endswith(".dist-info")}
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert any(name.endswith("/LICENSE") for name in names)


# -- documents


def section(text: str, heading: str) -> str:
    """What stands beneath a second-level heading; empty when there is none."""
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def promises(heading: str) -> set[str]:
    text = section((ROOT / "docs" / "SEMANTICS.md").read_text(), heading)
    return set(re.findall(r"^### ([a-z0-9-]+)$", text, re.MULTILINE))


def promise_tests() -> set[str]:
    """Names of promises that have a test, ``test_promise_<name>`` or that and ``__<case>``."""
    named = re.compile(r"^ *(?:async )?def test_promise_(\w+?)(?:__\w+)?\(", re.MULTILINE)
    return {
        name.replace("_", "-")
        for path, text in texts()
        if path.suffix == ".py" and path.parts[0] in ("tests", "e2e")
        for name in named.findall(text)
    }


def test_every_promise_has_a_test_of_its_name() -> None:
    assert promises("Promises")
    assert promises("Promises") - promise_tests() == set()


def test_every_promise_test_is_in_the_document() -> None:
    assert promise_tests() - promises("Promises") == set()


def test_no_promise_is_made_and_planned() -> None:
    assert not promises("Promises") & promises("Planned")


def test_every_test_that_a_document_names_exists() -> None:
    named = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)
    there = {
        name
        for path, text in texts()
        if path.suffix == ".py" and path.parts[0] in ("tests", "e2e")
        for name in named.findall(text)
    }
    troubles = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text()
    assert len(set(re.findall(r"`(test_\w+)`", troubles))) > 30
    for path in documents():
        assert set(re.findall(r"`(test_\w+)`", (ROOT / path).read_text())) <= there, path


def test_every_reason_for_trouble_is_explained() -> None:
    troubles = section((ROOT / "docs" / "TROUBLESHOOTING.md").read_text(), "By reason")
    explained = set(re.findall(r"`([A-Z]\w+)`", troubles))
    all_is_well = {Reason.RESOLVED, Reason.RESOLVING, Reason.READY, Reason.NOT_REQUESTED}
    assert {str(reason) for reason in set(Reason) - all_is_well} - explained == set()


def documents() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def test_links_between_documents_lead_somewhere() -> None:
    for path in documents():
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / path).read_text()):
            if "://" not in target:
                assert (ROOT / path.parent / target).exists(), f"{path}: {target}"


def test_commands_in_documents_are_verbs_of_the_makefile() -> None:
    verbs = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in documents():
        used = set(re.findall(r"`make ([a-z0-9-]+)", (ROOT / path).read_text()))
        assert used <= verbs, path


def test_the_architecture_shows_every_folder_of_code() -> None:
    text = section((ROOT / "docs" / "ARCHITECTURE.md").read_text(), "Folders")
    folders = {
        path.parts[2]
        for path in files()
        if path.name == "__init__.py" and len(path.parts) == 4 and path.parts[0] in COMPONENTS
    }
    assert {folder for folder in folders if not re.search(rf"\b{folder}\b", text)} == set()


@pytest.mark.parametrize("folder", ["docs/adr"])
def test_every_decision_is_listed_in_the_architecture(folder: str) -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    decisions = [path for path in files() if str(path.parent) == folder]
    assert decisions
    assert [path.name for path in decisions if f"adr/{path.name}" not in text] == []


def test_every_test_that_the_threat_model_names_exists() -> None:
    text = (ROOT / "docs" / "THREAT_MODEL.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    defined = {
        name
        for path, source in texts()
        if path.suffix == ".py" and path.parts[0] in ("tests", "e2e")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", source, re.MULTILINE)
    }
    assert len(named) > 50
    assert named - defined == set()


def test_every_boundary_of_the_threat_model_names_a_test() -> None:
    boundaries = section((ROOT / "docs" / "THREAT_MODEL.md").read_text(), "Boundaries")
    for boundary in boundaries.split("\n### ")[1:]:
        assert "`test_" in boundary, boundary.splitlines()[0]
