"""A disk of its own for a node's models: a sparse file behind a loop device, with ext4 on it."""

from pathlib import Path

from e2e.lab.commands import output, run, say, wait_until

IMAGE_NAME = "models.img"
RELEASE_TIMEOUT_S = 10.0  # a file system with much unwritten takes a moment to go
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
    """Let go of devices that a crash left behind for images beneath this directory.

    Raises:
        LabError: One is still held.
    """

    def released() -> bool:
        for device in _devices_of(directory):
            # one whose mount has just gone lets go of itself, perhaps before we ask it to
            run(["losetup", "--detach", device], check=False)
        return not _devices_of(directory)

    wait_until(released, f"the devices of {directory}", timeout_s=RELEASE_TIMEOUT_S)


def _devices_of(directory: Path) -> list[str]:
    listed = output(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"])
    lines = (line.strip().partition(" ") for line in listed.splitlines())
    return [device for device, _, file in lines if file.strip().startswith(f"{directory}/")]


def _format(image: Path, size_bytes: int) -> None:
    scratch = image.with_suffix(".new")
    with scratch.open("wb") as file:
        file.truncate(size_bytes)
    run(["mkfs.ext4", "-q", "-m", "0", "-i", str(INODE_RATIO_BYTES), scratch])
    scratch.rename(image)
