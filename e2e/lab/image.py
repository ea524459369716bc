"""Builds the project's image without Docker, layer by layer, each cached by what goes into it.

base (Debian with Python) → dependencies (the hashed lock) → project (the wheel's content);
the image for tests adds what test pods import. Changing a source file remakes one small layer.
"""

import hashlib
import platform
import shutil
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import image_store, layers
from e2e.lab.commands import LabError, say
from e2e.lab.locks import only
from e2e.lab.node_files import PAUSE_IMAGE
from e2e.lab.oci import ImageConfig, Layer, compress, load_layer, write_archive
from e2e.lab.settings import REPOSITORY, cache_directory
from e2e.lab.tools import locked

REFERENCE = "localhost/modelcache:dev"
TEST_REFERENCE = "localhost/modelcache-e2e:dev"
MAX_COMPRESSED_BYTES = 200 * 1000**2  # the project's promise
KEPT_BUILDS = 3  # arbitrary: a lab that runs may still need an older one
USER = "65532:65532"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Build:
    """The archives of one build, and the store in which they lie unpacked."""

    pause: Path
    main: Path
    tests: Path
    store: Path

    @property
    def archives(self) -> tuple[Path, ...]:
        return (self.pause, self.main, self.tests)


def build(*, refresh_base: bool = False) -> Build:
    """Build what is not in the cache; return where it lies.

    Raises:
        LabError: A layer cannot be made, or the image outgrew its promise.
    """
    started = time.monotonic()
    store = cache_directory() / "image"
    with locked(store / ".lock", "the image"):
        done = _build(store, refresh_base=refresh_base)
    say(f"images are ready after {time.monotonic() - started:.1f} s: {done.main.parent}")
    return done


def _build(store: Path, *, refresh_base: bool) -> Build:
    builder = _Builder(store)
    if refresh_base:
        for file in store.glob("base-*"):
            file.unlink()
    base = builder.layer("base", layers.base_inputs(), layers.make_base)
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    dependencies = builder.layer(
        "dependencies",
        (base.diff_id, lock, layers.RECIPE),
        lambda tar: layers.make_packages(lock, base.file, tar),
    )
    project = builder.layer(
        "project",
        (base.diff_id, *project_inputs(REPOSITORY)),
        lambda tar: layers.make_project(base.file, tar),
    )
    test_lock = only(
        (REPOSITORY / "requirements-dev.lock").read_text(encoding="utf-8"), ("numpy", "safetensors")
    )
    tests = builder.layer(
        "tests",
        (base.diff_id, test_lock, layers.RECIPE),
        lambda tar: layers.make_packages(test_lock, base.file, tar),
    )
    pause = builder.layer("pause", layers.pause_inputs(), layers.make_pause)
    done = builder.archives([base, dependencies, project], tests, pause)
    _report([base, dependencies, project])
    return done


class _Builder:
    """Makes layers and archives once, beneath one directory."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._architecture = ARCHITECTURES[platform.machine()]

    def layer(self, name: str, inputs: Sequence[str], make: Callable[[Path], None]) -> Layer:
        """The layer that these inputs give; older ones of the same name are dropped."""
        file = self._store / f"{name}-{key_of(inputs)}.tar.gz"
        if file.with_suffix(".json").exists():
            return load_layer(file)
        say(f"making the image's layer: {name}")
        tar = file.with_suffix("")
        make(tar)
        made = compress(tar, file)
        tar.unlink()
        for old in self._store.glob(f"{name}-*"):
            if not old.name.startswith(file.name.removesuffix(".tar.gz")):
                old.unlink()
        return made

    def archives(self, main: Sequence[Layer], tests: Layer, pause: Layer) -> Build:
        """The images made of these layers."""
        key = key_of([layer.digest for layer in (*main, tests, pause)])
        directory = self._store / "builds" / key
        done = Build(
            pause=directory / "pause.tar",
            main=directory / "modelcache.tar",
            tests=directory / "modelcache-e2e.tar",
            store=directory / "store",
        )
        if not all(archive.exists() for archive in done.archives):
            directory.mkdir(parents=True, exist_ok=True)
            config = ImageConfig(("modelcache",), USER, ENVIRONMENT)
            self._write(done.main, REFERENCE, main, config)
            self._write(done.tests, TEST_REFERENCE, [*main, tests], config)
            self._write(done.pause, PAUSE_IMAGE, [pause], ImageConfig(("/pause",), USER))
        directory.touch()
        for old in builds_of(self._store)[:-KEPT_BUILDS]:
            shutil.rmtree(old)
        return done

    def _write(
        self, target: Path, reference: str, made_of: Sequence[Layer], config: ImageConfig
    ) -> None:
        write_archive(target, reference, made_of, config, self._architecture)


def unpack(done: Build) -> None:
    """Unpack the images for the lab's nodes, if that was not done before."""
    store = cache_directory() / "image"
    with locked(store / ".lock", "the image"):
        if not done.store.is_dir():
            say("unpacking the images")
            older = [build / "store" for build in builds_of(store) if (build / "store").is_dir()]
            image_store.make(done.store, done.archives, older[-1] if older else None)


def builds_of(store: Path) -> list[Path]:
    """What was built before, the latest last."""
    return sorted((store / "builds").glob("*"), key=lambda path: path.stat().st_mtime)


def key_of(inputs: Sequence[str]) -> str:
    """A short name for a list of inputs; lists that differ anywhere differ here."""
    digest = hashlib.sha256()
    for text in inputs:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()[:20]


def project_inputs(repository: Path) -> list[str]:
    """Name and content of every file that goes into the wheel."""
    text = (repository / "pyproject.toml").read_text(encoding="utf-8")
    packages = tomllib.loads(text)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    inputs = [layers.RECIPE, text]
    for package in packages:
        for path in sorted((repository / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                inputs += [str(path.relative_to(repository)), path.read_bytes().hex()]
    return inputs


def _report(made_of: Sequence[Layer]) -> None:
    sizes = " + ".join(f"{layer.size_bytes / 1e6:.1f}" for layer in made_of)
    total = sum(layer.size_bytes for layer in made_of)
    say(f"{REFERENCE}: {total / 1e6:.1f} MB compressed ({sizes}: base, dependencies, project)")
    if total > MAX_COMPRESSED_BYTES:
        raise LabError(f"the image is over its limit of {MAX_COMPRESSED_BYTES / 1e6:.0f} MB")
