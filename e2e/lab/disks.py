"""A disk of its own for a node's models: a sparse file behind a loop device, with ext4 on it."""

from pathlib import Path

from e2e.lab.commands import output, run, say

IMAGE_NAME = "models.img"
INODE_RATIO_BYTES = 65536  # models are few and large files: fewer inode tables to write


def attach(image: Path, target: Path, size_bytes: int) -> None:
    """Mount the disk, formatting it first if it is new.

    On a host that offers no loop device a directory stands in: it works, but shares its space
    with the host.
    """
    if run(["losetup", "--find"], check=False).returncode:
        say("no loop device here: models share the file system of the lab's directory")
        directory = image.with_suffix("")
        directory.mkdir(exist_ok=True)
        run(["mount", "--bind", directory, target])
        return
    if not image.exists():
        _format(image, size_bytes)
    device = output(["losetup", "--find", "--show", "--direct-io=on", image])
    try:
        run(["mount", "-o", "discard,noinit_itable", device, target])
    finally:
        run(["losetup", "--detach", device])  # takes effect when the mount is gone


def release(directory: Path) -> None:
    """Let go of devices that a crash left behind for images beneath this directory."""
    for line in output(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]).split(
        "\n"
    ):
        device, _, file = line.strip().partition(" ")
        if file.strip().startswith(f"{directory}/"):
            run(["losetup", "--detach", device])


def _format(image: Path, size_bytes: int) -> None:
    scratch = image.with_suffix(".new")
    with scratch.open("wb") as file:
        file.truncate(size_bytes)
    run(["mkfs.ext4", "-q", "-m", "0", "-i", str(INODE_RATIO_BYTES), scratch])
    scratch.rename(image)
