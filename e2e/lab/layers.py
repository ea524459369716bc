"""Makes the content of each layer of the image: Debian, Python packages, the project, pause."""

import os
import platform
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.lab.commands import LabError, run
from e2e.lab.oci import pack
from e2e.lab.settings import REPOSITORY
from e2e.lab.tools import MODULES

RECIPE = "1"  # counts changes of this file that change a layer made from the same inputs
SUITE = "bookworm"
PYTHON = "3.11"
GLIBC_MINOR = 36  # of the suite: newest `manylinux_2_*` it runs
PACKAGES = "python3,mount,ca-certificates,libstdc++6"
SITE = Path("usr/local/lib/python3.11/dist-packages")  # where Debian's Python looks by itself
LEFT_OUT = ("doc", "man", "info", "locale", "lintian", "bug")
USER_LINES = {
    "etc/passwd": "modelcache:x:65532:65532::/nonexistent:/usr/sbin/nologin",
    "etc/group": "modelcache:x:65532:",
}
LAUNCHER = """\
#!/usr/bin/python3 -sP
import sys
from {module} import {function}
sys.exit({function}())
"""


def base_inputs() -> tuple[str, ...]:
    return (RECIPE, SUITE, PACKAGES, platform.machine())


def make_base(tar: Path) -> None:
    """Debian's essential packages, Python, and what mounts."""
    hooks = [f'echo "{line}" >> "$1/{file}"' for file, line in USER_LINES.items()]
    hooks.append('rm -f "$1/etc/hostname" "$1/etc/resolv.conf"; rm -rf "$1"/var/log/*')
    run(
        [
            *("mmdebstrap", "--quiet", "--variant=essential", f"--include={PACKAGES}"),
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT),
            *(f"--customize-hook={hook}" for hook in hooks),
            SUITE,
            str(tar),
        ],
        env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
    )


def make_packages(lock: str, base: Path, tar: Path) -> None:
    """The packages of a hashed lock, as wheels for the image's Python whatever runs this."""
    with _scratch() as scratch:
        site = scratch / "layer" / SITE
        requirements = scratch / "requirements.txt"
        requirements.write_text(lock, encoding="utf-8")
        machine = platform.machine()
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, 16, -1)]
        run(
            [
                *(_python(), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"),
                *("--require-hashes", "--only-binary=:all:", f"--python-version={PYTHON}"),
                *(f"--platform={tag}" for tag in (*tags, f"manylinux2014_{machine}")),
                *("--target", str(site), "--requirement", str(requirements)),
            ]
        )
        _finish(scratch, base, tar)


def make_project(base: Path, tar: Path) -> None:
    """The project's wheel, and the commands it declares."""
    with _scratch() as scratch:
        wheels = scratch / "wheels"
        run(
            [
                *(_python(), "-m", "pip", "wheel", "--quiet", "--no-deps"),
                *("--no-build-isolation", "--wheel-dir", str(wheels), str(REPOSITORY)),
            ]
        )
        (wheel,) = wheels.glob("*.whl")
        run(
            [
                *(_python(), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"),
                *("--no-index", "--target", str(scratch / "layer" / SITE), str(wheel)),
            ]
        )
        _write_commands(scratch / "layer/usr/local/bin")
        _finish(scratch, base, tar)


def pause_inputs() -> tuple[str, ...]:
    return (platform.machine(), (MODULES / "pause/main.go").read_text(encoding="utf-8"))


def make_pause(tar: Path) -> None:
    """The one static program that holds a pod's namespaces."""
    with _scratch() as scratch:
        (scratch / "layer").mkdir()
        run(
            [
                *("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"),
                *("-o", str(scratch / "layer/pause"), "."),
            ],
            env={**os.environ, "CGO_ENABLED": "0"},
            cwd=MODULES / "pause",
        )
        pack(scratch / "layer", tar)


def _write_commands(directory: Path) -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    directory.mkdir(parents=True)
    for name, target in tomllib.loads(text)["project"]["scripts"].items():
        module, _, function = target.partition(":")
        script = directory / name
        script.write_text(LAUNCHER.format(module=module, function=function), encoding="utf-8")
        script.chmod(0o755)


def _finish(scratch: Path, base: Path, tar: Path) -> None:
    """Compile the packages with the image's own Python, then pack the layer.

    Compiled files carry the sources' hash instead of their time, and are never checked: the
    layer is the same wherever it was made, and a container on a read-only root starts fast.
    """
    site = scratch / "layer" / SITE
    shutil.rmtree(site / "bin", ignore_errors=True)  # launchers that name this machine's Python
    root = scratch / "root"
    root.mkdir()
    run(["tar", "--extract", "--gzip", "--file", base, "--directory", root])
    (root / SITE).mkdir(parents=True, exist_ok=True)
    compile_all = (
        'mount --bind "$1" "$2/$3" && exec chroot "$2" /usr/bin/python3 -m compileall -q -j 0 '
        '--invalidation-mode unchecked-hash "/$3"'
    )
    run(
        [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", compile_all, "compile", str(site), str(root), str(SITE)),
        ]
    )
    pack(scratch / "layer", tar)


def _python() -> str:
    """A Python with pip and the build backend: the project's environment, else this one.

    Raises:
        LabError: There is none.
    """
    own = REPOSITORY / ".venv/bin/python"
    python = str(own) if own.exists() else sys.executable
    if run([python, "-c", "import pip, hatchling"], check=False).returncode:
        raise LabError("building the image needs the project's environment: run `make venv` first")
    return python


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="modelcache-image-") as directory:
        yield Path(directory)
